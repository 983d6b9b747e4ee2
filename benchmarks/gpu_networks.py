"""Parts of gpu.py: networks of full size with random weights index and answer, from JPEGs on the disk."""

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import full_size_networks as makers
import numpy as np
import torch
from gpu_setup import Part, Row, Setup, ms

import diffsim
from diffsim.retrieval.extractor import Extractor, make_space
from diffsim.retrieval.families import known_families, load_network
from diffsim.retrieval.features import PictureFeatures
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.pictures.decode_pool import Decoded, DecodePool, Job
from diffsim.retrieval.score import score
from diffsim.retrieval.shard.rerank import score_queries
from diffsim.retrieval.shard.store import FeatureStore, Record

DTYPES = ("bfloat16", "float16")
SHRUNK = 8
"""By so much the layers of the U-Nets are narrower with --quick."""
_TINY_VIT = {"hidden_size": 32, "num_hidden_layers": 12, "num_attention_heads": 2, "intermediate_size": 64}


@dataclass(frozen=True)
class Case:
    """make, make_quick: put the network into a folder. pictures: to index. batch: pictures in a pass."""

    make: makers.Make
    make_quick: makers.Make
    preset: str
    pictures: int
    batch: int
    quick_size: int

    def space(self, folder: Path, dtype: str, quick: bool) -> diffsim.Space:
        """As the preset reads its network by style."""
        preset = known_families().presets[self.preset]
        (tap,) = preset.profiles["style"]
        size = self.quick_size if quick else preset.size
        layer = f"{tap.module}@{tap.timestep}"
        return diffsim.Space(folder, layers=[layer], size=size, noises=preset.noises, prompt="", dtype=dtype)


CASES = {
    "sd15": Case(makers.make_sd15, partial(makers.make_sd15, shrink=SHRUNK), "sd15", 512, 16, 64),
    "sdxl": Case(makers.make_sdxl, partial(makers.make_sdxl, shrink=SHRUNK), "sdxl", 256, 16, 64),
    "dinov2-base": Case(
        makers.of_transformers("Dinov2Model", makers.DINOV2_BASE),
        makers.of_transformers("Dinov2Model", makers.DINOV2_BASE | _TINY_VIT),
        "dinov2-base",
        2048,
        64,
        56,
    ),
    "clip-vit-b32": Case(
        makers.of_transformers("CLIPModel", makers.CLIP_B32),
        makers.of_transformers(
            "CLIPModel",
            {
                "projection_dim": 16,
                "vision_config": _TINY_VIT | {"patch_size": 32, "projection_dim": 16},
                "text_config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
            },
        ),
        "clip-vit-b32",
        2048,
        64,
        224,
    ),
}


def network_parts() -> dict[str, Part]:
    """One for each network and precision."""
    return {f"{name} in {dtype}": partial(measure, name=name, dtype=dtype) for name in CASES for dtype in DTYPES}


def measure(setup: Setup, *, name: str, dtype: str) -> Iterator[Row]:
    """From JPEGs to a committed index, the stages alone, sizes of batches, queries, and how far float32 is."""
    case = CASES[name]
    folder = network_folder(setup, name)
    count, batch = (6, 2) if setup.quick else (case.pictures, case.batch)
    pictures = setup.jpegs("pictures", count)
    space = case.space(folder, dtype, setup.quick)
    index = setup.fresh(f"{name}-{dtype}.idx")
    yield index_row(setup, index, pictures, space, batch)

    network = load_network(folder, dtype, setup.device)
    extractor = Extractor(network, [make_space(network, space.request().settings)])
    pixels, decode = decoded(setup, extractor, pictures)
    yield stages_row(setup, extractor, pixels[: 8 * batch], batch, decode)
    for size in (1, 2) if setup.quick else (1, 4, 16, 64):
        some = pixels[:size]
        extractor.extract(some)
        spent = setup.seconds(partial(extractor.extract, some), 3)
        memory = setup.peak_gb(partial(extractor.extract, some))
        yield {"batch": size, "ms a picture": ms(spent / len(some)), "GPU memory, GB": memory}
    yield precision_row(setup, extractor, folder, space, pixels[:8])
    del network, extractor
    yield from query_rows(setup, index, pictures)


def network_folder(setup: Setup, name: str) -> Path:
    """A network of CASES, made once."""
    folder = setup.scratch / f"network-{name}"
    if not folder.exists():
        unfinished = setup.fresh(f"{folder.name}.part")
        (CASES[name].make_quick if setup.quick else CASES[name].make)(unfinished)
        unfinished.rename(folder)
    return folder


