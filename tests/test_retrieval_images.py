"""Bytes to pixels: formats, modes and orientations against a computed truth; damage ends in UnreadableImage only."""

import io
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffsim.retrieval.pictures import images
from diffsim.retrieval.pictures.images import UnreadableImage, decode, open_picture

EXIF_ORIENTATION = 0x0112
# How a camera stores the picture that is to be shown, by the standard's words on its first row and first column.
STORED_AS = {
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.swapaxes(0, 1),
    6: lambda shown: np.rot90(shown),
    7: lambda shown: shown[::-1, ::-1].swapaxes(0, 1),
    8: lambda shown: np.rot90(shown, -1),
}
BROKEN_EXIF = [b"", b"nonsense", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff\x01"]


def gradient(width: int = 48, height: int = 32) -> Image.Image:
    """A smooth picture whose corners all differ, so that no turn or mirror image goes unseen."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return Image.fromarray((np.stack([x, y, (1 - x) * (1 - y)], axis=-1) * 255).astype(np.uint8))


def encoded(picture: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format_name, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    picture, _ = open_picture(data)
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def png_bytes(rows: np.ndarray, bit_depth: int, colour_type: int) -> bytes:
    """A PNG written by hand (Pillow cannot save 16-bit RGB); `rows`: uint16 big-endian [H, W, channels]."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = rows.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    end = chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end


def test_decode_is_the_lanczos_resize_of_the_whole_picture():
    picture = gradient()
    decoded = decode(encoded(picture, "PNG"), 16)
    assert np.array_equal(decoded.pixels, np.asarray(picture.resize((16, 16), Image.Resampling.LANCZOS)))
    assert decoded.pixels.dtype == np.uint8
    assert (decoded.format, decoded.width, decoded.height) == ("PNG", 48, 32)


@pytest.mark.parametrize(
    "format_name", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "ICO", "PPM", "TGA", "QOI"]
)
def test_every_format_is_read_by_its_content(format_name):
    decoded = decode(encoded(gradient(), format_name), 8)
    assert decoded.format == format_name
    truth = np.asarray(gradient().resize((8, 8), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(decoded.pixels - truth).mean() < 12


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_undone(format_name, orientation):
    stored = Image.fromarray(np.ascontiguousarray(STORED_AS[orientation](np.asarray(gradient()))))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    decoded = pixels(encoded(stored, format_name, exif=exif))
    truth = np.asarray(gradient()).astype(int)
    assert decoded.shape == truth.shape
    assert np.abs(decoded - truth).mean() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("side", [24, 48, 200])
def test_a_picture_inside_a_square_keeps_its_shape_and_is_never_enlarged(orientation, side):
    stored = Image.fromarray(np.ascontiguousarray(STORED_AS[orientation](np.asarray(gradient()))))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    decoded = decode(encoded(stored, "PNG", exif=exif), side, "inside")
    width, height = images.inside_size(48, 32, side)
    assert (width, height) == ((24, 16) if side == 24 else (48, 32))
    assert (decoded.width, decoded.height) == (48, 32) and decoded.pixels.shape == (side, side, 3)
    truth = np.asarray(gradient().resize((width, height), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(decoded.pixels[:height, :width] - truth).max() <= 1
    assert (decoded.pixels[height:] == 255).all() and (decoded.pixels[:, width:] == 255).all()


@pytest.mark.parametrize("orientation", [0, 9, 99])
def test_an_invalid_orientation_is_ignored(orientation):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    assert np.array_equal(pixels(encoded(gradient(), "PNG", exif=exif)), np.asarray(gradient()))


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", BROKEN_EXIF)
def test_a_broken_exif_block_is_ignored(format_name, exif):
    assert pixels(encoded(gradient(), format_name, exif=b"Exif\0\0" + exif)).shape == (32, 48, 3)


def test_a_broken_colour_profile_is_ignored():
    assert np.array_equal(pixels(encoded(gradient(), "PNG", icc_profile=b"nonsense")), np.asarray(gradient()))


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled(format_name):
    ramp = np.linspace(0, 65535, 48 * 32).reshape(32, 48).astype(np.uint16)
    truth = np.rint(ramp / 257)[:, :, None]
    assert np.abs(pixels(encoded(Image.fromarray(ramp), format_name)) - truth).max() <= 1


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_colour_and_alpha_are_scaled(colour_type, channels):
    ramp = np.linspace(0, 65535, 32 * 48 * channels).reshape(32, 48, channels)
    truth = ramp[:, :, :3] if channels > 2 else ramp[:, :, :1]
    if channels in (2, 4):
        alpha = ramp[:, :, -1:] / 65535
        truth = truth * alpha + 65535 * (1 - alpha)
    assert np.abs(pixels(png_bytes(ramp.astype(">u2"), 16, colour_type)) - truth / 257).max() <= 2


@pytest.mark.parametrize(
    ("values", "black", "white"),
    [
        (np.linspace(0, 1, 600, dtype=np.float32), 0, 1),
        (np.linspace(0, 255, 600, dtype=np.float32), 0, 255),
        (np.linspace(-3000, 9000, 600, dtype=np.float32), -3000, 9000),
        (np.linspace(0, 65535, 600, dtype=np.int32), 0, 65535),
        (np.linspace(-70000, 5_000_000, 600, dtype=np.int32), -70000, 5_000_000),
    ],
)
def test_floats_and_wide_integers_are_scaled(values, black, white):
    rows = np.repeat(values[:, None], 3, axis=1)  # more rows than are scaled at once
    truth = (rows.astype(float) - black) / (white - black) * 255
    assert np.abs(pixels(encoded(Image.fromarray(rows), "TIFF")) - truth[:, :, None]).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -5.0])
def test_a_float_picture_without_a_range_is_still_a_picture(value):
    assert pixels(encoded(Image.fromarray(np.full((4, 4), value, np.float32)), "TIFF")).shape == (4, 4, 3)


def test_cmyk_is_not_inverted():
    # JPEG stores CMYK inverted, as Adobe does and Pillow assumes; TIFF stores it plainly
    for format_name in ("JPEG", "TIFF"):
        data = encoded(gradient().convert("CMYK"), format_name)
        assert np.abs(pixels(data) - np.asarray(gradient()).astype(int)).mean() < 6


def test_transparency_lies_on_white():
    grey = Image.new("L", (4, 4), 100)
    half = Image.merge("LA", [grey, Image.new("L", (4, 4), 128)])
    assert np.abs(pixels(encoded(half, "PNG")) - (100 * 128 + 255 * 127) / 255).max() <= 1
    hidden = Image.new("RGBA", (4, 4), (255, 0, 0, 0))  # red garbage under full transparency
    assert (pixels(encoded(hidden, "PNG")) == 255).all()
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    palette.paste(0, (0, 0, 2, 4))
    for format_name in ("PNG", "GIF"):
        decoded = pixels(encoded(palette, format_name, transparency=0))
        assert (decoded[:, :2] == 255).all() and (decoded[:, 2:] == [10, 200, 30]).all()
    coloured_key = encoded(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert (pixels(coloured_key) == 255).all()


# ------------------------------------------------------------------------------------------- reduced scale


def detailed(width: int, height: int, seed: int) -> Image.Image:
    """Structure of every size, as in a photograph: noise whose power falls with the frequency."""
    generator = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(generator.random((side, side, 3), np.float32).mean(2)).resize((width, height)))
        for side in (3, 9, 27, 81, 243)
    ]
    grey = sum(layer / (1 + number) for number, layer in enumerate(layers))
    tint = np.stack([grey, grey[::-1], grey[:, ::-1]], axis=-1)
    return Image.fromarray(np.uint8(255 * (tint - tint.min()) / np.ptp(tint)))


def in_full(data: bytes, size: int) -> np.ndarray:
    """What `decode` computed before it knew reduced scales."""
    return np.asarray(open_picture(data)[0].resize((size, size), Image.Resampling.LANCZOS)).astype(int)


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(60, 900),
    height=st.integers(60, 900),
    size=st.integers(4, 40),
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    orientation=st.sampled_from([None, *range(1, 9)]),
    options=st.sampled_from([{}, {"quality": 95, "subsampling": 0}, {"quality": 40, "progressive": True}]),
)
def test_a_jpeg_at_reduced_scale_looks_as_in_full(width, height, size, mode, orientation, options):
    exif = Image.Exif()
    if orientation:
        exif[EXIF_ORIENTATION] = orientation
    data = encoded(detailed(width, height, size).convert(mode), "JPEG", exif=exif, **options)
    decoded, full = decode(data, size), in_full(data, size)
    shown = open_picture(data)[0]
    assert (decoded.format, decoded.width, decoded.height) == ("JPEG", *shown.size)
    difference = np.abs(decoded.pixels - full)
    if min(width, height) < 8 * size and (orientation or 1) == 1:  # at half the scale, less than 4 x size would be left
        assert difference.max() == 0
    assert difference.mean() < 1 and difference.max() <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(48, 32), (805, 643)])
