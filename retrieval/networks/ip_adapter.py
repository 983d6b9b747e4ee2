"""IP-Adapter: the picture itself as the prompt, for DiffSim-C.

An image encoder (CLIP) encodes the picture, the adapter turns its output into a few image tokens (16 for IP-Adapter
Plus), and every cross-attention of the U-Net gets separate keys and values for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import BadNetwork
from ..pictures.images import fitted
from .files import first_line, hash_files, load_component, quietly, weight_files

SCALE = 0.5
"""How strongly the image tokens act in the layers before the tap, as in DiffSim's released code."""

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's mean and standard deviation of RGB, in [0, 1]."""


@dataclass(frozen=True)
class IPAdapter:
    """An adapter that has been put into a U-Net.

    encoder: transformers' CLIPVisionModelWithProjection. plus: whether the adapter reads the encoder's tokens (of its
    penultimate layer) or its one projected embedding. weights: SHA-256 (hex) of adapter and encoder.
    """

    encoder: Any
    plus: bool
    weights: str

    @classmethod
    def install(cls, unet: Any, path: Path, network_folder: Path, precision: torch.dtype, device: str) -> "IPAdapter":
        """Load the adapter at `path` (a safetensors file, or a folder with one) into the U-Net.

        The image encoder is `image_encoder/` beside the adapter or in the network's folder. Raises BadNetwork.
        """
        from diffusers.models.embeddings import ImageProjection
        from transformers import CLIPVisionModelWithProjection

        file = _adapter_file(path)
        try:
            tensors = load_file(file)
            parts = {
                part: {
                    name.removeprefix(f"{part}."): tensor.to(precision)
                    for name, tensor in tensors.items()
                    if name.startswith(f"{part}.")
                }
                for part in ("image_proj", "ip_adapter")
            }
            if not all(parts.values()):
                raise KeyError("image_proj and ip_adapter are needed")
            with quietly():
                unet._load_ip_adapter_weights([parts], low_cpu_mem_usage=False)
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, SafetensorError) as problem:
            raise BadNetwork(
                f"{file} is not an IP-Adapter for the network in {network_folder} ({first_line(problem)}); "
                "give one that was made for it with --ip-adapter."
            ) from problem
        for processor in unet.attn_processors.values():
            if hasattr(processor, "scale"):
                processor.scale = [SCALE]
        folders = [place / "image_encoder" for place in (file.parent, network_folder)]
        folder = next(filter(Path.is_dir, folders), None)
        if folder is None:
            raise BadNetwork(
                f"There is no image_encoder/ beside {file} nor in {network_folder}; copy the adapter's image encoder "
                "into one of the two."
            )
        encoder = load_component(CLIPVisionModelWithProjection, folder, precision)
        plus = not isinstance(unet.encoder_hid_proj.image_projection_layers[0], ImageProjection)
        weights = hash_files([file, *weight_files(folder)[1]], [folder / "config.json"])
        return cls(encoder.to(device).eval().requires_grad_(False), plus, weights)

    def see(self, pixels: Tensor) -> Tensor:
        """The adapter's input for pixels uint8 [pictures, size, size, 3], squashed to the encoder's size:
        [pictures, 1, tokens, channels] or [pictures, 1, channels]."""
        side = self.encoder.config.image_size
        pictures = pixels.permute(0, 3, 1, 2).float() / 255
        if pictures.shape[-1] != side:
            pictures = F.interpolate(pictures, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        return self.encode(_normalised(pictures))

    def preprocess(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Upright RGB pictures as diffusers' pipelines show them to the encoder: the short side resized, the middle
        cropped, normalised, [pictures, 3, side, side]."""
        side = self.encoder.config.image_size
        shown = np.stack([np.array(fitted(picture, side, f"crop {side}")) for picture in pictures])
        return _normalised(torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255)

    def encode(self, pictures: Tensor) -> Tensor:
        """The same for normalised pictures [pictures, 3, side, side]."""
        output = self.encoder(pictures.to(self.encoder.dtype), output_hidden_states=self.plus)
        seen: Tensor = output.hidden_states[-2] if self.plus else output.image_embeds
        return seen[:, None]


def _normalised(pictures: Tensor) -> Tensor:
    """Normalise RGB in [0, 1], [pictures, 3, side, side]."""
    mean, std = (torch.tensor(values, device=pictures.device).view(3, 1, 1) for values in (_MEAN, _STD))
    return (pictures - mean) / std


def _adapter_file(path: Path) -> Path:
    if path.is_file():
        return path
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else []
    if len(files) == 1:
        return files[0]
    found = f"{len(files)} safetensors files" if files else "no safetensors file"
    raise BadNetwork(f"There is {found} at {path}; give the file of one IP-Adapter with --ip-adapter.")
