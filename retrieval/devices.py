"""Where the network runs."""

import torch

from .errors import RetrievalError


class BadDevice(RetrievalError, ValueError):
    """The device is unknown or not available."""


def choose_device(wanted: str) -> str:
    """Resolve `auto` (CUDA if available, else the CPU), `cpu`, `cuda` or `cuda:N`; raises BadDevice."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = wanted.partition(":")
    if wanted == "cpu":
        return wanted
    if kind != "cuda" or (number and not number.isdigit()):
        raise BadDevice(f"The device {wanted!r} is unknown; choose auto, cpu, cuda or cuda:N.")
    if int(number or 0) >= torch.cuda.device_count():
        raise BadDevice(
            f"The device {wanted!r} is not there ({torch.cuda.device_count()} CUDA devices found); choose auto or cpu."
        )
    return wanted
