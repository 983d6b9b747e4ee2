"""A pretrained convolutional encoder alone: the feature maps over which the bundled diffusion network works."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..json_table import read_table
from ..settings import Tap
from .family import Family
from .preset import BUNDLED, Preset

if TYPE_CHECKING:
    from ..networks import Network


def matches(folder: Path) -> bool:
    return read_table(folder / "config.json", {}).get("_class_name") == "FeatureMaps"


def defaults(folder: Path) -> Preset:
    return _LITE


def load(folder: Path, dtype: str, device: str, adapter: str) -> "Network":
    from ..networks.encoder import EncoderNetwork

    return EncoderNetwork.load(folder, dtype, device)


_LITE = Preset(
    224,
    {
        "style": (Tap("encoder.stride_16", 0),),
        "instance": (Tap("encoder.stride_32", 0),),
        "look": (Tap("encoder.stride_16", 0), Tap("encoder.stride_32", 0)),
    },
    noises=0,
    tier="int8",
    name="lite",
    about="bundled: EfficientNet-Lite2, a small image encoder trained on ImageNet, without a diffusion network",
    bundled=BUNDLED / "lite",
    work=2.65,
)

FAMILY = Family(
    "feature-maps", "config.json of an encoder", matches, defaults, load, variants=("S", "global"), presets=(_LITE,)
)
