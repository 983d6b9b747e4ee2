"""Parts of gpu.py about the stages of a query: the same answers as on a CPU, rerank, recall by FAISS."""

import hashlib
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import torch
from gpu_setup import TINY, Part, Row, Setup, ms

import diffsim
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.projection import Projection
from diffsim.retrieval.score import score
from diffsim.retrieval.settings import SpaceSettings, Tap
from diffsim.retrieval.shard.gpu_recall import search_gpu, to_gpu
from diffsim.retrieval.shard.recall import search_index
from diffsim.retrieval.shard.rerank import score_queries
from diffsim.retrieval.shard.store import FeatureStore, Record
from diffsim.retrieval.space import FeatureSpace
from diffsim.retrieval.tiers import encode_tokens

RECALLED = 200


def same_answers(setup: Setup) -> Iterator[Row]:
    """Every kind of question to one index, on the CPU and on the device."""
    pictures, index = setup.jpegs("answers", 60 if setup.quick else 400, seed=2), setup.fresh("answers.idx")
    spaces = [diffsim.Space(TINY, by, size=64, tier="fp32") for by in ("style", "look")]
    diffsim.index(index, pictures, spaces=spaces, options=diffsim.IndexOptions(device="cpu", workers=setup.workers))
    outside = sorted(setup.jpegs("outside", 4 if setup.quick else 32, seed=1).iterdir())[0]
    one, other = sorted(pictures.iterdir())[:2]
    queries = {
        "indexed picture": diffsim.Query(one),
        "other picture": diffsim.Query(outside),
        "every picture scored": diffsim.Query(outside, exact=True),
        "region": diffsim.Query(diffsim.Example(outside, region=(0.2, 0.2, 0.5, 0.5))),
        "two spaces": diffsim.Query(outside, spaces=["style", "look"]),
        "several examples": diffsim.Query([outside, diffsim.Example(one, 0.5), diffsim.Example(other, -0.5)]),
        "folded": diffsim.Query(outside, fold=True),
        "not reranked": diffsim.Query(outside, rerank=False),
    }
    with diffsim.open(index, "cpu") as here, diffsim.open(index, setup.device) as there:
        for name, query in queries.items():
            a, b = here.answer(query).hits, there.answer(query).hits
            yield {
                "question": name,
                "same hits in the same order": [hit.content_id for hit in a] == [hit.content_id for hit in b],
                "largest difference of a score": max(abs(x.score - y.score) for x, y in zip(a, b, strict=True)),
            }


def rerank(setup: Setup) -> Iterator[Row]:
    """Token records of Stable Diffusion 1.5's size, scored on the CPU and on the device."""
    tokens, channels = (16, 64) if setup.quick else (256, 1280)
    torch.manual_seed(0)
    projection = Projection(8, (torch.randn(3 * channels, channels) / channels**0.5,), (None,))
    space = FeatureSpace(SpaceSettings((Tap("random", 101),), 512, tier="fp16"), "random", "none")
    kit = SpaceKit(space, {}, (projection,), ((tokens, channels),))
    counts = (20, 100) if setup.quick else (200, 1000)
    wanted = {number: hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(max(counts))}
    with FeatureStore(setup.fresh("rerank"), readonly=False) as store:
        for start in range(0, len(wanted), 100):
            store.put(
                Record(
                    number,
                    wanted[number],
                    np.zeros(2, np.float16),
                    encode_tokens([torch.randn(tokens, channels)], "fp16"),
                )
                for number in list(wanted)[start : start + 100]
            )
        (query,) = (bytes(record) for _, record in store.tokens({0: wanted[0]}))
        for count in counts:
            some = {number: wanted[number] for number in range(count)}
            read = setup.seconds(lambda some=some: list(store.tokens(some)), 3)
            found = {}
            for device in dict.fromkeys(("cpu", setup.device)):
                on_device = kit.to(device)
                asked = [(on_device.read([query]), score)]
                work = partial(_rerank, store, on_device, asked, some)
                work()
                spent = setup.seconds(work, 3)
                found[device] = work()[1][0]
                yield {"candidates": count, "on": device, "read, ms": ms(read), "read and scored, ms": ms(spent)}
            if setup.on_gpu:
                apart = float(np.abs(found["cpu"] - found[setup.device]).max())
                orders = [np.argsort(-scores)[:10].tolist() for scores in found.values()]
                yield {"candidates": count, "largest difference": apart, "same first ten": orders[0] == orders[1]}


