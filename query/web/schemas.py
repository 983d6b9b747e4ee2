"""What goes in and out of the JSON API."""

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
UploadId = Annotated[str, Field(pattern="^u[0-9a-f]{32}$")]
PictureId = Id | UploadId
"""The id of a picture of the index, or of one that was uploaded."""
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Box = tuple[Fraction, Fraction, Fraction, Fraction]
"""Left, top, width, height in fractions of the upright picture."""
Latitude = Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]
Longitude = Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]
Kilometres = Annotated[float, Field(gt=0, le=20_100, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=2**31)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """RFC 9457; `detail` is one sentence."""

    type: str
    title: str
    status: int
    detail: str


class _SubjectIn(_In):
    """A picture, or words that say what one shows."""

    picture: PictureId | None = None
    text: Annotated[str, Field(max_length=100_000)] | None = None

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if (self.picture is None) == (self.text is None):
            raise ValueError("give a picture or a text, one of the two")
        return self


class ExampleIn(_SubjectIn):
    weight: Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)] = 1.0
    region: Box | None = None


class FiltersIn(_In):
    """What a picture must be; an empty field does not restrict. folders: as `/api/folders` lists them. after, before:
    days of the picture, or where it has no date of its own, of its file; `before` exclusive. Sides are in pixels, sizes
    in bytes. name: a part of the path below the indexed folder. By what its file says: camera: maker and model hold
    this; keywords: it has every one; rating: at least so many stars; near: latitude, longitude, kilometres. colours: it
    has enough of each, #c0392b or a name, perhaps with a share, #c0392b:25%; needs the feature space `colour`."""

    folders: Annotated[list[Annotated[str, Field(max_length=8192)]], Field(max_length=20)] = []
    after: date | None = None
    before: date | None = None
    min_side: Count | None = None
    max_side: Count | None = None
    min_bytes: Count | None = None
    max_bytes: Annotated[int, Field(ge=1, le=2**62)] | None = None
    formats: Annotated[list[Annotated[str, Field(max_length=20)]], Field(max_length=20)] = []
    camera: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    keywords: Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], Field(max_length=20)] = []
    rating: Annotated[int, Field(ge=1, le=5)] | None = None
    near: tuple[Latitude, Longitude, Kilometres] | None = None
    name: Annotated[str, Field(max_length=200)] = ""
    colours: Annotated[list[Annotated[str, Field(min_length=1, max_length=60)]], Field(max_length=5)] = []


class SearchIn(_SubjectIn):
    """picture or text: the query; region: only this part of the picture is compared. examples: further pictures and
    texts, with weights. spaces: names or fingerprints, each perhaps with its weight, `style:0.7`; none is the index's
    first, and a text is compared in one that takes texts. fold: near copies of a better hit become its `duplicates`."""

    region: Box | None = None
    examples: Annotated[list[ExampleIn], Field(max_length=20)] = []
    spaces: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=8)] = []
    filters: FiltersIn = FiltersIn()
    fold: bool = False
    k: Annotated[int, Field(ge=1, le=1000)] = 200
    exact: bool = False


class PictureOut(BaseModel):
    """name, folder: display text of one of its files; files: how many there are. offline: all of them are, for now.
    version: changes with the content, for `?v=` of its thumbnail. width, height: in pixels, upright. bytes: of its
    file."""

    id: int
    name: str
    folder: str
    files: int
    offline: bool
    version: str
    width: int
    height: int
    bytes: int


class HitOut(PictureOut):
    """rank, recall_rank: from 1, by the full score and by the first stage. likeness: how far the score stands above
    what pictures of the collection score in the middle, in their spread; standing: the same, or the score, as text.
    by_chance: how many pictures are expected to score as high by chance; chance: the same as text; certainty: `sure`,
    `likely` or `weak`. ended: chance alone explains this hit. date: as in its details.
    duplicates: near copies of it that were folded."""

    rank: int
    score: float
    likeness: float | None
    standing: str
    by_chance: float | None
    chance: str | None
    certainty: str
    ended: bool
    date: str | None
    recall_rank: int
    duplicates: list[PictureOut] = []


class SpaceOut(BaseModel):
    fingerprint: str
    name: str


class TextOut(BaseModel):
    text: str
    weight: float


class UnansweredOut(BaseModel):
    """A shard of a cluster that had no part in the answer. pictures: how many it holds."""

    shard: int
    pictures: int
    reason: str


class AnswerOut(BaseModel):
    """One line of a search's answer. stage: `recalled`, the order of the first stage, which comes first, then
    `ranked`, that of the full score. pictures: how many could be hits; recalled, scored: how many each stage looked at.
    texts: the examples that are texts. unanswered: shards that had no part; the first notes say so. seconds: since the
    question."""

    stage: Literal["recalled", "ranked"]
    hits: list[HitOut]
    spaces: list[SpaceOut]
    pictures: int
    recalled: int
    scored: int
    texts: list[TextOut]
    notes: list[str]
    unanswered: list[UnansweredOut]
    seconds: float


class FileOut(BaseModel):
    path: str
    there: bool


class MetadataOut(BaseModel):
    """What a picture's file says of it; empty or null where it says nothing. latitude, longitude: degrees, north and
    east positive. rating: stars, or -1 for rejected."""

    camera: str
    lens: str
    rating: int | None
    latitude: float | None
    longitude: float | None
    keywords: list[str]
    caption: str


class DetailsOut(PictureOut):
    """Everything about one picture. date: ISO 8601, local; date_of: whose it is: the `picture`'s
    own, or where it has none, that of its `file`. metadata: what its file says, null where that was not read. paths:
    all its files, and whether each is there now."""

    format: str
    date: str | None
    date_of: Literal["picture", "file"] | None
    metadata: MetadataOut | None
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


class AddressIn(_In):
    address: Annotated[str, Field(min_length=1, max_length=8192)]


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
    many files do not yet. takes_text: whether words can be searched with in it."""

    network: str
    created: str
    files: int
    pictures: int
    waiting: int
    answers: bool
    takes_text: bool


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
    """A run that this page started. task: the command, `diffsim index` or `diffsim prune`. state: `running`,
    `stopping`, or how it ended: `done`, `stopped`, `failed`. started: ISO 8601, UTC. lines: its messages."""

    task: Literal["index", "prune"]
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
    """root: id of a folder of the index; null is all of them. folder: the path of a further one, absolute, in its
    place. by: profiles of the bundled network, each a further feature space of the index."""

    root: Id | None = None
    folder: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    by: Annotated[list[Literal["style", "instance", "look"]], Field(max_length=3)] = []


class SelectionIn(_In):
    pictures: Annotated[list[Id], Field(min_length=1, max_length=5000)]


class SheetIn(_In):
    """The Figure-4 sheet of a search, or of several spaces side by side. only: hits to show; none means the first
    `top`."""

    search: SearchIn
    compare: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=8)] = []
    only: Annotated[list[Id], Field(max_length=60)] = []
    top: Annotated[int, Field(ge=1, le=60)] = 12
