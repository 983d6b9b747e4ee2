"""The networks whose attention can be read: one room per kind, one way in.

Only safetensors are read, remote code never runs, and a missing weight is an error.
"""

from pathlib import Path

from ..preprocessing import vision_settings
from .dit import DitNetwork
from .files import BadNetwork, dtype_name
from .network import BadSize, Network, Read, TapPlace
from .taps import UnknownModule
from .unet import UNetNetwork
from .vit import VitNetwork

__all__ = ["BadNetwork", "BadSize", "Network", "Read", "TapPlace", "UnknownModule", "dtype_name", "load_network"]


def load_network(folder: Path, dtype: str, device: str, adapter: str = "") -> Network:
    """Load the network in a folder, with an IP-Adapter (its file or folder) for DiffSim-C. Raises BadNetwork."""
    if (folder / "unet").is_dir():
        return UNetNetwork.load(folder, dtype, device, adapter)
    if adapter:
        raise BadNetwork(f"The network in {folder} takes no IP-Adapter; drop --ip-adapter, or choose a U-Net.")
    if vision_settings(folder):
        return VitNetwork.load(folder, dtype, device)
    return DitNetwork.load(folder, dtype, device)