def test_a_turn_is_exact_at_any_scale(orientation, shape):
    stored = detailed(*shape, 1)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    decoded = decode(encoded(stored, "JPEG", exif=exif), 16)
    assert np.array_equal(STORED_AS[orientation](decoded.pixels), decode(encoded(stored, "JPEG"), 16).pixels)
    assert (decoded.width, decoded.height) == (shape if orientation < 5 else shape[::-1])


@pytest.mark.parametrize("format_name", ["PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "AVIF", "MPO"])
def test_other_formats_are_never_reduced(format_name):
    options = {"save_all": True, "append_images": [gradient(900, 700)]} if format_name == "MPO" else {}
    data = encoded(gradient(900, 700), format_name, **options)
    assert np.array_equal(decode(data, 8).pixels, in_full(data, 8))


def test_the_reduced_picture_is_no_smaller_than_it_must_be(monkeypatch):
    sizes = []
    to_rgb = images.to_rgb
    monkeypatch.setattr(
        images, "to_rgb", lambda picture, depth: (sizes.append(picture.size), to_rgb(picture, depth))[1]
    )
    for width, height in ((1280, 1280), (1279, 1280), (640, 5000), (319, 5000), (4000, 3000)):
        decode(encoded(gradient(width, height), "JPEG"), 40)
    assert sizes == [(160, 160), (320, 320), (160, 1250), (319, 5000), (500, 375)]


@settings(max_examples=60, deadline=None)
@given(progressive=st.booleans(), share=st.floats(0, 1), ends=st.integers(0, 8))
def test_a_cut_off_jpeg_fails_at_any_scale_or_at_none(progressive, share, ends):
    data = encoded(detailed(400, 300, 5), "JPEG", progressive=progressive)
    cut = data[: len(data) - ends] if ends else data[: int(share * len(data))]
    reasons = []
    for attempt in (lambda: in_full(cut, 8), lambda: decode(cut, 8)):
        try:
            attempt()
            reasons.append(None)
        except UnreadableImage as error:
            reasons.append(str(error))
    assert reasons[0] == reasons[1]


def test_one_bit_and_the_first_frame_only():
    checks = np.indices((8, 8)).sum(axis=0) % 2 == 0
    assert np.array_equal(pixels(encoded(Image.fromarray(checks), "PNG"))[:, :, 0], checks * 255)
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    for format_name in ("GIF", "PNG", "TIFF", "WEBP", "MPO", "AVIF"):
        data = encoded(red, format_name, save_all=True, append_images=[blue])
        assert np.abs(pixels(data) - [255, 0, 0]).max() <= 6


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 1), (20000, 2)])
def test_extreme_shapes(shape):
    decoded = decode(encoded(Image.new("RGB", shape, (9, 8, 7)), "PNG"), 32)
    assert (decoded.pixels == [9, 8, 7]).all() and (decoded.width, decoded.height) == shape


