"""The feature spaces of an index: what is there, and how a new one begins."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from diffsim.db.catalog import Catalog, KnownSpace
from diffsim.retrieval.extractor import make_space
from diffsim.retrieval.families import locate
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.networks import Network
from diffsim.retrieval.settings import InvalidSpace
from diffsim.retrieval.space import FeatureSpace

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
    settings = space.settings
    return network, adapter, space.weights, settings.dtype, settings.size, settings.fit


class Networks:
    """The networks of one run, each loaded once."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._loaded: dict[tuple[str, ...], Network] = {}

    def get(self, reference: str, dtype: str, adapter: str = "", made_by: str | None = None) -> Network:
        """A network by its preset or folder, with an IP-Adapter's preset or path. made_by: FeatureSpace.family of an
        existing space that it is loaded for. Raises UnknownModel, BadNetwork, FamilyProblem."""
        found = locate(reference, made_by)
        key = (*found.key, dtype, adapter)
        if key not in self._loaded:
            self._loaded[key] = found.load(dtype, self._device, adapter)
        return self._loaded[key]

    def of(self, known: KnownSpace, space: FeatureSpace) -> Network:
        """The network of an existing space, as far as it is still the same; raises as `get`."""
        return self.get(known.network, space.settings.dtype, known.adapter, space.family)


def known_spaces(index: IndexFolder, catalog: Catalog) -> list[OpenSpace]:
    """Every feature space of the index, oldest first; raises DamagedKit."""
    return [OpenSpace(known, SpaceKit.load(index.space(known.fingerprint))) for known in catalog.spaces()]


def resolve_spaces(
    index: IndexFolder, catalog: Catalog, requests: Sequence[SpaceRequest], networks: Networks
) -> list[OpenSpace]:
    """The space behind each request: the one of the index that was requested in the same way, else a new one."""
    return [_resolve(index, catalog, request, networks) for request in requests]


def make_kit(request: SpaceRequest, networks: Networks) -> SpaceKit:
    """A new feature space as requested; raises as `Networks.get` and `make_space` do."""
    network = networks.get(request.network, request.settings.dtype, request.adapter)
    return make_space(network, request.settings)


def find_space(catalog: Catalog, kit: SpaceKit) -> KnownSpace | None:
    """The space of the catalog that was requested in the same way as this new one."""
    return next((known for known in catalog.spaces() if _space_of(known).same_request(kit.space)), None)


def _resolve(index: IndexFolder, catalog: Catalog, request: SpaceRequest, networks: Networks) -> OpenSpace:
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
    except (InvalidSpace, ValueError, TypeError, AttributeError, RecursionError) as problem:
        raise InvalidSpace(
            f"The feature space {known.name} ({known.fingerprint}) cannot be read ({str(problem).rstrip('.')}); forget "
            f"it with `diffsim prune --space {known.fingerprint}` and index again."
        ) from problem
