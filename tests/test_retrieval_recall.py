"""Candidate recall on real FAISS indices, against brute force in numpy."""

import faiss
import numpy as np
import pytest

from diffsim.retrieval.shard import recall
from diffsim.retrieval.shard.recall import build_index, choose_factory, merge, search_exact, search_index
from diffsim.retrieval.shard.rerank import rank

DIMENSIONS = 32
PLENTY = 2**30


def descriptors(pictures: int, clusters: int = 40, spread: float = 0.6) -> np.ndarray:
    """Unit vectors float16 in clusters, as those of pictures are."""
    generator = np.random.default_rng(7)
    centres = generator.normal(size=(clusters, DIMENSIONS))
    vectors = centres[generator.integers(0, clusters, pictures)]
    vectors = vectors + spread * generator.normal(size=(pictures, DIMENSIONS))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def brute_force(ids: np.ndarray, vectors: np.ndarray, asked: np.ndarray, count: int, allowed: np.ndarray) -> list[int]:
    inside = np.isin(ids, allowed)
    products = vectors[inside].astype(np.float64) @ asked.astype(np.float64)
    return ids[inside][np.argsort(-products, kind="stable")[:count]].tolist()


def search_file(
    index: faiss.Index, ids: np.ndarray, asked: np.ndarray, count: int, allowed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """By ids, where the index knows positions."""
    positions, similarities = search_index(index, asked, count, np.isin(ids, allowed))
    return ids[positions], similarities


@pytest.fixture(scope="module")
def built() -> tuple[faiss.Index, np.ndarray, np.ndarray]:
    """An index over 500 pictures with gaps between the ids."""
    vectors = descriptors(500)
    ids = np.cumsum(np.random.default_rng(1).integers(1, 9, 500)).astype(np.int64)
    index, factory, loss = build_index(vectors, PLENTY)
    assert (factory, loss) == ("SQfp16", 0.0)
    return index, ids, vectors


@pytest.mark.parametrize("count", [1, 7, 500, 900])
def test_file_finds_what_brute_force_finds(built: tuple, count: int) -> None:
    index, ids, vectors = built
    for row in (0, 123, 499):
        found, similarities = search_file(index, ids, vectors[row], count, ids)
        assert found.tolist() == brute_force(ids, vectors, vectors[row], count, ids)
        assert found[0] == ids[row]
        assert similarities[0] == pytest.approx(1, abs=1e-3)
        assert (np.diff(similarities) <= 0).all()
        exact, exact_similarities = search_exact(ids, vectors, vectors[row], count)
        assert exact.tolist() == found.tolist()
        assert exact_similarities == pytest.approx(similarities, abs=1e-5)


@pytest.mark.parametrize("share", [0.5, 0.02])
def test_only_allowed_ids_are_found(built: tuple, share: float) -> None:
    index, ids, vectors = built
    allowed = ids[np.random.default_rng(2).random(len(ids)) < share]
    found, _ = search_file(index, ids, vectors[3], 50, allowed)
    assert found.tolist() == brute_force(ids, vectors, vectors[3], 50, allowed)


def test_allowed_ids_that_the_file_lacks_are_no_hits(built: tuple) -> None:
    index, ids, vectors = built
    foreign = np.setdiff1d(np.arange(1, ids[-1] + 100), ids)
    assert len(search_file(index, ids, vectors[0], 10, foreign)[0]) == 0
    assert search_file(index, ids, vectors[0], 10, np.append(foreign, ids[4]))[0].tolist() == [ids[4]]


def test_nothing_allowed_finds_nothing(built: tuple) -> None:
    index, known, vectors = built
    ids, similarities = search_file(index, known, vectors[0], 10, np.empty(0, np.int64))
    assert (ids.dtype, similarities.dtype, len(ids), len(similarities)) == (np.int64, np.float32, 0, 0)
    ids, similarities = search_exact(np.empty(0, np.int64), np.empty((0, DIMENSIONS), np.float16), vectors[0], 10)
    assert (ids.dtype, similarities.dtype, len(ids), len(similarities)) == (np.int64, np.float32, 0, 0)


def test_exact_ties_go_by_id() -> None:
    vectors = np.repeat(descriptors(2), 3, axis=0)
    ids = np.array([9, 4, 7, 8, 2, 5], np.int64)
    assert search_exact(ids, vectors, vectors[0], 4)[0].tolist() == [4, 7, 9, 2]


def test_merge_is_a_sort() -> None:
    first = (np.array([3, 1, 5], np.int64), np.array([0.9, 0.85, 0.1], np.float32))
    second = (np.array([2, 4], np.int64), np.array([0.85, 0.1], np.float32))
    ids, similarities = merge([first, second], 4)
    assert ids.tolist() == [3, 1, 2, 4]
    assert similarities.tolist() == pytest.approx([0.9, 0.85, 0.85, 0.1])
    nothing = (np.empty(0, np.int64), np.empty(0, np.float32))
    assert merge([nothing, first], 2)[0].tolist() == [3, 1]
    assert len(merge([nothing, nothing], 2)[0]) == len(merge([], 2)[0]) == 0
    assert len(merge([first, second], None)[0]) == 5


@pytest.mark.parametrize(
    ("pictures", "memory", "factory"),
    [
        (0, PLENTY, "SQfp16"),
        (1, PLENTY, "SQfp16"),
        (1_000_000, PLENTY, "SQfp16"),
        (1_000_000, 1_000_000 * 300, "SQ8"),
        (1_000_001, PLENTY, "IVF4096,SQfp16"),
        (2_000_000, 2_000_000 * 300, "IVF4096,SQ8"),
        (2_000_000, 2_000_000 * 140, "IVF4096,PQ128np"),
        (2_000_000, 2_000_000 * 75, "IVF4096,PQ64np"),
        (2_000_000, 2_000_000 * 40, "IVF4096,PQ32np"),
        (50_000, 50_000 * 264, "SQ8"),
        (50_000, 50_000 * 263, "IVF1024,PQ128np"),
    ],
)
def test_factory_by_size_and_budget(pictures: int, memory: int, factory: str) -> None:
    assert choose_factory(pictures, 256, memory) == factory


@pytest.mark.parametrize("dimensions", [256, 1024, 2560])
def test_every_descriptor_is_compared_up_to_a_number_of_numbers(dimensions: int) -> None:
    most = recall.EXACT_LIMIT // dimensions
    assert choose_factory(most, dimensions, 2**40) == "SQfp16"
    assert choose_factory(most + 1, dimensions, 2**40).startswith("IVF")


@pytest.mark.parametrize(("pictures", "bytes_each"), [(2_000_000, 39), (10_000, 263)])
def test_no_factory_within_the_budget(pictures: int, bytes_each: int) -> None:
    with pytest.raises(recall.OverBudget, match=r"^\d+ pictures need at least \d+ MB .* --memory\.$"):
        choose_factory(pictures, 256, pictures * bytes_each)


def test_an_approximate_index_finds_enough_and_is_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "EXACT_LIMIT", 1000)
    vectors, ids = descriptors(5000), np.arange(10, 5010)
    index, factory, loss = build_index(vectors, PLENTY)
    again = build_index(vectors, PLENTY)
    assert factory == "IVF256,SQfp16"
    assert faiss.serialize_index(index).tolist() == faiss.serialize_index(again[0]).tolist()
    assert again[1:] == (factory, loss)
    assert 0 <= loss <= 1 - recall.LEAST_RECALL
    assert index.nprobe < index.nlist, "the clusters are so plain that a part of the lists is enough"

    def measured(allowed: np.ndarray, count: int) -> float:
        asking = range(1, 5000, 100)
        exact = [set(brute_force(ids, vectors, vectors[row], count, allowed)) for row in asking]
        found = [set(search_file(index, ids, vectors[row], count, allowed)[0].tolist()) for row in asking]
        assert all(ids <= set(allowed.tolist()) for ids in found)
        return sum(len(x & y) for x, y in zip(exact, found, strict=True)) / sum(map(len, exact))

    assert measured(ids, 200) >= recall.LEAST_RECALL - 0.01
    assert measured(ids[::50], 20) >= recall.LEAST_RECALL - 0.01, "few allowed pictures lie in many lists"


