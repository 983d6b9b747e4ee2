"""The pictures of a benchmark, scored in feature spaces and by baselines.

Features are computed once and kept in an ordinary index, the cache: incremental, resumable, shared by all benchmarks
and settings, and readable with every other command.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from diffsim.db.catalog import Catalog
from diffsim.indexer.build import IndexOptions, index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import SpaceRequest, requested_spaces
from diffsim.indexer.spaces import Networks
from diffsim.retrieval.devices import choose_device
from diffsim.retrieval.evaluation.baselines import BASELINES, SIDE
from diffsim.retrieval.evaluation.paper_scorer import PaperScorer
from diffsim.retrieval.evaluation.scorers import DescriptorScorer, OnProgress, Scorer, TokenScorer
from diffsim.retrieval.names import LIKENESSES
from diffsim.retrieval.paper import NoPaperProtocol, PaperProtocol
from diffsim.retrieval.pictures.decode_pool import Decoded, DecodePool, Job
from diffsim.retrieval.settings import InvalidSpace

from ..collection import Collection
from ..search import Searcher

_SPEC = re.compile(r"(?P<model>.+)/(?P<what>[^/:]+?)(?P<variant>-C)?(@(?P<size>[0-9]+)px)?(?P<pooled>:pooled)?")


@dataclass(frozen=True)
class Contender:
    """What is measured. spec: as the user wrote it. request: a feature space; None for a baseline, which is named by
    its spec. pooled: score by descriptors alone."""

    spec: str
    request: SpaceRequest | None = None
    pooled: bool = False


def parse_spec(spec: str, prompt: str | None = None) -> Contender:
    """Parse a baseline's name, or `MODEL/WHAT` with optional `-C` (that variant), `@SIZEpx` and `:pooled`.

    MODEL is a preset or a folder. WHAT is a profile, `global`, or taps as `requested_spaces` reads them, joined by `+`:
    `LAYER@tTIMESTEP*WEIGHT`. prompt: the network's prompt; None means its default. Raises InvalidSpace, UnknownModel.
    """
    if spec in BASELINES:
        return Contender(spec)
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise InvalidSpace(
            f"The space {spec!r} cannot be understood; write MODEL/PROFILE (mini/style), MODEL/LAYER@tTIMESTEP "
            f"(mini/up_blocks.1.attentions.1@t501), each perhaps with :pooled, or one of {', '.join(BASELINES)}."
        )
    what = found["what"]
    named = what in (*LIKENESSES, "global")
    (request,) = requested_spaces(
        found["model"],
        [what] if what in LIKENESSES else [],
        layers=[] if named else what.split("+"),
        variant="global" if what == "global" else "C" if found["variant"] else None,
        size=int(found["size"]) if found["size"] else None,
        prompt=prompt,
    )
    return Contender(spec, request=request, pooled=bool(found["pooled"]))


def open_scorers(
    contenders: Sequence[Contender],
    root: Path,
    pictures: Sequence[Path],
    cache: Path,
    options: IndexOptions,
    opened: ExitStack,
    *,
    on_progress: OnProgress,
) -> list[Scorer]:
    """A scorer over `pictures` for each contender; stores stay open as long as `opened` does.

    root: the data set's folder, or a list. cache: folder of the index that keeps features; only these pictures are
    extracted. on_progress: called with (pictures done, pictures in all). Raises as `index_folders` does.
    """
    requests = list(dict.fromkeys(contender.request for contender in contenders if contender.request is not None))
    if requests:
        index = IndexFolder.create(cache)
        paths = [_real(picture) for picture in pictures]
        folders = sorted({root, *(Path(os.fsdecode(path)).parent for path in paths)})  # the index keeps the outermost
        report = index_folders(
            index,
            [folder for folder in folders if folder.is_dir()],
            requests,
            replace(options, only=frozenset(paths)),
            on_progress=on_progress,
        )
        spaces = dict(zip(requests, report.spaces, strict=True))
        collection = opened.enter_context(Searcher(cache, options.device)).collection
        collection.refresh([space.known for space in report.spaces])
        with index.catalog(readonly=True) as catalog:
            contents = {
                request: _contents(catalog, collection.ids(space.known.fingerprint), paths)
                for request, space in spaces.items()
            }
    scorers: list[Scorer] = []
    for contender in contenders:
        if contender.request is None:
            scorers.append(DescriptorScorer(_describe(BASELINES[contender.spec], pictures, options)))
            continue
        known, found = spaces[contender.request].known, contents[contender.request]
        kit = collection.kit(known)
        if contender.pooled or not kit.has_tokens:
            scorers.append(DescriptorScorer(_descriptors(collection, known.fingerprint, len(pictures), found)))
        else:
            records = partial(collection.tokens, known.fingerprint)
            scorers.append(TokenScorer(kit, len(pictures), found, records))
    return scorers


def open_paper_scorers(
    contenders: Sequence[Contender], pictures: Sequence[Path], options: IndexOptions
) -> Iterator[tuple[Contender, PaperScorer]]:
    """A scorer over `pictures` under the paper protocol for each contender, one at a time: each keeps its features in
    memory. All contenders are checked before the first is yielded. Raises NoPaperProtocol, UnknownModel, BadNetwork."""
    networks = Networks(choose_device(options.device))
    protocols = [_paper_protocol(contender, networks) for contender in contenders]
    for contender, protocol in zip(contenders, protocols, strict=True):
        yield contender, PaperScorer(protocol, pictures)


def _paper_protocol(contender: Contender, networks: Networks) -> PaperProtocol:
    request = contender.request
    if request is None or contender.pooled:
        raise NoPaperProtocol(
            f"The paper protocol cannot score {contender.spec!r}; it reads one layer of a U-Net, in full: "
            "write MODEL/PROFILE or MODEL/LAYER@tTIMESTEP, or leave out --protocol paper."
        )
    network = networks.get(request.network, request.settings.dtype, request.adapter)
    try:
        return PaperProtocol(network, request.settings)
    except NoPaperProtocol as problem:
        raise NoPaperProtocol(f"For {contender.spec}: {problem}") from problem


def _real(picture: Path) -> bytes:
    """The path as in the catalog: the folder's real path, the file's own name."""
    return os.path.join(os.path.realpath(os.fsencode(picture.parent)), os.fsencode(picture.name))


def _contents(catalog: Catalog, ids: np.ndarray, paths: Sequence[bytes]) -> dict[int, int]:
    """The content id of each path, by its position in the list; only those among `ids`."""
    files = catalog.files_of(ids.tolist())
    by_path = {place.path: content_id for content_id, places in files.items() for place in places}
    return {row: by_path[path] for row, path in enumerate(paths) if path in by_path}


def _descriptors(collection: Collection, space: str, pictures: int, contents: dict[int, int]) -> np.ndarray:
    """Stored descriptors by picture, float32 [pictures, dimensions], unit norm; NaN for pictures without one."""
    ids, descriptors = collection.descriptors(space, np.unique(np.array(list(contents.values()), np.int64)))
    place = {content_id: row for row, content_id in enumerate(ids.tolist())}
    table = np.full((pictures, descriptors.shape[1] or 1), np.nan, np.float32)
    for picture, content_id in contents.items():
        if content_id in place:
            table[picture] = descriptors[place[content_id]]
    table /= np.linalg.norm(table, axis=1, keepdims=True)  # stored in float16, so only nearly unit vectors
    return table


def _describe(
    describe: Callable[[np.ndarray], np.ndarray], pictures: Sequence[Path], options: IndexOptions
) -> np.ndarray:
    """A baseline's descriptors of all pictures, float32 [pictures, dimensions]; NaN for one that cannot be read."""
    vectors: dict[int, np.ndarray] = {}
    jobs = (Job(row, os.path.realpath(os.fsencode(picture)), b"") for row, picture in enumerate(pictures))
    with DecodePool(options.workers, SIDE, options.file_timeout_s, options.decoder_memory) as pool:
        for result in pool.run(jobs):
            if isinstance(result, Decoded):
                vectors[result.job.content_id] = describe(result.pixels)
    width = len(next(iter(vectors.values()), np.empty(1)))
    table = np.full((len(pictures), width), np.nan, np.float32)
    for row, vector in vectors.items():
        table[row] = vector
    return table
