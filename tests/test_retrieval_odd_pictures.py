"""Files that are odd but whole in their pixels, deep greys and colour profiles, against a computed truth."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms
from test_retrieval_images import detailed, encoded, gradient, pixels, png_bytes

from diffsim.retrieval.pictures.images import UnreadableImage, decode

TRUTH = np.asarray(gradient()).astype(int)


# ------------------------------------------------------------------------------------------- PNG


def chunk(kind: bytes, body: bytes, wrong: int = 0) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ wrong)


def with_chunk(odd: bytes, at: int = 33, picture: bytes = encoded(gradient(), "PNG")) -> bytes:
    return picture[:at] + odd + picture[at:]


LONG = zlib.compress(bytes(3 << 20))
ODD_CHUNKS = {
    "wrong checksum": chunk(b"tEXt", b"Comment\0hello", 1),
    "wrong checksum of an unknown chunk": chunk(b"xxXx", b"hello", 1),
    "short pHYs": chunk(b"pHYs", b"\0\0"),
    "short gAMA": chunk(b"gAMA", b"\0"),
    "short cHRM": chunk(b"cHRM", bytes(7)),
    "short sRGB": chunk(b"sRGB", b""),
    "short tRNS": chunk(b"tRNS", b"\0"),
    "tRNS with a wrong checksum": chunk(b"tRNS", bytes(6), 1),
    "iCCP without anything": chunk(b"iCCP", b""),
    "profile of 3 MB": chunk(b"iCCP", b"p\0\0" + LONG),
    "profile cut off": chunk(b"iCCP", b"p\0\0" + LONG[:99]),
    "text of 3 MB": chunk(b"zTXt", b"workflow\0\0" + LONG),
    "international text of 3 MB": chunk(b"iTXt", b"workflow\0\1\0\0\0" + LONG),
    "text that unpacks to 80 MB": chunk(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(80 << 20))),
    "eXIf with a wrong checksum": chunk(b"eXIf", b"MM\0*\0\0\0\x08", 1),
    "animation of no frames": chunk(b"acTL", b"\0\0"),
}


@pytest.mark.parametrize("odd", ODD_CHUNKS.values(), ids=ODD_CHUNKS)
def test_what_stands_beside_the_pixels_of_a_png_never_costs_the_picture(odd):
    assert np.array_equal(pixels(with_chunk(odd)), TRUTH)


def test_what_is_sound_beside_the_odd_still_counts():
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = encoded(gradient().rotate(180), "PNG", exif=exif)
    assert np.array_equal(pixels(with_chunk(ODD_CHUNKS["wrong checksum"], picture=turned)), TRUTH)
    key = encoded(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert (pixels(with_chunk(ODD_CHUNKS["wrong checksum"], picture=key)) == 255).all()


def test_damage_to_the_pixels_of_a_png_is_said():
    whole = encoded(detailed(64, 48, 1), "PNG")
    at = whole.index(b"IDAT")
    for damaged in (whole[: len(whole) // 2], whole[: at + 50] + b"\xff" + whole[at + 51 :]):
        for odd in (b"", ODD_CHUNKS["wrong checksum"]):
            with pytest.raises(UnreadableImage, match=r"cut off|damaged"):
                decode(with_chunk(odd, picture=damaged), 8)


@pytest.mark.parametrize(("format_name", "bytes_lost"), [("PNG", 4), ("PNG", 12), ("GIF", 1), ("TGA", 26)])
def test_a_missing_end_without_pixels(format_name, bytes_lost):
    whole = encoded(gradient(), format_name)
    assert np.array_equal(pixels(whole[:-bytes_lost]), pixels(whole))


# ------------------------------------------------------------------------------------------- JPEG

JPEGS = {
    "baseline": {},
    "grey": {"mode": "L"},
    "progressive": {"progressive": True},
    "progressive in full": {"progressive": True, "quality": 100, "subsampling": 0},
    "with restarts": {"restart_marker_blocks": 3},
    "CMYK": {"mode": "CMYK"},
}
SAMSUNG = b"\0\0\x01\x0a\x0e\0\0\0Image_UTC_Data1516\0\0\xa1\x0a\xff\x0b\0SEFH\xff\xe1\x00\x05abc\xff\xdaSEFT"


def jpeg(mode: str = "RGB", **options: object) -> bytes:
    return encoded(detailed(300, 200, 3).convert(mode), "JPEG", **options)


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("size", [None, 16])
@pytest.mark.parametrize(
    "after", [b"", b"\xff", b"\xff\xff", bytes(500), b"a trailer of text", SAMSUNG, SAMSUNG[8:] * 20]
)
def test_a_jpeg_without_its_end_is_whole(options, size, after):
    whole = jpeg(**options)
    assert whole.endswith(b"\xff\xd9")
    odd = whole[:-2] + after
    if size is None:
        assert np.array_equal(pixels(odd), pixels(whole))
    else:
        assert np.array_equal(decode(odd, size).pixels, decode(whole, size).pixels)


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("lost", [6, 12, 40, 400, 2000])
def test_a_jpeg_that_lacks_pixels_is_cut_off(options, lost):
    with pytest.raises(UnreadableImage, match="cut off"):
        decode(jpeg(**options)[:-lost], 8)


def test_a_progressive_jpeg_that_lacks_a_scan_is_cut_off():
    whole = jpeg(progressive=True)
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    for scan in scans[1:]:
        before = whole.rindex(b"\xff\xc4", 0, scan)  # its Huffman table
        with pytest.raises(UnreadableImage, match="cut off"):
            decode(whole[:before], 8)


# ------------------------------------------------------------------------------------------- depths


def tiff(rows: bytes, width: int, height: int, bits: int, photometric: int, sample_format: int, big: bool) -> bytes:
    """A TIFF of one strip, written by hand."""
    order = ">" if big else "<"
    entries = [
        (256, 3, width),
        (257, 3, height),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 3, height),
        (279, 4, len(rows)),
        (339, 3, sample_format),
    ]
    directory = struct.pack(order + "H", len(entries))
    for tag, kind, value in entries:
        body = struct.pack(order + "H2x", value) if kind == 3 else struct.pack(order + "I", value)
        directory += struct.pack(order + "HHI", tag, kind, 1) + body
    start = 8 + len(rows)
    return (b"MM" if big else b"II") + struct.pack(order + "HI", 42, start) + rows + directory + bytes(4)


RAMP = np.linspace(0, 1, 64).reshape(4, 16)


def packed_12(values: np.ndarray) -> bytes:
    bits = (values.astype(np.uint16)[..., None] >> np.arange(11, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(len(values), -1), axis=1).tobytes()


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("bits", "photometric", "sample_format", "white", "dtype"),
    [
        (8, 1, 1, 255, "u1"),
        (8, 0, 1, 255, "u1"),
        (8, 1, 2, 127, "i1"),
        (12, 1, 1, 4095, None),
        (16, 1, 1, 65535, "u2"),
        (16, 0, 1, 65535, "u2"),
        (16, 1, 2, 32767, "i2"),
        (32, 1, 3, 1, "f4"),
        (32, 0, 3, 1, "f4"),
        (32, 1, 1, 2**32 - 1, "u4"),
        (32, 1, 2, 2**31 - 1, "i4"),
    ],
)
def test_a_deep_grey_is_shown_as_bright_as_it_is(bits, photometric, sample_format, white, dtype, big):
    values = RAMP * white if sample_format == 3 else np.floor(RAMP * white)
    rows = values.astype((">" if big else "<") + dtype).tobytes() if dtype else packed_12(values)
    data = tiff(rows, 16, 4, bits, photometric, sample_format, big)
    truth = 255 * (values / white if photometric else 1 - values / white)
    try:
        shown = pixels(data)
    except UnreadableImage:  # Pillow does not open every combination; one that it opens must be right
        assert big
        return
    assert np.abs(shown - truth[:, :, None]).max() <= 1


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png_is_white_at_any_depth(depth):
    most = 2**depth - 1
    key = most // 2 if depth > 1 else 0
    values = np.array([[0, key, most, key]])
    if depth == 16:
        rows = values.astype(">u2")[:, :, None]
    else:
        bits = (values[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        rows = np.packbits(bits.astype(np.uint8).reshape(1, -1), axis=1)[:, :, None]
    data = bytearray(png_bytes(rows, depth, 0))
    header = struct.pack(">IIBBBBB", 4, 1, depth, 0, 0, 0, 0)
    data[8:33] = chunk(b"IHDR", header)
    data[33:33] = chunk(b"tRNS", struct.pack(">H", key))
    shown = [255 if value == key else round(255 * value / most) for value in values[0]]
    assert pixels(bytes(data))[0, :, 0].tolist() == shown


def test_the_transparent_colour_of_a_16_bit_png_is_white():
    rows = np.array([[[1000, 30000, 60000], [60000, 2000, 300]]], ">u2")
    data = bytearray(png_bytes(rows, 16, 2))
    data[33:33] = chunk(b"tRNS", rows[0, 0].tobytes())
    assert np.abs(pixels(bytes(data)) - [[[255, 255, 255], [233, 8, 1]]]).max() <= 1


# ------------------------------------------------------------------------------------------- colour profiles

TO_XYZ = np.array([[0.4360, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
"""From linear sRGB to XYZ at D50."""
PROPHOTO = np.array([[0.7977, 0.1352, 0.0313], [0.2880, 0.7119, 0.0001], [0.0, 0.0, 0.8249]])
ADOBE = np.array([[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7446]])


def profile(primaries: np.ndarray | None, gamma: float) -> bytes:
    """An ICC profile of version 2: of RGB with these primaries, or of grey."""

    def fixed(*numbers: float) -> bytes:
        return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = b"text" + bytes(4) + b"none\0" + bytes(3)
    described = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(79)
    tags = {b"desc": described, b"cprt": text, b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249)}
    if primaries is None:
        tags[b"kTRC"] = curve
    else:
        for name, column in zip(b"rgb", primaries.T, strict=True):
            tags[bytes([name]) + b"XYZ"] = b"XYZ " + bytes(4) + fixed(*column)
            tags[bytes([name]) + b"TRC"] = curve
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(value))
        body += value
    space = b"GRAY" if primaries is None else b"RGB "
    header = struct.pack(">I4xI4s4s4s", 128 + len(table) + len(body), 0x02400000, b"mntr", space, b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249)
    return header.ljust(128, b"\0") + table + body


def linear(srgb: np.ndarray) -> np.ndarray:
    share = srgb / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def in_space(picture: Image.Image, primaries: np.ndarray, gamma: float) -> Image.Image:
    """The same colours in the numbers of another space."""
    numbers = linear(np.asarray(picture)) @ TO_XYZ.T @ np.linalg.inv(primaries).T
    return Image.fromarray(np.rint(255 * numbers.clip(0, 1) ** (1 / gamma)).astype(np.uint8))


@pytest.mark.parametrize(("primaries", "gamma"), [(PROPHOTO, 1.8), (ADOBE, 2.2)])
@pytest.mark.parametrize("format_name", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
def test_colours_are_those_of_the_profile(primaries, gamma, format_name):
    options = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }.get(format_name, {})
    other = in_space(detailed(96, 64, 2), primaries, gamma)
    shown = pixels(encoded(other, format_name, icc_profile=profile(primaries, gamma), **options))
    truth = np.asarray(detailed(96, 64, 2)).astype(int)
    without = pixels(encoded(other, format_name, **options))
    assert np.abs(shown - truth).mean() < 2 < np.abs(without - truth).mean()


def test_transparent_and_grey_pixels_have_profiles_too():
    other = in_space(gradient(), ADOBE, 2.2)
    other.putalpha(128)
    shown = pixels(encoded(other, "PNG", icc_profile=profile(ADOBE, 2.2)))
    off = np.abs(shown - (TRUTH * 128 + 255 * 127) / 255)
    assert off.mean() < 1 and off.max() <= 8
    ramp = Image.fromarray(np.linspace(0, 255, 64).astype(np.uint8).reshape(4, 16))
    bright = (np.asarray(ramp) / 255) ** 1.5
    truth = 255 * np.where(bright <= 0.0031308, bright * 12.92, 1.055 * bright ** (1 / 2.4) - 0.055)[:, :, None]
    deep = Image.fromarray(np.asarray(ramp).astype(np.uint16) * 257)
    for grey in (ramp, ramp.convert("LA"), deep):
        assert np.abs(pixels(encoded(grey, "PNG", icc_profile=profile(None, 1.5))) - truth).max() <= 3


@pytest.mark.parametrize(
    "ignored",
    [
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
        profile(None, 1.0),
        profile(PROPHOTO, 1.8)[:200],
        profile(PROPHOTO, 1.8)[:-20],
        b"nonsense",
        b"",
    ],
)
def test_pixels_are_left_alone_where_a_profile_says_nothing_else(ignored):
    assert np.array_equal(pixels(encoded(gradient(), "PNG", icc_profile=ignored)), TRUTH)


def test_lab_is_shown_in_its_colours():
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(gradient(), to_lab)
    assert np.abs(pixels(encoded(lab, "TIFF")) - TRUTH).mean() < 4


def test_the_file_of_a_picture_of_every_mode_can_be_shown():
    for mode in ("1", "L", "LA", "I", "I;16", "F", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"):
        for format_name in ("PNG", "TIFF", "WEBP", "GIF", "JPEG2000", "BMP", "TGA", "PPM"):
            try:
                data = encoded(Image.new(mode, (4, 4)), format_name)
            except (OSError, ValueError, KeyError):
                continue  # no such files
            assert pixels(data).shape == (4, 4, 3), (mode, format_name)
