import io
import math

import numpy as np
import pytest
from PIL import Image

from diffsim.query.figures.sheet import (
    CAPTION,
    CELL,
    CELL_GROUND,
    GAP,
    HEADER,
    MARGIN,
    PER_ROW,
    SheetHit,
    draw_sheet,
    fitted,
    font,
    plain,
)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def hits(number: int, by_chance: float | None = 0.5) -> list[SheetHit]:
    return [SheetHit(noise(CELL, CELL, i + 1), i + 1, 0.9, by_chance, f"{i}.png") for i in range(number)]


def cell(sheet: Image.Image, column: int, row: int = 0) -> np.ndarray:
    x = MARGIN + CELL + 2 * GAP + column * (CELL + GAP)
    y = HEADER + row * (CELL + CAPTION + GAP)
    return np.asarray(sheet.crop((x, y, x + CELL, y + CELL)))


def test_query_and_hits_stand_unchanged_in_their_cells() -> None:
    query, neighbours = noise(CELL, CELL), hits(8)
    sheet = draw_sheet(query, neighbours, "a title")
    assert sheet.mode == "RGB"
    assert (np.asarray(sheet.crop((MARGIN, HEADER, MARGIN + CELL, HEADER + CELL))) == np.asarray(query)).all()
    for i, hit in enumerate(neighbours):
        assert (cell(sheet, i % PER_ROW, i // PER_ROW) == np.asarray(hit.picture)).all()


def test_the_sheet_grows_by_whole_rows() -> None:
    sizes = [draw_sheet(noise(9, 9), hits(n), "").size for n in (0, 3, PER_ROW, PER_ROW + 1, 3 * PER_ROW)]
    row = CELL + CAPTION + GAP
    assert [height - sizes[0][1] for _, height in sizes] == [0, 0, 0, row, 2 * row]
    assert sizes[1][0] < sizes[2][0] == sizes[3][0] == sizes[4][0]


@pytest.mark.parametrize(
    ("size", "covered"),
    [((448, 112), (224, 56)), ((50, 200), (56, 224)), ((4000, 3), (224, 1)), ((1, 1), (224, 224))],
)
def test_pictures_keep_the_ratio_of_their_sides(size: tuple[int, int], covered: tuple[int, int]) -> None:
    red = Image.new("RGB", size, (200, 0, 0))
    shown = cell(draw_sheet(red, [SheetHit(red, 1, 1.0, None, "red")], ""), 0)
    where = (shown == (200, 0, 0)).all(axis=2)
    assert (int(where.any(axis=0).sum()), int(where.any(axis=1).sum())) == covered
    assert (shown[~where] == CELL_GROUND).all()


def test_hits_are_dimmed_and_marked_from_the_first_that_chance_explains() -> None:
    expected = [0.01, None, 1.0, 1.2, 0.9]
    neighbours = [SheetHit(noise(CELL, CELL, i), i + 1, 0.5, e, "n") for i, e in enumerate(expected)]
    sheet = draw_sheet(noise(CELL, CELL), neighbours, "")
    same = [bool((cell(sheet, i) == np.asarray(hit.picture)).all()) for i, hit in enumerate(neighbours)]
    assert same == [True, True, True, False, False]
    assert cell(sheet, 3).std() < 0.5 * cell(sheet, 2).std()
    # One coloured rule, in the gap before the fourth hit; none where nothing ends.
    red = [x for x in range(sheet.width) if sheet.getpixel((x, HEADER + CELL + 30)) == (196, 77, 44)]
    fourth = MARGIN + CELL + 2 * GAP + 3 * (CELL + GAP)
    assert red
    assert fourth - GAP < min(red) <= max(red) < fourth
    unmarked = np.asarray(draw_sheet(Image.new("RGB", (9, 9)), hits(0), ""))
    assert not (unmarked == (196, 77, 44)).all(axis=2).any()


ODD_NAMES = [
    "",
    "a" * 5000,
    "日本語の写真 — été.jpg",
    "\u202egnp.exe\u202c",
    "new\nline\r\x00\x1b[31m\x7f.png",
    b"caf\xe9\xff.jpg".decode("utf-8", "surrogateescape"),
    "👩\u200d👩\u200d👧 family 🎉",
    "عربي/صورة.jpg",
    "e" + "\u0301" * 300,
    "\ud800",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_file_name_can_be_shown(name: str) -> None:
    odd = SheetHit(noise(20, 10), 1, math.nan, math.inf, name)
    file = io.BytesIO()
    draw_sheet(noise(10, 20), [odd, odd], name).save(file, "PNG")
    with Image.open(file) as picture:
        picture.load()
    assert font(14).getlength(fitted(name, font(14), CELL)) <= CELL


def test_names_are_written_in_the_glyphs_there_are() -> None:
    assert plain("Ångström été.jpg") == "Angstrom ete.jpg"
    assert plain("Łódź – Straße") == "Lodz - Strasse"
    assert plain("a\u202eb\u200dc\u0301") == "abc"
    assert len(set(plain("日\udcff🎉\x07"))) == 1
    assert plain("x…y") == "x…y"
    assert fitted("\u202eété", font(14), CELL) == "ete"


def test_a_long_name_keeps_both_its_ends() -> None:
    name = fitted("holiday/2019/" + "very-" * 40 + "0042.jpeg", font(14), CELL)
    assert name.startswith("holiday")
    assert name.endswith("0042.jpeg")
    assert "…" in name
