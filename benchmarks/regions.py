"""Which first stage suits a question with a region? Measured on an index.

    python benchmarks/regions.py INDEX --space style --space look --queries 60

A seeded sample of the indexed pictures asks with a seeded box each, of several sizes. Every other picture is scored,
which gives the true ten nearest; then it is counted how many of these are among the nearest by the pooled descriptor
of the region's own map, and by the descriptor of the whole picture.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import click
import numpy as np
from printing import table

import diffsim
from diffsim.retrieval.region import region_features
from diffsim.retrieval.shard.rerank import rank

SIDES = (0.2, 0.35, 0.5, 0.7)
COUNTS = (200, 500, 1000, 2000)
TOP = 10


@click.command()
@click.argument("index", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--space", "spaces", multiple=True, required=True)
@click.option("--queries", default=60, show_default=True, help="Of each size.")
@click.option("--seed", default=0, show_default=True)
def main(index: Path, spaces: tuple[str, ...], queries: int, seed: int) -> None:
    """Print the share of the exhaustive top 10 that each first stage brings in."""
    searcher = diffsim.open(index, "cpu")
    columns = [f"{kind}, {count:,}" for count in COUNTS for kind in ("region", "whole")]
    rows = (row for name in spaces for row in measured(searcher, name, queries, seed))
    table(("space", "side of the box", *columns, "scoring all, s"), rows)


def measured(searcher: diffsim.Searcher, name: str, queries: int, seed: int) -> Iterator[list[object]]:
    """A row for each size of box."""
    space = searcher.choose(name)
    collection = searcher.collection
    collection.refresh([space])
    kit = collection.kit(space)
    ids, descriptors = collection.descriptors(space.fingerprint, collection.ids(space.fingerprint))
    random = np.random.default_rng(seed)
    asking = random.permutation(ids)[:queries].tolist()
    for side in SIDES:
        shares, seconds = [], []
        for content_id in asking:
            x, y = random.uniform(0, 1 - side, 2)
            (whole,) = searcher.encode(diffsim.Query(content_id, spaces=space.fingerprint)).parts
            part = replace(whole, region=(x, y, side, side))
            region = region_features(kit.read([whole.tokens]), (x, y, side, side))
            started = perf_counter()
            found, (scores,) = collection.score([part], ids[ids != content_id])
            seconds.append(perf_counter() - started)
            nearest = found[rank(found, scores)[:TOP]]
            row = []
            for descriptor in (kit.descriptors(region)[0].numpy(), whole.descriptor.astype(np.float32)):
                order = ids[np.argsort(-(descriptors.astype(np.float32) @ descriptor))]
                order = order[order != content_id]
                row.append([np.isin(nearest, order[:count]).mean() for count in COUNTS])
            shares.append(row)
        cells = [f"{100 * value:.1f} %" for value in np.mean(shares, 0).T.ravel()]
        yield [space.name, f"{side:.2f}", *cells, f"{np.median(seconds):.2f}"]


if __name__ == "__main__":
    main()
