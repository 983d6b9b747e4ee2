"""What a program calls first: make an index, open it, compare two pictures. docs/python.md shows the whole of it.

import diffsim

spaces = [diffsim.Space(by="style"), diffsim.Space(by="instance", size=128, tier="int8")]
report = diffsim.index("gallery.idx", "Pictures", spaces=spaces)
print(report.account.indexed, "pictures")
with diffsim.open("gallery.idx") as searcher:
    for hit in searcher.search("cat.jpg", spaces="style", k=5):
        print(hit.rank, hit.score, hit.path)
print(diffsim.score("cat.jpg", "dog.jpg", by="style").score)
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace

from .indexer.build import IndexOptions, IndexReport, index_folders
from .indexer.index_folder import IndexFolder
from .indexer.paths import given_path
from .indexer.requests import DEFAULT_MODEL, SpaceRequest, requested_spaces
from .query.query import Subject
from .query.score_pictures import ScoredPair, score_pictures
from .query.search import SHARD_TIMEOUT_S, Searcher
from .retrieval.agreement import Agreement
from .retrieval.score import PairScore
from .retrieval.settings import InvalidSpace


@dataclass(frozen=True)
class Space:
    """A feature space to fill or to score in: a network, and how it is read. What is None is the network's own default.

    model: a preset (`mini`, `sd15`, `clip-vit-b32`, ...) or a network's folder. by: `style`, `instance` or `look`; None
    is `look` where no layers are named. layers: attention to read instead of the profile's, `LAYER`, `LAYER@TIMESTEP`
    or `LAYER@TIMESTEP*WEIGHT`; several make one space. timestep: 0..999, for layers that name none, larger is noisier.
    variant: `S`, self-attention; `C`, cross-attention with an IP-Adapter; `global`, one embedding. adapter: the
    IP-Adapter's preset or path. size, noises, prompt, seed, dtype, tier: as in SpaceSettings.
    """

    model: str | os.PathLike[str] = DEFAULT_MODEL
    by: str | None = None
    layers: Sequence[str] = ()
    timestep: int | None = None
    variant: str | None = None
    adapter: str | os.PathLike[str] | None = None
    size: int | None = None
    noises: int | None = None
    prompt: str | None = None
    seed: int | None = None
    dtype: str | None = None
    tier: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", (self.layers,) if isinstance(self.layers, str) else tuple(self.layers))

    def request(self) -> SpaceRequest:
        """Checked, with the network's defaults filled in. Raises UnknownModel, InvalidSpace."""
        asked = {field.name: getattr(self, field.name) for field in fields(self)}
        by = asked.pop("by")
        asked["model"] = os.fspath(self.model)
        asked["adapter"] = None if self.adapter is None else os.fspath(self.adapter)
        (request,) = requested_spaces(profiles=[] if by is None else [by], **asked)
        return request


def open(index: str | os.PathLike[str], device: str = "auto", *, shard_timeout: float = SHARD_TIMEOUT_S) -> Searcher:
    """Open an index to ask it: `diffsim.open(folder).search("cat.jpg")` gives a list of hits.

    device: `auto`, `cpu`, `cuda` or `cuda:N`. shard_timeout: seconds, see Searcher. Raises NoIndex, BadDevice, ...
    """
    return Searcher(index, device, shard_timeout=shard_timeout)


def index(
    index: str | os.PathLike[str],
    folders: Iterable[str | os.PathLike[str]] | str | os.PathLike[str] = (),
    *,
    spaces: Iterable[Space] | Space = (),
    model: str | os.PathLike[str] | None = None,
    by: Iterable[str] | str = (),
    options: IndexOptions | None = None,
    catalog: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> IndexReport:
    """Build an index from folders of pictures, or bring it up to date.

    folders: one or several; none are all that the index knows. spaces: what to fill. model, by: the same in short, a
    space of this network for each profile. Without any of the three, every feature space of the index, or the default
    one for a new index. catalog: the URL of the PostgreSQL database in which a new index has its catalog, without a
    password. on_progress: called with (pictures done, pictures in all).
    Raises InvalidSpace, UnknownModel, FolderNotFound, NoIndex, IndexBusy, ...
    """
    wanted = [spaces] if isinstance(spaces, Space) else list(spaces)
    profiles = [by] if isinstance(by, str) else list(by)
    if model is not None or profiles:
        if wanted:
            raise InvalidSpace("Feature spaces are named twice; give either `spaces` or `model` and `by`.")
        wanted = [_in_short(model, profile) for profile in profiles or (None,)]
    requests = [space.request() for space in wanted]
    several = [folders] if isinstance(folders, str | os.PathLike) else folders
    places = [given_path(folder) for folder in several]
    if not places:
        return index_folders(IndexFolder.open(given_path(index)), [], requests, options, on_progress=on_progress)
    with IndexFolder.begin(given_path(index), catalog) as begun:
        return index_folders(begun, places, requests, options, on_progress=on_progress)


def score(
    a: Subject,
    b: Subject,
    *,
    space: Space | None = None,
    model: str | os.PathLike[str] | None = None,
    by: str | None = None,
    protocol: str = "engine",
    metric: str = "cosine",
    device: str = "auto",
) -> PairScore:
    """Score two pictures without an index, both directions and their mean in [-1, 1]; 1 for a picture and itself.

    a, b: a path, the bytes of a picture file, a Pillow image or an array uint8 [height, width, 3] of RGB. space, or in
    short model and by: what is compared. protocol: `paper` scores as DiffSim's released code does. metric: `cosine`, or
    `mse`, where smaller is more alike. Raises BadPair, UnreadableImage, UnknownModel, InvalidSpace, ...
    """
    return _scored(a, b, space, model, by, protocol, metric, device).score


def explain(
    a: Subject,
    b: Subject,
    *,
    space: Space | None = None,
    model: str | os.PathLike[str] | None = None,
    by: str | None = None,
    device: str = "auto",
) -> Agreement:
    """Which parts of two pictures are found in the other, without an index; as `score`, and docs/why.md. Pictures of an
    index: `Searcher.pair(a, b).agreement()`."""
    return _scored(a, b, space, model, by, "engine", "cosine", device).why()


def _scored(
    a: Subject,
    b: Subject,
    space: Space | None,
    model: str | os.PathLike[str] | None,
    by: str | None,
    protocol: str,
    metric: str,
    device: str,
) -> ScoredPair:
    if space is None:
        space = _in_short(model, by)
    elif model is not None or by is not None:
        raise InvalidSpace("The feature space is named twice; give either `space` or `model` and `by`.")
    request = replace(space, tier=space.tier or "fp32").request()
    return score_pictures(a, b, request, protocol=protocol, metric=metric, device=device)


def _in_short(model: str | os.PathLike[str] | None, by: str | None) -> Space:
    return Space(by=by) if model is None else Space(model, by)
