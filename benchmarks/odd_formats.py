"""Small sound files in the formats that need one more package, made from a picture."""

import io
import struct

import numpy as np
from PIL import Image

_SHORT, _LONG = 3, 4
_SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{1}">{2}</svg>'


def dng(picture: Image.Image, *, preview: Image.Image | None = None, turn: int = 1) -> bytes:
    """A minimal RAW picture: the sensor's values, red green / green blue, 16 bit; with an embedded JPEG if wanted.

    turn: as in EXIF. Both sides of the picture are even.
    """
    rgb = np.asarray(picture.convert("RGB")).astype(float) / 255
    values = rgb[..., 1].copy()
    values[::2, ::2], values[1::2, 1::2] = rgb[::2, ::2, 0], rgb[1::2, 1::2, 2]
    linear = np.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)
    sensor = (linear * 65535).astype("<u2").tobytes()
    xyz_to_rgb = (32405, -15371, -4985, -9693, 18760, 416, 556, -2040, 10572)
    tags = {
        **_strip(0, picture.size, 16, 1, 32803, 1, len(sensor)),
        271: b"Maker\0",
        272: b"Model\0",
        274: (turn,),
        306: b"2020:02:03 12:00:00\0",
        33421: (2, 2),
        33422: bytes((0, 1, 1, 2)),
        50706: bytes((1, 4, 0, 0)),
        50708: b"Maker Model\0",
        50717: (65535,),
        50721: [(value, 10000) for value in xyz_to_rgb],
        50728: [(1, 1)] * 3,
        50778: (21,),
    }
    if preview is None:
        return b"II*\0" + struct.pack("<I", 8) + _ifd(tags, 8, sensor)
    file = io.BytesIO()
    preview.save(file, "JPEG", quality=95)
    shown = file.getvalue()
    first = {**_strip(1, preview.size, (8, 8, 8), 7, 6, 3, len(shown)), 330: [0], 274: (turn,)}
    first |= {tag: tags[tag] for tag in (271, 272, 306, 50706, 50708, 50721, 50728, 50778)}
    first[330] = [8 + len(_ifd(first, 8, shown))]
    head = _ifd(first, 8, shown)
    return b"II*\0" + struct.pack("<I", 8) + head + _ifd(tags, 8 + len(head), sensor)


def svg(picture: Image.Image) -> bytes:
    """Its colours as squares, 12 across."""
    small = picture.convert("RGB").resize((12, 12))
    squares = (
        f'<rect x="{x}" y="{y}" width="1" height="1" fill="rgb{small.getpixel((x, y))}"/>'
        for y in range(12)
        for x in range(12)
    )
    return _SVG.format(12, 12, "".join(squares)).encode()


def jxl(picture: Image.Image, **more: object) -> bytes:
    """Lossless. more: what pylibjxl.encode takes."""
    import pylibjxl

    made: bytes = pylibjxl.encode(np.array(picture.convert("RGB")), lossless=True, **more)
    return made


def _strip(kind: int, size: tuple[int, int], bits: object, packed: int, photometric: int, samples: int, length: int):
    bits = bits if isinstance(bits, tuple) else (bits,)
    return {
        254: [kind],
        256: [size[0]],
        257: [size[1]],
        258: bits,
        259: (packed,),
        262: (photometric,),
        273: [0],  # where the pixels are: set when that is known
        277: (samples,),
        278: [size[1]],
        279: [length],
    }


def _ifd(tags: dict, at: int, pixels: bytes) -> bytes:
    """A directory of a TIFF at this place, its values behind it, then its pixels. Tuples are short numbers, lists long
    ones, lists of pairs fractions."""
    values = at + 2 + 12 * len(tags) + 4
    spare = b""
    rows = []
    for tag, value in sorted(tags.items()):
        if isinstance(value, bytes):
            kind, count, packed = (2 if value.endswith(b"\0") and tag < 40000 else 1), len(value), value
            kind = 2 if tag == 50708 else 1 if tag in (33422, 50706) else kind
        elif isinstance(value, tuple):
            kind, count, packed = _SHORT, len(value), struct.pack(f"<{len(value)}H", *value)
        elif isinstance(value[0], tuple):
            kind, count, packed = 10 if tag == 50721 else 5, len(value), b"".join(struct.pack("<ii", *p) for p in value)
        else:
            kind, count, packed = _LONG, len(value), struct.pack(f"<{len(value)}I", *value)
        rows.append([tag, kind, count, packed])
    for row in rows:
        if len(row[3]) > 4:
            place = values + len(spare)
            spare += row[3] + b"\0" * (len(row[3]) % 2)
            row[3] = struct.pack("<I", place)
    body = values + len(spare)
    entries = b"".join(
        struct.pack("<HHI", tag, kind, count) + (struct.pack("<I", body) if tag == 273 else packed.ljust(4, b"\0"))
        for tag, kind, count, packed in rows
    )
    return struct.pack("<H", len(rows)) + entries + b"\0\0\0\0" + spare + pixels
