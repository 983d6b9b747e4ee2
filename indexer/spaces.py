"""The feature spaces of an index: what is there, and how a new one begins."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from diffsim.db.catalog import Catalog, KnownSpace
from diffsim.retrieval.extractor import make_space
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.local_models import find_adapter, find_model
from diffsim.retrieval.networks import Network, load_network
from diffsim.retrieval.space import FeatureSpace, InvalidSpace

from .index_folder import IndexFolder
from .requests import SpaceRequest


@dataclass(frozen=True)
class OpenSpace:
    """A feature space of the index with its kit."""

    known: KnownSpace
    kit: SpaceKit


PassKey = tuple[str, str, str, str, int, str]


def pass_key(network: str, adapter: str, space: FeatureSpace) -> PassKey:
    """What spaces must have in common to be filled in one pass over the pictures: network, precision, picture size and
    fit."""
    return network, adapter, space.weights, space.dtype, space.size, space.fit


class Networks:
    """The networks of one run, each loaded once."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._loaded: dict[tuple[str, str, str], Network] = {}

    def get(self, reference: str, dtype: str, adapter: str = "") -> Network:
        """Raises UnknownModel, BadNetwork."""
        key = (reference, dtype, adapter)
        if key not in self._loaded:
            place = str(find_adapter(adapter)) if adapter else ""
            self._loaded[key] = load_network(find_model(reference), dtype, self._device, place)
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
    return make_space(
        networks.get(request.network, request.dtype, request.adapter),
        request.taps,
        size=request.size,
        prompt=request.prompt,
        seed=request.seed,
        noises=request.noises,
        variant=request.variant,
        fit=request.fit,
        dtype=request.dtype,
        tier=request.tier,
    )


def find_space(catalog: Catalog, kit: SpaceKit) -> KnownSpace | None:
    """The space of the catalog that was asked for in the same way as this new one."""
    return next((known for known in catalog.spaces() if _space_of(known).same_request(kit.space)), None)


def _settle(index: IndexFolder, catalog: Catalog, request: SpaceRequest, networks: Networks) -> OpenSpace:
    kit = make_kit(request, networks)
    found = find_space(catalog, kit)
    if found:
        here = replace(found, network=request.network, adapter=request.adapter)
        if here != found:  # they moved
            catalog.add_space(here.fingerprint, here.name, here.network, here.record, adapter=here.adapter)
        found = here
        return OpenSpace(found, SpaceKit.load(index.space(found.fingerprint)))
    kit.save(index.space(kit.space.fingerprint))
    index.store(kit.space.fingerprint, 0, readonly=False).close()  # an empty one, so that it can be asked
    record = json.dumps(kit.space.record())
    catalog.add_space(kit.space.fingerprint, request.name, request.network, record, adapter=request.adapter)
    (known,) = (known for known in catalog.spaces() if known.fingerprint == kit.space.fingerprint)
    return OpenSpace(known, kit)


def _space_of(known: KnownSpace) -> FeatureSpace:
    try:
        return FeatureSpace.from_record(json.loads(known.record))
    except (InvalidSpace, ValueError) as problem:
        raise InvalidSpace(
            f"The feature space {known.name} ({known.fingerprint}) cannot be read: {problem}"
        ) from problem
