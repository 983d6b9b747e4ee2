"""How many pictures a second go from disk into a committed index, and what bounds that?

    python benchmarks/indexing.py PHOTOS --pictures 2000 --large 60

A seeded part of PHOTOS is copied and indexed with the bundled network; then each stage runs alone over the same
pictures. The same for 12-megapixel JPEGs, which the script makes (photographs enlarged to 4000 x 3000, with grain).
Stages are compared by CPU time, because in a whole run they overlap. At the end: what decoding large JPEGs at a reduced
scale gains over decoding them in full, and what it does to the scores, also for pictures that are made to be hard:
text, gratings, zone plates and noise at full resolution.
"""

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
from PIL import Image, ImageDraw, ImageFont
from printing import table

import diffsim
from diffsim.db.catalog import Catalog, KnownSpace
from diffsim.indexer.scan import scan
from diffsim.indexer.spaces import Networks
from diffsim.retrieval.extractor import Extractor
from diffsim.retrieval.features import PictureFeatures
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.pictures.decode_pool import Decoded, DecodePool, Job
from diffsim.retrieval.pictures.images import PICTURE_SUFFIXES, decode, open_picture
from diffsim.retrieval.score import score
from diffsim.retrieval.shard.rerank import score_queries
from diffsim.retrieval.shard.store import FeatureStore, Record

OPTIONS = diffsim.IndexOptions(device="cpu")
HARD = ("text", "gratings", "zone plate", "noise")


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
    with measured() as whole:
        done = diffsim.index(index, folder, options=OPTIONS)
    count = done.extracted
    searcher = diffsim.open(index)
    (space,) = searcher.spaces()
    kit = searcher.collection.kit(space)
    extractor = Extractor(Networks("cpu").of(space, kit.space), [kit])
    paths = sorted(folder.iterdir())
    stages: dict[str, Cost] = {}
    empty = Catalog.open(scratch / f"{folder.name}.sqlite", create=True)
    with empty as catalog, measured() as stages["scan: read, hash, catalog rows"]:
        scan(catalog, [folder])
    with (
        measured() as stages[f"decode, {OPTIONS.workers} workers"],
        DecodePool(OPTIONS.workers, extractor.size, 60, 10**10) as pool,
    ):
        jobs = (Job(row, os.fsencode(path), b"") for row, path in enumerate(paths))
        decoded = [item for item in pool.run(jobs) if isinstance(item, Decoded)]
    features: list[PictureFeatures] = []
    with measured() as stages["network"]:
        for start in range(0, count, OPTIONS.batch_size):
            batch = [item.pixels for item in decoded[start : start + OPTIONS.batch_size]]
            features += extractor.extract(np.stack(batch))[0]
    with measured() as stages["storage: features and catalog"]:
        commits = round(done.seconds / OPTIONS.commit_seconds)
        store_again(searcher, space, scratch / f"{folder.name}.store", features, max(commits, 1))
    total = sum(cost.cpu for cost in stages.values())
    rows = [
        (name, f"{cost.wall:.1f}", f"{cost.cpu:.1f}", f"{count / cost.wall:,.1f}", f"{100 * cost.cpu / total:.1f} %")
        for name, cost in stages.items()
    ]
    rows.append(
        ("whole run, stages overlapping", f"{whole.wall:.1f}", f"{whole.cpu:.1f}", f"{count / whole.wall:.1f}", "")
    )
    size = sum(path.stat().st_size for path in paths) / count / 1e6
    table((f"{count:,} pictures of {size:.2f} MB", "wall s", "CPU s", "pictures/s", "share of CPU"), rows)
    return searcher


def store_again(
    searcher: diffsim.Searcher, space: KnownSpace, to: Path, features: list[PictureFeatures], commits: int
) -> None:
    """Write all features into a new store, in as many commits as the whole run had; mark them in the catalog again."""
    with searcher.index.catalog() as catalog, FeatureStore(to, readonly=False) as store:
        contents = catalog.indexed(space.id)
        for rows in np.array_split(np.arange(len(features)), commits):
            ids = [int(contents.ids[row]) for row in rows]
            shas = [contents.sha256[row].tobytes() for row in rows]
            kept = [features[row] for row in rows]
            triples = zip(ids, shas, kept, strict=True)
            store.put(Record(row, sha, each.descriptor, each.tokens) for row, sha, each in triples)
            catalog.mark_indexed([space.id], [(row, "JPEG", 1, 1) for row in ids])


