"""The feature spaces of an index: what is asked for, what is there, and how a new one begins."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from db.catalog import Catalog, KnownSpace
from retrieval.extractor import make_space
from retrieval.kit import SpaceKit
from retrieval.networks import Network, load_network
from retrieval.presets import find_model, preset_of, profile_tap
from retrieval.space import FeatureSpace, InvalidSpace, Tap

from .index_folder import IndexFolder

DEFAULT_MODEL = "mini"
DEFAULT_PROFILE = "look"
_FOLDER_SIZE = 512
_FOLDER_PROMPT = "High quality image"


@dataclass(frozen=True)
class SpaceRequest:
    """A feature space as a person asks for it. network: a preset or a folder. name: what it is called in questions."""

    name: str
    network: str
    taps: tuple[Tap, ...]
    size: int
    prompt: str
    dtype: str = "float32"
    tier: str = "fp16"


@dataclass(frozen=True)
class OpenSpace:
    """A feature space of the index with its kit."""

    known: KnownSpace
    kit: SpaceKit


def pass_key(network: str, space: FeatureSpace) -> tuple[str, str, str, int]:
    """What spaces must have in common to be filled in one pass over the pictures: network, precision, picture size."""
    return network, space.weights, space.dtype, space.size


def requested_spaces(
    model: str,
    profiles: Sequence[str],
    *,
    layer: str | None = None,
    timestep: int | None = None,
    size: int | None = None,
    dtype: str = "float32",
    tier: str = "fp16",
) -> list[SpaceRequest]:
    """Requests for profiles of a network (`layer` and `timestep` change a profile's tap); names like `mini/style`.

    Raises UnknownModel, InvalidSpace.
    """
    preset = preset_of(model)
    network = model if preset else str(find_model(model))
    requests = {}
    for profile in profiles or (DEFAULT_PROFILE,):
        tap = profile_tap(model, profile)
        name = profile
        if layer is not None or timestep is not None:
            tap = Tap(layer or tap.module, tap.timestep if timestep is None else timestep)
            name = str(tap)
        requests[name] = SpaceRequest(
            name=f"{Path(network).name}/{name}",
            network=network,
            taps=(tap,),
            size=size or (preset.size if preset else _FOLDER_SIZE),
            prompt=preset.prompt if preset else _FOLDER_PROMPT,
            dtype=dtype,
            tier=tier,
        )
    return list(requests.values())


class Networks:
    """The networks of one run, each loaded once."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._loaded: dict[tuple[str, str], Network] = {}

    def get(self, reference: str, dtype: str) -> Network:
        """Raises UnknownModel, BadNetwork."""
        key = (reference, dtype)
        if key not in self._loaded:
            self._loaded[key] = load_network(find_model(reference), dtype, self._device)
        return self._loaded[key]


def known_spaces(index: IndexFolder, catalog: Catalog) -> list[OpenSpace]:
    """Every feature space of the index, oldest first; raises DamagedKit."""
    return [OpenSpace(known, SpaceKit.load(index.space(known.fingerprint))) for known in catalog.spaces()]


def settle_spaces(
    index: IndexFolder, catalog: Catalog, requests: Sequence[SpaceRequest], networks: Networks
) -> list[OpenSpace]:
    """The space behind each request: one of the index where it was asked for in the same way, else a new one."""
    return [_settle(index, catalog, request, networks) for request in requests]


def make_kit(request: SpaceRequest, networks: Networks) -> SpaceKit:
    """A new feature space as it is asked for; raises as `Networks.get` and `make_space` do."""
    network = networks.get(request.network, request.dtype)
    return make_space(
        network, request.taps, size=request.size, prompt=request.prompt, dtype=request.dtype, tier=request.tier
    )


def find_space(catalog: Catalog, kit: SpaceKit) -> KnownSpace | None:
    """The space of the catalog that was asked for in the same way as this new one."""
    return next((known for known in catalog.spaces() if _space_of(known).same_request(kit.space)), None)


def _settle(index: IndexFolder, catalog: Catalog, request: SpaceRequest, networks: Networks) -> OpenSpace:
    kit = make_kit(request, networks)
    found = find_space(catalog, kit)
    if found:
        return OpenSpace(found, SpaceKit.load(index.space(found.fingerprint)))
    kit.save(index.space(kit.space.fingerprint))
    index.store(kit.space.fingerprint, readonly=False).close()  # an empty one, so that it can be asked
    catalog.add_space(kit.space.fingerprint, request.name, request.network, json.dumps(kit.space.record()))
    (known,) = (known for known in catalog.spaces() if known.fingerprint == kit.space.fingerprint)
    return OpenSpace(known, kit)


def _space_of(known: KnownSpace) -> FeatureSpace:
    try:
        return FeatureSpace.from_record(json.loads(known.record))
    except (InvalidSpace, ValueError) as problem:
        raise InvalidSpace(
            f"The feature space {known.name} ({known.fingerprint}) cannot be read: {problem}"
        ) from problem
