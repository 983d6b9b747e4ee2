"""What the files say of their pictures, read again where they were decoded by a program that did not read it yet.

Each file is decoded once more, in the guarded processes, at the smallest size; no network runs and no features change.
"""

import time

from diffsim.db.catalog import Catalog
from diffsim.db.metadata import PictureMetadata
from diffsim.retrieval.pictures.decode_pool import Decoded, DecodePool, Job

from .index_folder import IndexFolder
from .options import IndexOptions
from .roots import offline_roots
from .work import OnWork, counted


def said_of(decoded: Decoded) -> PictureMetadata:
    """What a file says, as the catalog keeps it."""
    return PictureMetadata(**decoded.metadata.as_message())


def read_missing_metadata(index: IndexFolder, catalog: Catalog, options: IndexOptions, on_work: OnWork) -> None:
    """Bring dates and metadata up to date in the catalog, a commit every few seconds. A file that cannot be read now is
    left to the next run."""
    offline = offline_roots(catalog)
    total = catalog.count_pending(None, offline)
    if not total:
        return
    jobs = (
        Job(content.content_id, content.paths[0], content.sha256)
        for content in catalog.pending(None, offline)
        if options.only is None or not options.only.isdisjoint(content.paths)
    )
    waiting: list[Decoded] = []
    committed = time.monotonic()
    with DecodePool(options.workers, 1, options.file_timeout_s, options.decoder_memory, "inside") as pool:
        try:
            for result in counted(pool.run(jobs), "Reading metadata", total, on_work):
                waiting += [result] if isinstance(result, Decoded) else []
                if time.monotonic() - committed >= options.commit_seconds:
                    _commit(index, catalog, waiting)
                    committed = time.monotonic()
        finally:
            _commit(index, catalog, waiting)


def _commit(index: IndexFolder, catalog: Catalog, waiting: list[Decoded]) -> None:
    if not waiting:
        return
    index.check_there()
    pictures = [(found.job.content_id, found.format, found.width, found.height) for found in waiting]
    dates = {found.job.content_id: found.taken_ns for found in waiting}
    catalog.mark_indexed([], pictures, dates, {found.job.content_id: said_of(found) for found in waiting})
    waiting.clear()
