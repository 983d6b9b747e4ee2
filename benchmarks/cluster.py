"""What does it cost to ask an index over Ray, are the answers the same, and how long is one incomplete after a kill?

    python benchmarks/cluster.py PICTURES --scratch FOLDER

For each number of shards an index with as many pictures a shard is built, asked in this process, then over a Ray
cluster of this machine, with as many processes as --processes says, or as there are shards.
"""

import os
import shutil
import signal
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import click
import ray
from printing import table

import diffsim
from diffsim.indexer.index_folder import IndexFolder
from diffsim.query import cluster


@dataclass(frozen=True)
class Asked:
    """How questions went. seconds: of each."""

    answers: list[diffsim.Answer]
    seconds: list[float]


def build(pictures: list[Path], shards: int, scratch: Path) -> IndexFolder:
    """An index in as many shards, equally full."""
    folder = scratch / f"pictures{shards}"
    folder.mkdir(parents=True)
    for picture in pictures:
        os.link(picture, folder / picture.name)
    options = diffsim.IndexOptions(shard_pictures=-(-len(pictures) // shards))
    diffsim.index(scratch / f"index{shards}", folder, by="style", options=options)
    return IndexFolder.open(scratch / f"index{shards}")


def ask(searcher: diffsim.Searcher, questions: list[int]) -> Asked:
    answers, seconds = [], []
    for question in questions:
        began = time.perf_counter()
        answers.append(searcher.answer(diffsim.Query(question, k=50)))
        seconds.append(time.perf_counter() - began)
    return Asked(answers, seconds)


def differences(ours: Asked, theirs: Asked) -> tuple[int, float]:
    """How many answers have other hits or another order, and the largest difference of a score."""
    other, largest = 0, 0.0
    for a, b in zip(ours.answers, theirs.answers, strict=True):
        other += [hit.content_id for hit in a.hits] != [hit.content_id for hit in b.hits]
        scores = {hit.content_id: hit.score for hit in b.hits}
        largest = max(
            [largest, *(abs(hit.score - scores[hit.content_id]) for hit in a.hits if hit.content_id in scores)]
        )
    return other, largest


def kill(searcher: diffsim.Searcher) -> tuple[float, float]:
    """Seconds from the kill of a shard's process to the first answer without it, and to the first whole one."""
    host = searcher.collection._shards._hosts[-1]
    os.kill(ray.get(host.actor.pid.remote()), signal.SIGKILL)
    began = time.perf_counter()
    assert searcher.answer(diffsim.Query(1)).unanswered
    partial = time.perf_counter() - began
    while searcher.answer(diffsim.Query(1)).unanswered:
        time.sleep(0.1)
    return partial, time.perf_counter() - began


@click.command()
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--scratch", type=click.Path(path_type=Path), required=True, help="A new folder on the same disk.")
@click.option("--shards", multiple=True, type=int, default=(1, 2, 4, 8), show_default=True)
@click.option("--per-shard", default=100, show_default=True, help="Pictures in each shard.")
@click.option("--questions", default=50, show_default=True)
@click.option("--processes", default=8, show_default=True)
def main(
    pictures: Path, scratch: Path, shards: tuple[int, ...], per_shard: int, questions: int, processes: int
) -> None:
    found = sorted(path for path in pictures.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    cluster.start_local(num_cpus=processes, log_to_driver=False, logging_level="error")
    rows = []
    for number in shards:
        index = build(found[: number * per_shard], number, scratch)
        asking = [1 + place * number * per_shard // questions for place in range(questions)]
        with diffsim.open(index.path) as searcher:
            ask(searcher, asking[:1])
            alone = ask(searcher, asking)
        index.use_cluster("local")
        with diffsim.open(index.path) as searcher:
            (first,) = ask(searcher, asking[:1]).seconds
            before = searcher.collection._shards.bytes_sent
            over_ray = ask(searcher, asking)
            sent = (searcher.collection._shards.bytes_sent - before) / questions
            times = [f"{seconds:.1f}" for seconds in kill(searcher)] if number > 1 else ["-", "-"]
        other, largest = differences(over_ray, alone)
        medians = [statistics.median(each.seconds) * 1000 for each in (alone, over_ray)]
        rows.append(
            [
                str(number),
                f"{medians[0]:.0f}",
                f"{medians[1]:.0f}",
                f"{first:.1f}",
                f"{sent / 1000:.0f}",
                f"{other} of {questions}",
                f"{largest:.0e}",
                *times,
            ]
        )
    shutil.rmtree(scratch)
    head = ["shards", "one process, ms", "over Ray, ms", "first question, s", "sent, KB"]
    table([*head, "answers that differ", "largest difference", "partial after, s", "whole after, s"], rows)


if __name__ == "__main__":
    main()
