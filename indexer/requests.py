"""Feature spaces as a person asks for them: a network, a profile or layers, and what else changes a number."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffsim.retrieval.local_models import defaults_of, find_adapter, find_model, profile_tap
from diffsim.retrieval.presets import ADAPTERS, PRESETS
from diffsim.retrieval.space import InvalidSpace, Tap

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
