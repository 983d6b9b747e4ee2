"""RAW, JPEG XL and SVG: pixels, sizes, orientation, dates and profiles against a known truth; hostile files; what is
said where their packages are missing; and indexed by the real run, shown by the page."""

import base64
import gzip
import io
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from indexing import Ran, build, diffsim
from odd_formats import dng, jxl, svg
from PIL import Image
from test_retrieval_images import encoded, gradient
from test_retrieval_odd_pictures import ADOBE, detailed, in_space, profile
from torture_pictures import mutated
from webs import client

from diffsim.indexer.walk import Skipped, walk
from diffsim.retrieval.pictures import extras
from diffsim.retrieval.pictures.decode_pool import Decoded, DecodePool, Failed, Job
from diffsim.retrieval.pictures.images import UnreadableImage, decode, open_picture

pylibjxl = pytest.importorskip("pylibjxl")
pytest.importorskip("rawpy")
pytest.importorskip("resvg_py")

PICTURE = gradient(96, 64)
SMALL = PICTURE.resize((48, 32))
DATE = 1580731200 * 10**9
SEEDS = {".dng": dng(PICTURE), ".nef": dng(PICTURE, preview=SMALL), ".svg": svg(PICTURE), ".jxl": jxl(PICTURE)}
FORMATS = {".dng": "RAW", ".nef": "RAW", ".svg": "SVG", ".jxl": "JXL"}


def corners(picture: Image.Image) -> list[list[int]]:
    width, height = picture.size
    inside = [(width // 10, height // 10), (-width // 10, height // 10), (width // 10, -height // 10)]
    return [list(picture.getpixel((x % width, y % height))) for x, y in inside]  # type: ignore[arg-type]


def far(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.array(corners(one)) - np.array(corners(other))).max())


# ------------------------------------------------------------------------------------------- what they show


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
@pytest.mark.parametrize("preview", [None, SMALL, PICTURE.resize((24, 16))], ids=["none", "useful", "too small"])
def test_raw_is_upright_and_as_large_as_the_sensor(preview: Image.Image | None, turn: int) -> None:
    data = dng(PICTURE, preview=preview, turn=turn)
    shown, name = open_picture(data)
    truth = PICTURE.rotate({1: 0, 3: 180, 6: -90, 8: 90}[turn], expand=True)
    found = decode(data, 16)
    assert (name, found.width, found.height, found.taken_ns) == ("RAW", *truth.size, DATE)
    assert far(shown, truth) < 25


def test_a_raw_preview_is_shown_rather_than_the_sensor() -> None:
    other = Image.new("RGB", (48, 32), "red")
    assert far(open_picture(dng(PICTURE, preview=other))[0], other) < 25
    tiny = Image.new("RGB", (24, 16), "red")
    assert far(open_picture(dng(PICTURE, preview=tiny))[0], PICTURE) < 25
    square = decode(dng(PICTURE, preview=Image.new("RGB", (64, 64), "red")), 16)
    assert (square.width, square.height) == (64, 64)  # it does not show all that the sensor saw


def test_jpeg_xl_has_its_turn_its_date_and_its_profile() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0132] = 6, "2020:02:03 12:00:00"
    assert far(open_picture(SEEDS[".jxl"])[0], PICTURE) == 0
    by_exif = decode(jxl(PICTURE, exif=exif.tobytes()), 16)  # which has no say in it
    assert (by_exif.width, by_exif.height, by_exif.taken_ns) == (96, 64, DATE)
    photo = encoded(PICTURE, "JPEG", exif=exif, quality=95)
    assert far(open_picture(pylibjxl.jpeg_to_jxl(photo))[0], open_picture(photo)[0]) < 5
    other = in_space(detailed(96, 64, 2), ADOBE, 2.2)
    truth = np.asarray(detailed(96, 64, 2)).astype(int)
    shown = open_picture(jxl(other, icc=profile(ADOBE, 2.2)))[0]
    assert np.abs(np.asarray(shown) - truth).mean() < 2 < np.abs(np.asarray(other) - truth).mean()
    clear = pylibjxl.encode(np.dstack([np.array(PICTURE), np.zeros((64, 96), np.uint8)]), lossless=True)
    assert corners(open_picture(clear)[0]) == [[255, 255, 255]] * 3
    grey = PICTURE.convert("L")
    assert far(open_picture(pylibjxl.encode(np.array(grey), lossless=True))[0], grey.convert("RGB")) == 0


