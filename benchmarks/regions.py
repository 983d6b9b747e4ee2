"""Which first stage suits a question with a region? Measured on an index.

    python benchmarks/regions.py INDEX --space look --queries 60

A seeded sample of the indexed pictures asks with a seeded box each, of several sizes. Every other picture is scored,
which gives the true ten nearest; then it is counted how many of these are among the nearest by the pooled descriptor
of the region's own map, and by the descriptor of the whole picture.
"""

import argparse
from dataclasses import replace
from time import perf_counter

import numpy as np

import diffsim
from diffsim.retrieval.region import region_features
from diffsim.retrieval.shard.rerank import rank

SIDES = (0.2, 0.35, 0.5, 0.7)
COUNTS = (200, 500, 1000, 2000)
TOP = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("index")
    parser.add_argument("--space", default=None)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    searcher = diffsim.open(arguments.index, "cpu")
    space = searcher.choose(arguments.space)
    collection = searcher.collection
    collection.refresh([space])
    kit = collection.kit(space)
    ids, descriptors = collection.descriptors(space.fingerprint, collection.ids(space.fingerprint))
    random = np.random.default_rng(arguments.seed)
    asking = random.permutation(ids)[: arguments.queries].tolist()
    print(f"{space.name}: {len(ids)} pictures, tokens {kit.shapes}, {len(asking)} questions a size")
    print("side  share of the exhaustive top 10: by the region / by the whole, among", *COUNTS, " exhaustive, s")
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
        own, by_whole = np.mean(shares, 0)
        text = "  ".join(f"{a:.3f} / {b:.3f}" for a, b in zip(own, by_whole, strict=True))
        print(f"{side:.2f}  {text}  {np.median(seconds):.2f}", flush=True)


if __name__ == "__main__":
    main()
