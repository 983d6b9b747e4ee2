"""`diffsim sweep`: the figures are those of `evaluate`, and the curves can be looked at."""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import DATA, TINY
from indexing import diffsim, lay_out_styles, problem
from networks import tiny_dit, tiny_sdxl
from PIL import Image
from tiny_vits import PREPROCESSING, make_vit

from diffsim.query.evaluation.contenders import parse_spec
from diffsim.query.evaluation.curves import draw_curves
from diffsim.query.evaluation.sweep import TIMESTEPS, Setting, settings
from diffsim.retrieval.families import load_network
from diffsim.retrieval.networks import UnknownModule

LAYERS = ("down_blocks.1.attentions.0", "mid_block.attentions.0")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subjects in three styles, a CSV of their styles, and the cache that all tests share."""
    return lay_out_styles(tmp_path_factory.mktemp("sweep"))


def sweep(*asked: object, work: Path, model: object = TINY) -> list[str | bytes | Path]:
    where = ("--model", model, "--cache", work / "cache", "--device", "cpu")
    return ["sweep", *(argument if isinstance(argument, Path) else str(argument) for argument in (*asked, *where))]


SMALL = ("--layer", LAYERS[1], "--layer", LAYERS[0], "--timestep", 501, "--timestep", 51, "--size", 64)


def test_figures_are_those_of_evaluate(work, tmp_path):
    asked = ("sref", work / "Sref", *SMALL, "--size", 128, "--limit", 60, "--json")
    ran = diffsim(*sweep(*asked, "--plot", tmp_path / "curves.png", work=work))
    assert ran.code == 0, ran
    assert "8 settings (2 layers x 2 timesteps x 2 sizes) on 9 pictures: 4 passes a picture" in ran.err
    rows = [json.loads(line) for line in ran.out.splitlines()]
    wanted = [(layer, timestep, size) for size in (64, 128) for layer in LAYERS for timestep in (51, 501)]
    assert [(row["layer"], row["timestep"], row["size"]) for row in rows] == wanted
    specs = [part for row in rows for part in ("--space", f"{TINY}/{row['layer']}@t{row['timestep']}@{row['size']}px")]
    ran = diffsim("evaluate", "sref", work / "Sref", *specs, "--limit", "60", "--cache", tmp_path / "other", "--json")
    evaluated = [json.loads(line) for line in ran.out.splitlines()]
    for row, other in zip(rows, evaluated, strict=True):
        assert all(row[name] == other[name] for name in ("space", "accuracy", "gain", "triplets", "units"))
    assert len({row["accuracy"]["value"] for row in rows}) > 2
    with Image.open(tmp_path / "curves.png") as picture:
        seen = np.asarray(picture.convert("RGB"))
    assert min(seen.shape[:2]) > 300 and (seen[0] == 255).all() and 0.01 < (seen.min(2) < 250).mean() < 0.5


def test_the_table(work):
    ran = diffsim(*sweep("sref", work / "Sref", *SMALL, "--limit", 60, work=work))
    head, *rows = ran.out.decode().splitlines()
    assert head.split() == ["layer", "timestep", "size", "accuracy", "%", "(95", "%)"]
    assert [row.split()[:3] for row in rows[:2]] == [[LAYERS[0], "51", "64"], [LAYERS[0], "501", "64"]]
    assert len(rows) == 4 and all(" to " in row for row in rows)


def test_retrieval_is_swept_by_its_mean_average_precision(work):
    ran = diffsim(*sweep("retrieval", work / "styles.csv", *SMALL, work=work))
    head, *rows = ran.out.decode().splitlines()
    spec = f"{TINY}/{LAYERS[0]}@t51@64px"
    asked = ("--space", spec, "--cache", work / "cache", "--json", "--device", "cpu")
    found = json.loads(diffsim("evaluate", "retrieval", work / "styles.csv", *asked).out)
    assert "mAP" in head and f"{100 * found['mAP']['value']:.1f} (" in rows[0]


def test_every_layer_in_the_order_in_which_a_picture_meets_it():
    points = settings(str(TINY), sizes=(64,), device="cpu")
    names = list(dict.fromkeys(point.layer for point in points))
    network = load_network(TINY, "float32", "cpu")
    assert tuple(names) == network.layers and len(points) == len(names) * len(TIMESTEPS)
    parts = [name.split("_")[0] for name in names]
    assert set(parts) == {"down", "mid", "up"} and parts == sorted(parts)
    assert parse_spec(points[-1].contender.spec).request == points[-1].contender.request
    twice = settings(str(TINY), layers=("mid_block", LAYERS[1]), timesteps=(51, 51), sizes=(64, 64), device="cpu")
    assert [(point.layer, point.timestep, point.size) for point in twice] == [(LAYERS[1], 51, 64)]
    bundled = settings("mini", layers=("mid_block",), device="cpu")  # all its profiles are at one timestep
    assert [point.timestep for point in bundled] == list(TIMESTEPS)
    adapter = str(DATA / "tiny-ip-adapter-plus")
    cross = settings(str(TINY), layers=("mid_block",), timesteps=(51,), sizes=(64,), adapter=adapter, device="cpu")
    assert cross[0].contender.request.settings.variant == "C" and cross[0].contender.spec.endswith("@t51-C@64px")
    with pytest.raises(UnknownModule, match="nowhere"):
        settings(str(TINY), layers=("nowhere",), device="cpu")


def test_every_block_of_a_deep_transformer_has_a_name(tmp_path):
    for make, size in ((tiny_sdxl, 64), (tiny_dit, 64)):
        folder = make(tmp_path / make.__name__)
        network = load_network(folder, "float32", "cpu")
        points = settings(str(folder), timesteps=(51,), sizes=(size,), device="cpu")
        modules = [network.resolve(point.contender.request.settings.taps[0]).module for point in points]
        assert len(points) == len(set(modules)) == len(network.layers) > 1


def test_a_network_without_noise_is_swept_by_its_layers(work, tmp_path):
    vit = make_vit(tmp_path / "vit", "dinov2", PREPROCESSING)
    asked = ("sref", work / "Sref", "--limit", 30, "--json", "--plot", tmp_path / "layers.png")
    ran = diffsim(*sweep(*asked, work=work, model=vit))
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert [(row["layer"], row["timestep"], row["size"]) for row in rows] == [(f"layers.{n}", 0, 32) for n in range(3)]
    with Image.open(tmp_path / "layers.png") as picture:
        assert picture.width > 300
    assert "was trained without noise" in problem(diffsim(*sweep(*asked[:2], "--timestep", 5, work=work, model=vit)))


@pytest.mark.parametrize("timesteps", [(51, 501), (0,)])
def test_svg(tmp_path, timesteps):
    layers = [f"layers.{number}" for number in range(5)]
    points = [Setting(layer, one, 64, None) for layer in layers for one in timesteps]
    figures = [{"value": 0.5, "low": None, "high": None} for _ in points]
    for name in ("a.svg", "b.svg"):
        draw_curves(tmp_path / name, points, figures, "accuracy", "sweep of a & b <c>")
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    text = (tmp_path / "a.svg").read_text()
    assert all(layer in text for layer in layers)  # in comments beside the drawn letters
    assert text == (tmp_path / "b.svg").read_text()


def test_mistakes_get_one_sentence(work, tmp_path):
    def told(*more: object, **how) -> str:
        return problem(diffsim(*sweep("sref", work / "Sref", *more, work=work), **how))

    assert "choose one of" in told("--layer", "nowhere")
    assert ".svg" in told("--plot", tmp_path / "curves.pdf")
    assert "no folder" in told("--plot", tmp_path / "none" / "curves.png")
    assert "no IP-Adapter" in told("--variant", "C", "--ip-adapter", tmp_path / "none")
    missing = {"before": lambda: sys.modules.update(matplotlib=None)}
    assert "pip install 'diffsim-search[plot]'" in told("--plot", tmp_path / "curves.png", **missing)
    assert not list(tmp_path.iterdir())
