"""What decoding raises."""

from ..errors import RetrievalError


class UnreadableImage(RetrievalError):
    """The bytes cannot be decoded: not a picture, truncated, damaged, too large, or in a format without a decoder."""


NO_PICTURE = "not a picture, or in a format that is not read here"


def too_large(pixels: float | None, limit: int) -> UnreadableImage:
    """pixels: None where that is not known. limit: the most that are read."""
    megapixels = "too many" if pixels is None else f"{pixels / 1e6:,.0f}"
    return UnreadableImage(f"{megapixels} megapixels, over the limit of {limit / 1e6:,.0f}")
