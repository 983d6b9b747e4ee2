"""The feature spaces of an index: what is asked for, what is there, and how a new one begins."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from db.catalog import Catalog, KnownSpace
from retrieval.extractor import make_space
from retrieval.kit import SpaceKit
from retrieval.local_models import defaults_of, find_adapter, find_model, profile_tap
from retrieval.networks import Network, load_network
from retrieval.presets import ADAPTERS, PRESETS
from retrieval.space import FeatureSpace, InvalidSpace, Tap

from .index_folder import IndexFolder

DEFAULT_MODEL = "mini"
DEFAULT_PROFILE = "look"


@dataclass(frozen=True)
class SpaceRequest:
    """A feature space as a person asks for it; see FeatureSpace for the settings.

    name: what it is called in questions. network: a preset or a folder. adapter: an IP-Adapter's preset or path, for
    variant C.
    """

    name: str
    network: str
    taps: tuple[Tap, ...]
    size: int
    prompt: str
    adapter: str = ""
    variant: str = "S"
    seed: int = 2334
    noises: int = 1
    fit: str = "squash"
    dtype: str = "float32"
    tier: str = "fp16"


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


def requested_spaces(
    model: str,
    profiles: Sequence[str] = (),
    *,
    variant: str | None = None,
    adapter: str | None = None,
    layers: Sequence[str] = (),
    timestep: int | None = None,
    size: int | None = None,
    prompt: str | None = None,
    seed: int = 2334,
    noises: int | None = None,
    dtype: str = "float32",
    tier: str = "fp16",
) -> list[SpaceRequest]:
    """Requests for profiles of a network, named like `mini/style`.

    layers: taps to read instead of the profile's, `LAYER`, `LAYER@TIMESTEP` or `LAYER@TIMESTEP*WEIGHT`; several make
    one space, whose score is the weighted mean over them. timestep: for layers that name none.
    variant: None is the network's own (S, or C where an adapter is given).

    Raises UnknownModel, InvalidSpace.
    """
    defaults = defaults_of(model)
    network = model if model in PRESETS else str(find_model(model))
    if variant == "C" and adapter is None:
        adapter = defaults.adapter
        if not adapter:
            raise InvalidSpace(f"No IP-Adapter is known for the network {model}; give one with --ip-adapter FOLDER.")
    if adapter and variant not in (None, "C"):
        raise InvalidSpace(f"An IP-Adapter is for variant C, not for {variant}; drop one of the two.")
    place = "" if not adapter else adapter if adapter in ADAPTERS else str(find_adapter(adapter))
    variant = variant or ("C" if adapter else "S")
    if variant == "global" and (profiles or layers or timestep is not None):
        raise InvalidSpace(
            "A global embedding has no layers, timesteps or profiles; leave out --layer, --timestep and --by."
        )
    size = size or defaults.size
    requests = {}
    for profile in ("global",) if variant == "global" else profiles or (DEFAULT_PROFILE,):
        taps: tuple[Tap, ...] = () if variant == "global" else (profile_tap(model, profile),)
        name = profile
        if variant != "global" and (layers or timestep is not None):
            taps = tuple(parse_tap(text, taps[0], timestep) for text in layers or (taps[0].module,))
            name = " + ".join(map(str, taps))
        if variant == "C":
            name += "-C"
        requests[name] = SpaceRequest(
            name=f"{Path(network).name}/{name}",
            network=network,
            taps=taps,
            size=size,
            prompt=defaults.prompt if prompt is None else prompt,
            adapter=place,
            variant=variant,
            seed=seed,
            noises=defaults.noises if noises is None else noises,
            fit=defaults.fit_at(size),
            dtype=dtype,
            tier=tier,
        )
    return list(requests.values())


_TAP = re.compile(r"(?P<layer>[^@*]+)(?:@t?(?P<timestep>[0-9]+))?(?:\*(?P<weight>[0-9.]+))?")


def parse_tap(text: str, default: Tap, timestep: int | None = None) -> Tap:
    """`LAYER`, `LAYER@TIMESTEP` or `LAYER@TIMESTEP*WEIGHT`, as in `up_blocks.1.attentions.2@101*0.5`.

    A missing timestep is `timestep`, else the default tap's. Raises InvalidSpace.
    """
    found = _TAP.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        weight = float(found["weight"] or 1)
    except ValueError:
        raise InvalidSpace(
            f"The layer {text!r} cannot be read; write LAYER, LAYER@TIMESTEP or LAYER@TIMESTEP*WEIGHT, "
            "for example up_blocks.1.attentions.2@101*0.5."
        ) from None
    if found["timestep"] is not None:
        timestep = int(found["timestep"])
    return Tap(found["layer"], default.timestep if timestep is None else timestep, weight)


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
    index.store(kit.space.fingerprint, readonly=False).close()  # an empty one, so that it can be asked
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
