"""Benchmarks, and how well feature spaces and baselines do on them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from diffsim.indexer.build import IndexOptions
from diffsim.retrieval.evaluation.benchmarks import read_benchmark
from diffsim.retrieval.evaluation.bootstrap import FEW_UNITS
from diffsim.retrieval.evaluation.ranking import read_labelled, retrieval, sampled_queries
from diffsim.retrieval.evaluation.scorers import OnProgress, PairScorer, Scorer
from diffsim.retrieval.evaluation.triplets import BadBenchmark, accuracy, gain, limited, verdicts, write_triplets

from .contenders import Contender, open_paper_scorers, open_scorers

Say = Callable[[str], None]
Progress = Callable[[str, str], AbstractContextManager[OnProgress]]
"""(doing, what is counted) -> a bar, as `commands.progress.progress` makes it."""

Row = dict[str, Any]
"""Figures of one contender, as plain values for JSON."""


class Triplets:
    """Is A more similar to B than to C? All contenders are measured on the same triplets: those that each can score."""

    counted = "pairs"

    def __init__(self, bench: str, root: Path, limit: int | None, seed: int, say: Say) -> None:
        question = read_benchmark(bench, root, seed)
        for note in question.notes:
            say(note)
        self._root, self._seed, self._unit, self._say = root, seed, question.unit, say
        self._triplets = limited(question.triplets, limit, seed)
        self.pictures = sorted({path for t in self._triplets for path in (t.reference, t.closer, t.farther)})
        row_of = {picture: row for row, picture in enumerate(self.pictures)}
        self._reference, self._closer, self._farther = (
            np.array([row_of[path] for path in column], np.int64)
            for column in zip(*((t.reference, t.closer, t.farther) for t in self._triplets), strict=True)
        )

    def save(self, path: Path) -> None:
        write_triplets(path, self._triplets)

    def ask(self, scorer: PairScorer, on_progress: OnProgress) -> np.ndarray:
        """Scores of the closer and of the farther pictures, float32 [2, triplets]."""
        others = np.concatenate([self._closer, self._farther])
        return scorer.pairs(np.tile(self._reference, 2), others, on_progress).reshape(2, -1)

    def figures(self, contenders: Sequence[Contender], answers: Sequence[np.ndarray]) -> list[Row]:
        scored = ~np.isnan(np.stack(answers)).any(axis=(0, 1))
        left_out = len(scored) - int(scored.sum())
        if left_out == len(scored):
            raise BadBenchmark(f"No triplet could be scored: none of the pictures in {self._root} could be read.")
        if left_out:
            self._say(f"{left_out} triplets were left out: one of their pictures could not be read.")
        units = [triplet.unit for triplet, good in zip(self._triplets, scored, strict=True) if good]
        _warn_of_few_units(len(set(units)), self._unit, self._say)
        found = [verdicts(near[scored], far[scored]) for near, far in answers]
        return [
            {
                "space": contender.spec,
                "accuracy": asdict(accuracy(one, units, self._seed)),
                "gain": asdict(gain(one, found[0], units, self._seed)),
                "triplets": len(one),
                "ties": int((one == 0).sum()),
                "left_out": left_out,
                "units": len(set(units)),
                "unit": self._unit,
            }
            for contender, one in zip(contenders, found, strict=True)
        ]


class Groups:
    """Do the pictures of a query's own group come first? Over the pictures that every contender can score."""

    counted = "queries"

    def __init__(self, root: Path, limit: int | None, seed: int, say: Say) -> None:
        self._labelled = read_labelled(root)
        self._root, self._seed, self._say = root, seed, say
        self.pictures = self._labelled.pictures
        self._queries = sampled_queries(len(self.pictures), limit, seed)

    def ask(self, scorer: Scorer, on_progress: OnProgress) -> np.ndarray:
        """Scores float32 [queries, pictures]."""
        return scorer.matrix(self._queries, on_progress)

    def figures(self, contenders: Sequence[Contender], answers: Sequence[np.ndarray]) -> list[Row]:
        unread = np.isnan(np.stack(answers)).any(axis=0)
        rows = []
        for contender, scores in zip(contenders, answers, strict=True):
            scores[unread] = np.nan
            found = retrieval(scores, self._queries, self._labelled, self._seed)
            if not found.figures:
                raise BadBenchmark(
                    f"No picture of {self._root} can be found from another; give groups of at least two pictures."
                )
            rows.append(
                {
                    "space": contender.spec,
                    **{name: asdict(figure) for name, figure in found.figures.items()},
                    "queries": found.queries,
                    "left_out": found.alone,
                    "pictures": len(self.pictures),
                    "groups": found.groups,
                }
            )
        if found.alone:
            self._say(f"{found.alone} queries were left out: no picture to find, or unreadable.")
        _warn_of_few_units(found.groups, "groups", self._say)
        return rows


Benchmark = Triplets | Groups


def read(bench: str, root: Path, limit: int | None, seed: int, say: Say) -> Benchmark:
    """A benchmark by name (`names.BENCHMARKS`) with its data in `root`. say: receives the notes that a reader of the
    figures must know. limit: maximum number of triplets or queries. Raises BadBenchmark."""
    benchmark = Groups(root, limit, seed, say) if bench == "retrieval" else Triplets(bench, root, limit, seed, say)
    absent = [picture for picture in benchmark.pictures if not picture.is_file()]
    if len(absent) == len(benchmark.pictures):
        raise BadBenchmark(f"None of the pictures is there (the first: {absent[0]}); check the folder.")
    if absent:
        say(f"{len(absent)} pictures are not there (the first: {absent[0]}).")
    return benchmark


def measure(
    benchmark: Benchmark,
    contenders: Sequence[Contender],
    root: Path,
    cache: Path,
    options: IndexOptions,
    progress: Progress,
) -> list[Row]:
    """A row of figures for each contender, in the order given. root: the benchmark's. cache: folder of the index that
    keeps the features. Raises BadBenchmark, and as `index_folders` does."""
    answers = []
    with ExitStack() as opened:
        with progress("Extracting", "pictures") as on_progress:
            scorers = open_scorers(
                contenders, root, benchmark.pictures, cache, options, opened, on_progress=on_progress
            )
        for contender, scorer in zip(contenders, scorers, strict=True):
            with progress(f"Scoring {contender.spec}", benchmark.counted) as on_progress:
                answers.append(benchmark.ask(scorer, on_progress))
    return benchmark.figures(contenders, answers)


def measure_as_paper(
    benchmark: Triplets, contenders: Sequence[Contender], options: IndexOptions, progress: Progress
) -> list[Row]:
    """The same under the paper protocol, with the reference as A and the other two as B. Nothing is kept on disk.
    Raises BadBenchmark, NoPaperProtocol, ..."""
    answers = []
    for contender, scorer in open_paper_scorers(contenders, benchmark.pictures, options):
        with progress(f"Scoring {contender.spec}", benchmark.counted) as on_progress:
            answers.append(benchmark.ask(scorer, on_progress))
    return benchmark.figures(contenders, answers)


def _warn_of_few_units(units: int, kind: str, say: Say) -> None:
    if units < FEW_UNITS:
        say(f"with {units} {kind}, the intervals are rough, and rather too narrow.")
