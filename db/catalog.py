"""The catalog: what is in the index, and what makes a picture exist in a feature space."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from sqlalchemy import Connection, bindparam, delete, exists, insert, select, update

from .changes import (
    SpaceChanges,
    count_changes,
    count_indexed,
    forget_changes,
    forgettable,
    generation_of,
    last_change,
    read_changes,
    record_changes,
    record_changes_of,
)
from .chunks import chunks
from .database import Database
from .files import FileRows, KnownRoot, at_path, present, storable_text
from .filters import Filters, count_undated, matching
from .listing import PictureOrder, read_changed, read_folders, read_order, read_values
from .metadata import PictureMetadata, count_unread, read_metadata, write_metadata
from .pending import PendingContent, count_pending, read_pending
from .repair import mend
from .seals import content_seal, file_seal, is_sound
from .shards import KnownShard, RecordedRecall, read_shards, set_capacity
from .status import Status, read_status, visible_pictures
from .tables import Content, Feature, File, Generation, Metadata, Recall, Root, Space

_PENDING_AT_ONCE = 500


@dataclass(frozen=True)
class KnownSpace:
    id: int
    fingerprint: str
    name: str
    network: str
    adapter: str  # empty where there is none
    record: str  # the space's whole definition as JSON
    created: str  # ISO 8601, UTC


@dataclass(frozen=True)
class FileLocation:
    root_id: int
    root_path: bytes
    path: bytes  # absolute
    display: str  # absolute, valid text


@dataclass(frozen=True)
class KnownPicture:
    """What the catalog knows of a content that was decoded. size: bytes; width, height: pixels, upright; taken_ns: the
    picture's own date, see times.py, None where none is known."""

    content_id: int
    sha256: bytes
    size: int
    format: str
    width: int
    height: int
    taken_ns: int | None


