"""How many pictures a second go from disk into a committed index, and what bounds that?

    python benchmarks/indexing.py PHOTOS --pictures 2000 --large 60

A seeded part of PHOTOS is copied and indexed with the bundled network; then each stage runs alone over the same
pictures. The same for 12-megapixel JPEGs, which the script makes (photographs enlarged to 4000 x 3000, with grain).
Stages are compared by CPU time, because in a whole run they overlap. At the end: what decoding JPEGs at reduced scale
would gain, and what it would do to the scores.
"""

import io
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

import diffsim
from db.catalog import Catalog, KnownSpace
from indexer.build import index_folders
from indexer.decode import Decoded, DecodePool, Job
from indexer.index_folder import IndexFolder
from indexer.scan import scan
from retrieval.extractor import Extractor, PictureFeatures
from retrieval.images import PICTURE_SUFFIXES, decode
from retrieval.kit import SpaceKit
from retrieval.rerank import score_records
from retrieval.store import FeatureStore, Record
from retrieval.tiers import decode_tokens

OPTIONS = diffsim.IndexOptions(device="cpu")


@dataclass
class Cost:
    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def measured() -> Iterator[Cost]:
    """Wall and CPU seconds (children included) of what runs inside."""

    def used() -> float:
        both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in both)

    cost = Cost(time.perf_counter(), used())
    yield cost
    cost.wall, cost.cpu = time.perf_counter() - cost.wall, used() - cost.cpu


