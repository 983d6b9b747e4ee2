"""Taps: find self-attention modules in a U-Net by name, run the network only as far as they are, take their input."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .errors import RetrievalError


class UnknownModule(RetrievalError, ValueError):
    """A tap names no self-attention module of this network, or more than one."""


def self_attentions(unet: nn.Module) -> list[str]:
    """Dotted names of every self-attention (`attn1`) of a transformer block, in the order of the modules."""
    blocks = (name for name, module in unet.named_modules() if type(module).__name__ == "BasicTransformerBlock")
    return [f"{name}.attn1" for name in blocks if not unet.get_submodule(name).only_cross_attention]


def resolve_module(unet: nn.Module, name: str) -> str:
    """The full name of the one self-attention that `name` stands for; the rest of the path may be left out.

    Raises UnknownModule, which lists the names that would have been understood.
    """
    valid = self_attentions(unet)
    found = [full for full in valid if full == name or full.startswith(name + ".")]
    if len(found) == 1:
        return found[0]
    problem = "stands for several self-attentions" if found else "is no self-attention of this network"
    choices = ", ".join(_shortest(full, valid) for full in found or valid)
    raise UnknownModule(f"The layer {name!r} {problem}; choose one of: {choices}.")


def _shortest(module: str, valid: list[str]) -> str:
    """What is enough to tell a module from the others: the name of its transformer where that has one block."""
    transformer = module.rsplit(".transformer_blocks.", 1)[0]
    alone = sum(name.startswith(transformer + ".") for name in valid) == 1
    return transformer if alone else module.removesuffix(".attn1")


class _Reached(Exception):
    """Unwinds a forward pass once the last tap has been met."""


def run_to_taps(unet: nn.Module, modules: Iterable[str], forward: Callable[[], Any]) -> dict[str, Tensor]:
    """Run `forward` only until each of `modules` has been entered once; give what entered them.

    forward: calls `unet` once; what comes after the last tap is never computed.
    Returns the input tokens of each tapped attention, [batch, tokens, channels], in the network's dtype.
    The hooks are removed whatever happens. A truncated, compiled forward could replace this one function.
    """
    inputs: dict[str, Tensor] = {}
    tapped = {name: unet.get_submodule(name) for name in modules}

    def take(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            inputs[name] = args[0] if args else kwargs["hidden_states"]
            if len(inputs) == len(tapped):
                raise _Reached

        return hook

    handles = [module.register_forward_pre_hook(take(name), with_kwargs=True) for name, module in tapped.items()]
    try:
        with torch.inference_mode():
            forward()
    except _Reached:
        return inputs
    finally:
        for handle in handles:
            handle.remove()
    raise RuntimeError(f"the network ended without entering {sorted(set(tapped) - set(inputs))}")
