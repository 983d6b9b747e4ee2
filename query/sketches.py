"""The sketches of an index's pictures, to tell copies: stored ones, and for the others, files that are decoded."""

from collections.abc import Sequence
from contextlib import ExitStack

from diffsim.db.catalog import Catalog
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.sketches import sketch_record
from diffsim.retrieval.copies.compare import Seen
from diffsim.retrieval.copies.sketch import DECODED, Sketch
from diffsim.retrieval.pictures.decode_pool import Decoded, DecodePool, Job
from diffsim.retrieval.shard.lmdb_environment import StoreDamaged, StoreMissing
from diffsim.retrieval.shard.store import FeatureStore

_TIMEOUT_S, _MEMORY, _FIT = 30.0, 2 * 10**9, "squash"


class Sketches:
    """Use as a context. decoded: how many pictures had no sound sketch, so that their files were decoded."""

    def __init__(self, index: IndexFolder, catalog: Catalog) -> None:
        self.decoded = 0
        self._catalog = catalog
        self._open = ExitStack()
        self._stores: list[FeatureStore] = []
        for shard in catalog.shards():
            try:
                store = index.sketches(shard.number, readonly=True)
            except (StoreMissing, StoreDamaged):
                continue
            self._stores.append(self._open.enter_context(store))
        self._pool = self._open.enter_context(DecodePool(1, DECODED, _TIMEOUT_S, _MEMORY, _FIT))

    def __enter__(self) -> "Sketches":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def of(self, ids: Sequence[int]) -> dict[int, Seen]:
        """Of those of the contents that have a sketch or a file that can be read."""
        hashes = {row: known.sha256 for row, known in self._catalog.pictures(ids).items()}
        found = {
            content_id: Seen(Sketch.read(record))
            for store in self._stores
            for content_id, record in store.tokens(hashes)
        }
        lacking = [content_id for content_id in hashes if content_id not in found]
        self.decoded += len(lacking)
        files = self._catalog.files_of(lacking)
        jobs = (Job(row, places[0].path, hashes[row]) for row, places in files.items() if places)
        for result in self._pool.run(jobs):
            if isinstance(result, Decoded):
                made = sketch_record(result.job.content_id, result.job.sha256, result, _FIT)
                if made is not None:
                    found[result.job.content_id] = Seen(Sketch.read(made.tokens))
        return found
