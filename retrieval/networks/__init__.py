"""The networks whose attention can be read: one room per kind, one way in.

Only safetensors are read, remote code never runs, and a missing weight is an error.
"""

from pathlib import Path

from ..preprocessing import vision_settings
from .files import BadNetwork, dtype_name
from .network import BadSize, Network, Read, TapPlace
from .taps import UnknownModule
from .unet import UNetNetwork
from .vit import VitNetwork

__all__ = ["BadNetwork", "BadSize", "Network", "Read", "TapPlace", "UnknownModule", "dtype_name", "load_network"]


def load_network(folder: Path, dtype: str, device: str, adapter: str = "") -> Network:
    """Load the network in a folder, with an IP-Adapter (its file or folder) for DiffSim-C. Raises BadNetwork."""
    if vision_settings(folder):
        if adapter:
            raise BadNetwork(
                f"An IP-Adapter belongs to a diffusion network, not to the one in {folder}; leave out --ip-adapter."
            )
        return VitNetwork.load(folder, dtype, device)
    return UNetNetwork.load(folder, dtype, device, adapter)
