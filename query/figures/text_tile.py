"""A text as a picture, where sheets show the examples of a query."""

from PIL import Image, ImageDraw

from .lettering import fitted, lettered

_GROUND, _INK = (255, 255, 255), (38, 38, 43)
_LETTERS, _LINE, _MARGIN = 34, 46, 24


def text_tile(text: str, side: int) -> Image.Image:
    """RGB, square, with as many lines of the text as fit; the last ends in an ellipsis where there are more."""
    tile = Image.new("RGB", (side, side), _GROUND)
    pen = ImageDraw.Draw(tile)
    room, most = side - 2 * _MARGIN, (side - 2 * _MARGIN) // _LINE
    lines: list[str] = []
    for word in text[:1000].split():
        longer = f"{lines[-1]} {word}" if lines else word
        drawn, face = lettered(longer, _LETTERS)
        if lines and face.getlength(drawn) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1]} …"]
    top = (side - _LINE * len(lines)) // 2
    for number, line in enumerate(lines):
        drawn, face = fitted(line, _LETTERS, room)
        pen.text((side // 2, top + _LINE * number + _LINE // 2), drawn, _INK, face, anchor="mm")
    return tile
