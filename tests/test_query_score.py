"""`diffsim score`: the released numbers, the engine's promises, and plain sentences for mistakes."""

import json
from pathlib import Path

import pytest
from conftest import DATA, TINY, random_picture
from indexing import diffsim, problem
from PIL import Image

from diffsim.indexer.requests import requested_spaces
from diffsim.query.score_pictures import BadPair, ScoredPair
from diffsim.retrieval.score import PairScore

IMAGES = DATA / "images"
GOLDEN = json.loads((DATA / "golden_scores.json").read_text())
SETTINGS = ("--model", str(TINY), "--size", "64", "--device", "cpu")


def scored(*arguments: str | Path) -> dict:
    ran = diffsim("score", *arguments, "--json", "--device", "cpu")
    assert ran.code == 0, ran
    (line,) = ran.out.decode().splitlines()
    found: dict = json.loads(line)
    return found


@pytest.mark.parametrize(("variant", "metric"), [("S", "cosine"), ("S", "mse"), ("C", "cosine")])
def test_released_scores_through_the_command(variant: str, metric: str) -> None:
    row = next(r for r in GOLDEN["scores"] if (r["variant"], r["similarity"]) == (variant, metric) and r["a"] != r["b"])
    adapter = ("--ip-adapter", DATA / "tiny-ip-adapter-plus", "--variant", "C") if variant == "C" else ()
    found = scored(
        *(IMAGES / row["a"], IMAGES / row["b"], "--protocol", "paper", "--metric", metric, *adapter),
        *("--model", TINY, "--layer", row["module"], "--timestep", str(1001 - row["step_index"])),
        *("--size", str(GOLDEN["image_size"]), "--prompt", GOLDEN["prompt"], "--seed", str(GOLDEN["seed"])),
    )
    assert found["score"] == pytest.approx(row["score"], abs=1e-4)
    assert found["score"] == pytest.approx((found["forward"] + found["backward"]) / 2)
    assert (found["protocol"], found["metric"]) == ("paper", metric)


@pytest.mark.parametrize("more", [(), ("--ip-adapter", str(DATA / "tiny-ip-adapter-plus"))])
def test_the_engine_is_symmetric_and_one_with_itself(more: tuple[str, ...]) -> None:
    a, b = IMAGES / "a.png", IMAGES / "b.png"
    there, back, same = (scored(*pair, *SETTINGS, *more) for pair in ((a, b), (b, a), (a, a)))
    assert there["score"] == pytest.approx(back["score"], abs=1e-6)
    assert there["forward"] == pytest.approx(back["backward"], abs=1e-6)
    assert same["score"] == pytest.approx(1, abs=1e-6) and there["score"] < 0.9999
    assert there["fingerprint"] == back["fingerprint"] == same["fingerprint"]


def test_settings_change_score_and_fingerprint() -> None:
    a, b = IMAGES / "a.png", IMAGES / "d.png"
    base = scored(a, b, *SETTINGS)
    for more in (
        ("--seed", "1"),
        ("--prompt", "a house"),
        ("--timestep", "10"),
        ("--layer", "mid_block"),
        ("--layer", "mid_block@10*2", "--layer", "down_blocks.1.attentions.0"),
        ("--protocol", "paper"),
    ):
        other = scored(a, b, *SETTINGS, *more)
        assert other["fingerprint"] != base["fingerprint"] and other["score"] != base["score"], more


def test_several_layers_are_their_weighted_mean() -> None:
    a, b = IMAGES / "a.png", IMAGES / "d.png"
    layers = "mid_block@10", "down_blocks.1.attentions.0@501"
    one, two = (scored(a, b, *SETTINGS, "--layer", layer) for layer in layers)
    both = scored(a, b, *SETTINGS, "--layer", "mid_block@10*3", "--layer", "down_blocks.1.attentions.0@t501")
    for name in ("score", "forward", "backward"):
        assert both[name] == pytest.approx((3 * one[name] + two[name]) / 4, abs=1e-6)


def test_words_for_a_person(tmp_path: Path) -> None:
    name = "a\nb.png"
    random_picture(1).save(tmp_path / name)
    ran = diffsim("score", tmp_path / name, tmp_path / name, *SETTINGS)
    assert ran.code == 0
    first, *directions = ran.out.decode().splitlines()
    assert first.startswith("1.0000  cosine by tiny-sd15/look, engine protocol, fp32 (")
    assert directions == ["1.0000  a\\nb.png rebuilt from a\\nb.png"] * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--layer", "nowhere"), "'nowhere'"),
        (("--layer", "mid_block@x"), "LAYER@TIMESTEP"),
        (("--layer", "mid_block@1*0"), "weight 0"),
        (("--layer", "mid_block@1000"), "0 to 999"),
        (("--variant", "C"), "--ip-adapter FOLDER"),
        (("--variant", "global"), "no variant global"),
        (("--variant", "S", "--ip-adapter", "x"), "drop one"),
        (("--ip-adapter", "nowhere.safetensors"), "'nowhere.safetensors'"),
        (("--size", "70"), "multiple of 8"),
        (("--protocol", "paper", "--layer", "mid_block", "--layer", "up_blocks.1.attentions.0"), "one layer, not 2"),
        (("--protocol", "paper", "--noises", "4"), "leave out --noises"),
    ],
)
def test_mistakes_are_one_sentence(arguments: tuple[str, ...], words: str) -> None:
    assert words in problem(diffsim("score", IMAGES / "a.png", IMAGES / "b.png", *SETTINGS, *arguments))


@pytest.mark.parametrize("protocol", ["engine", "paper"])
def test_unreadable_pictures_are_one_sentence(tmp_path: Path, protocol: str) -> None:
    (tmp_path / "broken.png").write_bytes((IMAGES / "a.png").read_bytes()[:2000])
    for name in ("broken.png", "missing.png"):
        said = problem(diffsim("score", IMAGES / "a.png", tmp_path / name, *SETTINGS, "--protocol", protocol))
        assert name in said


@pytest.mark.parametrize("more", [(), ("--protocol", "paper"), ("--ip-adapter", str(DATA / "tiny-ip-adapter-plus"))])
def test_the_heat_map_is_drawn(tmp_path: Path, more: tuple[str, ...]) -> None:
    out = tmp_path / "why.png"
    ran = diffsim("score", IMAGES / "a.png", IMAGES / "d.png", *SETTINGS, *more, "--heatmap", out)
    assert ran.code == 0, ran
    with Image.open(out) as drawing:
        drawing.load()
        assert drawing.format == "PNG" and len(drawing.getcolors(1 << 24)) > 1000


def test_a_heat_map_wants_parts(tmp_path: Path) -> None:
    (request,) = requested_spaces(str(TINY))
    pair = ScoredPair(PairScore(1, 1, 1), "", request, None)
    with pytest.raises(BadPair, match=r"no parts to show; .*\.$"):
        pair.why()
