"""Pillow's many kinds of pixels -> 8-bit sRGB on white.

Pixels without a colour profile, or with one of sRGB, are taken as sRGB. Deep greys are scaled to 0..255.
"""

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_WHITE_IS_ZERO = 0
_UNSIGNED, _SIGNED = 1, 2
_ROWS_AT_ONCE = 256
_SAME = 2
"""A profile whose colours are no further than this from those of sRGB, in steps of 255, is one of sRGB."""

_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}
"""Pillow's mode -> the kind of profile that belongs to it."""


def to_rgb(picture: Image.Image, depth: int = 8) -> Image.Image:
    """A loaded picture as RGB, transparent parts on white. depth: bits of a number in a PNG's file."""
    profile = picture.info.get("icc_profile")
    _scale_key(picture, depth)
    picture = _eight_bits(picture)
    kind = {"1": "L", "LA": "L", "La": "L", "CMYK": "CMYK", "LAB": "LAB"}.get(picture.mode, picture.mode)
    kind = kind if kind in _SPACES else "RGB"
    transform = _to_srgb(profile if isinstance(profile, bytes) else b"", kind) if profile or kind == "LAB" else None
    if not picture.has_transparency_data:
        return _converted(picture, kind, transform)
    picture = picture.convert("RGBA")
    flat = Image.new("RGB", picture.size, "white")
    flat.paste(_converted(picture, kind, transform), mask=picture.getchannel("A"))
    return flat


def _converted(picture: Image.Image, kind: str, transform: ImageCms.ImageCmsTransform | None) -> Image.Image:
    if transform is None:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    colours = picture if picture.mode == kind else picture.convert(kind)
    result = ImageCms.applyTransform(colours, transform)
    assert result is not None  # it changes the picture itself only if told to
    return result


@lru_cache(maxsize=16)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None where the profile is broken, belongs to another kind of pixels, or is one of sRGB."""
    srgb = ImageCms.createProfile("sRGB")
    try:
        if mode == "LAB":  # has no profile of its own: it is measured in absolute colours
            return ImageCms.buildTransform(ImageCms.createProfile("LAB"), srgb, "LAB", "RGB")
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(source, srgb, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    if mode == "CMYK":
        return transform
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(9, 81, 3)
    probe = Image.fromarray(grid).convert(mode)
    seen = np.asarray(ImageCms.applyTransform(probe, transform), np.int16)
    return None if np.abs(seen - np.asarray(probe.convert("RGB"), np.int16)).max() <= _SAME else transform


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Pixels of up to 8 bits as they are; deep greys as L."""
    tags: Any = getattr(picture, "tag_v2", {})
    signed = tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _SIGNED
    bits = tags.get(_BITS, (0,))[0]
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        values = np.asarray(picture)
        if picture.mode == "I" and bits == 32 and not signed and tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED:
            values = values.view(np.uint32)
    elif picture.mode == "L" and signed:
        values = np.asarray(picture).view(np.int8)
    else:
        return picture
    whites: tuple[float, ...]
    if picture.mode == "F":
        whites = (1.0, 255.0)
    elif bits in (8, 12, 16):
        whites = (2.0 ** (bits - signed) - 1,)
    else:
        whites = (65535.0,)
    grey = _scaled(values, whites)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        np.subtract(255, grey, out=grey)
    if isinstance(key := picture.info.get("transparency"), int):
        grey[values == key] = 255
    return Image.fromarray(grey)


def _scaled(values: np.ndarray, whites: tuple[float, ...]) -> np.ndarray:
    """uint8, of the same shape. Black and white are 0 and the first of `whites` that no value passes. Values beyond
    those have no standard meaning, so such a picture is stretched over the range that it uses."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    black, white = next(((0.0, white) for white in whites if low >= 0 and high <= white), (low, high))
    grey = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS_AT_ONCE):  # by rows, because float64 takes eight times the memory
        rows = values[top : top + _ROWS_AT_ONCE].astype(np.float64)
        rows = np.nan_to_num(rows, copy=False, nan=black, posinf=white, neginf=black)
        grey[top : top + _ROWS_AT_ONCE] = np.rint((rows - black) * (255 / ((white - black) or 1)))
    return grey


def _scale_key(picture: Image.Image, depth: int) -> None:
    """Give the transparent colour in the range of the pixels. Pillow leaves it in that of a PNG's file."""
    key = picture.info.get("transparency")
    if picture.mode == "L" and isinstance(key, int) and depth < 8:
        picture.info["transparency"] = key * 255 // (2**depth - 1)
    elif picture.mode == "RGB" and isinstance(key, tuple) and depth == 16:
        picture.info["transparency"] = tuple(value >> 8 for value in key)
