"""Extract what lacks features: decode, run the network, store, commit, picture by picture and shard by shard.

The feature store is committed before the catalog: the row in the catalog is what makes a picture exist.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np

from diffsim.db.catalog import Catalog
from diffsim.db.chunks import chunks
from diffsim.db.pending import PendingContent
from diffsim.retrieval.extractor import Extractor
from diffsim.retrieval.features import PictureFeatures
from diffsim.retrieval.pictures.decode_pool import Changed, Decoded, DecodePool, Failed, Job
from diffsim.retrieval.shard.store import FeatureStore, Record

from .index_folder import IndexFolder
from .metadata import said_of
from .options import IndexOptions
from .roots import offline_roots
from .scan import ScanReport, rescan_file
from .sketches import sketch_record
from .spaces import Networks, OpenSpace

_PASSES = 3


@dataclass(frozen=True)
class _Waiting:
    """A picture that the next commit will store. features: in every space."""

    content: PendingContent
    decoded: Decoded
    features: list[PictureFeatures]

    def record(self, space: int) -> Record:
        made = self.features[space]
        return Record(self.content.content_id, self.content.sha256, made.descriptor, made.tokens)


class Extraction:
    """Fills some spaces of one network: each picture is decoded and encoded once for all of them."""

    def __init__(
        self,
        index: IndexFolder,
        catalog: Catalog,
        report: ScanReport,
        spaces: list[OpenSpace],
        networks: Networks,
        options: IndexOptions,
        on_step: Callable[[str], None],
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._index = index
        self._catalog = catalog
        self._report = report
        self._spaces = spaces
        self._networks = networks
        self._options = options
        self._on_step = on_step
        self._on_progress = on_progress
        self._ids = [space.known.id for space in spaces]
        self._done = 0

    def all_pending(self) -> int:
        """Extract whatever lacks features; returns how many pictures that were.

        A file that changed or vanished meanwhile is looked at again, so a few passes may be needed.
        """
        extracted = 0
        for _ in range(_PASSES):
            offline = offline_roots(self._catalog)
            if self._options.only is None:
                total = self._catalog.count_pending(self._ids, offline)
            else:
                total = sum(1 for _ in self._pending(offline))
            if not total:
                break
            # What becomes pending meanwhile has a higher id: it is left to the next pass.
            extracted += self._extract(islice(self._pending(offline), total), total)
        return extracted

    def _pending(self, offline: Collection[int]) -> Iterator[PendingContent]:
        only = self._options.only
        for content in self._catalog.pending(self._ids, offline):
            if only is None or not only.isdisjoint(content.paths):
                yield content

    def _extract(self, pending: Iterator[PendingContent], total: int) -> int:
        space = self._spaces[0]
        network = self._networks.of(space.known, space.kit.space)
        extractor = Extractor(network, [each.kit for each in self._spaces])
        options = self._options
        extracted, self._done = 0, 0
        waiting: list[_Waiting] = []
        committed = time.monotonic()
        with ExitStack() as opened:
            stores = opened.enter_context(
                _Stores(self._index, [each.known.fingerprint for each in self._spaces], extractor.fit)
            )
            try:
                limits = options.file_timeout_s, options.decoder_memory
                pool = opened.enter_context(DecodePool(options.workers, extractor.size, *limits, extractor.fit))
                for batch in chunks(self._decoded(pool, pending, total), options.batch_size):
                    features = extractor.by_picture(np.stack([decoded.pixels for _, decoded in batch]))
                    waiting += [_Waiting(*item, made) for item, made in zip(batch, features, strict=True)]
                    if time.monotonic() - committed >= options.commit_seconds:
                        extracted += self._commit(stores, waiting)
                        committed = time.monotonic()
                    self._done += len(batch)
                    self._on_progress(self._done, total)
            finally:
                # Also when the run is interrupted: what has been computed is kept.
                extracted += self._commit(stores, waiting)
        return extracted

    def _decoded(
        self, pool: DecodePool, pending: Iterator[PendingContent], total: int
    ) -> Iterator[tuple[PendingContent, Decoded]]:
        """The pictures that could be decoded; the others are put down in the catalog with their reason."""
        being_decoded: dict[int, PendingContent] = {}

        def jobs() -> Iterator[Job]:
            for content in pending:
                being_decoded[content.content_id] = content
                yield Job(content.content_id, content.paths[0], content.sha256)

        for result in pool.run(jobs()):
            content = being_decoded.pop(result.job.content_id)
            if isinstance(result, Decoded):
                yield content, result
                continue
            self._done += 1
            self._on_progress(self._done, total)
            self._set_aside(result)

    def _set_aside(self, result: Failed | Changed) -> None:
        """Tell a file that changed or cannot be read any more from a content that is no picture."""
        now = rescan_file(self._catalog, self._report, result.job.path)
        if isinstance(result, Failed) and now.content_id == result.job.content_id:
            self._catalog.mark_failed(result.job.content_id, result.reason)

    def _commit(self, stores: "_Stores", waiting: list[_Waiting]) -> int:
        """First the features, then the rows that make them count."""
        if not waiting:
            return 0
        self._index.check_there()
        waiting.sort(key=lambda item: item.content.content_id)
        for shard, group in groupby(waiting, key=lambda item: item.content.shard):
            items = list(group)
            for number, store in enumerate(stores.of(shard)):
                store.put(item.record(number) for item in items)
                self._on_step("features stored")
            stores.put_sketches(shard, ((item.content.content_id, item.content.sha256, item.decoded) for item in items))
        pictures = [
            (item.content.content_id, item.decoded.format, item.decoded.width, item.decoded.height) for item in waiting
        ]
        taken_ns = {item.content.content_id: item.decoded.taken_ns for item in waiting}
        said = {item.content.content_id: said_of(item.decoded) for item in waiting}
        self._catalog.mark_indexed(self._ids, pictures, taken_ns, said)
        stores.close_below(waiting[-1].content.shard)
        waiting.clear()
        self._on_step("features committed")
        return len(pictures)


class _Stores:
    """The stores that are written to, in every space those of the shards at work. Contents come by id, so that their
    shards come in turn."""

    def __init__(self, index: IndexFolder, fingerprints: Sequence[str], fit: str) -> None:
        self._index = index
        self._fingerprints = fingerprints
        self._fit = fit
        self._open: dict[int, list[FeatureStore]] = {}
        self._sketches: dict[int, FeatureStore] = {}

    def of(self, shard: int) -> list[FeatureStore]:
        """In the order of the spaces."""
        stores = self._open.setdefault(shard, [])
        for fingerprint in self._fingerprints[len(stores) :]:
            stores.append(self._index.store(fingerprint, shard, readonly=False))
        return stores

    def put_sketches(self, shard: int, decoded: Iterable[tuple[int, bytes, Decoded]]) -> None:
        """Of pictures, by id and hash, as far as they can be made of what the network sees; see sketches.py."""
        made = (sketch_record(content_id, sha256, each, self._fit) for content_id, sha256, each in decoded)
        if records := [record for record in made if record is not None]:
            if shard not in self._sketches:
                self._index.check_there()
                self._sketches[shard] = self._index.sketches(shard, readonly=False)
            self._sketches[shard].put(records)

    def close_below(self, shard: float) -> None:
        for finished in [number for number in self._sketches if number < shard]:
            self._sketches.pop(finished).close()
        for finished in [number for number in self._open if number < shard]:
            for store in self._open.pop(finished):
                store.close()

    def __enter__(self) -> "_Stores":
        return self

    def __exit__(self, *_: object) -> None:
        self.close_below(float("inf"))
