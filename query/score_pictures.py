"""Score one pair of pictures, without an index."""

import os
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from diffsim.indexer.paths import given_path
from diffsim.indexer.requests import SpaceRequest
from diffsim.indexer.spaces import Networks, make_kit
from diffsim.retrieval.agreement import Agreement
from diffsim.retrieval.devices import choose_device
from diffsim.retrieval.extractor import Extractor
from diffsim.retrieval.names import METRICS, PROTOCOLS
from diffsim.retrieval.paper import PaperProtocol
from diffsim.retrieval.pictures.decode_pool import DecodePool, decode_whole
from diffsim.retrieval.score import PairScore, score_pair

from .errors import QueryError
from .pair import Pair
from .picture_files import PictureFile, picture_file
from .query import ExtractedPicture, Subject


class BadPair(QueryError, ValueError):
    """This pair cannot be scored as asked."""


@dataclass(frozen=True)
class ScoredPair:
    """score: the result. fingerprint: of all settings that it depends on. request: the requested feature space. pair:
    the two pictures part by part, None for a global embedding, which has no parts."""

    score: PairScore
    fingerprint: str
    request: SpaceRequest
    pair: Pair | None

    def why(self) -> Agreement:
        """Which parts of each picture are found in the other. Raises BadPair for a global embedding."""
        if self.pair is None:
            raise BadPair("A global embedding is one vector and has no parts to show; leave out --variant global.")
        return self.pair.agreement()


def score_pictures(
    a: Subject,
    b: Subject,
    request: SpaceRequest,
    *,
    protocol: str = "engine",
    metric: str = "cosine",
    device: str = "auto",
) -> ScoredPair:
    """Score two pictures in the requested space (its `tier` sets the precision of their tokens in memory).

    a, b: a path, the bytes of a picture file, a Pillow image or an array uint8 [height, width, 3] of RGB.
    protocol: `engine`, as in an index: symmetric, and 1 for a picture and itself; `paper`, as in DiffSim's released
    code, for one tap of a Stable Diffusion 1.x or 2.x network. metric: `cosine` or `mse`.
    Raises BadPair, BadQuery, UnreadableImage, UnknownModel, NoPaperProtocol, ...
    """
    for what, given, known in (("protocol", protocol, PROTOCOLS), ("metric", metric, METRICS)):
        if given not in known:
            raise BadPair(f"The {what} {given!r} is unknown; choose one of {', '.join(known)}.")
    for subject in (a, b):
        if isinstance(subject, int | np.integer | ExtractedPicture):
            raise BadPair("`Searcher.pair` compares pictures of an index; here, give a path or a picture in memory.")
        if isinstance(subject, str | os.PathLike) and not given_path(subject).exists():
            raise BadPair(f"There is no file {os.fspath(subject)}; give the path of a picture.")
    networks = Networks(choose_device(device))
    with ExitStack() as opened:
        files = [opened.enter_context(picture_file(subject)) for subject in (a, b)]
        if protocol == "paper":
            return _by_paper(files[0], files[1], request, networks, metric)
        kit = make_kit(request, networks)
        network = networks.get(request.network, request.settings.dtype, request.adapter)
        extractor = Extractor(network, [kit])
        with DecodePool(1, extractor.size, fit=extractor.fit) as pool:
            pictures = [pool.decode_job(file.job(), file.name).pixels for file in files]
    features = [extractor.extract(pixels[None])[0][0] for pixels in pictures]
    if not kit.has_tokens:
        if metric != "cosine":
            raise BadPair(f"The metric {metric} compares attention maps; a global embedding has none, use cosine.")
        x, y = (torch.from_numpy(one.descriptor).float() for one in features)
        cosine = F.cosine_similarity(x, y, dim=0).item()
        return ScoredPair(PairScore(cosine, cosine, cosine), kit.space.fingerprint, request, None)
    first, second = (kit.read([one.tokens]) for one in features)
    found = score_pair(first, second, kit.weights, metric)
    return ScoredPair(
        found, kit.space.fingerprint, request, Pair.of(first, second, kit.weights, request.settings.variant)
    )


def _by_paper(a: PictureFile, b: PictureFile, request: SpaceRequest, networks: Networks, metric: str) -> ScoredPair:
    network = networks.get(request.network, request.settings.dtype, request.adapter)
    paper = PaperProtocol(network, request.settings)
    # The released code's own preprocessing starts from the whole picture.
    first = (paper.features(decode_whole(a.job(), a.name), "A"),)
    second = (paper.features(decode_whole(b.job(), b.name), "B"),)
    found = score_pair(first, second, (1.0,), metric)
    return ScoredPair(found, paper.fingerprint, request, Pair.of(first, second, (1.0,), request.settings.variant))
