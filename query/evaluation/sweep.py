"""Layers x timesteps x picture sizes of one network on one benchmark (the paper's Figure 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

from diffsim.indexer.requests import requested_spaces
from diffsim.indexer.spaces import Networks
from diffsim.retrieval.devices import choose_device
from diffsim.retrieval.local_models import defaults_of
from diffsim.retrieval.space import Tap

from .contenders import Contender

TIMESTEPS = (1, 51, 101, 251, 501, 751)
"""Where no timestep is asked for. A network without noise whose profiles have one (0 for CLIP) is told no other."""


@dataclass(frozen=True)
class Setting:
    """One point of a sweep. layer: as `Network.layers` has it. size: of the pictures, pixels."""

    layer: str
    timestep: int
    size: int
    contender: Contender


def settings(
    model: str,
    *,
    layers: Sequence[str] = (),
    timesteps: Sequence[int] = (),
    sizes: Sequence[int] = (),
    variant: str | None = None,
    adapter: str | None = None,
    prompt: str | None = None,
    device: str = "auto",
) -> list[Setting]:
    """Every combination once, by size, layer (in the order in which a picture meets them) and timestep.

    layers, timesteps, sizes: none means all of the network's, TIMESTEPS, and the network's own size.
    Raises UnknownModel, BadNetwork, UnknownModule, InvalidSpace.
    """
    defaults = defaults_of(model)
    of_profiles = {tap.timestep for tap in defaults.profiles.values()}
    timesteps = timesteps or (TIMESTEPS if defaults.noises or len(of_profiles) > 1 else tuple(of_profiles))
    (asked,) = requested_spaces(model, ["look"], variant=variant, adapter=adapter, prompt=prompt)
    network = Networks(choose_device(device)).get(asked.network, asked.dtype, asked.adapter)
    modules = {name: network.resolve(Tap(name, min(timesteps))).module for name in network.layers}
    chosen = {network.resolve(Tap(layer, max(timesteps))).module for layer in layers} or set(modules.values())
    names = [name for name, module in modules.items() if module in chosen]
    return [
        _setting(model, layer, timestep, size, variant, adapter, prompt)
        for size in sorted(set(sizes)) or [defaults.size]
        for layer in names
        for timestep in sorted(set(timesteps))
    ]


def _setting(
    model: str, layer: str, timestep: int, size: int, variant: str | None, adapter: str | None, prompt: str | None
) -> Setting:
    (request,) = requested_spaces(
        model, layers=[f"{layer}@{timestep}"], variant=variant, adapter=adapter, size=size, prompt=prompt
    )
    spec = f"{model}/{layer}@t{timestep}{'-C' if request.variant == 'C' else ''}@{size}px"
    return Setting(layer, timestep, size, Contender(spec, request))