def choose(photos: Path, count: int) -> list[Path]:
    found = sorted(path for path in photos.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    return [found[row] for row in np.random.default_rng(0).permutation(len(found))[:count]]


def enlarge(photo: Path, to: Path, generator: np.random.Generator) -> None:
    """A 12-megapixel JPEG: the photograph enlarged, with grain so that it is as hard to decode as a camera's."""
    picture = Image.open(photo).convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC)
    grain = generator.normal(0, 6, (3000, 4000, 1)).astype(np.float32)
    pixels = np.clip(np.asarray(picture, np.float32) + grain, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(to, quality=92)


def report(folder: Path, scratch: Path) -> diffsim.Searcher:
    """Index the folder, then run each stage alone; print both."""
    index = scratch / f"{folder.name}.idx"
    commits: list[str] = []
    with measured() as whole:
        done = index_folders(IndexFolder.create(index), [folder], [], OPTIONS, on_step=commits.append)
    count = done.extracted
    searcher = diffsim.open(index)
    (space,) = searcher.spaces()
    extractor = Extractor.load(space.network, [searcher.kit(space)], "cpu", space.adapter)
    paths = sorted(folder.iterdir())
    stages: dict[str, Cost] = {}
    empty = Catalog.open(scratch / f"{folder.name}.sqlite", create=True)
    with empty as catalog, measured() as stages["scan (read, hash, catalog rows)"]:
        scan(catalog, [folder])
    with measured() as stages["decode (workers)"], DecodePool(OPTIONS.workers, extractor.size, 60, 10**10) as pool:
        jobs = (Job(row, os.fsencode(path), b"") for row, path in enumerate(paths))
        decoded = [item for item in pool.run(jobs) if isinstance(item, Decoded)]
    features: list[PictureFeatures] = []
    with measured() as stages["network"]:
        for start in range(0, count, OPTIONS.batch_size):
            batch = [item.pixels for item in decoded[start : start + OPTIONS.batch_size]]
            features += extractor.extract(np.stack(batch))[0]
    with measured() as stages["storage (features and catalog)"]:
        store_again(searcher, space, scratch / f"{folder.name}.store", features, commits.count("features stored"))
    click.echo(f"\n{folder.name}: {count} pictures, {sum(p.stat().st_size for p in paths) / count / 1e6:.2f} MB each")
    click.echo(f"{'stage':34} {'wall s':>8} {'CPU s':>8} {'pictures/s':>11} {'share of CPU':>13}")
    total = sum(cost.cpu for cost in stages.values())
    for name, cost in stages.items():
        rate = f"{count / cost.wall:11.1f} {100 * cost.cpu / total:12.1f}%"
        click.echo(f"{name:34} {cost.wall:8.2f} {cost.cpu:8.2f} {rate}")
    click.echo(f"{'whole run (overlapping)':34} {whole.wall:8.2f} {whole.cpu:8.2f} {count / whole.wall:11.1f}")
    click.echo(f"{'  as the command reports it':34} {done.seconds:8.2f} {'':8} {count / done.seconds:11.1f}")
    return searcher


def store_again(
    searcher: diffsim.Searcher, space: KnownSpace, to: Path, features: list[PictureFeatures], commits: int
) -> None:
    """Write all features into a new store, in as many commits as the whole run had; mark them in the catalog again."""
    with searcher.index.catalog() as catalog, FeatureStore(to, readonly=False) as store:
        contents = catalog.indexed(space.id)
        for rows in np.array_split(np.arange(len(features)), max(commits, 1)):
            ids = [int(contents.ids[row]) for row in rows]
            shas = [contents.sha256[row] for row in rows]
            kept = [features[row] for row in rows]
            triples = zip(ids, shas, kept, strict=True)
            store.put(Record(row, sha, each.descriptor, each.tokens) for row, sha, each in triples)
            catalog.mark_indexed([space.id], [(row, "JPEG", 1, 1) for row in ids])


def reduced(data: bytes, size: int, margin: int) -> np.ndarray:
    """As `decode`, but the JPEG is decoded at the smallest scale that is still `margin` times as large as wanted."""
    picture = Image.open(io.BytesIO(data))
    picture.draft("RGB", (size * margin, size * margin))
    return np.array(picture.convert("RGB").resize((size, size), Image.Resampling.LANCZOS))


def draft_effect(large: Path, photos: diffsim.Searcher) -> None:
    """Time and scores of reduced-scale decoding, against full decoding of the same pictures."""
    (space,) = photos.spaces()
    kit, gallery = photos.kit(space), photos.gallery(space)
    extractor = Extractor.load(space.network, [kit], "cpu", space.adapter)
    files = [path.read_bytes() for path in sorted(large.iterdir())]
    started = time.perf_counter()
    full = np.stack([decode(data, extractor.size).pixels for data in files])
    full_time = (time.perf_counter() - started) / len(files)
    records = [each.tokens for each in extractor.extract(full)[0]]
    stored = [(content_id, bytes(record)) for content_id, record in gallery.tokens(gallery.ids)]
    rankings = [_scores(kit, record, stored) for record in records]
    click.echo(f"\nreduced-scale JPEG decoding of {len(files)} large pictures, ranked against {len(stored)}")
    click.echo("                 ms each  faster   score with full decoding   Kendall tau   same top 10")
    click.echo(f"full             {1e3 * full_time:7.1f}")
    for margin in (1, 2, 4):
        started = time.perf_counter()
        pixels = np.stack([reduced(data, extractor.size, margin) for data in files])
        spent = (time.perf_counter() - started) / len(files)
        drafts = [each.tokens for each in extractor.extract(pixels)[0]]
        own = [float(_scores(kit, a, [(0, b)])[0]) for a, b in zip(records, drafts, strict=True)]
        pairs = [(ranking, _scores(kit, record, stored)) for ranking, record in zip(rankings, drafts, strict=True)]
        tau = np.mean([kendall(a, b) for a, b in pairs])
        same = np.mean([len(set(np.argsort(-a)[:10]) & set(np.argsort(-b)[:10])) / 10 for a, b in pairs])
        name = f"at least {margin} x {extractor.size}"
        line = f"mean {np.mean(own):.5f} min {min(own):.5f}   {tau:.4f}        {100 * same:.1f}%"
        click.echo(f"{name:16} {1e3 * spent:7.1f} {full_time / spent:6.1f}x   {line}")


def _scores(kit: SpaceKit, record: bytes, stored: list[tuple[int, bytes]]) -> np.ndarray:
    query = kit.attention(decode_tokens([record], kit.shapes, kit.space.tier))
    return score_records(kit, query, stored)[1]


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau of two lists of scores: pairs in the same order minus pairs in the other, over all pairs."""
    agreed = np.count_nonzero((a[:, None] > a) == (b[:, None] > b)) - len(a)  # each pair twice, without the diagonal
    return 2 * agreed / (len(a) * (len(a) - 1)) - 1


@click.command()
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@click.option("--pictures", default=2000, show_default=True)
@click.option("--large", default=60, show_default=True, help="How many 12-megapixel JPEGs.")
@click.option("--scratch", type=click.Path(exists=True, path_type=Path), help="Folder for temporary files.")
def main(photos: Path, pictures: int, large: int, scratch: Path | None) -> None:
    """Pictures per second from disk to committed index."""
    click.echo(f"{torch.get_num_threads()} threads, {OPTIONS.workers} decoding workers, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(dir=scratch) as made, torch.inference_mode():
        folder, folder_large = Path(made) / "photos", Path(made) / "large"
        folder.mkdir()
        folder_large.mkdir()
        chosen = choose(photos, pictures)
        for row, photo in enumerate(chosen):
            shutil.copy(photo, folder / f"{row:06d}{photo.suffix}")
        generator = np.random.default_rng(0)
        for row, photo in enumerate(chosen[:large]):
            enlarge(photo, folder_large / f"{row:03d}.jpg", generator)
        searcher = report(folder, Path(made))
        report(folder_large, Path(made))
        draft_effect(folder_large, searcher)


if __name__ == "__main__":
    main()
