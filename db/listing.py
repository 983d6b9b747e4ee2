"""The whole index as a list: its pictures by folder and name, and its folders."""

import os
from collections import Counter
from collections.abc import Collection

from sqlalchemy import Connection, select

from .files import present
from .tables import Content, File, Root


def pictures_by_path(connection: Connection) -> list[int]:
    """Every content that was decoded once and has a present file, once, where its first path stands."""
    statement = (
        select(File.content_id)
        .join(Content, Content.id == File.content_id)
        .join(Root, Root.id == File.root_id)
        .where(present(), Content.format.is_not(None))
        .order_by(Root.path, File.path)
    )
    return list(dict.fromkeys(connection.scalars(statement)))


def folders(connection: Connection, most: int) -> list[tuple[bytes, int]]:
    """Folders with present files below them, by path, absolute, with how many these are; the roots, and of the others
    the largest, `most` in all."""
    roots: Collection[bytes] = set(connection.scalars(select(Root.path)))
    counts: Counter[bytes] = Counter()
    of_file = select(Root.path, File.path).join(Root, Root.id == File.root_id).where(present())
    direct: Counter[tuple[bytes, bytes]] = Counter()
    for root, path in connection.execute(of_file):
        direct[root, path.rpartition(b"/")[0]] += 1
    for (root, folder), files in direct.items():
        counts[root] += files
        while folder:
            counts[os.path.join(root, folder)] += files
            folder = folder.rpartition(b"/")[0]
    chosen = sorted(counts, key=lambda folder: (folder not in roots, -counts[folder], folder))[:most]
    return [(folder, counts[folder]) for folder in sorted(chosen)]
