"""Every picture that is shown or scored is decoded in a guarded process, and only while it is what was indexed."""

import io
import os
import signal
import stat
import tempfile
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, random_picture
from indexing import Ran, build, diffsim, draw, problem
from PIL import Image

from diffsim.indexer.index_folder import IndexFolder
from diffsim.query.figures.thumbnails import blank, thumbnail
from diffsim.query.picture_cache import shown_pictures
from diffsim.query.picture_files import picture_file
from diffsim.retrieval.pictures.decode_pool import DecodePool, decode_whole
from diffsim.retrieval.pictures.images import open_picture

SETTINGS = ("--model", TINY, "--size", "64", "--device", "cpu")


def in_time(*arguments: str | Path) -> Ran:
    """The command, ended if it hangs."""
    return diffsim(*arguments, before=lambda: signal.alarm(120))


@pytest.fixture
def replaced(tmp_path: Path) -> Path:
    """An index, and what has taken the place of four of its five pictures since."""
    draw(tmp_path / "pictures", range(5))
    build(tmp_path / "index", tmp_path / "pictures")
    for number in range(1, 5):
        (tmp_path / "pictures" / f"{number:02d}.png").unlink()
    os.mkfifo(tmp_path / "pictures" / "01.png")
    (tmp_path / "pictures" / "02.png").symlink_to("/dev/zero")
    random_picture(50).save(tmp_path / "pictures" / "03.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "pictures" / "04.png")
    return tmp_path


@pytest.mark.parametrize("command", ["query", "compare"])
def test_a_sheet_shows_only_what_was_indexed(replaced: Path, command: str) -> None:
    sheet = replaced / "sheet.png"
    asked = (command, replaced / "pictures" / "00.png", "--index", replaced / "index", "--sheet", sheet)
    ran = in_time(*asked)
    assert ran.code == 0, ran
    with shown_pictures(IndexFolder.open(replaced / "index")) as pictures:
        shown = [pictures.drawn(content_id) for content_id in range(1, 6)]
    assert shown[0] != blank() and shown[0].size == (96, 72)
    assert shown[1:] == [blank()] * 4
    assert not (replaced / "index" / "thumbnails").exists()  # a query writes nothing


def test_a_kept_thumbnail_is_decoded_as_any_file(tmp_path: Path) -> None:
    """Somebody else may have made the index."""
    draw(tmp_path / "pictures", range(2))
    build(tmp_path / "index", tmp_path / "pictures")
    index = IndexFolder.open(tmp_path / "index")
    with shown_pictures(index) as pictures:
        for content_id, data in ((1, b"RIFF\x0d\0\0\0WEBPVP8 none."), (2, None)):
            name = pictures.known(content_id).sha256.hex()
            place = index.thumbnails / name[:2] / f"{name}.webp"
            place.parent.mkdir(parents=True)
            if data is None:
                os.mkfifo(place)
            else:
                place.write_bytes(data)
        assert pictures.drawn(1) == blank()
        assert pictures.drawn(2).size == (96, 72)


@pytest.mark.parametrize("protocol", ["engine", "paper"])
def test_a_pair_is_decoded_under_guard(replaced: Path, protocol: str) -> None:
    first = replaced / "pictures" / "00.png"
    for name, said in (("01.png", "gave nothing"), ("02.png", "is not a file")):
        ran = in_time("score", first, replaced / "pictures" / name, *SETTINGS, "--protocol", protocol)
        assert said in problem(ran)


def test_others_may_read_an_index_as_its_owner_s_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        draw(tmp_path / "pictures", range(3))
        build(tmp_path / "index", tmp_path / "pictures")
    finally:
        os.umask(before)
    written = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "index").rglob("*") if path.is_file()
    }
    assert "space.safetensors" in written
    assert all(mode == 0o644 for name, mode in written.items() if not name.startswith("writer.")), written


def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / name for name in ("wide.jpg", "turned.jpg", "clear.png")]
    random_picture(1, 900, 500).save(made[0], quality=90)
    exif = Image.Exif()
    exif[0x0112] = 6
    random_picture(2, 300, 200).save(made[1], exif=exif)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 4), np.uint8)).save(made[2])
    return made


def test_a_whole_picture_is_the_one_that_pillow_reads(tmp_path: Path) -> None:
    for path in files(tmp_path):
        with picture_file(path) as file:
            found = decode_whole(file.job(), file.name)
        assert np.array_equal(found, open_picture(path.read_bytes())[0]), path


def test_a_picture_in_memory_has_no_name_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process would leave it there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = io.BytesIO()
    random_picture(3).save(data, "PNG")
    with picture_file(data.getvalue()) as file, DecodePool(2, 8) as pool:
        found = [pool.decode_job(file.job(), file.name).pixels for _ in range(3)]
        assert not list(tmp_path.iterdir())
    assert all((each == found[0]).all() for each in found)
    assert np.array_equal(thumbnail(data.getvalue()), open_picture(data.getvalue())[0])
