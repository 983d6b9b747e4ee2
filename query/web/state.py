"""The index as the page shows it: what is in it, what failed and why, what is offline, who is writing."""

import os

from diffsim.indexer.choose import answering
from diffsim.indexer.roots import offline_roots

from ..text import printable
from . import schemas
from .engine import Engine

_SHOWN_FAILURES = 1000


def index_out(engine: Engine) -> schemas.IndexOut:
    catalog = engine.catalog
    state, spaces = catalog.status(), {space.id: space for space in catalog.spaces()}
    visible = {count.space_id: count.visible for count in state.spaces}
    offline = offline_roots(catalog)
    rows = []
    for count in state.spaces:
        space = spaces[count.space_id]
        namesakes = [each for each in spaces.values() if each.name == space.name]
        rows.append(
            schemas.SpaceStateOut(
                fingerprint=space.fingerprint,
                name=space.name,
                network=printable(space.network),
                created=space.created,
                files=count.files,
                pictures=count.contents,
                waiting=max(0, state.files - len(state.failed) - count.files),
                answers=answering(namesakes, visible) == space,
            )
        )
    return schemas.IndexOut(
        path=printable(str(engine.index.path.absolute())),
        bytes=engine.index.disk_bytes(),
        generation=catalog.generation(),
        pictures=state.contents,
        files=state.files,
        missing=state.missing,
        spaces=rows,
        roots=[
            schemas.RootOut(
                id=root.root.id,
                folder=printable(os.fsdecode(root.root.path)),
                files=root.files,
                missing=root.missing,
                offline=offline.get(root.root.id),
            )
            for root in state.roots
        ],
        failed=[
            schemas.FailedOut(path=printable(os.fsdecode(failed.path)), reason=printable(failed.reason))
            for failed in state.failed[:_SHOWN_FAILURES]
        ],
        failures=len(state.failed),
        run=engine.runs.state(),
        writer=engine.runs.writer(),
    )
