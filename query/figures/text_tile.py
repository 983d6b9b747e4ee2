"""A text as a picture, where sheets show the examples of a query."""

from PIL import Image, ImageDraw

from .lettering import fitted, lettered

_GROUND, _INK = (255, 255, 255), (38, 38, 43)
_LETTERS = (64, 46, 34)
"""Heights that are tried, pixels; a further example is shown at a quarter of the tile's size."""
_MARGIN = 20
_READ = 1000
"""Characters; more do not fit."""


def text_tile(text: str, side: int) -> Image.Image:
    """RGB, square: the text in the largest letters that fit; where none do, its beginning and an ellipsis."""
    tile = Image.new("RGB", (side, side), _GROUND)
    pen = ImageDraw.Draw(tile)
    room = side - 2 * _MARGIN
    for size in _LETTERS:
        lines, line_height = _lines(text[:_READ], size, room), size * 4 // 3
        most = room // line_height
        if len(lines) <= most:
            break
    else:
        lines = [*lines[: most - 1], f"{lines[most - 1]} …"]
    top = (side - line_height * len(lines)) // 2
    for number, line in enumerate(lines):
        drawn, face = fitted(line, size, room)
        pen.text((side // 2, top + line_height * number + line_height // 2), drawn, _INK, face, anchor="mm")
    return tile


def _lines(text: str, size: int, room: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        drawn, face = lettered(longer, size)
        if lines and face.getlength(drawn) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
