"""One picture in several feature spaces: rows, JSON Lines, the sheet, and spaces that cannot be asked."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, random_picture
from indexing import FAST, diffsim, draw, problem
from PIL import Image

from diffsim.indexer.build import index_folders
from diffsim.indexer.choose import UnknownSpace
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import requested_spaces
from diffsim.query.compare import NoSpaceAnswers, compare
from diffsim.query.figures.sheet import (
    CAPTION,
    CELL,
    GAP,
    HEADER,
    LABEL,
    MARGIN,
    SheetExample,
    SheetHit,
    draw_comparison,
)
from diffsim.query.query import BadQuery, Query
from diffsim.query.search import Searcher
from diffsim.retrieval.pictures.images import UnreadableImage


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures in two spaces of one network and one of another, whose folder is gone since."""
    folder = tmp_path_factory.mktemp("compare")
    draw(folder / "pictures", range(30))
    gone = Path(shutil.copytree(TINY, folder / "gone"))
    requests = [
        *requested_spaces(str(TINY), ["style", "look"], size=64),
        *requested_spaces(str(gone), ["look"], size=64),
    ]
    # The copy has the same weights; another size makes it a space of its own.
    requests[-1] = requested_spaces(str(gone), ["look"], size=128)[0]
    index_folders(IndexFolder.create(folder / "index"), [folder / "pictures"], requests, FAST)
    shutil.rmtree(gone)
    random_picture(77).save(folder / "outside.png")
    return folder


def asked(work: Path, *options: str | Path, picture: str = "pictures/07.png") -> list[dict]:
    ran = diffsim("compare", work / picture, "--index", work / "index", "--json", "--device", "cpu", *options)
    assert ran.code == 0, ran
    return [json.loads(line) for line in ran.out.splitlines()]


def test_each_space_answers_as_a_query_in_it(work: Path) -> None:
    rows = asked(work)
    assert [row["space"] for row in rows] == ["tiny-sd15/style"] * 4 + ["tiny-sd15/look"] * 4 + ["gone/look"] * 4
    for name in ("tiny-sd15/style", "tiny-sd15/look", "gone/look"):
        options = ("--index", work / "index", "--space", name, "-k", "4", "--format", "json")
        alone = diffsim("query", work / "pictures" / "07.png", *options).out.splitlines()
        assert [{"space": name, **json.loads(line)} for line in alone] == [row for row in rows if row["space"] == name]
    assert str(work / "pictures" / "07.png") not in {row["path"] for row in rows}
    with_self = asked(work, "--include-self", "-k", "1")
    assert {row["path"] for row in with_self} == {str(work / "pictures" / "07.png")} and len(with_self) == 3


def test_the_table_has_a_part_for_each_space_in_the_order_asked_for(work: Path) -> None:
    options = ("--space", "tiny-sd15/look", "--space", "style", "--space", "tiny-sd15/look", "-k", "2")
    ran = diffsim("compare", work / "pictures" / "07.png", "--index", work / "index", *options)
    parts = [part.splitlines() for part in ran.out.decode().split("\n\n")]
    assert [part[0] for part in parts] == ["tiny-sd15/look", "tiny-sd15/style"]
    for part in parts:
        assert part[1].split() == ["rank", "likeness", "by", "chance", "picture"]
        assert [line.split()[0] for line in part[2:] if not line.startswith("--")] == ["1", "2"]
    assert ran.err == ""


def test_a_space_whose_network_is_gone_is_left_out_and_named(work: Path) -> None:
    ran = diffsim("compare", work / "outside.png", "--index", work / "index", "--json", "--device", "cpu")
    assert ran.code == 0, ran
    assert {json.loads(line)["space"] for line in ran.out.splitlines()} == {"tiny-sd15/style", "tiny-sd15/look"}
    assert ran.err.startswith("left out gone/look: ") and ran.err.count("\n") == 1
    ran = diffsim("compare", work / "outside.png", "--index", work / "index", "--space", "gone/look")
    assert "none of the feature spaces; gone/look: " in problem(ran)
    with Searcher(work / "index", "cpu") as searcher, pytest.raises(NoSpaceAnswers):
        compare(searcher, Query(work / "outside.png"), ["gone/look"])


def test_the_pictures_and_the_users_mistakes_end_it(work: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with Searcher(work / "index", "cpu") as searcher:
        for picture, spaces, error in (
            (tmp_path / "none.png", [], BadQuery),
            (tmp_path / "text.png", [], UnreadableImage),
            (work / "outside.png", ["style", "none"], UnknownSpace),
        ):
            with pytest.raises(error):
                compare(searcher, Query(picture), spaces)
    assert "not a picture" in problem(diffsim("compare", tmp_path / "text.png", "--index", work / "index"))


def test_the_sheet(work: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    ran = diffsim("compare", work / "pictures" / "07.png", "--index", work / "index", "--sheet", sheet, "-k", "3")
    assert ran.code == 0 and os.listdir(tmp_path) == ["sheet.png"]
    with Image.open(sheet) as drawn:
        assert drawn.format == "PNG"
        assert drawn.size == (
            2 * MARGIN + CELL + 2 * GAP + 3 * CELL + 2 * GAP,
            HEADER + 3 * (LABEL + CELL + CAPTION) + 2 * GAP + MARGIN,
        )


def test_every_row_stands_in_its_place_and_ends_for_itself() -> None:
    def hits(*chances: float) -> list[SheetHit]:
        return [
            SheetHit(Image.new("RGB", (9, 9), (0, 0, 200 + i)), i + 1, "0.5", by_chance, "name")
            for i, by_chance in enumerate(chances)
        ]

    rows = [("one", hits(2, 3)), ("none", []), ("\u202etwo\udcff", hits(0.1, 0.2, 4))]
    sheet = np.asarray(draw_comparison([SheetExample(Image.new("RGB", (50, 50), "red"))], rows, "title"))

    def middle(row: int, column: int) -> tuple[int, ...]:
        y = HEADER + row * (LABEL + CELL + CAPTION + GAP) + LABEL + CELL // 2
        return tuple(sheet[y, MARGIN + CELL + 2 * GAP + column * (CELL + GAP) + CELL // 2].tolist())

    assert tuple(sheet[HEADER + LABEL + CELL // 2, MARGIN + CELL // 2]) == (255, 0, 0)
    assert middle(2, 0) == (0, 0, 200) and middle(2, 1) == (0, 0, 201)
    assert all(min(middle(*place)) > 60 for place in ((0, 0), (0, 1), (2, 2)))  # dimmed
    blank = draw_comparison([SheetExample(Image.new("RGB", (5, 5)))], [], "")
    assert blank.width > CELL
