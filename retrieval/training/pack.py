"""A training set as one small file that travels to another machine: python -m diffsim.retrieval.training.pack TABLE

A packed set is a tar file of the table and the pictures, which are WebP of the side at which they are trained on. It is
trained on as its table is; unpacked, it is a table with its pictures.
"""

import csv
import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import click
from PIL import Image

from ..errors import RetrievalError
from .encoded import Pixels, decoded
from .pictures import COLUMNS, Pictures, TrainingError, read_pictures
from .recipe import Recipe

_TABLE = "table.csv"
_QUALITIES = (90, 80, 70, 60, 50, 40, 30, 20, 10, 5, 1)
_SAMPLE = 300
_BLOCK = 512
"""Of a tar file: every entry begins with one and is filled up to whole ones."""


def pack(table: Path, out: Path, most: int, size: int = Recipe.picture_size) -> int:
    """Write the packed set OUT of at most `most` bytes, in the best quality that fits, and return that quality (of
    WebP). Raises TrainingError where even the worst does not fit, or a picture cannot be decoded."""
    pictures = read_pictures(table)
    every = max(1, len(pictures.files) // _SAMPLE)
    sample = [decoded(file, size) for file in pictures.files[::every]]
    for quality in _QUALITIES:
        expected = sum(_in_tar(_webp(pixels, quality)) for pixels in sample) / len(sample) * len(pictures.files)
        if expected <= 0.98 * most and _write(pictures, out, most, size, quality):
            return quality
    raise TrainingError(
        f"{len(pictures.files)} pictures do not fit into {most / 1e6:g} MB; allow more, or list fewer in {table}"
    )


def unpacked(table: Path, folder: Path) -> Path:
    """The table to read: TABLE itself, or that of a packed set, which is unpacked below the folder if it is not there
    yet, in a place of its own. Raises TrainingError for a file that was cut short."""
    if not tarfile.is_tarfile(table):
        return table
    with table.open("rb") as file:
        place = folder / hashlib.file_digest(file, "sha256").hexdigest()[:12]
    if not (place / _TABLE).exists():  # it is the last entry
        try:
            with tarfile.open(table) as packed:
                packed.extractall(place, filter="data")
        except tarfile.TarError as problem:
            raise TrainingError(f"{table} cannot be unpacked ({problem}); copy it here again") from problem
        if not (place / _TABLE).exists():
            raise TrainingError(f"{table} holds no {_TABLE}, which is its last entry; pack it, or copy it here, again")
    return place / _TABLE


def _write(pictures: Pictures, out: Path, most: int, size: int, quality: int) -> bool:
    """Whether it fitted; nothing is left if not."""
    part = out.with_name(f"{out.name}.part")
    with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as packed:
        for name, data in _entries(pictures, size, quality):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            packed.addfile(entry, io.BytesIO(data))
    fits = part.stat().st_size <= most
    part.replace(out) if fits else part.unlink()
    return fits


def _entries(pictures: Pictures, size: int, quality: int) -> Iterator[tuple[str, bytes]]:
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(COLUMNS)
    described = zip(pictures.collections, pictures.styles, pictures.subjects, strict=True)
    for number, (file, words) in enumerate(zip(pictures.files, described, strict=True)):
        name = f"{number:06d}.webp"
        rows.writerow([name, *words])
        yield name, _webp(decoded(file, size), quality)
    yield _TABLE, table.getvalue().encode()


def _webp(pixels: Pixels, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=quality, method=4)
    return file.getvalue()


def _in_tar(data: bytes) -> int:
    return _BLOCK * (1 + -(-len(data) // _BLOCK))


@click.command()
@click.argument("table", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File to write, as set.tar."
)
@click.option("--megabytes", type=click.FloatRange(min=0, min_open=True), default=40, show_default=True)
def main(table: Path, out: Path, megabytes: float) -> None:
    """Pack the pictures of TABLE (see `python -m diffsim.retrieval.training --help`) into one file of at most so many
    megabytes, as small as the training sees them. The same command then trains on this file."""
    try:
        quality = pack(table, out, int(megabytes * 1e6))
    except RetrievalError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB, WebP of quality {quality}", err=True)


if __name__ == "__main__":
    main()
