"""Layers x timesteps x picture sizes of one network on one benchmark (the paper's Figure 5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffsim.indexer.requests import DEFAULT_MODEL, requested_spaces
from diffsim.indexer.spaces import Networks
from diffsim.retrieval.devices import choose_device
from diffsim.retrieval.families import defaults_of
from diffsim.retrieval.settings import InvalidSpace, Tap

from .contenders import Contender

TIMESTEPS = (1, 51, 101, 251, 501, 751)
"""The default timesteps. A network trained without noise, whose profiles share one (0 for CLIP), uses only that."""


@dataclass(frozen=True)
class Setting:
    """One point of a sweep. layer: a name from `Network.layers`. size: of the pictures, pixels."""

    layer: str
    timestep: int
    size: int
    contender: Contender


def settings(
    model: str = DEFAULT_MODEL,
    *,
    layers: Sequence[str] = (),
    timesteps: Sequence[int] = (),
    sizes: Sequence[int] = (),
    device: str = "auto",
    **changes: Any,
) -> list[Setting]:
    """Every combination once, ordered by size, layer (in forward order) and timestep.

    layers, timesteps, sizes: if empty, all of the network's layers, TIMESTEPS, and the network's own size. changes:
    settings that all of them share, as `requested_spaces` takes them.
    Raises UnknownModel, BadNetwork, UnknownModule, InvalidSpace.
    """
    if changes.get("variant") == "global":
        raise InvalidSpace("A global embedding has no layers to compare; leave out --variant global.")
    defaults = defaults_of(model)
    of_profiles = {tap.timestep for taps in defaults.profiles.values() for tap in taps}
    timesteps = timesteps or (TIMESTEPS if defaults.noises or len(of_profiles) > 1 else tuple(of_profiles))
    (asked,) = requested_spaces(model, **changes)
    network = Networks(choose_device(device)).get(asked.network, asked.settings.dtype, asked.adapter)
    modules = {name: network.resolve(Tap(name, min(timesteps))).module for name in network.layers}
    chosen = {network.resolve(Tap(layer, max(timesteps))).module for layer in layers} or set(modules.values())
    names = [name for name, module in modules.items() if module in chosen]
    return [
        _setting(model, layer, timestep, size, changes)
        for size in sorted(set(sizes)) or [defaults.size]
        for layer in names
        for timestep in sorted({network.resolve(Tap(layer, timestep)).timestep for timestep in timesteps})
    ]


def _setting(model: str, layer: str, timestep: int, size: int, changes: dict[str, Any]) -> Setting:
    (request,) = requested_spaces(model, layers=[f"{layer}@{timestep}"], size=size, **changes)
    spec = f"{model}/{layer}@t{timestep}{'-C' if request.settings.variant == 'C' else ''}@{size}px"
    return Setting(layer, timestep, size, Contender(spec, request))