def test_the_declared_size_is_checked_before_decoding_and_pillow_keeps_its_own_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12345)
    bomb = png_bytes(np.zeros((1, 1, 1), np.uint8), 1, 0)
    header = struct.pack(">IIBBBBB", 30000, 30000, 1, 0, 0, 0, 0)
    bomb = bomb[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + bomb[33:]
    with pytest.raises(UnreadableImage, match="900 megapixels, over the limit of 500"):
        decode(bomb, 8)
    assert Image.MAX_IMAGE_PIXELS == 12345


def test_pillows_warning_about_large_pictures_stays_silent(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 2000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(encoded(gradient(), "PNG"), 8)  # 1536 pixels, over half the limit: Pillow would warn


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"<html>404</html>", "not a picture"),
        (b"%PDF-1.4 %EOF", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (bytes(5000), "not a picture"),
        (encoded(gradient(), "PNG")[:-200], "cut off"),
        (encoded(gradient(), "JPEG")[:-200], "cut off"),
        (encoded(gradient(), "GIF")[:-200], "cut off"),
    ],
)
def test_reasons(data, reason):
    with pytest.raises(UnreadableImage, match=reason):
        decode(data, 8)


def test_heif_without_its_package_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnreadableImage, match=r"pip install 'diffsim-search\[heif\]'"):
        decode(b"\0\0\0\x18ftypheic" + bytes(100), 8)


def test_heif_with_its_package():
    pytest.importorskip("pillow_heif").register_heif_opener()
    decoded = decode(encoded(gradient(64, 64), "HEIF"), 8)
    assert decoded.format == "HEIF"


SMALL = {name: encoded(gradient(24, 16), name) for name in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "ICO", "MPO")}


@pytest.mark.parametrize("format_name", SMALL)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_damage_is_never_more_than_unreadable(format_name, data):
    damaged = bytearray(SMALL[format_name])
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged)))) :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "MAX_PIXELS", 1_000_000)  # a damaged header may declare a large picture: keep that quick
        try:
            assert decode(bytes(damaged), 8).pixels.shape == (8, 8, 3)
        except UnreadableImage as error:
            assert str(error)
