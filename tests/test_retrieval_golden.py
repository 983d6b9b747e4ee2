"""Golden scores: all 162 numbers of the released DiffSim implementation, reproduced by the paper protocol.

`tests/data/golden_scores.json` was printed by the released code (float32, CPU, see its `source`) with the two tiny
networks and the six pictures beside it. Variant C is released code with its one error repaired (a hook that misses a
keyword argument on current diffusers).
"""

import json
from functools import cache
from pathlib import Path

import pytest
from conftest import DATA, TINY

from diffsim.retrieval.families import load_network
from diffsim.retrieval.networks import Network
from diffsim.retrieval.paper import NoPaperProtocol, PaperProtocol, Role
from diffsim.retrieval.pictures.images import open_picture
from diffsim.retrieval.score import AttentionFeatures, score_pair
from diffsim.retrieval.settings import SpaceSettings, Tap

GOLDEN = json.loads((DATA / "golden_scores.json").read_text())
ROWS = GOLDEN["scores"]
ADAPTER = DATA / "tiny-ip-adapter-plus"


@cache
def network(variant: str) -> Network:
    return load_network(TINY, "float32", "cpu", str(ADAPTER) if variant == "C" else "")


@cache
def protocol(variant: str, module: str, timestep: int) -> PaperProtocol:
    taps = (Tap(module, timestep),)
    settings = SpaceSettings(taps, GOLDEN["image_size"], prompt=GOLDEN["prompt"], seed=GOLDEN["seed"])
    return PaperProtocol(network(variant), settings)


@cache
def features(variant: str, module: str, timestep: int, name: str, role: Role) -> AttentionFeatures:
    picture, _ = open_picture((DATA / "images" / name).read_bytes())
    return protocol(variant, module, timestep).features(picture, role)


def test_there_are_162_rows() -> None:
    assert len(ROWS) == 162
    assert {(row["variant"], row["similarity"]) for row in ROWS} == {("S", "cosine"), ("S", "mse"), ("C", "cosine")}


@pytest.mark.parametrize(
    "row",
    ROWS,
    ids=lambda row: "-".join(str(row[key])[:10] for key in ("variant", "similarity", "module", "step_index", "a", "b")),
)
def test_golden_score(row: dict) -> None:
    setting = row["variant"], row["module"], 1001 - row["step_index"]
    a, b = features(*setting, row["a"], "A"), features(*setting, row["b"], "B")
    found = score_pair([a], [b], [1.0], row["similarity"])
    assert found.score == pytest.approx(row["score"], abs=1e-4)
    assert found.score == pytest.approx((found.forward + found.backward) / 2)


def test_only_unets_have_a_paper_protocol() -> None:
    with pytest.raises(NoPaperProtocol, match=r"--model\.$"):
        PaperProtocol(object(), SpaceSettings((Tap("mid_block", 101),), 128))


def test_another_seed_gives_another_score() -> None:
    (tap, name) = (Tap(ROWS[0]["module"], 101), Path("a.png"))
    picture, _ = open_picture((DATA / "images" / name).read_bytes())
    scores = []
    for seed in (2334, 2335):
        paper = PaperProtocol(network("S"), SpaceSettings((tap,), 64, seed=seed))
        scores.append(score_pair([paper.features(picture, "A")], [paper.features(picture, "B")], [1.0]).score)
    assert scores[0] != scores[1]
    assert max(scores) < 1