def _rerank(store: FeatureStore, kit: SpaceKit, asked: list, wanted: dict[int, bytes]) -> tuple[np.ndarray, np.ndarray]:
    return score_queries(kit, asked, store.tokens(wanted))


def recall(setup: Setup) -> Iterator[Row]:
    """Every descriptor compared, by FAISS on the CPU and on the device."""
    sizes = [(3000, 32)] if setup.quick else [(10**5, 256), (10**6, 256), (10**7, 256), (10**5, 2560), (10**6, 2560)]
    for pictures, dimensions in sizes:
        needed, there = 5 * pictures * dimensions, _free_bytes(setup)
        row: Row = {"pictures": pictures, "dimensions": dimensions}
        if needed > there:
            yield row | {"left out": f"needs {needed / 1e9:.0f} GB, {there / 1e9:.0f} GB are free"}
            continue
        descriptors = _descriptors(pictures, dimensions)
        index = faiss.index_factory(dimensions, "SQfp16", faiss.METRIC_INNER_PRODUCT)
        for start in range(0, pictures, 65_536):
            index.add(descriptors[start : start + 65_536].astype(np.float32))
        asking = descriptors[:: max(1, pictures // 20)][:20]
        allowed = np.ones(pictures, np.bool_)
        allowed[::1000] = False  # as few as are hidden between two builds
        row["CPU, ms"] = ms(_per_query(setup, partial(search_index, index), asking, allowed))
        started = time.perf_counter()
        moved = to_gpu(index, torch.device(setup.device))
        if moved is None:
            yield row | {"GPU, ms": None, "why": "FAISS does not run on this device"}
            continue
        row["to the GPU, s"] = round(time.perf_counter() - started, 2)
        row["GPU, ms"] = ms(_per_query(setup, partial(search_gpu, moved), asking, allowed))
        pairs = [
            (search_index(index, one, RECALLED, allowed), search_gpu(moved, one, RECALLED, allowed)) for one in asking
        ]
        answered = [(a, b) for a, b in pairs if b is not None]
        row["answered by the GPU"] = f"{len(answered)} of {len(pairs)}"
        if answered:
            row["same candidates"] = f"{np.mean([np.isin(a[0], b[0]).mean() for a, b in answered]):.2%}"
            row["largest difference"] = float(max(np.abs(np.sort(a[1]) - np.sort(b[1])).max() for a, b in answered))
        yield row
        del descriptors, index, moved


def _per_query(setup: Setup, search: partial, asking: np.ndarray, allowed: np.ndarray) -> float:
    search(asking[0], RECALLED, allowed)
    return statistics.median(setup.timed(search, one, RECALLED, allowed)[1] for one in asking)


def _descriptors(pictures: int, dimensions: int) -> np.ndarray:
    """Unit vectors float16 [pictures, dimensions] around some centres."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((256, dimensions), np.float32)
    found = np.empty((pictures, dimensions), np.float16)
    for start in range(0, pictures, 65_536):
        rows = min(65_536, pictures - start)
        some = centres[generator.integers(0, 256, rows)] + generator.standard_normal((rows, dimensions), np.float32)
        found[start : start + rows] = some / np.linalg.norm(some, axis=1, keepdims=True)
    return found


def _free_bytes(setup: Setup) -> int:
    """Of the machine's memory, and of the GPU's where that is less."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return min(free, torch.cuda.mem_get_info(setup.device)[0]) if setup.on_gpu else free


STAGE_PARTS: dict[str, Part] = {
    "same answers on the CPU and on the device": same_answers,
    "rerank of full-size records": rerank,
    "recall by FAISS": recall,
}
