import io
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFont

from diffsim.query.figures.lettering import BOX, FONTS, boxes, fitted, font, lettered
from diffsim.query.figures.sheet import (
    ACCENT,
    CAPTION,
    CELL,
    CELL_GROUND,
    GAP,
    HEADER,
    LABEL,
    MARGIN,
    PER_ROW,
    SMALL,
    SheetExample,
    SheetHit,
    draw_sheet,
)
from diffsim.query.text import telling


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def hits(number: int, by_chance: float | None = 0.5) -> list[SheetHit]:
    return [SheetHit(noise(CELL, CELL, i + 1), i + 1, "4.2", by_chance, f"{i}.png") for i in range(number)]


def cell(sheet: Image.Image, column: int, row: int = 0) -> np.ndarray:
    x = MARGIN + CELL + 2 * GAP + column * (CELL + GAP)
    y = HEADER + row * (CELL + CAPTION + GAP)
    return np.asarray(sheet.crop((x, y, x + CELL, y + CELL)))


def test_query_and_hits_stand_unchanged_in_their_cells() -> None:
    query, neighbours = noise(CELL, CELL), hits(8)
    sheet = draw_sheet([SheetExample(query)], neighbours, "a title")
    assert sheet.mode == "RGB"
    assert (np.asarray(sheet.crop((MARGIN, HEADER, MARGIN + CELL, HEADER + CELL))) == np.asarray(query)).all()
    for i, hit in enumerate(neighbours):
        assert (cell(sheet, i % PER_ROW, i // PER_ROW) == np.asarray(hit.picture)).all()


def test_the_sheet_grows_by_whole_rows() -> None:
    sizes = [
        draw_sheet([SheetExample(noise(9, 9))], hits(n), "").size for n in (0, 3, PER_ROW, PER_ROW + 1, 3 * PER_ROW)
    ]
    row = CELL + CAPTION + GAP
    assert [height - sizes[0][1] for _, height in sizes] == [0, 0, 0, row, 2 * row]
    assert sizes[1][0] < sizes[2][0] == sizes[3][0] == sizes[4][0]


@pytest.mark.parametrize(
    ("size", "covered"),
    [((448, 112), (224, 56)), ((50, 200), (56, 224)), ((4000, 3), (224, 1)), ((1, 1), (224, 224))],
)
def test_pictures_keep_the_ratio_of_their_sides(size: tuple[int, int], covered: tuple[int, int]) -> None:
    red = Image.new("RGB", size, (200, 0, 0))
    shown = cell(draw_sheet([SheetExample(red)], [SheetHit(red, 1, "9.0", None, "red")], ""), 0)
    where = (shown == (200, 0, 0)).all(axis=2)
    assert (int(where.any(axis=0).sum()), int(where.any(axis=1).sum())) == covered
    assert (shown[~where] == CELL_GROUND).all()


def test_hits_are_dimmed_and_marked_from_the_first_that_chance_explains() -> None:
    expected = [0.01, None, 1.0, 1.2, 0.9]
    neighbours = [SheetHit(noise(CELL, CELL, i), i + 1, "0.5", e, "n") for i, e in enumerate(expected)]
    sheet = draw_sheet([SheetExample(noise(CELL, CELL))], neighbours, "")
    same = [bool((cell(sheet, i) == np.asarray(hit.picture)).all()) for i, hit in enumerate(neighbours)]
    assert same == [True, True, True, False, False]
    assert 0.5 * cell(sheet, 2).std() < cell(sheet, 3).std() < 0.75 * cell(sheet, 2).std()  # and can be seen
    # One coloured rule, in the gap before the fourth hit; none where nothing ends.
    red = [x for x in range(sheet.width) if sheet.getpixel((x, HEADER + CELL + 30)) == (196, 77, 44)]
    fourth = MARGIN + CELL + 2 * GAP + 3 * (CELL + GAP)
    assert red
    assert fourth - GAP < min(red) <= max(red) < fourth
    unmarked = np.asarray(draw_sheet([SheetExample(Image.new("RGB", (9, 9)))], hits(0), ""))
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
    odd = SheetHit(noise(20, 10), 1, "nan", math.inf, name)
    file = io.BytesIO()
    draw_sheet([SheetExample(noise(10, 20))], [odd, odd], name).save(file, "PNG")
    with Image.open(file) as picture:
        picture.load()
    drawn, face = fitted(name, 14, CELL)
    assert face.getlength(drawn) <= CELL


def test_names_are_written_in_a_font_that_has_their_letters() -> None:
    assert lettered("cat 12.jpg", 14) == ("cat 12.jpg", font(14))
    for name in ("Привет мир.jpg", "Ελλάδα.jpg", "Ångström été – Straße.jpg"):
        drawn, face = lettered(name, 14)
        found = any(_there(each) for each in FONTS)
        assert (drawn == name and face is not font(14)) if found else not boxes("été")
        assert boxes(name) == (BOX in drawn)


def _there(name: str) -> bool:
    try:
        return ImageFont.truetype(name, 14) is not None
    except OSError:
        return False


def test_without_such_a_font_there_are_look_alikes_and_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffsim.query.figures.lettering.FONTS", ())

    def plain(text: str) -> str:
        return lettered(text, 14)[0]

    assert plain("Ångström été.jpg") == "Angstrom ete.jpg"
    assert plain("Łódź – Straße") == "Lodz - Strasse"
    assert plain("a\u202eb\u200dc\u0301") == "abc"
    assert len(set(plain("日\udcff🎉\x07"))) == 1
    assert plain("x…y") == "x…y"
    assert plain("\u202eété") == "ete"
    assert boxes("Привет") and not boxes("Łódź \udcff 🎉")


def test_a_long_name_keeps_both_its_ends() -> None:
    name, _ = fitted("holiday/2019/" + "very-" * 40 + "0042.jpeg", 14, CELL)
    assert name.startswith("holiday")
    assert name.endswith("0042.jpeg")
    assert "…" in name


def test_what_was_asked_is_drawn() -> None:
    """The box, and what was added and subtracted; the sheet is high enough for all of them."""
    white = Image.new("RGB", (100, 50), "white")
    black = Image.new("RGB", (50, 100))
    examples = [
        SheetExample(black, region=(0.5, 0.5, 0.25, 0.25)),
        *(SheetExample(white, weight) for weight in (1, -0.5, 2, 1, 1)),
    ]
    sheet = draw_sheet(examples, hits(1), "")
    shown = np.asarray(sheet.crop((MARGIN, HEADER, MARGIN + CELL, HEADER + CELL)))
    inside, outside = shown[CELL * 5 // 8, CELL * 9 // 16], shown[CELL // 4, CELL // 2]
    assert (inside == 0).all() and (outside > 100).all()
    edge = (shown == ACCENT).all(axis=2)
    assert np.flatnonzero(edge.any(axis=1)).tolist() == list(range(CELL // 2, CELL // 2 + CELL // 4))
    y = HEADER + CELL + CAPTION + 2 * (SMALL + LABEL) + SMALL // 2
    assert sheet.getpixel((MARGIN + SMALL // 2, y)) == (255, 255, 255) and sheet.height > y + SMALL // 2
    assert draw_sheet(examples[:1], hits(1), "").height < sheet.height


def test_captions_say_which_of_several_files_of_one_name() -> None:
    assert telling(["/a/x/cow.png", "/a/y/cow.png", "/a/y/pig.png"]) == ["x/cow.png", "y/cow.png", "pig.png"]
    assert telling(["/a/x/z/1.png", "/b/x/z/1.png", "/b/q/1.png"]) == ["a/x/z/1.png", "b/x/z/1.png", "q/1.png"]
    assert telling(["/1.png", "/a/1.png"]) == ["/1.png", "a/1.png"]
    assert telling(["a/1.png", "a/1.png"]) == ["1.png", "1.png"] and telling([]) == []
    folders = [replace(hit, folder="in somewhere") for hit in hits(2)]
    tall, plain = (draw_sheet([SheetExample(noise(9, 9))], each, "") for each in (folders, hits(2)))
    assert tall.height > plain.height
