"""Colours: histograms, the feature space `colour`, and the filter by colour."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from indexing import diffsim
from PIL import Image

from diffsim.indexer.requests import requested_spaces
from diffsim.query.colours import BadColour, Colour
from diffsim.query.query import Query
from diffsim.query.search import Searcher
from diffsim.retrieval.colour import histogram, oklab, shares_of
from diffsim.retrieval.settings import InvalidSpace

RED, WHITE, BLUE = (192, 57, 43), (255, 255, 255), (30, 60, 200)


def striped(*colours: tuple[int, int, int]) -> np.ndarray:
    """Stripes of one height."""
    return np.repeat(np.array(colours, np.uint8), 24, axis=0)[:, None].repeat(40, axis=1)


def test_oklab_has_the_published_values() -> None:
    blue, red = (0.45201, -0.03246, -0.31153), (0.62796, 0.22486, 0.12585)
    for rgb, lab in {(255, 255, 255): (1, 0, 0), (255, 0, 0): red, (0, 0, 255): blue}.items():
        assert oklab(np.array(rgb, np.uint8)) == pytest.approx(lab, abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_histogram_knows_colours_and_not_places(seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    found = histogram(pixels)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(found, histogram(np.ascontiguousarray(pixels[::-1].transpose(1, 0, 2))))


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(0, 240)] * 3), st.integers(1, 12))
def test_a_slightly_other_colour_is_nearly_the_same(rgb: tuple[int, int, int], change: int) -> None:
    other = (rgb[0] + change, rgb[1], rgb[2])
    near = histogram(striped(rgb)) @ histogram(striped(other))
    assert near > 0.5 and near >= histogram(striped(rgb)) @ histogram(striped((255 - rgb[0], rgb[1], 255)))


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_a_picture_of_one_colour_has_all_of_it(rgb: tuple[int, int, int]) -> None:
    assert shares_of(histogram(striped(rgb))[None].astype(np.float16), rgb)[0] > 0.6


def test_the_share_of_a_colour_is_how_much_of_the_picture_has_it() -> None:
    rows = np.stack([histogram(striped(RED, WHITE, WHITE, WHITE)), histogram(striped(BLUE, WHITE))]).astype(np.float16)
    assert shares_of(rows, RED) == pytest.approx([0.25, 0], abs=0.03)
    assert shares_of(rows, WHITE) == pytest.approx([0.75, 0.5], abs=0.03)
    assert shares_of(rows, BLUE) == pytest.approx([0, 0.5], abs=0.03)


@pytest.mark.parametrize(
    "text, rgb, share",
    [("#c0392b", RED, 0.1), ("red", (255, 0, 0), 0.1), ("#fff:25%", WHITE, 0.25), (" White : 3 ", WHITE, 0.03)],
)
def test_colours_are_read(text: str, rgb: tuple[int, int, int], share: float) -> None:
    assert Colour.parse(text) == Colour(rgb, pytest.approx(share))


@pytest.mark.parametrize("text", ["", "rde", "#12", "red:0%", "red:101%", "red:much", "red:nan", ":20%", "red:-5"])
def test_what_is_no_colour_is_refused(text: str) -> None:
    with pytest.raises(BadColour, match="cannot be read; write #c0392b"):
        Colour.parse(text)


def test_colour_is_one_space_whatever_the_network() -> None:
    (alone,) = requested_spaces(profiles=["colour"])
    assert (alone.name, alone.settings.variant) == ("colour/colour", "global")
    assert requested_spaces("colour") == [alone] == requested_spaces("lite", ["colour"])
    style, colour = requested_spaces(profiles=["colour", "style"], size=64)
    assert (style.name, style.settings.size, colour) == ("mini/style", 64, alone)
    with pytest.raises(InvalidSpace, match="no layers"):
        requested_spaces(profiles=["colour"], layers=["up_blocks.0"])


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine pictures in three colours, indexed by the command."""
    folder = tmp_path_factory.mktemp("coloured")
    for number in range(3):
        for name, colour in {"red": RED, "blue": BLUE, "grey": (128, 128, 128)}.items():
            pixels = striped(*[colour] * (number + 1), WHITE)
            Image.fromarray(pixels).save(folder / f"{name}{number}.png")
    ran = diffsim("index", folder, "--index", folder / "idx", "--by", "colour")
    assert (ran.code, "9 pictures extracted" in ran.out.decode()) == (0, True), ran.err
    return folder


def test_the_command_finds_and_filters_by_colour(index: Path) -> None:
    asked = ("query", index / "red0.png", "--index", index / "idx", "--by", "colour", "--format", "json")
    rows = [json.loads(line) for line in diffsim(*asked).out.splitlines()]
    assert {Path(row["path"]).name for row in rows[:2]} == {"red1.png", "red2.png"}
    rows = [json.loads(line) for line in diffsim(*asked, "--colour", "#2040d0:40%").out.splitlines()]
    assert {Path(row["path"]).name for row in rows} == {"blue0.png", "blue1.png", "blue2.png"}
    assert diffsim(*asked, "--colour", "#2040d0", "--colour", "red").out == b""
    ran = diffsim(*asked, "--colour", "bleu")
    assert ran.code == 1 and ran.err.startswith("Error: The colour 'bleu' cannot be read")


def test_the_filter_follows_the_index_and_joins_others(index: Path) -> None:
    with Searcher(index / "idx") as searcher:
        from diffsim.db.filters import Filters

        def found(**more: object) -> set[str]:
            query = Query(index / "red0.png", ["colour"], k=20, include_self=True, **more)  # type: ignore[arg-type]
            return {Path(hit.path).name for hit in searcher.answer(query).hits}

        assert found(colours=[Colour(WHITE, 0.4)]) == {"red0.png", "blue0.png", "grey0.png"}
        assert found(colours=["blue:30%", "white:30%"]) == {"blue0.png", "blue1.png"}
        assert found(colours="white", filters=Filters(formats=["jpeg"])) == set()
        Image.fromarray(striped(BLUE)).save(index / "blue3.png")
        assert diffsim("index", "--index", index / "idx").code == 0
        assert "blue3.png" in found(colours=Colour(BLUE, 0.9))
        (index / "blue3.png").unlink()
        assert diffsim("index", "--index", index / "idx").code == 0
        assert found(colours=Colour(BLUE, 0.9)) == set()


def test_an_index_without_colours_says_how_to_get_them(tmp_path: Path) -> None:
    Image.fromarray(striped(RED)).save(tmp_path / "red.png")
    assert diffsim("index", tmp_path, "--index", tmp_path / "idx", "--model", "lite", "--size", "32").code == 0
    ran = diffsim("query", tmp_path / "red.png", "--index", tmp_path / "idx", "--colour", "red")
    assert ran.code == 1 and "`diffsim index --by colour` adds them" in ran.err
