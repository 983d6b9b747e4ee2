"""Copies told by sketches: every kind of alteration is a copy, by its name; another picture is none."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from diffsim.retrieval.copies.compare import Groups, Match, Seen, compare
from diffsim.retrieval.copies.kinds import kind_of
from diffsim.retrieval.copies.sketch import Sketch
from diffsim.retrieval.drawings.gallery import draw

FAST = settings(max_examples=25, deadline=None)


def sketch(picture: Image.Image) -> Sketch:
    square = picture.convert("RGB").resize((128, 128), Image.Resampling.LANCZOS, reducing_gap=3)
    return Sketch.of(np.asarray(square), *picture.size)


def match(one: Image.Image, other: Image.Image) -> tuple[Match | None, str | None]:
    """How two pictures agree, and the kind of copy, None for no copy."""
    first, second = sketch(one), sketch(other)
    (found,) = compare([(Seen(first), Seen(second))])
    return found, kind_of(found, first, second) if found is not None and found.is_copy else None


@pytest.fixture(scope="module")
def cat() -> Image.Image:
    return draw("cat", "watercolour", size=320)


def strip(picture: Image.Image, share: float, *, top: bool = False, colour: str = "black") -> Image.Image:
    width, height = picture.size
    more = round(share * height)
    taller = Image.new("RGB", (width, height + more), colour)
    taller.paste(picture, (0, more if top else 0))
    ImageDraw.Draw(taller).text((5, 3 if top else height + 3), "when it is Monday", fill="grey")
    return taller


def cut(picture: Image.Image, left: float, top: float, wide: float, high: float) -> Image.Image:
    width, height = picture.size
    box = (left * width, top * height, (left + wide) * width, (top + high) * height)
    return picture.crop(tuple(map(round, box)))  # type: ignore[arg-type]


def jpeg(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=30)
    return Image.open(file)


def paler(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(ImageEnhance.Color(picture).enhance(0.5)).enhance(0.8)


ALTERED = {
    "jpeg": (jpeg, "resized"),
    "half": (lambda picture: picture.resize((160, 160)), "resized"),
    "crop": (lambda picture: cut(picture, 0.1, 0.1, 0.8, 0.8), "cropped"),
    "mirrored": (ImageOps.mirror, "mirrored"),
    "mirrored crop": (lambda picture: ImageOps.mirror(cut(picture, 0.2, 0.05, 0.8, 0.8)), "mirrored"),
    "paler": (
        lambda picture: ImageEnhance.Brightness(ImageEnhance.Color(picture).enhance(0.5)).enhance(0.8),
        "recoloured",
    ),
    "grey and warm": (lambda picture: ImageOps.colorize(picture.convert("L"), "black", "#ffe0a0"), "recoloured"),
    "caption below": (lambda picture: strip(picture, 0.12), "captioned"),
    "caption above": (lambda picture: strip(picture, 0.2, top=True, colour="white"), "captioned"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_picture_is_a_copy_of_its_kind(cat: Image.Image, name: str) -> None:
    alter, kind = ALTERED[name]
    for one, other in ((cat, alter(cat)), (alter(cat), cat)):
        found, named = match(one, other)
        assert named == kind, (name, found)


@FAST
@given(st.floats(0.8, 0.95), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_any_crop_to_80_percent(share: float, across: float, down: float, mirror: bool) -> None:
    cat = draw("cat", "watercolour", size=320)
    part = cut(cat, across * (1 - share), down * (1 - share), share, share)
    found, kind = match(cat, ImageOps.mirror(part) if mirror else part)
    assert kind == ("mirrored" if mirror else "cropped"), found
    assert found is not None and found.swapped and abs(abs(found.map[0, 0]) - share) < 0.03


@FAST
@given(st.floats(0.06, 0.3), st.booleans(), st.sampled_from(["black", "white", "#335577"]))
def test_any_caption_strip(share: float, top: bool, colour: str) -> None:
    cat = draw("cat", "watercolour", size=320)
    found, kind = match(cat, strip(cat, share, top=top, colour=colour))
    assert kind == "captioned" and found is not None and not found.swapped, found
    assert abs(found.map[1, 1] - 1 / (1 + share)) < 0.02


@pytest.mark.parametrize("other", [("mug", "watercolour"), ("cat", "ink"), ("cat", "neon"), ("boat", "watercolour")])
def test_another_picture_is_no_copy(cat: Image.Image, other: tuple[str, str]) -> None:
    assert match(cat, draw(*other, size=320))[1] is None


def test_a_garment_with_another_print_is_no_copy() -> None:
    """The same outline, ground and place; the middle differs."""
    shirts = []
    for print_of in ("cat", "boat"):
        shirt = Image.new("RGB", (320, 320), "#a02030")
        ImageDraw.Draw(shirt).polygon([(40, 60), (280, 60), (250, 290), (70, 290)], fill="white")
        shirt.paste(draw(print_of, "ink", size=120), (100, 110))
        shirts.append(shirt)
    assert match(*shirts)[1] is None and match(shirts[0], jpeg(shirts[0]))[1] == "resized"


@pytest.mark.parametrize("colour", ["white", "black", "#808080"])
def test_plain_pictures_say_nothing(cat: Image.Image, colour: str) -> None:
    plain = Image.new("RGB", (200, 100), colour)
    assert match(plain, cat)[1] is None and match(cat, plain)[1] is None and match(plain, plain)[1] is None


def test_groups_go_by_their_leader(cat: Image.Image) -> None:
    boat = draw("boat", "ink", size=320)
    shown = [cat, boat, cut(cat, 0.1, 0.1, 0.8, 0.8), ImageOps.mirror(boat), None, strip(cat, 0.1)]
    groups = Groups()
    found = [groups.group(None if picture is None else Seen(sketch(picture))) for picture in shown]
    assert found == [None, None, 0, 1, None, 0]


def test_a_sketch_is_stored_and_read(cat: Image.Image) -> None:
    made = sketch(cat)
    again = Sketch.read(made.record())
    assert (again.width, again.height) == (320, 320) and len(made.record()) < 5000
    assert (again.grey == made.grey).all() and (again.colours == made.colours).all()
    with pytest.raises(ValueError, match="a sketch has"):
        Sketch.read(made.record()[:-1])