def index_row(setup: Setup, index: Path, pictures: Path, space: diffsim.Space, batch: int) -> Row:
    """The rate is that of the steady run, after the first batch: loading a network is no matter of pictures."""
    moments: list[tuple[float, int]] = []
    options = diffsim.IndexOptions(device=setup.device, batch_size=batch, workers=setup.workers)
    report = diffsim.index(
        index,
        pictures,
        spaces=space,
        options=options,
        on_progress=lambda done, total: moments.append((time.perf_counter(), done)),
    )
    (start, first), (end, last) = moments[0], moments[-1]
    return {
        "pictures": report.extracted,
        "batch": batch,
        "decoders": setup.workers,
        "whole run, s": round(report.seconds, 2),
        "pictures/s after the first batch": round((last - first) / max(end - start, 1e-9), 1),
        "index, MB": round(sum(file.stat().st_size for file in index.rglob("*") if file.is_file()) / 1e6, 1),
    }


def decoded(setup: Setup, extractor: Extractor, pictures: Path) -> tuple[np.ndarray, float]:
    """The pictures as the network takes them, uint8 [pictures, size, size, 3], and the seconds that each took."""
    jobs = [Job(number, os.fsencode(path), b"") for number, path in enumerate(sorted(pictures.iterdir()))]
    with DecodePool(setup.workers, extractor.size, fit=extractor.fit) as pool:
        list(pool.run(jobs[: setup.workers]))  # starts the processes
        started = time.perf_counter()
        found = [result for result in pool.run(jobs) if isinstance(result, Decoded)]
    spent = (time.perf_counter() - started) / len(jobs)
    return np.stack([result.pixels for result in sorted(found, key=lambda result: result.job.content_id)]), spent


def stages_row(setup: Setup, extractor: Extractor, pixels: np.ndarray, batch: int, decode: float) -> Row:
    """What each stage takes alone, ms a picture, and its share of their sum. In a run they overlap."""
    network, (kit,) = extractor.network, extractor.kits
    batches = [pixels[start : start + batch] for start in range(0, len(pixels), batch)]
    spent = dict.fromkeys(("decode", "transfer", "autoencoder", "network", "tokens and descriptor", "store"), 0.0)
    features: list[PictureFeatures] = []
    with torch.inference_mode():
        extractor.extract(batches[0])  # the first pass is slower
        for some in batches:
            here, sent = setup.timed(lambda pixels: torch.from_numpy(pixels).to(network.device), some)
            encoded, encoding = setup.timed(network.encode, here)
            _, reading = setup.timed(network.read, encoded, kit.settings.taps, kit.constants)
            ((made,), whole) = setup.timed(extractor.extract, some)
            rest = max(whole - sent - encoding - reading, 0.0)
            for name, each in zip(spent, (0.0, sent, encoding, reading, rest), strict=False):
                spent[name] += each
            features += made
    spent["decode"] = decode * len(pixels)
    records = [
        Record(number, hashlib.sha256(bytes([number % 256])).digest(), each.descriptor, each.tokens)
        for number, each in enumerate(features)
    ]
    with FeatureStore(setup.fresh("store"), readonly=False) as store:
        spent["store"] = setup.seconds(lambda: store.put(records))
    total = sum(spent.values())
    return {name: f"{ms(each / len(pixels))} ms, {each / total:.0%}" for name, each in spent.items()}


def precision_row(setup: Setup, extractor: Extractor, folder: Path, space: diffsim.Space, pixels: np.ndarray) -> Row:
    """Scores of some pictures among each other, against the same network in float32."""
    exact = load_network(folder, "float32", setup.device)
    settings = diffsim.Space(**{**vars(space), "dtype": "float32"}).request().settings
    reference = Extractor(exact, [make_space(exact, settings)])
    there, here = (_scores(one.kits[0], one, pixels) for one in (reference, extractor))
    others = ~np.eye(len(pixels), dtype=bool)
    return {
        "against float32": f"{len(pixels)} pictures",
        "largest difference of a score": float(f"{np.abs(there - here).max():.2e}"),
        "spread of the scores": float(f"{there[others].std():.2e}"),
        "correlation": round(float(np.corrcoef(there[others], here[others])[0, 1]), 5),
    }


def _scores(kit: SpaceKit, extractor: Extractor, pixels: np.ndarray) -> np.ndarray:
    records = [features.tokens for features in extractor.extract(pixels)[0]]
    return score_queries(kit, [(kit.read([record]), score) for record in records], list(enumerate(records)))[1]


def query_rows(setup: Setup, index: Path, pictures: Path) -> Iterator[Row]:
    """A warm searcher: what is indexed, what is not, and many in one go."""
    outside = sorted(setup.jpegs("outside", 4 if setup.quick else 32, seed=1).iterdir())
    inside = sorted(pictures.iterdir())[: len(outside)]
    with diffsim.open(index, setup.device) as searcher:
        searcher.search_many(outside)
        for name, work in (
            ("indexed picture", lambda: [searcher.search(picture) for picture in inside]),
            ("other picture", lambda: [searcher.search(picture) for picture in outside]),
            ("other pictures in one go", lambda: searcher.search_many(outside)),
        ):
            answer = searcher.answer(diffsim.Query(inside[0]))
            yield {"query": name, "ms each": ms(setup.seconds(work) / len(outside)), "scored": answer.scored}
