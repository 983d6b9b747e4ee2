"""Reads an LMDB file page by page, without LMDB and without mapping it.

LMDB trusts its file: where that was cut short or altered, reading it may kill the process. Here every number is checked
before it is used, so that a file can be judged before it is mapped, and what is left of a broken one can be read. The
format is that of LMDB 0.9 on 64-bit machines, little-endian (`mdb.c`: MDB_page, MDB_node, MDB_meta, MDB_db).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from ..regular_files import open_regular

_PAGE = struct.Struct("<QHHHH")  # number, unused, flags, lower and upper end of the free space
_NODE = struct.Struct("<HHHH")  # low and high half of a size or page number, flags or its top, size of the key
_META = struct.Struct("<IIQQ 48s 48s QQ")  # magic, version, address, map size, two tables, last page, transaction
_TABLE = struct.Struct("<IHHQQQQQ")  # page size, flags, depth, pages of three kinds, entries, root
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _OVERFLOW, _META_PAGE = 1, 2, 4, 8
_BIG, _SUBTABLE = 1, 2
_NO_ROOT = 2**64 - 1

Node = tuple[int, bytes, bytes]
"""Flags, key and value."""


class NotLmdb(ValueError):
    """The file does not begin as one of LMDB."""


class LmdbFile:
    """One file as it is now. faults: how many pages or nodes were found broken so far. Raises NotLmdb, OSError."""

    def __init__(self, path: Path) -> None:
        self._file = open_regular(path)
        try:
            metas = [self._meta(number) for number in (0, 1)]
            self.size = os.fstat(self._file.fileno()).st_size  # after them: a writer may be appending
        except BaseException:
            self._file.close()
            raise
        self.page_size, self._free_root, self._main_root, self.last_page, _ = max(metas, key=lambda meta: meta[-1])
        self.faults = 0
        self._pages = min(self.last_page + 1, self.size // self.page_size)
        self._seen = bytearray()  # for each page, whether it was met

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def used(self) -> int:
        """Bytes that the file should have; LMDB may leave some last pages that it does not need unwritten."""
        return (self.last_page + 1) * self.page_size

    def is_whole(self) -> bool:
        """Whether every page that is in use is there and makes sense. Reads all but the records themselves."""
        for table in self._tables().values():
            for _ in self._leaves(table, values=False):
                pass
        for _, _, value in self._leaves(self._free_root, ordered=False):
            if not self._is_free_list(value):
                self.faults += 1
        return not self.faults

    def records(self, name: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of a table, as far as they can be read."""
        root = self._tables().get(name, _NO_ROOT)
        return ((key, value) for _, key, value in self._leaves(root))

    def _meta(self, number: int) -> tuple[int, int, int, int, int]:
        # The second page's place depends on the page size, which LMDB takes from the system: so do we.
        data = self._read(number * os.sysconf("SC_PAGESIZE"), _PAGE.size + _META.size)
        if len(data) < _PAGE.size + _META.size:
            raise NotLmdb("it has no complete header")
        flags = _PAGE.unpack_from(data)[2]
        magic, version, _, _, free, main, last_page, transaction = _META.unpack_from(data, _PAGE.size)
        page_size = _TABLE.unpack(free)[0]
        if not flags & _META_PAGE or (magic, version) != (_MAGIC, _VERSION) or page_size != os.sysconf("SC_PAGESIZE"):
            raise NotLmdb("its header is broken")
        return page_size, _TABLE.unpack(free)[-1], _TABLE.unpack(main)[-1], last_page, transaction

    def _tables(self) -> dict[bytes, int]:
        """The roots of the named tables."""
        self._seen = bytearray(self._pages)
        nodes = self._leaves(self._main_root)
        return {
            key: _TABLE.unpack(value)[-1]
            for flags, key, value in nodes
            if flags & _SUBTABLE and len(value) == _TABLE.size
        }

    def _leaves(self, root: int, *, values: bool = True, ordered: bool = True) -> Iterator[Node]:
        """The nodes in the leaves below a page, in order. values: whether long ones are read, or only looked for."""
        waiting: list[tuple[int, bytes, bytes | None]] = [] if root == _NO_ROOT else [(root, b"", None)]
        while waiting:
            number, low, high = waiting.pop()
            page = self._page(number)
            kind, nodes = self._nodes(page) if page else (0, [])
            keys = [key for _, key, _ in nodes]
            if kind == _BRANCH and keys:
                keys[0] = low  # a branch has no key for its first child
            inside = all(low <= key and (high is None or key < high) for key in keys)
            if not kind or (ordered and (not inside or keys != sorted(set(keys)))):
                self.faults += 1
            if kind == _BRANCH:
                children = [struct.unpack("<Q", child)[0] for _, _, child in nodes]
                waiting += reversed(list(zip(children, keys, [*keys[1:], high], strict=True)))
                continue
            for flags, key, value in nodes:
                found = self._overflow(value, values) if flags & _BIG else value
                if found is None:
                    self.faults += 1
                else:
                    yield flags, key, found

    def _page(self, number: int) -> bytes | None:
        if not 2 <= number < self._pages or self._seen[number]:
            return None
        self._seen[number] = True
        page = self._read(number * self.page_size, self.page_size)
        whole = len(page) == self.page_size and _PAGE.unpack_from(page)[0] == number
        return page if whole else None

    def _nodes(self, page: bytes) -> tuple[int, list[Node]]:
        """The kind of a page, 0 if it is broken, and its nodes; the value of a child is its page, of a long value its
        size and page."""
        _, _, kind, lower, upper = _PAGE.unpack_from(page)
        if kind not in (_BRANCH, _LEAF) or not _PAGE.size <= lower <= upper <= len(page) or lower % 2:
            return 0, []
        nodes: list[Node] = []
        spans: list[tuple[int, int]] = []
        for (place,) in struct.iter_unpack("<H", page[_PAGE.size : lower]):
            if not upper <= place <= len(page) - _NODE.size:
                return 0, nodes
            first, second, flags, key_size = _NODE.unpack_from(page, place)
            start = place + _NODE.size + key_size
            if kind == _BRANCH:
                child = first | second << 16 | flags << 32
                flags, value, end = 0, struct.pack("<Q", child), start
            else:
                size = first | second << 16
                end = start + (8 if flags & _BIG else size)
                value = (struct.pack("<Q", size) if flags & _BIG else b"") + page[start:end]
            if end > len(page) or flags & ~(_BIG | _SUBTABLE):
                return 0, nodes
            nodes.append((flags, page[place + _NODE.size : start], value))
            spans.append((place, end + end % 2))
        spans.sort()
        # Nodes fill the rest of the page without gaps: LMDB moves them, and a wrong size would take others along.
        packed = [upper, *(end for _, end in spans)] == [*(place for place, _ in spans), len(page)]
        return kind if packed else 0, nodes

    def _overflow(self, reference: bytes, read: bool) -> bytes | None:
        """A long value; empty if it need not be read, None if it is not there."""
        size, number = struct.unpack("<QQ", reference)
        pages = -(-(_PAGE.size + size) // self.page_size)
        if not 2 <= number <= self._pages - pages or any(self._seen[number : number + pages]):
            return None
        place = number * self.page_size
        found, _, flags, low, high = _PAGE.unpack(self._read(place, _PAGE.size))
        if found != number or flags != _OVERFLOW or (low | high << 16) != pages:
            return None
        self._seen[number : number + pages] = b"\1" * pages
        return self._read(place + _PAGE.size, size) if read else b""

    def _is_free_list(self, value: bytes) -> bool:
        """Whether none of the pages that a commit set free is in use."""
        if len(value) % 8 or len(value) < 8:
            return False
        count, *pages = (number for (number,) in struct.iter_unpack("<Q", value))
        return count <= len(pages) and all(
            2 <= page <= self.last_page and not (page < self._pages and self._seen[page]) for page in pages[:count]
        )

    def _read(self, place: int, count: int) -> bytes:
        return os.pread(self._file.fileno(), count, place)
