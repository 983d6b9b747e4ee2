"""Does "by chance" keep its promise? Ask with pictures that have no relative in the gallery.

    python benchmarks/chance.py INDEX --space style [--queries 40] [--asking OTHER_INDEX]

Each folder of the index in turn asks the pictures of all other folders, so folders should hold unlike things; with
--asking, each folder of another index asks all of this one. In a well-kept promise at most one asking picture in twenty
finds a hit that stands at 0.05 or less. Intervals are 95 % (Wilson).
"""

from pathlib import Path

import click
import numpy as np

import diffsim
from diffsim.retrieval.chance import NULL_SAMPLE, fit_tail


def contents_of(searcher: diffsim.Searcher, space: str) -> tuple[np.ndarray, np.ndarray]:
    """The pictures of a space: ids int64 [n], and the name of the folder of each."""
    found = searcher.embeddings(space)
    return found.ids, np.array([Path(path).parent.name for path in found.paths])


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share."""
    centre, spread = share + 1.92 / count, 1.96 * np.sqrt(share * (1 - share) / count + 0.96 / count**2)
    return max(0.0, (centre - spread) / (1 + 3.84 / count)), (centre + spread) / (1 + 3.84 / count)


@click.command()
@click.argument("index", type=click.Path(exists=True, path_type=Path))
@click.option("--asking", type=click.Path(exists=True, path_type=Path), help="Index of the pictures that ask.")
@click.option("--space", help="Feature space by name or fingerprint.")
@click.option("--queries", default=40, show_default=True, help="Asking pictures per folder.")
@click.option("--pictures", default=2000, show_default=True, help="Pictures that each of them is compared with.")
@click.option("--seed", default=0, show_default=True)
def main(index: Path, asking: Path | None, space: str | None, queries: int, pictures: int, seed: int) -> None:
    """Count false alarms, folder by folder."""
    searcher = diffsim.open(index)
    known = searcher.choose(space)
    asker = diffsim.open(asking) if asking else searcher
    ids, galleries = contents_of(searcher, known.fingerprint)
    asking_ids, askers = contents_of(asker, known.fingerprint)
    generator = np.random.default_rng(seed)
    click.echo(f"{known.name} ({known.fingerprint}), {len(ids)} pictures")
    click.echo(
        f"{'asking folder':16} queries  gallery  a hit <= 0.05          a hit <= 1            median of the best hit"
    )
    everything = []
    for folder in sorted(set(askers)):
        chosen = generator.permutation(asking_ids[askers == folder])[:queries]
        others = generator.permutation(ids if asking else ids[galleries != folder])[:pictures]
        best = []
        for content_id in chosen.tolist():
            parts = asker.encode(diffsim.Query(content_id, spaces=known.fingerprint)).parts
            _, (scores,) = searcher.collection.score(parts, others)
            tail = fit_tail(scores[:NULL_SAMPLE])
            assert tail is not None
            best.append(min(tail.expected(scores, len(scores))))
        everything += best
        click.echo(f"{folder:16} {len(best):7d}  {len(others):7d}  {shares(best)}")
    click.echo(f"{'all':16} {len(everything):7d}           {shares(everything)}")


def shares(best: list[float]) -> str:
    """How many of the asking pictures' best hits stand at 0.05 and at 1 or less."""
    found = np.array(best)
    parts = []
    for bound in (0.05, 1):
        share = float(np.mean(found <= bound))
        low, high = wilson(share, len(found))
        parts.append(f"{share:6.1%} ({low:.1%}-{high:.1%})".ljust(22))
    return f"{'  '.join(parts)}{np.median(found):.2g}"


if __name__ == "__main__":
    main()
