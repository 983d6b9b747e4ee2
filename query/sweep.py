"""Layers x timesteps x picture sizes of one network on one benchmark (the paper's Figure 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

from indexer.devices import choose_device
from indexer.evaluation import Contender
from indexer.spaces import Networks, requested_spaces
from retrieval.presets import defaults_of
from retrieval.space import Tap

TIMESTEPS = (1, 51, 101, 251, 501, 751)
"""Where no timestep is asked for; a network whose profiles know no noise has only 0."""


@dataclass(frozen=True)
class Setting:
    """One point of a sweep. layer: the attention's name as `Tap` prints it. size: of the pictures, pixels."""

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
    noisy = any(tap.timestep for tap in defaults.profiles.values())
    (asked,) = requested_spaces(model, ["look"], variant=variant, adapter=adapter, prompt=prompt)
    network = Networks(choose_device(device)).get(asked.network, asked.dtype, asked.adapter)
    chosen = {network.resolve(Tap(layer, 0)).module for layer in layers} or set(network.layers)
    found = []
    for size in sorted(set(sizes)) or [defaults.size]:
        for layer in (layer for layer in network.layers if layer in chosen):
            for timestep in sorted(set(timesteps)) or (TIMESTEPS if noisy else (0,)):
                tap = network.resolve(Tap(layer, timestep))
                (request,) = requested_spaces(
                    model, layers=[f"{layer}@{timestep}"], variant=variant, adapter=adapter, size=size, prompt=prompt
                )
                spec = f"{model}/{tap}{'-C' if request.variant == 'C' else ''}@{size}px"
                found.append(Setting(str(tap).rpartition("@")[0], timestep, size, Contender(spec, request)))
    return found
