"""The pictures of an index as files for other programs: a Parquet file, or a folder of numpy arrays.

Written in batches, so that memory does not grow with the collection, elsewhere first and then moved to its place.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffsim.db.catalog import KnownSpace
from diffsim.db.chunks import chunks
from diffsim.db.times import moment

from .errors import QueryError
from .metadata import told
from .outputs import MARK, CannotWrite, check_output, write_output
from .search import Searcher
from .tables import load_package, text_of

if TYPE_CHECKING:
    import pyarrow

_AT_ONCE = 1000
_WITH_TOKENS = 50
"""Pictures in a batch, which is a row group of a Parquet file: a token record has a hundred kilobytes and more."""
_ABOUT = "export.json"

OnProgress = Callable[[int, int], None]


class NothingToExport(QueryError):
    """No picture exists in the spaces."""


@dataclass(frozen=True)
class Exported:
    """What was written. incomplete: pictures of which the catalog's rows are damaged or gone, so that they have no
    path."""

    pictures: int
    incomplete: int


@dataclass(frozen=True, eq=False)
class _Batch:
    """rows: what is known of each picture. descriptors: per space float32 [rows, dimensions], NaN where there is none.
    tokens: per space the records as they are stored, None where there is none."""

    ids: np.ndarray
    rows: list[dict[str, Any]]
    descriptors: list[np.ndarray]
    tokens: list[list[bytes | None]]


class _Source:
    """The pictures that can be hits in one of the spaces, by id, from one searcher."""

    def __init__(self, searcher: Searcher, spaces: Sequence[str], private: bool) -> None:
        self.spaces = searcher.choose_all(spaces)
        self._private = private
        self._catalog = searcher.catalog
        self._collection = searcher.collection
        self._collection.refresh(self.spaces)
        self.ids = np.unique(np.concatenate([self._collection.ids(space.fingerprint) for space in self.spaces]))
        if not len(self.ids):
            names = " and ".join(space.name for space in self.spaces)
            raise NothingToExport(f"There is no picture in {names}; fill it with `diffsim index`.")
        self.widths = [self._width(space) for space in self.spaces]
        self.names = _names(self.spaces)
        self.incomplete = 0

    def _width(self, space: KnownSpace) -> int:
        """Numbers of a descriptor."""
        for some in chunks(self.ids.tolist(), _AT_ONCE):
            _, found = self._collection.descriptors(space.fingerprint, np.array(some))
            if found.shape[1]:
                return int(found.shape[1])
        raise NothingToExport(f"No descriptor of {space.name} can be read; run `diffsim verify`.")

    def about(self) -> dict[str, Any]:
        """What the columns are: each space's fingerprint, all its settings, and how its token records are read."""
        found: dict[str, Any] = {}
        for space, name in zip(self.spaces, self.names, strict=True):
            kit = self._collection.kit(space)
            record = {"tier": kit.settings.tier, "shapes": [list(shape) for shape in kit.shapes]}
            settings = json.loads(space.record)
            found[name] = {"name": space.name, "fingerprint": space.fingerprint, "space": settings, "tokens": record}
        return {"made_by": MARK, "format": 1, "spaces": found}

    def batches(self, tokens: bool, on_progress: OnProgress) -> Iterator[_Batch]:
        done = 0
        for some in chunks(self.ids.tolist(), _WITH_TOKENS if tokens else _AT_ONCE):
            ids = np.array(some, np.int64)
            spaces = zip(self.spaces, self.widths, strict=True)
            yield _Batch(
                ids,
                self._rows(some),
                [self._descriptors(space, ids, width) for space, width in spaces],
                [self._tokens(space, ids) for space in self.spaces] if tokens else [],
            )
            done += len(some)
            on_progress(done, len(self.ids))

    def _descriptors(self, space: KnownSpace, ids: np.ndarray, width: int) -> np.ndarray:
        rows = np.full((len(ids), width), np.nan, np.float32)
        found, descriptors = self._collection.descriptors(space.fingerprint, ids)
        rows[np.searchsorted(ids, found)] = descriptors.reshape(len(found), width)
        return rows

    def _tokens(self, space: KnownSpace, ids: np.ndarray) -> list[bytes | None]:
        found = {content_id: bytes(record) for content_id, record in self._collection.tokens(space.fingerprint, ids)}
        return [found.get(content_id) for content_id in ids.tolist()]

    def _rows(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        damaged: set[int] = set()
        dates, said = self._catalog.own_dates(ids, damaged), self._catalog.metadata(ids, damaged)
        known, files = self._catalog.pictures(ids), self._catalog.files_of(ids, damaged)
        return [self._row(each, known, files, dates, said, damaged) for each in ids]

    def _row(
        self, content_id: int, known: dict, files: dict, dates: dict, said: dict, damaged: set[int]
    ) -> dict[str, Any]:
        sound = content_id in known and content_id not in damaged
        paths = [text_of(os.fsdecode(file.path)) for file in files[content_id]] if sound else []
        self.incomplete += not paths
        row: dict[str, Any] = {"id": content_id, "path": paths[0] if paths else None, "paths": paths}
        if sound:
            content = known[content_id]
            row |= {"sha256": content.sha256.hex(), "bytes": content.size, "format": content.format}
            row |= {"width": content.width, "height": content.height}
            row["taken"] = moment(dates[content_id]) if content_id in dates else None
            row |= told(said.get(content_id), self._private) or {}
        return row


def export(
    index: str | os.PathLike[str],
    *,
    parquet: str | os.PathLike[str] | None = None,
    numpy: str | os.PathLike[str] | None = None,
    spaces: Sequence[str] = (),
    tokens: bool = False,
    private: bool = False,
    force: bool = False,
    on_progress: OnProgress = lambda done, total: None,
) -> Exported:
    """Write all pictures of some feature spaces to a Parquet file, to a folder of numpy arrays, or to both: what is
    known of each, and its descriptors (docs/exporting.md).

    spaces: names or beginnings of fingerprints; empty means the index's first. tokens: also the token records, in
    Parquet alone. private: also places and captions. force: replace a Parquet file that this program did not write; a
    folder is replaced only if this program wrote all that is in it. Raises CannotWrite, MissingPackage, UnknownSpace,
    NothingToExport, ...
    """
    if parquet is None and numpy is None:
        raise CannotWrite("Nothing says what to write; give a Parquet file or a folder for numpy arrays.")
    if tokens and parquet is None:
        raise CannotWrite("Tokens are written to Parquet alone; give a Parquet file, or leave the tokens out.")
    with Searcher(index, "cpu") as searcher:
        file, folder = None if parquet is None else Path(parquet), None if numpy is None else Path(numpy)
        if file is not None:
            load_package("pyarrow", "parquet")
            check_output(file, (".parquet",), force=force or _is_ours(file), catalog=searcher.catalog)
        if folder is not None:
            _check_folder(folder)
        source = _Source(searcher, spaces, private)
        if file is not None:
            write_output(file, lambda part: _write_parquet(source, part, tokens, private, on_progress))
        if folder is not None:
            source.incomplete = 0
            _write_folder(source, folder, on_progress)
        return Exported(len(source.ids), source.incomplete)


# Parquet


def _write_parquet(source: _Source, path: Path, tokens: bool, private: bool, on_progress: OnProgress) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = _schema(source, tokens, private)
    names = ["format", "camera", "lens", "keywords.list.element"]
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=names) as writer:
        for batch in source.batches(tokens, on_progress):
            columns = {name: [row.get(name) for row in batch.rows] for name in schema.names}
            arrays = {
                name: pyarrow.array(values, schema.field(name).type)
                for name, values in columns.items()
                if not name.startswith(("descriptor-", "tokens-"))
            }
            for name, rows in zip(source.names, batch.descriptors, strict=True):
                lacking = pyarrow.array(np.isnan(rows[:, 0]))
                values = pyarrow.array(rows.reshape(-1))
                arrays[f"descriptor-{name}"] = pyarrow.FixedSizeListArray.from_arrays(
                    values, rows.shape[1], mask=lacking
                )
            for name, records in zip(source.names if tokens else [], batch.tokens, strict=True):
                arrays[f"tokens-{name}"] = pyarrow.array(records, pyarrow.binary())
            writer.write_batch(pyarrow.record_batch([arrays[name] for name in schema.names], schema=schema))


