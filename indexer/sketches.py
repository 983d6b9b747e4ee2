"""Sketches, by which copies are recognised: made from what the network sees, or of files where that is not enough.

They are a cache: a missing or damaged one is made again by the next run.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from diffsim.db.catalog import Catalog
from diffsim.db.chunks import chunks
from diffsim.retrieval.copies.sketch import DECODED, SIDE, Sketch
from diffsim.retrieval.durable import put_in_place
from diffsim.retrieval.pictures.decode_pool import Decoded, DecodePool, Job
from diffsim.retrieval.regular_files import open_regular
from diffsim.retrieval.shard.salvage import mend_store
from diffsim.retrieval.shard.store import Record

from .index_folder import IndexFolder
from .options import IndexOptions
from .roots import offline_roots
from .work import OnWork, counted

_AT_ONCE = 500
_SQUASH = "squash"
_NO_DESCRIPTOR = np.empty(0, np.float16)


def sketch_record(content_id: int, sha256: bytes, decoded: Decoded, fit: str) -> Record | None:
    """The sketch of a decoded picture; None where its pixels are not the whole picture, or too few."""
    if fit != _SQUASH or len(decoded.pixels) < SIDE:
        return None
    sketch = Sketch.of(decoded.pixels, decoded.width, decoded.height)
    return Record(content_id, sha256, _NO_DESCRIPTOR, sketch.record())


def fill_sketches(index: IndexFolder, catalog: Catalog, options: IndexOptions, on_work: OnWork) -> None:
    """Decode the indexed pictures that lack a sketch, as all of an index do that an older program made."""
    offline, reached = offline_roots(catalog), str(catalog.generation())
    if _filled_at(index) == reached:
        return
    for shard in catalog.shards():
        known = known_hashes(catalog, shard.number)
        there = index.sketches_folder(shard.number).exists()
        if not known and not there:
            continue
        with index.sketches(shard.number, readonly=False) as store:
            lacking = sorted(known.keys() - set(store.ids().tolist()))
            if not lacking:
                continue
            limits = options.file_timeout_s, options.decoder_memory
            with DecodePool(options.workers, DECODED, *limits, _SQUASH) as pool:
                jobs = _jobs(catalog, lacking, known, set(offline))
                results = counted(pool.run(jobs), "Looking for copies: sketches", len(lacking), on_work)
                for some in chunks(results, _AT_ONCE):
                    made = [
                        sketch_record(result.job.content_id, result.job.sha256, result, _SQUASH)
                        for result in some
                        if isinstance(result, Decoded)
                    ]
                    index.check_there()
                    store.put(record for record in made if record is not None)
    if not offline and _mark(index).parent.exists():
        part = _mark(index).with_suffix(".part")
        part.unlink(missing_ok=True)  # it may be a link to elsewhere
        part.write_text(reached, encoding="ascii")
        put_in_place(part, _mark(index))


def _mark(index: IndexFolder) -> Path:
    """Holds the generation of the catalog at which no sketch was lacking, so a run with nothing to do reads none."""
    return index.path / "sketches" / "filled"


def _filled_at(index: IndexFolder) -> str:
    with suppress(OSError, ValueError), open_regular(_mark(index)) as file:
        return file.read(32).decode("ascii")
    return ""


def check_sketches(index: IndexFolder, catalog: Catalog) -> int:
    """Drop damaged sketches; returns how many. The next run makes them again."""
    dropped = 0
    _mark(index).unlink(missing_ok=True)
    for shard in catalog.shards():
        folder = index.sketches_folder(shard.number)
        if not folder.exists():
            continue
        mend_store(folder)
        with index.sketches(shard.number, readonly=False) as store:
            known = known_hashes(catalog, shard.number, visible=False)
            stored = {content_id: known[content_id] for content_id in store.ids().tolist() if content_id in known}
            damaged = store.check(stored)
            store.delete(damaged)
            dropped += len(damaged)
    return dropped


def clean_sketches(index: IndexFolder, catalog: Catalog) -> None:
    """Drop the sketches of contents that were forgotten."""
    for shard in catalog.shards():
        if index.sketches_folder(shard.number).exists():
            with index.sketches(shard.number, readonly=False) as store:
                known = np.array(sorted(known_hashes(catalog, shard.number, visible=False)), np.int64)
                store.delete(np.setdiff1d(store.ids(), known).tolist())
                store.compact()


def known_hashes(catalog: Catalog, shard: int, *, visible: bool = True) -> dict[int, bytes]:
    """The contents of a shard that exist in any feature space, by id. visible: only those with a present file."""
    found: dict[int, bytes] = {}
    for space in catalog.spaces():
        contents = catalog.indexed(space.id, shard)
        shown = set(contents.ids[contents.visible].tolist()) if visible else None
        found.update((row, sha256) for row, sha256 in contents.hashes().items() if shown is None or row in shown)
    return found


def _jobs(catalog: Catalog, ids: list[int], hashes: dict[int, bytes], offline: set[int]) -> Iterator[Job]:
    for some in chunks(ids):
        for content_id, files in catalog.files_of(some).items():
            here = [file.path for file in files if file.root_id not in offline]
            if here:
                yield Job(content_id, here[0], hashes[content_id])
