"""Does "by chance" keep its promise, and does it let relatives through?

    python benchmarks/chance.py INDEX --asking OTHER_INDEX --pictures 300 --pictures 2000
    python benchmarks/chance.py INDEX --related folder --space style

With --asking, pictures of another index ask, which have no relatives here: at most one in twenty may find a hit at 0.05
or less. Printed for each feature space: how many of the best hits stand at 0.05 and at 1 or less, with 95 % intervals
(Wilson).

With --related the index asks itself, and pictures of one folder (`parent`: of one parent folder, `name`: of folders of
one name) are relatives. Printed: how many of the asking pictures find a sure or a likely hit, and of the first ten hits
which share is related, in each of the three bands. With several spaces, the last row joins them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from printing import share, table

import diffsim
from diffsim.query.text import LIKELY, SURE
from diffsim.retrieval.chance import NULL_SAMPLE, combined, fit_tail

FIRST = 10
"""Hits that a person looks at."""


@dataclass(frozen=True)
class Pictures:
    """Of one index in all spaces. ids: int64 [n]. groups: text [n]."""

    searcher: diffsim.Searcher
    spaces: list[str]
    ids: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, index: Path, names: Sequence[str], related: str | None) -> "Pictures":
        searcher = diffsim.open(index)
        found = searcher.embeddings()
        spaces = searcher.choose_all(names) if names else searcher.spaces()
        groups = np.array([_group(Path(path).parent, related) for path in found.paths])
        return cls(searcher, [space.fingerprint for space in spaces], found.ids, groups)

    def name(self, spaces: Sequence[str]) -> str:
        return " + ".join(self.searcher.choose(space).name for space in spaces)


def _group(folder: Path, related: str | None) -> str:
    return folder.name if related == "name" else str(folder.parent if related == "parent" else folder)


def wilson(found: np.ndarray) -> str:
    """The share that is true, with its 95 % interval."""
    count, mean = len(found), float(found.mean())
    centre, spread = mean + 1.92 / count, 1.96 * np.sqrt(mean * (1 - mean) / count + 0.96 / count**2)
    return share(mean, max(0.0, (centre - spread) / (1 + 3.84 / count)), (centre + spread) / (1 + 3.84 / count))


def judged(
    asking: Pictures,
    content_id: int,
    searched: Pictures,
    spaces: Sequence[str],
    sizes: Sequence[int],
    others: np.ndarray,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each size, the first hits of a picture among so many of the others, ids int64, in random order: which of them
    they are, and how many would be as good by chance."""
    parts = asking.searcher.encode(diffsim.Query(content_id, spaces=spaces)).parts
    known = [searched.searcher.choose(space) for space in spaces]
    searched.searcher.collection.refresh(known)
    ids, rows = searched.searcher.collection.score(parts, others[: max(sizes)])
    order = np.argsort(ids)[np.argsort(np.argsort(others[: max(sizes)]))]
    found = []
    for size in sizes:
        some = order[:size]
        null = np.arange(len(some)) < NULL_SAMPLE
        _, likeness = combined(rows[:, some], np.ones(len(parts)), null)
        tail = fit_tail(likeness[null])
        assert tail is not None
        first = np.argsort(-likeness, kind="stable")[:FIRST]
        found.append((ids[some][first], np.array(tail.expected(likeness[first], len(some)))))
    return found


@click.command()
@click.argument("index", type=click.Path(exists=True, path_type=Path))
@click.option("--asking", type=click.Path(exists=True, path_type=Path), help="Index of the pictures that ask.")
@click.option("--related", type=click.Choice(["folder", "parent", "name"]), help="Which pictures are relatives.")
@click.option("--space", "names", multiple=True, help="Feature space; all of the index without this.")
@click.option("--queries", default=100, show_default=True, help="Asking pictures.")
@click.option("--pictures", "sizes", multiple=True, default=(2000,), help="Pictures that each is compared with.")
@click.option("--seed", default=0, show_default=True)
def main(
    index: Path,
    asking: Path | None,
    related: str | None,
    names: tuple[str, ...],
    queries: int,
    sizes: tuple[int, ...],
    seed: int,
) -> None:
    """Print one table."""
    searched = Pictures.of(index, names, related)
    asker = Pictures.of(asking, names, related) if asking else searched
    if not set(asker.spaces) <= set(searched.spaces):
        raise click.ClickException("The two indexes have different spaces.")
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(asker.ids))[:queries]
    drawn = [generator.permutation(searched.ids) for _ in chosen]

    def found_by(spaces: Sequence[str]) -> list[list[tuple[np.ndarray, np.ndarray]]]:
        """Of each asking picture, for each size."""
        found = []
        for row, others in zip(chosen.tolist(), drawn, strict=True):
            content_id = int(asker.ids[row])
            others = others if asking else others[others != content_id]
            found.append(
                judged(asker, content_id, searched, spaces, [min(size, len(others)) for size in sizes], others)
            )
        return found

    def bands() -> Iterator[Sequence[object]]:
        spaces = [[space] for space in asker.spaces]
        for some in [*spaces, asker.spaces] if len(spaces) > 1 else spaces:
            first = [each[-1] for each in found_by(some)]
            yield asker.name(some), *_bands(searched, asker.groups[chosen], first)

    def alarms() -> Iterator[Sequence[object]]:
        for space in asker.spaces:
            found = found_by([space])
            for number, size in enumerate(sizes):
                best = np.array([each[number][1][0] for each in found])
                shares = wilson(best <= SURE), wilson(best <= LIKELY)
                yield asker.name([space]), min(size, len(searched.ids)), len(best), *shares

    if related:
        table(("", "asking", "find a sure hit", "sure or likely", "sure", "likely", "weak"), bands())
    else:
        table(("", "searched", "asking", "a hit at 0.05 or less", "at 1 or less"), alarms())


def _bands(searched: Pictures, groups: np.ndarray, found: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[object]:
    of = dict(zip(searched.ids.tolist(), searched.groups.tolist(), strict=True))
    right = np.array(
        [[of[row] == group for row in ids.tolist()] for (ids, _), group in zip(found, groups, strict=True)]
    )
    chance = np.array([by_chance for _, by_chance in found])
    bands = (chance <= SURE, (chance > SURE) & (chance <= LIKELY), chance > LIKELY)
    shares = [f"{100 * right[band].mean():.0f} % of {band.sum()}" if band.any() else "none" for band in bands]
    return [len(chance), wilson(chance[:, 0] <= SURE), wilson(chance[:, 0] <= LIKELY), *shares]


if __name__ == "__main__":
    main()