def hard(kind: str, generator: np.random.Generator) -> np.ndarray:
    """Uint8 [3000, 4000]: detail at full resolution, which a reduced scale must leave out without making any up."""
    x, y = np.meshgrid(np.arange(4000, dtype=np.float32), np.arange(3000, dtype=np.float32))
    if kind == "noise":
        return generator.integers(0, 256, x.shape, np.uint8)
    if kind == "gratings":  # a patchwork, periods of 2 to 16 pixels
        period, angle, phase = (
            np.kron(generator.uniform(low, high, (6, 8)), np.ones((500, 500))).astype(np.float32)
            for low, high in ((2, 16), (0, np.pi), (0, 2 * np.pi))
        )
        wave = np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period + phase)
        return np.uint8(127.5 + 127.5 * np.sign(wave))
    if kind == "zone plate":  # every frequency up to the highest, around a random place
        centre = generator.uniform(0.2, 0.8, 2) * (4000, 3000)
        squared = (x - np.float32(centre[0])) ** 2 + (y - np.float32(centre[1])) ** 2
        return np.uint8(127.5 + 127.5 * np.cos(np.pi * squared / np.float32(4000)))
    page = Image.new("L", (4000, 3000), 255)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(float(generator.uniform(14, 40)))
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz     "))
    for top in range(40, 2960, int(1.4 * font.size)):
        draw.text((40, top), "".join(generator.choice(letters, 600)), int(generator.integers(0, 120)), font)
    return np.asarray(page)


def make_hard(to: Path, count: int) -> None:
    """`count` JPEGs of 12 megapixels of each kind."""
    generator = np.random.default_rng(1)
    for kind in HARD:
        for row in range(count):
            Image.fromarray(hard(kind, generator)).convert("RGB").save(to / f"{kind} {row:02d}.jpg", quality=92)


def reduced_effect(title: str, files: list[bytes], photos: diffsim.Searcher) -> list[str]:
    """A row: CPU time and scores of reduced-scale decoding, against full decoding of the same pictures, in turn."""
    (space,) = photos.spaces()
    photos.collection.refresh([space])
    kit = photos.collection.kit(space)
    extractor = Extractor(Networks("cpu").of(space, kit.space), [kit])
    spent = {"full": 0.0, "reduced": 0.0}
    pixels: dict[str, list[np.ndarray]] = {"full": [], "reduced": []}
    for data in files:
        started = time.process_time()
        whole, _ = open_picture(data)
        pixels["full"].append(np.array(whole.resize((extractor.size,) * 2, Image.Resampling.LANCZOS)))
        between = time.process_time()
        pixels["reduced"].append(decode(data, extractor.size).pixels)
        spent["full"] += between - started
        spent["reduced"] += time.process_time() - between
    full, reduced = (extractor.extract(np.stack(each))[0] for each in pixels.values())
    ids = photos.collection.ids(space.fingerprint)
    stored = [(content_id, bytes(record)) for content_id, record in photos.collection.tokens(space.fingerprint, ids)]
    own, tau, same, moved = [], [], [], []
    for a, b in zip(full, reduced, strict=True):
        own.append(float(_scores(kit, a.tokens, [(0, b.tokens)])[0]))
        before, after = _scores(kit, a.tokens, stored), _scores(kit, b.tokens, stored)
        tau.append(kendall(before, after))
        same.append(len(set(np.argsort(-before)[:10]) & set(np.argsort(-after)[:10])) / 10)
        moved.append(np.abs(before - after).max())
    levels = np.abs(np.stack(pixels["full"]).astype(int) - np.stack(pixels["reduced"]))
    times = [1e3 * spent[name] / len(files) for name in ("full", "reduced")]
    return [
        title,
        f"{len(files)}",
        *(f"{time:.1f}" for time in times),
        f"{times[0] / times[1]:.1f} x",
        f"{levels.mean():.2f} ({levels.max()})",
        f"{np.mean(own):.5f} ({min(own):.5f})",
        f"{max(moved):.4f}",
        f"{np.mean(tau):.4f} ({min(tau):.4f})",
        f"{100 * np.mean(same):.1f} % ({100 * min(same):.0f} %)",
    ]


def _scores(kit: SpaceKit, record: bytes, stored: list[tuple[int, bytes]]) -> np.ndarray:
    return score_queries(kit, [(kit.read([record]), score)], stored)[1][0]


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
        files = {"photographs": sorted(folder_large.iterdir())}
        folder_hard = Path(made) / "hard"
        folder_hard.mkdir()
        make_hard(folder_hard, max(1, large // 6))
        files |= {kind: sorted(folder_hard.glob(f"{kind}*")) for kind in HARD}
        head = (
            "picture",
            "n",
            "CPU ms, full",
            "reduced",
            "faster",
            "levels",
            "score with full",
            "moved",
            "Kendall tau",
        )
        effects = (
            reduced_effect(title, [each.read_bytes() for each in paths], searcher) for title, paths in files.items()
        )
        table((*head, "same top 10"), effects)


if __name__ == "__main__":
    main()
