"""Feature spaces as a person requests them: a network, a profile or layers, and what else changes a number."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffsim.retrieval.families import KnownNetwork, Preset, find_adapter, known_families, known_network
from diffsim.retrieval.names import COLOUR
from diffsim.retrieval.settings import InvalidSpace, SpaceSettings, Tap

DEFAULT_MODEL = "mini"
DEFAULT_PROFILE = "look"


@dataclass(frozen=True)
class SpaceRequest:
    """A feature space as a person requests it.

    name: what it is called in questions. network: a preset or a folder. adapter: an IP-Adapter's preset or path, for
    variant C, else empty.
    """

    name: str
    network: str
    adapter: str
    settings: SpaceSettings


def requested_spaces(
    model: str = DEFAULT_MODEL,
    profiles: Sequence[str] = (),
    *,
    layers: Sequence[str] = (),
    timestep: int | None = None,
    variant: str | None = None,
    adapter: str | None = None,
    **changes: Any,
) -> list[SpaceRequest]:
    """Requests for profiles of a network, named like `mini/style`.

    layers: taps to read instead of the profile's, `LAYER`, `LAYER@TIMESTEP` or `LAYER@TIMESTEP*WEIGHT`; several make
    one space, whose score is the weighted mean over them. timestep: for layers that name none.
    variant: None is the network's usual one (mostly S), or C with an adapter. changes: further settings (see
    SpaceSettings) other than the network's defaults; None keeps a default.

    The profile `colour` is the same whatever the network; beside other profiles, the settings are theirs alone.

    Raises UnknownModel, InvalidSpace, FamilyProblem.
    """
    if COLOUR in profiles and model != COLOUR:
        others = [profile for profile in profiles if profile != COLOUR]
        asked = {"layers": layers, "timestep": timestep, "variant": variant, "adapter": adapter, **changes}
        if not others:
            return requested_spaces(COLOUR, **asked)
        return [*requested_spaces(model, others, **asked), *requested_spaces(COLOUR)]
    network = known_network(model)
    defaults = network.defaults
    variant, adapter = _variant(network, variant, adapter)
    own = [profile for profile, taps in defaults.profiles.items() if not taps]
    if variant == "global" and (set(profiles) - set(own) or layers or timestep is not None):
        raise InvalidSpace(
            "A global embedding has no layers, timesteps or profiles; leave out --layer, --timestep and --by."
        )
    whole = dict.fromkeys(own or ["global"], ())
    chosen = whole if variant == "global" else _chosen_taps(defaults, profiles, layers, timestep)
    suffix = "" if variant in ("S", "global") else f"-{variant}"
    requests = []
    for name, taps in chosen.items():
        settings = defaults.settings(taps, variant=variant, **changes)
        name = f"{Path(network.reference).name}/{name}{suffix}"
        requests.append(SpaceRequest(name, network.reference, adapter, settings))
    return requests


def _variant(network: KnownNetwork, variant: str | None, adapter: str | None) -> tuple[str, str]:
    """The variant, and the IP-Adapter's preset or path, empty without one. Raises InvalidSpace, UnknownModel."""
    if adapter == "":
        raise InvalidSpace("The path of the IP-Adapter is empty; name its safetensors file or folder, or leave it out.")
    if adapter and variant not in (None, "C"):
        raise InvalidSpace(f"An IP-Adapter is for variant C, not for {variant}; drop one of the two.")
    known = network.family.variants
    variant = variant or ("C" if adapter else known[0])
    if variant not in known:
        raise InvalidSpace(
            f"The network {network.defaults.name} has no variant {variant}; choose {' or '.join(known)}."
        )
    if variant != "C":
        return variant, ""
    adapter = network.defaults.adapter if adapter is None else adapter
    if not adapter:
        raise InvalidSpace(
            f"No IP-Adapter is known for the network {network.defaults.name}; give one with --ip-adapter FOLDER."
        )
    return variant, adapter if adapter in known_families().adapters else str(find_adapter(adapter))


def _chosen_taps(
    defaults: Preset, profiles: Sequence[str], layers: Sequence[str], timestep: int | None
) -> dict[str, tuple[Tap, ...]]:
    """The taps of each space to make, by name: those of the profiles, else the layers, at the profiles' timesteps where
    neither they nor `timestep` say another. Raises InvalidSpace."""
    usual = DEFAULT_PROFILE if DEFAULT_PROFILE in defaults.profiles else next(iter(defaults.profiles), DEFAULT_PROFILE)
    own = {profile: defaults.taps(profile) for profile in profiles or (usual,)}
    if layers:
        usual_steps = [max(tap.timestep for tap in taps) for taps in own.values()]
        chosen = [
            tuple(parse_tap(layer, usual_step if timestep is None else timestep) for layer in layers)
            for usual_step in usual_steps
        ]
    elif timestep is not None:
        chosen = [tuple(replace(tap, timestep=timestep) for tap in taps) for taps in own.values()]
    else:
        return own
    return {" + ".join(map(str, each)): each for each in chosen}


_TAP = re.compile(r"(?P<layer>[^@*]+)(?:@t?(?P<timestep>[0-9]+))?(?:\*(?P<weight>[0-9.]+))?")


def parse_tap(text: str, timestep: int) -> Tap:
    """`LAYER`, `LAYER@TIMESTEP` or `LAYER@TIMESTEP*WEIGHT`, as in `up_blocks.1.attentions.2@101*0.5`.

    timestep: for a text without one. Raises InvalidSpace.
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
    return Tap(found["layer"], int(found["timestep"] or timestep), weight)