class Catalog:
    """The one door to the catalog. Every method is one transaction and returns plain values.

    `files` holds what only a scan needs.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.files = FileRows(database)

    @classmethod
    def open(cls, where: str | Path, *, create: bool = False, readonly: bool = False, alone: bool = False) -> "Catalog":
        """Open the catalog at a path or database URL; errors as for `Database.open`. A readonly one writes nothing.
        alone: on a server, be its one writer until it is closed."""
        return cls(Database.open(where, create=create, readonly=readonly, alone=alone))

    @classmethod
    def copy(cls, where: str | Path, to: Path) -> None:
        """Copy the catalog at a path or URL to a new SQLite file; see `Database.copy`."""
        Database.copy(where, to)

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> "Catalog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def mend(self) -> str | None:
        """Read the whole catalog and rebuild it if anything is wrong; see `repair.mend`."""
        return mend(self._database)

    def claim(self, identity: str, *, blank: bool) -> None:
        """See that this catalog, on a server, belongs to this index; see `Database.claim`."""
        self._database.claim(identity, blank=blank)

    def roots(self) -> list[KnownRoot]:
        """The folders that were asked for, by path."""
        return self.files.roots()

    def generation(self) -> int:
        """A number that rises with every commit, whoever makes it: while it stands, so does all else here."""
        with self._database.reading() as connection:
            return generation_of(connection)

    def status(self, most_failed: int | None = None) -> Status:
        """Counts and failures, for `status`. most_failed: how many failed files are named; None is all of them."""
        with self._database.reading() as connection:
            return read_status(connection, most_failed)

    # Spaces

    def spaces(self) -> list[KnownSpace]:
        """All feature spaces, oldest first."""
        columns = (Space.id, Space.fingerprint, Space.name, Space.network, Space.adapter, Space.record, Space.created)
        with self._database.reading() as connection:
            return [KnownSpace(*row) for row in connection.execute(select(*columns).order_by(Space.id))]

    def add_space(self, fingerprint: str, name: str, network: str, record: str, *, adapter: str = "") -> int:
        """The id of this space. One that is known keeps its name and record; where its network and adapter are is
        brought up to date."""
        with self._database.writing() as connection:
            known = connection.scalar(select(Space.id).where(Space.fingerprint == fingerprint))
            if known is not None:
                connection.execute(update(Space).where(Space.id == known).values(network=network, adapter=adapter))
                return known
            created = datetime.now(UTC).isoformat(timespec="seconds")
            row = insert(Space).values(
                fingerprint=fingerprint,
                name=name,
                network=network,
                adapter=adapter,
                record=record,
                created=created,
                generation=generation_of(connection),
            )
            return connection.scalars(row.returning(Space.id)).one()

    def visible_pictures(self) -> dict[int, int]:
        """Space id -> how many pictures with a present file exist in it."""
        with self._database.reading() as connection:
            return visible_pictures(connection)

    # What is to be extracted, and what was

    def count_pending(self, space_ids: Sequence[int] | None, skip_roots: Collection[int] = ()) -> int:
        """How many contents have a present file, lack features in one of the spaces and did not fail. space_ids: None
        counts those that were decoded before metadata were read.

        Files of `skip_roots` do not count: those of offline roots cannot be read now.
        """
        if space_ids is not None and not space_ids:
            return 0
        with self._database.reading() as connection:
            return count_pending(connection, space_ids, skip_roots)

    def pending(self, space_ids: Sequence[int] | None, skip_roots: Collection[int] = ()) -> Iterator[PendingContent]:
        """These contents, by id, read in pieces: what is committed meanwhile is seen, as long as its id is to come."""
        last = 0
        while space_ids is None or space_ids:
            with self._database.reading() as connection:
                some = read_pending(connection, space_ids, skip_roots, last, _PENDING_AT_ONCE)
            if not some:
                return
            yield from some
            last = some[-1].content_id

    def mark_indexed(
        self,
        space_ids: Sequence[int],
        pictures: Sequence[tuple[int, str, int, int]],
        taken_ns: Mapping[int, int | None] | None = None,
        metadata: Mapping[int, PictureMetadata] | None = None,
    ) -> int:
        """Make pictures (content id, format, width, height) exist in the spaces, in one commit; returns its generation.

        taken_ns: their own dates by content id, as in times.py; None, or none at all, for those that have none.
        metadata: what their files say, by content id; without it, it is unread. space_ids: empty where only these two
        are to be put down anew, of pictures that were decoded before.
        A picture that existed already gets the new generation: its features were written anew.
        """
        content_ids = [picture[0] for picture in pictures]
        with self._database.writing() as connection:
            generation = generation_of(connection)
            sealed: dict[int, tuple[bytes, int, int]] = {}
            for some in chunks(content_ids):
                known = select(Content.id, Content.sha256, Content.size, Content.shard).where(Content.id.in_(some))
                sealed.update((row, (sha256, size, shard)) for row, sha256, size, shard in connection.execute(known))
            dates = taken_ns or {}
            facts = [
                {
                    "row": row,
                    "format": f,
                    "width": w,
                    "height": h,
                    "date": dates.get(row),
                    "new_seal": content_seal(*sealed[row], f, w, h, dates.get(row)),
                }
                for row, f, w, h in pictures
            ]
            _delete_features(connection, content_ids, space_ids)
            features = [
                {"space_id": space_id, "content_id": content_id, "generation": generation}
                for space_id in space_ids
                for content_id in content_ids
            ]
            write_metadata(connection, metadata or {})
            if facts:
                connection.execute(
                    update(Content)
                    .where(Content.id == bindparam("row"))
                    .values(
                        format=bindparam("format"),
                        width=bindparam("width"),
                        height=bindparam("height"),
                        taken_ns=bindparam("date"),
                        failure=None,
                        seal=bindparam("new_seal"),
                    ),
                    facts,
                )
            if features:
                connection.execute(insert(Feature), features)
            return generation

    def mark_failed(self, content_id: int, reason: str) -> None:
        """Remember why a content is no picture; it is not pending again until `clear_failures`."""
        with self._database.writing() as connection:
            record_changes_of(connection, [content_id])
            connection.execute(update(Content).where(Content.id == content_id).values(failure=storable_text(reason)))

    def clear_failures(self) -> None:
        """Forget all failures: contents are pending again, and the next scan reads the unreadable files again."""
        with self._database.writing() as connection:
            unread = select(File.content_id).where(File.failure.is_not(None), File.content_id.is_not(None))
            record_changes(connection, unread)
            connection.execute(update(Content).where(Content.failure.is_not(None)).values(failure=None))
            connection.execute(
                update(File).where(File.failure.is_not(None)).values(failure=None, mtime_ns=None, ctime_ns=None)
            )

    def unindex(self, space_id: int, ids: Collection[int]) -> int:
        """Take pictures out of a space, in one commit; returns its generation. They are pending again."""
        with self._database.writing() as connection:
            record_changes_of(connection, ids)
            _delete_features(connection, ids, [space_id])
            return generation_of(connection)

    # What a reader needs to know

    def space_changes(self, space_id: int, since: int, shard: int | None = None) -> SpaceChanges:
        """The pictures of a space, or of one shard of it, that changed in a commit after generation `since`, and those
        that are gone; pictures without a present file too.

        The answer is `complete` (all pictures of the space, to replace what the reader holds) where `since` is -1, and
        where it is not known what changed since: before the space was added, before the changes that are still kept,
        or after the present generation, because an older catalog was put back. Apart from that it costs time for what
        changed only.
        """
        with self._database.reading() as connection:
            return read_changes(connection, space_id, since, shard)

    def indexed(self, space_id: int, shard: int | None = None) -> SpaceChanges:
        """All pictures that exist in a space, or in one shard of it."""
        return self.space_changes(space_id, -1, shard)

    def count_changes(self, space_id: int, since: int, shard: int) -> int:
        """How many pictures of one shard of a space changed, or are gone, in a commit after generation `since`: that of
        a recorded FAISS file, as later changes are kept."""
        with self._database.reading() as connection:
            return count_changes(connection, space_id, since, shard)

    def last_change(self, space_id: int) -> int:
        """The generation of the last commit that changed anything about a space's pictures."""
        with self._database.reading() as connection:
            return last_change(connection, space_id)

    def count_indexed(self, space_id: int, shard: int | None = None) -> int:
        """How many pictures exist in a space, or in one shard of it."""
        with self._database.reading() as connection:
            return count_indexed(connection, space_id, shard)

    def forget_changes(self) -> None:
        """Drop the changes that every recorded FAISS file covers, where they have become many. Readers that saw an
        older state then read everything again."""
        with self._database.reading() as connection:
            until = forgettable(connection)
        if until is not None:
            with self._database.writing() as connection:
                forget_changes(connection, until)

    # Shards

    def shards(self) -> list[KnownShard]:
        """All shards, by number; the last one takes new contents, the others are sealed."""
        with self._database.reading() as connection:
            return read_shards(connection)

    def set_shard_capacity(self, capacity: int) -> None:
        """How many contents the newest shard takes, and each one after it. Raises BadCapacity."""
        with self._database.writing() as connection:
            set_capacity(connection, capacity)

    def recall_files(self, space_id: int) -> dict[int, RecordedRecall]:
        """Which FAISS files of a space are the valid ones, by shard."""
        statement = select(Recall.shard, Recall.generation, Recall.digest).where(Recall.space_id == space_id)
        with self._database.reading() as connection:
            rows = connection.execute(statement)
            return {shard: RecordedRecall(generation, digest) for shard, generation, digest in rows}

    def set_recall_file(self, space_id: int, shard: int, generation: int, digest: str) -> None:
        """Record the FAISS file of a shard, which holds what was written up to this generation."""
        with self._database.writing() as connection:
            connection.execute(delete(Recall).where(Recall.space_id == space_id, Recall.shard == shard))
            row = insert(Recall).values(space_id=space_id, shard=shard, generation=generation, digest=digest)
            connection.execute(row)

    def set_recall_generation(self, space_id: int, shards: Collection[int], generation: int) -> None:
        """Note that nothing changed in these shards of a space up to a generation: their FAISS files cover it too."""
        with self._database.writing() as connection:
            of_shards = Recall.space_id == space_id, Recall.shard.in_(shards)
            connection.execute(update(Recall).where(*of_shards).values(generation=generation))

    def forget_recall_file(self, space_id: int, shard: int) -> None:
        """Note that a shard of a space has no FAISS file."""
        with self._database.writing() as connection:
            connection.execute(delete(Recall).where(Recall.space_id == space_id, Recall.shard == shard))

    # Look-ups

    def content_by_sha256(self, sha256: bytes) -> int | None:
        with self._database.reading() as connection:
            found = connection.scalar(select(Content.id).where(Content.sha256 == sha256))
            # The hash led there by an index; the row itself must agree.
            if found is not None and connection.scalar(select(Content.sha256).where(Content.id == found)) != sha256:
                raise ValueError(f"content {found} has another hash")
            return found

    def pictures(self, ids: Iterable[int]) -> dict[int, KnownPicture]:
        """Those of these contents that were decoded once, by id."""
        columns: tuple[Any, ...] = (Content.id, Content.sha256, Content.size)
        columns += (Content.format, Content.width, Content.height, Content.taken_ns)
        found: dict[int, KnownPicture] = {}
        with self._database.reading() as connection:
            for some in chunks(ids):
                rows = connection.execute(select(*columns).where(Content.id.in_(some), Content.format.is_not(None)))
                found.update((row[0], KnownPicture(*row)) for row in rows)
        return found

    def matching(
        self, filters: Filters, among: Sequence[int] | None = None
    ) -> tuple[np.ndarray, list[tuple[int, bytes]]]:
        """Contents that pass, and those of which a file's modification time has to be asked; see filters.py. among:
        only these contents are looked at."""
        with self._database.reading() as connection:
            return matching(connection, filters, among)

    def count_undated(self, filters: Filters) -> tuple[int, int]:
        """Of the contents that pass all filters but those of dates: how many have no date of their own, and how many
        there are."""
        with self._database.reading() as connection:
            return count_undated(connection, filters)

    def own_dates(self, ids: Iterable[int], damaged: set[int]) -> dict[int, int]:
        """The own dates of those of these contents that have one, by id. damaged: receives the contents whose row is
        damaged, which was left out."""
        columns: tuple[Any, ...] = (Content.id, Content.seal, Content.sha256, Content.size, Content.shard)
        columns += (Content.format, Content.width, Content.height, Content.taken_ns)
        found: dict[int, int] = {}
        with self._database.reading() as connection:
            for some in chunks(ids):
                for content_id, seal, *values in connection.execute(select(*columns).where(Content.id.in_(some))):
                    if not is_sound(seal, content_seal(*values)):
                        damaged.add(content_id)
                    elif values[-1] is not None:
                        found[content_id] = values[-1]
        return found

    def metadata(self, ids: Iterable[int], damaged: set[int]) -> dict[int, PictureMetadata]:
        """What the files of these contents say of them, by id; of those whose metadata were read. damaged: receives the
        contents whose row is damaged, which was left out."""
        with self._database.reading() as connection:
            return read_metadata(connection, ids, damaged)

    def count_unread(self) -> int:
        """How many contents were decoded before metadata were read."""
        with self._database.reading() as connection:
            return count_unread(connection)

    def files_of(self, ids: Iterable[int], damaged: set[int] | None = None) -> dict[int, list[FileLocation]]:
        """The present files of each content, by path; an empty list where there is none.

        Whether a root is offline is not known here. damaged: receives the contents of which a row was damaged and left
        out.
        """
        found: dict[int, list[FileLocation]] = {content_id: [] for content_id in ids}
        with self._database.reading() as connection:
            for some in chunks(found):
                statement = (
                    select(
                        Content.id, Content.sha256, Root.id, Root.path, File.path, Root.display, File.display, File.seal
                    )
                    .join(File, File.content_id == Content.id)
                    .join(Root, Root.id == File.root_id)
                    .where(Content.id.in_(some), present())
                    .order_by(Root.path, File.path)
                )
                for content_id, sha256, root_id, root, path, root_text, text, seal in connection.execute(statement):
                    absolute = os.path.join(root, path)
                    if is_sound(seal, file_seal(absolute, content_id, sha256)):
                        location = FileLocation(root_id, root, absolute, os.path.join(root_text, text))
                        found[content_id].append(location)
                    elif damaged is not None:
                        damaged.add(content_id)
        return found

    def has_file(self, path: bytes) -> bool:
        """Whether a file of the index is at this path, present or missing."""
        with self._database.reading() as connection:
            for root_id, root in connection.execute(select(Root.id, Root.path)):
                below = os.path.join(root, b"")
                if not path.startswith(below):
                    continue
                found = select(File.id).where(at_path(root_id, path[len(below) :]))
                if connection.scalar(found) is not None:
                    return True
        return False

    def picture_order(self, before: PictureOrder | None = None) -> PictureOrder:
        """Every content that was decoded once and has a present file, by its first path. before: an earlier answer;
        then only what changed since is read, unless that is much."""
        with self._database.reading() as connection:
            return read_order(connection, before)

    def picture_values(self, of: Literal["date", "size"]) -> tuple[np.ndarray, np.ndarray]:
        """Contents with a present file, int64, ascending, and of each its date (its own, else the latest of
        its files, 0 where none is known; see times.py) or its size in bytes."""
        with self._database.reading() as connection:
            return read_values(connection, of)

    def changed(self, since: int) -> tuple[np.ndarray | None, int]:
        """Contents whose files or features changed in a commit after generation `since`, int64, ascending (None where
        that is not known any more), and the present generation."""
        with self._database.reading() as connection:
            now = generation_of(connection)
            return read_changed(connection, since), now

    def folders(self, most: int) -> list[tuple[bytes, int]]:
        """The roots and the largest folders in them, absolute, by path, with their numbers of present files."""
        with self._database.reading() as connection:
            return read_folders(connection, most)

    # Forgetting

    def prune(self) -> list[int]:
        """Forget missing files, then contents without any file and roots without any; returns the contents' ids.

        Their features are gone from the catalog after this; the stores may drop them at leisure.
        """
        with self._database.writing() as connection:
            connection.execute(delete(File).where(File.missing.is_(True)))
            gone = _forget_contents_without_file(connection)
            connection.execute(delete(Root).where(~exists().where(File.root_id == Root.id)))
            return gone

    def forget_root(self, root_id: int) -> tuple[int, list[int]]:
        """Forget a folder, its files and the contents that no other file holds -> (number of files, contents' ids)."""
        with self._database.writing() as connection:
            record_changes(connection, select(File.content_id).where(File.root_id == root_id, present()))
            files = connection.execute(delete(File).where(File.root_id == root_id)).rowcount
            connection.execute(delete(Root).where(Root.id == root_id))
            return files, _forget_contents_without_file(connection)

    def forget_space(self, space_id: int) -> int:
        """Forget a feature space and that pictures exist in it; returns how many did. The pictures themselves stay."""
        with self._database.writing() as connection:
            pictures = connection.execute(delete(Feature).where(Feature.space_id == space_id)).rowcount
            connection.execute(delete(Recall).where(Recall.space_id == space_id))
            connection.execute(delete(Space).where(Space.id == space_id))
            # A picture that was first decoded for this space is in the lists of all pictures, and no row says so now.
            connection.execute(update(Generation).values(oldest=Generation.value))
            return pictures


def check_free(where: str) -> None:
    """See that a new index can have its catalog in this database on a server; see `Database.check_free`."""
    Database.check_free(where)


def _forget_contents_without_file(connection: Connection) -> list[int]:
    without_file = ~exists().where(File.content_id == Content.id)
    gone = list(connection.scalars(select(Content.id).where(without_file).order_by(Content.id)))
    for some in chunks(gone):
        record_changes_of(connection, some)
        connection.execute(delete(Feature).where(Feature.content_id.in_(some)))
        connection.execute(delete(Metadata).where(Metadata.content_id.in_(some)))
        connection.execute(delete(Content).where(Content.id.in_(some)))
    return gone


def _delete_features(connection: Connection, content_ids: Iterable[int], space_ids: Sequence[int]) -> None:
    for some in chunks(content_ids):
        connection.execute(delete(Feature).where(Feature.space_id.in_(space_ids), Feature.content_id.in_(some)))
