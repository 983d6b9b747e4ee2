"""The networks whose attention can be read: one file per kind, and shared code. Their families load them.

Only safetensors are read, remote code never runs, and a missing weight is an error.
"""

from ..errors import BadNetwork
from .network import BadSize, EmbeddedText, Network, Read, TapPlace, TextNetwork, dtype_name
from .taps import UnknownModule

__all__ = [
    "BadNetwork",
    "BadSize",
    "EmbeddedText",
    "Network",
    "Read",
    "TapPlace",
    "TextNetwork",
    "UnknownModule",
    "dtype_name",
]
