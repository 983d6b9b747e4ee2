"""Regions and reasons in the other kinds of feature spaces: cropped ViTs, embeddings, DiffSim-C."""

from pathlib import Path

import pytest
import torch
from conftest import TINY, random_picture
from indexing import FAST
from networks import ADAPTER
from tiny_vits import PREPROCESSING, make_vit

from diffsim.db.catalog import KnownSpace
from diffsim.indexer.build import index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import requested_spaces
from diffsim.query.query import BadQuery, Example, Query
from diffsim.query.search import Searcher
from diffsim.retrieval.agreement import attention_weights
from diffsim.retrieval.region import BadRegion, region_features
from diffsim.retrieval.score import AttentionFeatures


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide pictures in a ViT's attention and its embedding, and in DiffSim-C."""
    work = tmp_path_factory.mktemp("regions")
    (work / "pictures").mkdir()
    for number in range(24):
        random_picture(number, 128, 64).save(work / "pictures" / f"{number:02d}.png")
    random_picture(77, 128, 64).save(work / "outside.png")
    vit = str(make_vit(work / "vit", "dinov2-registers", PREPROCESSING))
    requests = [
        *requested_spaces(vit, [], layers=["layers.1"], tier="fp32"),
        *requested_spaces(vit, [], variant="global"),
        *requested_spaces(str(TINY), ["look"], variant="C", adapter=str(ADAPTER), size=64, tier="fp32"),
    ]
    for request in requests:
        index_folders(IndexFolder.create(work / "index"), [work / "pictures"], [request], FAST)
    return work


@pytest.fixture(scope="module")
def searcher(work: Path) -> Searcher:
    return Searcher(work / "index", "cpu")


def features(searcher: Searcher, example: Example, space: KnownSpace) -> AttentionFeatures:
    """Of an example, or of its region, in the space's one tap."""
    (asked,) = searcher.encode(Query(example, spaces=[space.fingerprint])).parts
    (whole,) = searcher.collection.kit(space).read([asked.tokens])
    return region_features([whole], asked.region)[0] if asked.region else whole


@pytest.mark.parametrize("picture", [7, "outside.png"])
def test_a_box_is_placed_in_the_middle_that_a_vit_is_shown(searcher: Searcher, work: Path, picture: int | str) -> None:
    """Of 128 x 64 pixels, the middle 57 x 57: from 0.278 to 0.722 across, from 0.056 to 0.944 down; 4 x 4 tokens."""
    space = searcher.spaces()[0]
    asked = work / picture if isinstance(picture, str) else picture
    whole = features(searcher, Example(asked), space)
    box = (0.51, 0.51, 0.08, 0.2)
    region = features(searcher, Example(asked, region=box), space)
    assert torch.equal(region.query[0, :, 0], whole.query[0, :, 3 + 4 * 2 + 2]) and region.query.shape[2] == 1
    hits = searcher.search(asked, region=box, spaces=space.fingerprint, k=100)
    assert len(hits) == 24 - isinstance(picture, int)
    with pytest.raises(BadRegion, match=r"outside of what the network sees.*\.$"):
        searcher.search(asked, region=(0, 0, 0.2, 1), spaces=space.fingerprint)


def test_an_embedding_has_no_parts(searcher: Searcher, work: Path) -> None:
    space = searcher.spaces()[1].fingerprint
    for question in (
        lambda: searcher.search(work / "outside.png", region=(0, 0, 1, 1), spaces=space),
        lambda: searcher.pair(1, 2, space),
    ):
        with pytest.raises(BadQuery, match=r"has one embedding per picture.*\.$"):
            question()
    answer = searcher.answer(Query([1, Example(2, 0.5), Example(3, -1)], spaces=[space], k=100))
    assert len(answer.hits) == 21
    both = searcher.answer(Query(1, spaces=[space, searcher.spaces()[0].fingerprint], fold=True, k=100))
    assert len(both.hits) == 23


def test_the_queries_of_diffsim_c_are_places_and_its_keys_are_not(searcher: Searcher) -> None:
    space = searcher.spaces()[2]
    whole = features(searcher, Example(1), space)
    half = features(searcher, Example(1, region=(0, 0, 1, 0.5)), space)
    assert half.query.shape[2] * 2 == whole.query.shape[2] and half.key.shape[2] == 16
    assert len(searcher.search(1, region=(0, 0, 1, 0.5), spaces=space.fingerprint, k=100)) == 23
    pair = searcher.pair(1, 2, space.fingerprint)
    why = pair.agreement()
    assert why.a_from_b.numel() == whole.query.shape[2] and why.regions == ()
    with pytest.raises(BadQuery, match=r"not places in a picture.*\.$"):
        pair.attention((0, 0))


def test_attention_leaves_out_what_is_no_place(searcher: Searcher) -> None:
    space = searcher.spaces()[0]
    attention = searcher.pair(1, 2, space.fingerprint).attention((2, 3))
    a, b = (features(searcher, Example(number), space) for number in (1, 2))
    shares = attention_weights(a, b, 3 + 4 * 2 + 3)
    assert torch.allclose(attention.flatten(), shares[3:], atol=1e-6) and attention.sum() < 1
