"""What commands write beside their answers: never over what is somebody else's, complete or not at all, in the kind of
the suffix; and refused before the work."""

import os
import shutil
from pathlib import Path

import pytest
from conftest import DATA, TINY, random_picture
from indexing import build, diffsim, draw, problem
from PIL import Image

IMAGES = DATA / "images"
SETTINGS = ("--model", TINY, "--size", "64", "--device", "cpu")


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    draw(folder / "pictures", range(3))
    build(folder / "index", folder / "pictures")
    return folder


def commands(work: Path) -> list[tuple[str | Path, ...]]:
    first = work / "pictures" / "00.png"
    return [
        ("query", first, "--index", work / "index", "--sheet"),
        ("compare", first, "--index", work / "index", "--sheet"),
        ("score", IMAGES / "a.png", IMAGES / "b.png", *SETTINGS, "--heatmap"),
        ("sweep", "sref", work, "--plot"),
        ("evaluate", "sref", work, "--save-triplets"),
    ]


@pytest.mark.parametrize("number", range(5))
def test_nothing_goes_over_somebody_else_s_file(indexed: Path, tmp_path: Path, number: int) -> None:
    command = commands(indexed)[number]
    photo = tmp_path / ("photo.csv" if number == 4 else "photo.png")
    random_picture(9).save(photo, "PNG")
    before = photo.read_bytes()
    assert "--force" in problem(diffsim(*command, photo))
    os.mkfifo(tmp_path / f"pipe{photo.suffix}")
    (tmp_path / f"folder{photo.suffix}").mkdir()
    (tmp_path / f"link{photo.suffix}").symlink_to(photo)
    (tmp_path / f"dangling{photo.suffix}").symlink_to(tmp_path / "nothing")
    for name in ("pipe", "folder", "link", "dangling"):
        assert name in problem(diffsim(*command, tmp_path / f"{name}{photo.suffix}", *(["--force"] * (name != "link"))))
    for name, said in (("none/sheet.png", "no folder"), ("sheet.xyz", "end it in .")):
        assert said in problem(diffsim(*command, tmp_path / name.replace(".png", photo.suffix)))
    assert photo.read_bytes() == before and len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize(("name", "kind"), [("sheet.png", "PNG"), ("sheet.jpg", "JPEG"), ("SHEET.JPEG", "JPEG")])
def test_a_sheet_is_of_the_kind_of_its_name_and_may_be_drawn_again(
    indexed: Path, tmp_path: Path, name: str, kind: str
) -> None:
    for command in commands(indexed)[:3]:
        ran = diffsim(*command, tmp_path / name)
        assert ran.code == 0 and ran.out, ran
        with Image.open(tmp_path / name) as drawn:
            drawn.load()
            assert drawn.format == kind
        assert os.listdir(tmp_path) == [name]
    random_picture(9).save(tmp_path / name, kind)
    assert diffsim(*command, tmp_path / name, "--force").code == 0
    assert diffsim(*command, tmp_path / name).code == 0


def test_a_sheet_that_is_in_the_index_stays(tmp_path: Path) -> None:
    draw(tmp_path / "pictures", range(3))
    build(tmp_path / "index", tmp_path / "pictures")
    sheet = tmp_path / "pictures" / "sheet.png"
    asked = ("query", tmp_path / "pictures" / "00.png", "--index", tmp_path / "index", "--sheet", sheet)
    assert diffsim(*asked).code == 0
    build(tmp_path / "index", tmp_path / "pictures")
    assert "picture of the index" in problem(diffsim(*asked))
    assert diffsim(*asked, "--force").code == 0


@pytest.mark.parametrize("piped", ["-", "/dev/stdin", "pipe"])
def test_a_picture_may_come_through_a_pipe(indexed: Path, tmp_path: Path, piped: str) -> None:
    """As `diffsim query - < cat.png` and `diffsim query <(curl ADDRESS)`."""
    picture = indexed / "pictures" / "01.png"
    options = ("--index", indexed / "index", "--format", "json", "--include-self")  # a pipe is no file of the index
    plain = diffsim("query", picture, *options)
    asked = ("query", piped if piped != "pipe" else "/dev/fd/0", *options)

    def pipe() -> None:
        read, write = os.pipe()
        if os.fork() == 0:
            os.close(read)
            with open(write, "wb") as end:
                end.write(picture.read_bytes())
            os._exit(0)
        os.close(write)
        os.dup2(read, 0)
        import sys

        sys.stdin = open(0, encoding="utf-8", closefd=False)

    ran = diffsim(*asked, "--sheet", tmp_path / "sheet.png", before=pipe)
    assert ran.code == 0 and ran.out == plain.out and ran.out, ran
    with Image.open(tmp_path / "sheet.png") as drawn:
        assert drawn.width > 500
    scored = diffsim("score", piped if piped != "pipe" else "/dev/fd/0", picture, *SETTINGS, before=pipe)
    assert scored.code == 0 and scored.out.startswith(b"1.0000"), scored


def test_what_gives_no_picture_is_told(indexed: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    index = ("--index", indexed / "index")

    def closed() -> None:
        import sys

        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = open(0, encoding="utf-8", closefd=False)

    assert "gave nothing" in problem(diffsim("query", "-", *index, before=closed))
    assert "gave nothing" in problem(diffsim("query", tmp_path / "pipe", *index))
    address = "https://example.org/a//cat.png"
    for command in (("query", address), ("compare", address), ("query", "-", "--add", address)):
        assert f"{address} is an address" in problem(diffsim(*command, *index, before=lambda: None))


def test_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        shutil.copy(IMAGES / f"{'ab'[number]}.png", tmp_path / name / "cat.png")
    ran = diffsim("score", tmp_path / "a" / "cat.png", tmp_path / "b" / "cat.png", *SETTINGS)
    assert [line.split("  ")[1] for line in ran.out.decode().splitlines()[1:]] == [
        "a/cat.png rebuilt from b/cat.png",
        "b/cat.png rebuilt from a/cat.png",
    ]