def test_svg_is_drawn_on_white_with_its_longer_side_of_1024() -> None:
    shown, name = open_picture(SEEDS[".svg"])
    assert (name, shown.size) == ("SVG", (1024, 1024))
    assert far(shown, PICTURE.resize((12, 12))) < 40
    assert open_picture(gzip.compress(SEEDS[".svg"]))[0].tobytes() == shown.tobytes()
    assert open_picture(drawing("<circle r='1'/>", width=30, height=60))[0].size == (512, 1024)
    declared = b'<?xml version="1.0" encoding="ISO-8859-1"?><!-- \xe4 --><!DOCTYPE svg [<!ENTITY c "lime">]>'
    assert colour(declared + drawing('<rect width="9" height="9" fill="&c;"/>')) == (0, 255, 0)


# ------------------------------------------------------------------------------------------- hostile drawings


def drawing(content: str, *, width: float = 9, height: float = 9) -> bytes:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}">{content}</svg>'
    ).encode()


def colour(data: bytes) -> tuple[int, ...]:
    """Of the middle."""
    shown = open_picture(data)[0]
    return shown.getpixel((shown.width // 2, shown.height // 2))  # type: ignore[return-value]


def test_a_drawing_reaches_nothing_outside(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.new("RGB", (9, 9), "red").save(secret)
    inline = "data:image/png;base64," + base64.b64encode(secret.read_bytes()).decode()
    image = '<image {}="{}" width="9" height="9"/>'
    assert colour(drawing(image.format("href", inline))) == (255, 0, 0)
    nested = base64.b64encode(drawing(image.format("href", secret))).decode()
    for link in (
        secret,
        f" {secret}",
        secret.as_uri(),
        "http://127.0.0.1:9/x.png",
        f"data:image/svg+xml;base64,{nested}",
    ):
        for name in ("href", "xlink:href"):
            assert colour(drawing(image.format(name, link))) == (255, 255, 255)
    painted = f'<filter id="f"><feImage href="{secret}"/></filter><rect width="9" height="9" filter="url(#f)"/>'
    assert colour(drawing(painted)) != (255, 0, 0)
    style = f'<style>@import url("{secret.as_uri()}"); rect {{fill: lime}}</style><rect width="9" height="9"/>'
    assert colour(drawing(style)) == (0, 255, 0)
    script = '<script>while (true) {}</script><rect width="9" height="9" fill="blue"/>'
    assert colour(drawing(script)) == (0, 0, 255)


GROWING = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
HOSTILE_DRAWINGS = {
    "entities that grow": (
        f'<!DOCTYPE svg [<!ENTITY a0 "{"a" * 99}">{GROWING}]>'.encode() + drawing("<text>&a11;</text>"),
        "amplification",
    ),
    "an outer entity": (
        b'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + drawing("<text>&x;</text>"),
        "undefined entity &x;",
    ),
    "deep": (drawing("<g>" * 100_000 + "</g>" * 100_000), "nested more than 200 deep"),
    "zip bomb": (gzip.compress(drawing(" " * (1 << 27))), "more than 64 MB"),
    "cut off": (drawing("<rect/>")[:-9], "damaged"),
    "HTML": (b"<html>" + drawing("") + b"</html>", "not a picture"),
    "cut zip": (gzip.compress(drawing("<rect/>"))[:-40], "not a picture|damaged"),
}


@pytest.mark.parametrize("name", HOSTILE_DRAWINGS)
def test_hostile_drawings_have_a_reason(name: str) -> None:
    data, reason = HOSTILE_DRAWINGS[name]
    with pytest.raises(UnreadableImage, match=reason):
        decode(data, 8)


def test_a_drawing_may_say_that_it_is_huge() -> None:
    assert open_picture(drawing("<rect width='1e9' height='1e9'/>", width=1e9, height=1e9))[0].size == (1024, 1024)


# ------------------------------------------------------------------------------------------- hostile pictures


def huge_jxl(side: int) -> bytes:
    """The header of a picture so large, and little more."""
    bits = "0" + "11" + f"{side - 1:030b}"[::-1] + "000" + "11" + f"{side - 1:030b}"[::-1] + "1"
    packed = int(bits[::-1], 2).to_bytes(len(bits) // 8 + 1, "little")
    return b"\xff\x0a" + packed + bytes(64)


def with_sides(data: bytes, width: int, height: int) -> bytes:
    """A DNG that claims another size."""
    changed = bytearray(data)
    for place in range(10, 10 + 12 * struct.unpack_from("<H", data, 8)[0], 12):
        (tag,) = struct.unpack_from("<H", data, place)
        if tag in (256, 257):
            struct.pack_into("<I", changed, place + 8, width if tag == 256 else height)
    return bytes(changed)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (huge_jxl(30_000), "900 megapixels, over the limit of 500"),
        (with_sides(SEEDS[".dng"], 30_000, 30_000), "900 megapixels, over the limit of 500"),
        (with_sides(SEEDS[".dng"], 20_000, 20_000), "cut off"),
        (with_sides(SEEDS[".dng"], 0, 64), "damaged"),
        (with_sides(SEEDS[".dng"], 2**32 - 1, 2**32 - 1), "damaged"),
        (SEEDS[".dng"][:-6000], "cut off"),
        (SEEDS[".jxl"][:-60], "damaged"),
        (b"\xff\x0a", "damaged"),
        (b"FUJIFILMCCD-RAW" + bytes(200), "damaged"),
        (b"\0\0\0\x18ftypcrx " + bytes(200), "damaged"),
    ],
)
def test_hostile_pictures_have_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason):
        decode(data, 8)


@pytest.mark.parametrize("suffix", SEEDS)
def test_damage_costs_one_file_only(suffix: str, tmp_path: Path) -> None:
    chance = random.Random(7)
    jobs = []
    for number in range(20):
        file = tmp_path / f"{number}{suffix}"
        file.write_bytes(mutated(SEEDS[suffix], chance) if number % 4 else SEEDS[suffix])
        jobs.append(Job(number, bytes(file), b""))
    with DecodePool(1, 16, timeout_s=30, memory_bytes=10**9) as pool:
        results = {result.job.content_id: result for result in pool.run(jobs)}
    for number, result in results.items():
        if number % 4:
            assert isinstance(result, Decoded) or (isinstance(result, Failed) and result.reason)
        else:
            assert isinstance(result, Decoded) and result.format == FORMATS[suffix]


# ------------------------------------------------------------------------------------------- without the packages


@pytest.mark.parametrize(("suffix", "extra"), [(".dng", "raw"), (".nef", "raw"), (".svg", "svg"), (".jxl", "jxl")])
def test_without_its_package_a_file_names_the_remedy(
    suffix: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(extras, "_is_there", lambda module: False)
    remedy = f"which need one more package: pip install 'diffsim-search[{extra}]'"
    with pytest.raises(UnreadableImage, match="one of .*" + remedy.replace("[", r"\[")):
        decode(SEEDS[suffix], 8)
    (tmp_path / f"a{suffix.upper()}").write_bytes(SEEDS[suffix])
    (skipped,) = walk(bytes(tmp_path))
    assert isinstance(skipped, Skipped) and skipped.reason.endswith(remedy)


# ------------------------------------------------------------------------------------------- as a user has them


def test_they_are_indexed_found_and_shown(tmp_path: Path) -> None:
    folder, index = tmp_path / "pictures", tmp_path / "index"
    folder.mkdir()
    PICTURE.save(folder / "a.png")
    for number, (suffix, data) in enumerate(SEEDS.items()):
        (folder / f"{number}{suffix}").write_bytes(data)
    (folder / "empty.svg").touch()
    (folder / "wrong.jxl").write_bytes(SEEDS[".svg"] + b"\n")  # known by its content
    (folder / "wrong.cr2").write_bytes(b"no picture")
    report = build(index, folder)
    assert report.account.indexed == 6
    assert {Path(path.decode()).name: reason for path, reason in report.account.failures} == {
        "empty.svg": "the file is empty",
        "wrong.cr2": "not a picture, or in a format that is not read here",
    }
    asked = ("query", folder / "a.png", "--index", index, "--device", "cpu", "--format", "paths", "--type")
    assert names(diffsim(*asked, "raw")) == {"0.dng", "1.nef"}
    assert names(diffsim(*asked, "jpegxl")) == {"3.jxl"}
    assert names(diffsim(*asked, "svg")) == {"2.svg", "wrong.jxl"}
    with client(index) as asker:
        for row in asker.get("/api/pictures").json()["items"]:
            for kind in ("thumbnails", "previews"):
                answer = asker.get(f"/{kind}/{row['id']}")
                assert answer.status_code == 200 and answer.headers["content-type"] == "image/webp"
                with Image.open(io.BytesIO(answer.content)) as shown:
                    assert far(shown.convert("RGB"), PICTURE) < 60
        uploaded = asker.post("/api/uploads", content=SEEDS[".nef"] + b"\0")
        assert uploaded.status_code == 201 and (uploaded.json()["width"], uploaded.json()["height"]) == (96, 64)


def names(ran: Ran) -> set[str]:
    assert ran.code == 0, ran.err
    return {Path(line).name for line in ran.out.decode().splitlines()}
