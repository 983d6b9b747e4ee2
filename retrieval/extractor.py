"""The extractor: pictures in, attention tokens and descriptors out (engine protocol, DESIGN section 2).

The VAE posterior's mean, ONE noise tensor for every picture, one branch: a picture's features are a function of the
picture and the space alone, never of batch size, order, partner or history. On a CPU in float32, batches of 1 and 8
differ by about 1e-5 relative, because the matrix kernels sum in another order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from .errors import RetrievalError
from .kit import Projection, SpaceKit, tensor_hash
from .networks import Network, load_network
from .presets import find_model
from .space import FeatureSpace, SpaceMismatch, Tap
from .taps import resolve_module, run_to_taps
from .tiers import decode_tokens, encode_tokens


class BadSize(RetrievalError, ValueError):
    """The network cannot take pictures of this size."""


class NotFinite(RetrievalError):
    """The network overflowed: its numbers are no features."""


@dataclass(frozen=True)
class PictureFeatures:
    """One picture in one space. descriptor: float16 [dimensions]. tokens: a record of the tier (see tiers.py)."""

    descriptor: np.ndarray
    tokens: bytes


class Extractor:
    """Runs one network for one or several of its spaces; pictures are encoded once for all of them.

    The spaces must be of this network (SpaceMismatch) and share its precision and one picture size (ValueError).
    """

    def __init__(self, network: Network, kits: Sequence[SpaceKit]) -> None:
        for kit in kits:
            if kit.space.weights != network.weights:
                raise SpaceMismatch(kit.space.fingerprint, f"the network in {network.folder}")
        if len({kit.space.size for kit in kits}) != 1 or any(kit.space.dtype != network.dtype_name for kit in kits):
            raise ValueError("the spaces of one extractor share picture size and the network's precision")
        self.network = network
        self.kits = [kit.to(network.device) for kit in kits]
        self.size = kits[0].space.size

    @classmethod
    def load(cls, reference: str, kits: Sequence[SpaceKit], device: str) -> "Extractor":
        """Load the network behind the spaces; it must be the very one they were made with (SpaceMismatch)."""
        return cls(load_network(find_model(reference), kits[0].space.dtype, device), kits)

    def extract(self, pixels: np.ndarray) -> list[list[PictureFeatures]]:
        """Features of pictures uint8 [pictures, size, size, 3]: for each space, one PictureFeatures per picture.

        Raises NotFinite.
        """
        with torch.inference_mode():
            latents = encode_pictures(self.network, pixels)
            return [self._features(kit, latents) for kit in self.kits]

    def _features(self, kit: SpaceKit, latents: Tensor) -> list[PictureFeatures]:
        read = read_taps(self.network, kit.space.taps, latents, kit.noise, kit.conditioning)
        taps = [tap.float().cpu() for tap in read]
        if not all(tap.isfinite().all() for tap in taps):
            raise NotFinite(
                f"The network in {self.network.folder} overflows in {kit.space.dtype}; choose bfloat16 or float32."
            )
        records = [encode_tokens([tap[row] for tap in taps], kit.space.tier) for row in range(len(latents))]
        # What is stored decides: the descriptor is made of the tokens as they will be read back.
        stored = [tap.to(self.network.device) for tap in decode_tokens(records, kit.shapes, kit.space.tier)]
        descriptors = kit.descriptors(kit.attention(stored)).half().cpu().numpy()
        return [PictureFeatures(descriptor, record) for descriptor, record in zip(descriptors, records, strict=True)]


def encode_pictures(network: Network, pixels: np.ndarray) -> Tensor:
    """Latents [pictures, channels, height, width], float32: the scaled mean of the autoencoder's posterior."""
    autoencoder = network.autoencoder
    pictures = torch.from_numpy(pixels).to(network.device).permute(0, 3, 1, 2).float() / 127.5 - 1
    mean = autoencoder.encode(pictures.to(autoencoder.dtype)).latent_dist.mean.float()
    shift = getattr(autoencoder.config, "shift_factor", None) or 0.0
    latents: Tensor = (mean - shift) * autoencoder.config.scaling_factor
    return latents


def read_taps(
    network: Network, taps: Sequence[Tap], latents: Tensor, noise: Tensor, conditioning: Tensor
) -> list[Tensor]:
    """The input tokens of every tap, each [pictures, tokens, channels]: one pass per timestep collects all its taps."""
    found: dict[Tap, Tensor] = {}
    words = conditioning.to(network.dtype).expand(len(latents), -1, -1)
    for timestep in sorted({tap.timestep for tap in taps}):
        share = float(network.signal[timestep])
        noisy = (share**0.5 * latents + (1 - share) ** 0.5 * noise).to(network.dtype)
        modules = [tap.module for tap in taps if tap.timestep == timestep]
        forward = partial(network.unet, noisy, timestep, encoder_hidden_states=words)
        inputs = run_to_taps(network.unet, modules, forward)
        found.update({tap: inputs[tap.module] for tap in taps if tap.timestep == timestep})
    return [found[tap] for tap in taps]


def make_space(
    network: Network,
    taps: Sequence[Tap],
    *,
    size: int,
    prompt: str = "",
    seed: int = 2334,
    dtype: str = "float32",
    tier: str = "fp16",
) -> SpaceKit:
    """A new feature space of a network: names resolved, noise drawn on the CPU, prompt embedded, layers copied.

    Raises UnknownModule, BadSize, InvalidSpace, BadNetwork; ValueError where `dtype` is not the network's.
    """
    if dtype != network.dtype_name:
        raise ValueError(f"the network was loaded in {network.dtype_name}, not in {dtype}")
    taps = tuple(replace(tap, module=resolve_module(network.unet, tap.module)) for tap in taps)
    blank = _blank_latents(network, size)
    noise = torch.randn(blank.shape[1:], generator=torch.Generator("cpu").manual_seed(seed))
    conditioning = network.conditioning(prompt)
    space = FeatureSpace(
        weights=network.weights,
        taps=taps,
        size=size,
        noise=tensor_hash(noise),
        conditioning=tensor_hash(conditioning),
        prompt=prompt,
        seed=seed,
        dtype=dtype,
        tier=tier,
    )
    projections = tuple(Projection.of(network.unet.get_submodule(tap.module)) for tap in taps)
    inputs = read_taps(network, taps, blank, noise.to(network.device), conditioning.to(network.device))
    shapes = tuple((tokens.shape[1], tokens.shape[2]) for tokens in inputs)
    return SpaceKit(space, noise, conditioning, projections, shapes)


def _blank_latents(network: Network, size: int) -> Tensor:
    """Latents of one black picture, after checking that the network takes the size."""
    halvings = len(network.unet.config.block_out_channels) - 1
    levels = getattr(network.autoencoder.config, "block_out_channels", None)
    factor = 2 ** (len(levels) - 1) if levels else network.autoencoder.config.patch_size
    unit = factor * 2**halvings
    if size < unit or size % unit:
        raise BadSize(f"The picture size {size} does not suit this network; choose a multiple of {unit}.")
    with torch.inference_mode():
        return encode_pictures(network, np.zeros((1, size, size, 3), np.uint8))