def _schema(source: _Source, tokens: bool, private: bool) -> "pyarrow.Schema":
    import pyarrow

    text, number = pyarrow.string(), pyarrow.int32()
    columns = {
        "id": pyarrow.int64(),
        "sha256": text,
        "path": text,
        "paths": pyarrow.list_(text),
        "bytes": pyarrow.int64(),
        "format": text,
        "width": number,
        "height": number,
        "taken": pyarrow.timestamp("us", "UTC"),
        "camera": text,
        "lens": text,
        "rating": number,
        "keywords": pyarrow.list_(text),
    }
    if private:
        columns |= {"latitude": pyarrow.float64(), "longitude": pyarrow.float64(), "caption": text}
    for name, width in zip(source.names, source.widths, strict=True):
        columns[f"descriptor-{name}"] = pyarrow.list_(pyarrow.float32(), width)
    for name in source.names if tokens else []:
        columns[f"tokens-{name}"] = pyarrow.binary()
    return pyarrow.schema(columns, {MARK: json.dumps(source.about())})


def _is_ours(path: Path) -> bool:
    """Whether this program wrote a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    try:
        return MARK.encode() in (pyarrow.parquet.read_schema(path).metadata or {})
    except (OSError, pyarrow.ArrowException):
        return False


# Arrays


def _check_folder(folder: Path) -> None:
    """A new or an empty one, or one that this program wrote. Raises CannotWrite."""
    parent = folder.absolute().parent
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise CannotWrite(f"{folder} is there already and is not a folder; name another.")
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise CannotWrite(f"No folder can be made in {parent}; name one in a folder that you may write to.")
    if not folder.is_dir():
        return
    names = set(os.listdir(folder))
    try:
        about = json.loads((folder / _ABOUT).read_bytes()) if names else None
        ours = about is None or (about["made_by"] == MARK and names <= set(about["files"]))
    except (OSError, ValueError, TypeError, LookupError):
        ours = False
    if not ours:
        raise CannotWrite(f"{folder} is there already and holds what this program did not write; name another folder.")


def _write_folder(source: _Source, folder: Path, on_progress: OnProgress) -> None:
    part = folder.absolute().with_name(f".{secrets.token_hex(8)}.part")
    part.mkdir()
    try:
        arrays = [f"descriptor-{name}.npy" for name in source.names]
        with open(part / "pictures.jsonl", "w", encoding="ascii") as lines:
            opened = [
                np.lib.format.open_memmap(part / name, "w+", np.float32, (len(source.ids), width))
                for name, width in zip(arrays, source.widths, strict=True)
            ]
            start = 0
            for batch in source.batches(False, on_progress):
                for array, rows in zip(opened, batch.descriptors, strict=True):
                    array[start : start + len(rows)] = rows
                start += len(batch.rows)
                lines.writelines(json.dumps(row, default=lambda date: date.isoformat()) + "\n" for row in batch.rows)
            for array in opened:
                array.flush()
        np.save(part / "ids.npy", source.ids)
        files = [_ABOUT, "ids.npy", "pictures.jsonl", *arrays]
        (part / _ABOUT).write_text(json.dumps(source.about() | {"files": files}, indent=1) + "\n", encoding="utf-8")
        _check_folder(folder)
        if folder.exists():
            shutil.rmtree(folder)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _names(spaces: Sequence[KnownSpace]) -> list[str]:
    """Of the spaces' columns and files; with the fingerprint where two would have the same."""
    plain = [re.sub(r"[^\w.-]+", "-", space.name) for space in spaces]
    return [
        f"{name}-{space.fingerprint}" if plain.count(name) > 1 else name
        for name, space in zip(plain, spaces, strict=True)
    ]