@pytest.mark.parametrize(("bytes_each", "factory"), [(DIMENSIONS + 8, "SQ8"), (DIMENSIONS // 4 + 8, "IVF512,PQ8np")])
def test_a_coarse_index_says_what_it_loses(bytes_each: int, factory: str) -> None:
    vectors, ids = descriptors(20_000), np.arange(20_000)
    index, made, loss = build_index(vectors, 20_000 * bytes_each)
    assert made == factory
    losses = []
    for row in range(0, 20_000, 200):
        exact = set(brute_force(ids, vectors, vectors[row], 200, ids))
        losses.append(1 - len(exact & set(search_file(index, ids, vectors[row], 200, ids)[0].tolist())) / 200)
    assert loss == pytest.approx(np.mean(losses), abs=0.03)
    assert loss > 0


def test_rank_breaks_ties_by_the_query_itself_and_then_by_id() -> None:
    ids = np.array([5, 3, 8, 1, 9], np.int64)
    scores = np.array([0.5, 0.7, 1.0, 0.5 + 2e-8, 1.0 - 3e-8], np.float32)
    assert ids[rank(ids, scores)].tolist() == [8, 9, 3, 1, 5]
    assert ids[rank(ids, scores, first=9)].tolist() == [9, 8, 3, 1, 5]
    assert ids[rank(ids, scores, first=5)].tolist() == [8, 9, 3, 5, 1]
    assert len(rank(ids[:0], scores[:0])) == 0
