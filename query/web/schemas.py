"""What goes in and out of the JSON API."""

from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
UploadId = Annotated[str, Field(pattern="^u[0-9a-f]{32}$")]
PictureId = Id | UploadId
"""The id of a picture of the index, or of one that was uploaded."""
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Box = tuple[Fraction, Fraction, Fraction, Fraction]
"""Left, top, width, height in fractions of the upright picture."""
Count = Annotated[int, Field(ge=1, le=2**31)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """RFC 9457; `detail` is one sentence."""

    type: str
    title: str
    status: int
    detail: str


class ExampleIn(_In):
    picture: PictureId
    weight: Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)] = 1.0
    region: Box | None = None


class FiltersIn(_In):
    """What a picture must be; an empty field does not restrict. folders: as `/api/folders` lists them. after, before:
    days of the picture, or where it has no date of its own, of its file; `before` exclusive. Sides are in pixels, sizes
    in bytes."""

    folders: Annotated[list[Annotated[str, Field(max_length=8192)]], Field(max_length=20)] = []
    after: date | None = None
    before: date | None = None
    min_side: Count | None = None
    max_side: Count | None = None
    min_bytes: Count | None = None
    max_bytes: Annotated[int, Field(ge=1, le=2**62)] | None = None
    formats: Annotated[list[Annotated[str, Field(max_length=20)]], Field(max_length=20)] = []


class SearchIn(_In):
    """picture: the query; region: only this part of it is compared. examples: further pictures, with weights. spaces:
    names or fingerprints; none is the index's first. fold: near copies of a better hit become its `duplicates`."""

    picture: PictureId
    region: Box | None = None
    examples: Annotated[list[ExampleIn], Field(max_length=20)] = []
    spaces: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=8)] = []
    filters: FiltersIn = FiltersIn()
    fold: bool = False
    k: Annotated[int, Field(ge=1, le=1000)] = 200
    exact: bool = False


class PictureOut(BaseModel):
    """name, folder: display text of one of its files; files: how many there are. offline: all of them are, for now.
    version: changes with the content, for `?v=` of its thumbnail. width, height: in pixels, upright."""

    id: int
    name: str
    folder: str
    files: int
    offline: bool
    version: str
    width: int
    height: int


class HitOut(PictureOut):
    """rank, recall_rank: from 1, by the full score and by the first stage. likeness: how far the score stands above
    what pictures of the collection score in the middle, in their spread; standing: the same, or the score, as text.
    by_chance: how many pictures are expected to score as high by chance; chance: the same as text; certainty: `sure`,
    `likely` or `weak`. ended: chance alone explains this hit. duplicates: near copies of it that were folded."""

    rank: int
    score: float
    likeness: float | None
    standing: str
    by_chance: float | None
    chance: str | None
    certainty: str
    ended: bool
    recall_rank: int
    duplicates: list[PictureOut] = []


class SpaceOut(BaseModel):
    fingerprint: str
    name: str


class UnansweredOut(BaseModel):
    """A shard of a cluster that had no part in the answer. pictures: how many it holds."""

    shard: int
    pictures: int
    reason: str


class AnswerOut(BaseModel):
    """One line of a search's answer. stage: `recalled`, the order of the first stage, which comes first, then
    `ranked`, that of the full score. pictures: how many could be hits; recalled, scored: how many each stage looked at.
    unanswered: shards that had no part; the first notes say so. seconds: since the question."""

    stage: Literal["recalled", "ranked"]
    hits: list[HitOut]
    spaces: list[SpaceOut]
    pictures: int
    recalled: int
    scored: int
    notes: list[str]
    unanswered: list[UnansweredOut]
    seconds: float


class FileOut(BaseModel):
    path: str
    there: bool


class DetailsOut(PictureOut):
    """Everything about one picture. bytes: of its file. date: ISO 8601, local; date_of: whose it is: the `picture`'s
    own, or where it has none, that of its `file`. paths: all its files, and whether each is there now."""

    format: str
    bytes: int
    date: str | None
    date_of: Literal["picture", "file"] | None
    paths: list[FileOut]


class PageOut(BaseModel):
    """A piece of all pictures, or of those that pass filters, by folder and name. generation: of the catalog; a piece
    of another generation may overlap this one."""

    total: int
    offset: int
    generation: int
    items: list[PictureOut]


class UploadOut(BaseModel):
    """picture: the id to query with: the upload's, or that of the picture in the index with the same bytes."""

    picture: PictureId
    width: int
    height: int


class WhyOut(BaseModel):
    """rows of values in [-1, 1]: how well each part of a is rebuilt from b, and of b from a; low, high: ends of a
    colour scale for both. regions: parts of a that are found best, and where in b their attention peaks. seen_a,
    seen_b: the box of each picture that the network sees. attends: whether attention falls on places. region: the box
    of a that was compared, in fractions of seen_a: then the score is that of the region, in one direction. scores: in
    each space that was asked; the maps are of the first."""

    score: float
    scores: list["SpaceScoreOut"]
    region: Box | None
    a_from_b: list[list[float]]
    b_from_a: list[list[float]]
    low: float
    high: float
    regions: list["RegionOut"]
    seen_a: Box
    seen_b: Box
    attends: bool
    space: SpaceOut


class SpaceScoreOut(SpaceOut):
    score: float


class RegionOut(BaseModel):
    a: tuple[int, int]
    b: tuple[int, int]
    agreement: float


class AttentionOut(BaseModel):
    """rows: the share of the attention that each part of the other picture gets."""

    rows: list[list[float]]


class FolderOut(BaseModel):
    """pictures: how many files below it are there."""

    folder: str
    pictures: int


class SpaceStateOut(SpaceOut):
    """answers: whether it is the space that its name means. files, pictures: how many have features in it; waiting: how
    many files do not yet."""

    network: str
    created: str
    files: int
    pictures: int
    waiting: int
    answers: bool


class RootOut(BaseModel):
    """A folder that was indexed. offline: why it cannot be read now."""

    id: int
    folder: str
    files: int
    missing: int
    offline: str | None


class FailedOut(BaseModel):
    path: str
    reason: str


class RunOut(BaseModel):
    """An indexing run that this page started. state: `running`, `stopping`, or how it ended: `done`, `stopped`,
    `failed`. started: ISO 8601, UTC. lines: its messages."""

    root: int | None
    folder: str
    state: Literal["running", "stopping", "done", "stopped", "failed"]
    started: str
    seconds: float
    lines: list[str]


class IndexOut(BaseModel):
    """The counts may be some seconds old in a large index. bytes: on disk, null until that has been measured. failed:
    the first of them; failures: how many there are. writer: who is writing to the index now, in words, unless that is
    the page's own run."""

    path: str
    bytes: int | None
    generation: int
    pictures: int
    files: int
    missing: int
    spaces: list[SpaceStateOut]
    roots: list[RootOut]
    failed: list[FailedOut]
    failures: int
    run: RunOut | None
    writer: str | None


class RunIn(_In):
    """root: id of a folder of the index; null is all of them."""

    root: Id | None = None


class SelectionIn(_In):
    pictures: Annotated[list[Id], Field(min_length=1, max_length=5000)]


class SheetIn(_In):
    """The Figure-4 sheet of a search, or of several spaces side by side. only: hits to show; none means the first
    `top`."""

    search: SearchIn
    compare: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=8)] = []
    only: Annotated[list[Id], Field(max_length=60)] = []
    top: Annotated[int, Field(ge=1, le=60)] = 12
