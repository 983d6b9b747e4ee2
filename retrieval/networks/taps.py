"""Taps: find attention modules by name, run the network only as far as needed, collect their inputs."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RetrievalError


class UnknownModule(RetrievalError, ValueError):
    """A tap does not name an attention of this network, or names more than one."""


def block_attentions(network: nn.Module, kind: str) -> list[str]:
    """Dotted names of the `attn1` (self-attention) or `attn2` (cross-attention) of every transformer block, in the
    order of the modules."""
    names = []
    for name, block in network.named_modules():
        if type(block).__name__ != "BasicTransformerBlock" or getattr(block, kind, None) is None:
            continue
        if kind == "attn1" and block.only_cross_attention:
            continue
        names.append(f"{name}.{kind}")
    return names


def resolve_module(valid: Sequence[str], name: str) -> str:
    """The one of the `valid` module names that `name` means; the rest of the path may be left out.

    Raises UnknownModule, which lists the valid names.
    """
    found = [full for full in valid if full == name or full.startswith(name + ".")]
    if len(found) == 1:
        return found[0]
    problem = "means several attention layers" if found else "is not an attention layer that can be read here"
    choices = ", ".join(shortest(full, valid) for full in found or valid)
    raise UnknownModule(f"The layer {name!r} {problem}; choose one of: {choices}.")


def shortest(module: str, valid: Sequence[str]) -> str:
    """The shortest unique name of a module: the name of its transformer if that has one block."""
    transformer = module.rsplit(".transformer_blocks.", 1)[0]
    alone = sum(name.startswith(transformer + ".") for name in valid) == 1
    return transformer if alone else module.removesuffix(".attn1").removesuffix(".attn2")


class _Reached(Exception):
    """Unwinds a forward pass once the last tap has been reached."""


Entered = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a module's forward."""


@contextmanager
def on_entry(network: nn.Module, modules: Iterable[str], take: Callable[[str, Entered], None]) -> Iterator[None]:
    """Within this context, every forward pass calls `take` with each of `modules` that it reaches and its inputs."""

    def hook(name: str) -> Callable[..., None]:
        return lambda _module, args, kwargs: take(name, (args, kwargs))

    tapped = {name: network.get_submodule(name) for name in modules}  # all exist before any gets a hook
    handles = [module.register_forward_pre_hook(hook(name), with_kwargs=True) for name, module in tapped.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def run_to_taps(
    network: nn.Module, modules: Collection[str], forward: Callable[[], Any], *, gradients: bool = False
) -> dict[str, Entered]:
    """Run `forward` only until each of `modules` has been entered once; returns what entered them.

    forward: calls `network` once; nothing after the last tap is computed. gradients: whether they can be taken.
    The hooks are always removed. A truncated, compiled forward could replace this one function.
    """
    entered: dict[str, Entered] = {}

    def take(name: str, what: Entered) -> None:
        entered[name] = what
        if len(entered) == len(set(modules)):
            raise _Reached

    with on_entry(network, modules, take):
        try:
            with torch.inference_mode(not gradients):
                forward()
        except _Reached:
            return entered
    raise RuntimeError(f"the network ended without entering {sorted(set(modules) - set(entered))}")


def hidden_states(entered: Entered) -> Tensor:
    """The tokens [pictures, tokens, channels] that entered an attention module."""
    args, kwargs = entered
    tokens: Tensor = args[0] if args else kwargs["hidden_states"]
    return tokens
