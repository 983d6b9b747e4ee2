"""Cropped pictures, against transformers' own image processors: the same bytes, except of long panoramas, of which only
the middle 16 squares are resized, so that they may be shifted by half a pixel of the file."""

import io
import resource

import numpy as np
import pytest
from conftest import random_picture
from PIL import Image
from transformers import BitImageProcessor, CLIPImageProcessor

from diffsim.retrieval.pictures.decode_pool import Decoded, DecodePool, Job
from diffsim.retrieval.pictures.images import crop_side, decode, seen


def png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def noisy(width: int, height: int) -> Image.Image:
    """Structure and noise, so that a shift of one pixel would show."""
    noise = np.random.default_rng(0).integers(-40, 41, (height, width, 3))
    smooth = np.asarray(random_picture(3, width, height), np.int64)
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("processor", [CLIPImageProcessor, BitImageProcessor])
@pytest.mark.parametrize(("short", "size"), [(224, 224), (256, 224), (36, 32), (33, 32)])
@pytest.mark.parametrize(
    "shape", [(640, 480), (333, 517), (224, 224), (225, 224), (90, 60), (31, 200), (640, 40), (500, 501)]
)
def test_a_crop_is_that_of_transformers(processor: type, shape: tuple[int, int], short: int, size: int) -> None:
    picture = noisy(*shape)
    theirs = processor(
        size={"shortest_edge": short},
        crop_size={"height": size, "width": size},
        resample=Image.Resampling.BICUBIC,
        do_rescale=False,
        do_normalize=False,
    )(picture, return_tensors="np").pixel_values[0]
    ours = decode(png(picture), size, f"crop {short}").pixels
    assert ours.shape == (size, size, 3) and ours.dtype == np.uint8
    assert np.array_equal(ours, theirs.transpose(1, 2, 0))


def test_squash_is_as_before() -> None:
    picture = noisy(90, 60)
    expected = np.asarray(picture.resize((32, 32), Image.Resampling.LANCZOS))
    assert np.array_equal(decode(png(picture), 32).pixels, expected)
    assert np.array_equal(decode(png(picture), 32, "squash").pixels, expected)


def test_the_size_of_the_whole_picture_is_told() -> None:
    decoded = decode(png(noisy(90, 60)), 32, "crop 36")
    assert (decoded.width, decoded.height) == (90, 60)


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_picture_is_cropped_as_it_is_shown(turn: int) -> None:
    """Odd margins, which a crop before the turn would round to the other side: a pixel's shift is some 40 of 255.
    Within 5, because Pillow may resize first across and then down or the other way round."""
    picture, exif, data = noisy(91, 60), Image.Exif(), io.BytesIO()
    exif[0x0112] = turn
    picture.save(data, "PNG", exif=exif)
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
    upright = picture.transpose(Image.Transpose(turns[turn])) if turn > 1 else picture
    turned, saved = (decode(each, 32, "crop 37").pixels.astype(int) for each in (data.getvalue(), png(upright)))
    assert np.abs(turned - saved).max() <= 5


def test_of_a_panorama_the_middle_counts() -> None:
    picture = noisy(2000, 40)
    assert np.array_equal(decode(png(picture), 32, "crop 40").pixels, np.asarray(picture.crop((984, 4, 1016, 36))))


def test_a_panorama_takes_no_more_memory_than_its_middle() -> None:
    data = png(Image.new("RGB", (2_000_000, 2), (10, 20, 30)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (decode(data, 224, "crop 224").pixels == (10, 20, 30)).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KB; the whole would be 150 GB


@pytest.mark.parametrize(("fit", "short"), [("squash", None), ("crop 1", 1), ("crop 256", 256)])
def test_fits(fit: str, short: int | None) -> None:
    assert crop_side(fit) == short


@pytest.mark.parametrize("fit", ["", "crop", "crop 0", "crop 1e3", "crop 256 ", "crop 999999"])
def test_unknown_fits(fit: str) -> None:
    with pytest.raises(ValueError, match="is not a fit"):
        decode(b"", 32, fit)


def test_workers_crop_too(tmp_path) -> None:
    noisy(90, 60).save(tmp_path / "a.png")
    with DecodePool(1, 32, 30, 10**9, "crop 36") as pool:
        (result,) = pool.run([Job(1, bytes(tmp_path / "a.png"), b"")])
    assert isinstance(result, Decoded)
    assert np.array_equal(result.pixels, decode((tmp_path / "a.png").read_bytes(), 32, "crop 36").pixels)


@pytest.mark.parametrize("turn", [1, 6])
def test_a_large_jpeg_is_cropped_at_a_reduced_scale(turn: int) -> None:
    """Decoded at 1/4, still 4 times as large as it will be: as from the whole file within a few of 255."""
    picture, exif, data = random_picture(5, 1201, 901), Image.Exif(), io.BytesIO()
    exif[0x0112] = turn
    picture.save(data, "JPEG", exif=exif, quality=95)
    upright = picture.transpose(Image.Transpose.ROTATE_270) if turn == 6 else picture
    ours, whole = decode(data.getvalue(), 48, "crop 54"), decode(png(upright), 48, "crop 54")
    assert (ours.width, ours.height) == upright.size
    assert np.abs(ours.pixels.astype(int) - whole.pixels.astype(int)).max() <= 6


@pytest.mark.parametrize(
    ("fit", "box"), [("squash", (0, 0, 90, 60)), ("crop 24", (15, 0, 75, 60)), ("crop 32", (22, 7, 67, 52))]
)
def test_what_a_network_is_shown(fit: str, box: tuple[int, int, int, int]) -> None:
    picture = random_picture(3, 90, 60)
    assert np.array_equal(np.asarray(seen(picture, 24, fit)), np.asarray(picture.crop(box)))
