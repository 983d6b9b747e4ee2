"""What the page is shown: the engine's values as those of the JSON API. Names and paths become printable text here."""

import os
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from diffsim.db.catalog import KnownPicture
from diffsim.db.metadata import PictureMetadata
from diffsim.indexer.choose import answering
from diffsim.retrieval.region import seen_part

from ..dates import date_of
from ..metadata import told
from ..picture_cache import PictureCache
from ..query import Answer, Example, Hit, Text
from ..text import certainty, chance_text, likeness_ended, printable, standing_text
from ..texts import takes_text
from . import schemas
from .engine import Comparison, IndexState, Page, Place
from .runs import Run

# Pictures


def version(known: KnownPicture) -> str:
    """Changes with the content."""
    return known.sha256.hex()[:16]


def picture_out(known: KnownPicture, place: Place) -> schemas.PictureOut:
    paths, offline = place
    first = PurePath(paths[0]) if paths else PurePath()
    return schemas.PictureOut(
        id=known.content_id,
        name=printable(first.name),
        folder=printable(str(first.parent)) if paths else "",
        files=len(paths),
        offline=offline,
        version=version(known),
        width=known.width,
        height=known.height,
        bytes=known.size,
    )


def details_out(known: KnownPicture, place: Place, said: PictureMetadata | None) -> schemas.DetailsOut:
    """said: what its file says of it, if that is known."""
    date, whose = date_of(known.taken_ns, place[0])
    return schemas.DetailsOut(
        **picture_out(known, place).model_dump(),
        format=known.format,
        date=None if date is None else date.isoformat(timespec="seconds"),
        date_of=whose,
        metadata=None if said is None else schemas.MetadataOut(**told(said, private=True) or {}),
        paths=[schemas.FileOut(path=printable(path), there=os.path.lexists(path)) for path in place[0]],
    )


def page_out(page: Page, pictures: PictureCache) -> schemas.PageOut:
    pictures.learn([content_id for content_id, _ in page.items])
    items = [picture_out(pictures.known(content_id), place) for content_id, place in page.items]
    return schemas.PageOut(total=page.total, offset=page.offset, generation=page.generation, items=items)


def folders_out(folders: Mapping[str, tuple[bytes, int]]) -> list[schemas.FolderOut]:
    return [schemas.FolderOut(folder=name, pictures=files) for name, (_, files) in folders.items()]


# Answers


def answer_out(
    answer: Answer, examples: Sequence[Example], seconds: float, pictures: PictureCache
) -> schemas.AnswerOut:
    """examples: of the question. seconds: since it."""
    pictures.learn([each.content_id for hit in answer.hits for each in (hit, *hit.duplicates)])
    return schemas.AnswerOut(
        stage="ranked" if answer.reranked else "recalled",
        hits=[_hit_out(hit, pictures) for hit in answer.hits],
        spaces=[schemas.SpaceOut(fingerprint=space.fingerprint, name=space.name) for space in answer.spaces],
        pictures=answer.pictures,
        recalled=answer.recalled,
        scored=answer.scored,
        texts=[
            schemas.TextOut(text=printable(example.subject.text), weight=example.weight)
            for example in examples
            if isinstance(example.subject, Text)
        ],
        notes=[printable(note) for note in answer.notes],
        unanswered=[
            schemas.UnansweredOut(shard=shard.shard, pictures=shard.pictures, reason=printable(shard.reason))
            for shard in answer.unanswered
        ],
        seconds=round(seconds, 3),
    )


def _hit_out(hit: Hit, pictures: PictureCache) -> schemas.HitOut:
    def place(one: Hit) -> schemas.PictureOut:
        return picture_out(pictures.known(one.content_id), (one.paths, one.offline))

    return schemas.HitOut(
        **place(hit).model_dump(),
        rank=hit.rank,
        score=round(hit.score, 6),
        likeness=None if hit.likeness is None else round(hit.likeness, 3),
        standing=standing_text(hit.score, hit.likeness),
        by_chance=hit.by_chance,
        chance=None if hit.by_chance is None else chance_text(hit.by_chance),
        certainty=certainty(hit.by_chance),
        ended=likeness_ended(hit.by_chance),
        date=None if hit.date is None else hit.date.isoformat(timespec="seconds"),
        recall_rank=hit.recall_rank,
        duplicates=[place(copy) for copy in hit.duplicates],
    )


