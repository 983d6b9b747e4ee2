"""The colours that a picture must have to be a hit."""

from dataclasses import dataclass

from PIL import ImageColor

from .errors import QueryError

DEFAULT_SHARE = 0.1
"""Of a picture, where nobody says how much of it must have the colour."""


class BadColour(QueryError, ValueError):
    """A colour cannot be read, or the index knows no colours."""


@dataclass(frozen=True)
class Colour:
    """A colour that a picture must have. rgb: 0 to 255. share: how much of the picture, in (0, 1]."""

    rgb: tuple[int, int, int]
    share: float = DEFAULT_SHARE

    @classmethod
    def parse(cls, text: str) -> "Colour":
        """`#c0392b`, `red`, `hsl(6, 63%, 46%)`, each perhaps with a share: `#c0392b:25%`. Raises BadColour."""
        name, colon, share = text.rpartition(":")
        try:
            wanted = float(share.strip().removesuffix("%")) / 100 if colon else DEFAULT_SHARE
            if not 0 < wanted <= 1:
                raise ValueError
            red, green, blue = ImageColor.getrgb((name if colon else text).strip())[:3]
        except ValueError:
            raise BadColour(
                f"The colour {text!r} cannot be read; write #c0392b or a name like red, perhaps with the share of the "
                "picture that must have it, above 0 and up to 100: #c0392b:25%."
            ) from None
        return cls((red, green, blue), wanted)