def why_out(comparison: Comparison) -> schemas.WhyOut:
    found, space = comparison.pair.agreement(), comparison.space
    values = [*found.a_from_b.flatten().tolist(), *found.b_from_a.flatten().tolist()]
    seen_a, seen_b = (seen_part(*size, comparison.size, comparison.fit) for size in comparison.sizes)
    return schemas.WhyOut(
        score=round(found.score, 6),
        scores=[
            schemas.SpaceScoreOut(fingerprint=one.fingerprint, name=one.name, score=round(score, 6))
            for one, score in comparison.scores
        ],
        region=comparison.pair.region,
        a_from_b=_rounded(found.a_from_b.tolist(), 4),
        b_from_a=_rounded(found.b_from_a.tolist(), 4),
        low=min(values),
        high=max(values),
        regions=[
            schemas.RegionOut(a=(region.row, region.column), b=region.peak, agreement=round(region.agreement, 4))
            for region in found.regions
        ],
        seen_a=seen_a,
        seen_b=seen_b,
        attends=comparison.pair.places,
        space=schemas.SpaceOut(fingerprint=space.fingerprint, name=space.name),
    )


def attention_out(comparison: Comparison, row: int, column: int) -> schemas.AttentionOut:
    return schemas.AttentionOut(rows=_rounded(comparison.pair.attention((row, column)).tolist(), 6))


def _rounded(rows: Sequence[Sequence[float]], digits: int) -> list[list[float]]:
    return [[round(value, digits) for value in row] for row in rows]


# The index


def index_out(state: IndexState) -> schemas.IndexOut:
    counts = state.counts
    return schemas.IndexOut(
        path=printable(str(state.path.absolute())),
        bytes=state.bytes,
        generation=state.generation,
        pictures=counts.contents,
        files=counts.files,
        missing=counts.missing,
        spaces=_spaces_out(state),
        roots=[
            schemas.RootOut(
                id=root.root.id,
                folder=printable(os.fsdecode(root.root.path)),
                files=root.files,
                missing=root.missing,
                offline=state.offline.get(root.root.id),
            )
            for root in counts.roots
        ],
        failed=[
            schemas.FailedOut(path=printable(os.fsdecode(failed.path)), reason=printable(failed.reason))
            for failed in counts.failed
        ],
        failures=counts.failures,
        run=None if state.run is None else run_out(state.run),
        writer=None if state.writer is None else printable(state.writer),
    )


def _spaces_out(state: IndexState) -> list[schemas.SpaceStateOut]:
    counts = {count.space_id: count for count in state.counts.spaces}
    visible = {count.space_id: count.visible for count in state.counts.spaces}
    known = [space for space in state.spaces if space.id in counts]
    return [
        schemas.SpaceStateOut(
            fingerprint=space.fingerprint,
            name=space.name,
            network=printable(space.network),
            created=space.created,
            files=counts[space.id].files,
            pictures=counts[space.id].contents,
            waiting=max(0, state.counts.files - state.counts.failures - counts[space.id].files),
            answers=answering([each for each in known if each.name == space.name], visible) == space,
            takes_text=takes_text(space),
        )
        for space in known
    ]


def run_out(run: Run) -> schemas.RunOut:
    return schemas.RunOut(
        task=run.task,
        root=run.root,
        folder="all folders" if run.folder is None else printable(os.fsdecode(run.folder)),
        state=run.state,
        started=run.started,
        seconds=run.seconds,
        lines=[printable(line) for line in run.lines],
    )
