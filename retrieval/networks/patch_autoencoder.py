"""The image encoder of the bundled network: one linear map per patch instead of a convolutional VAE."""

from __future__ import annotations

from typing import cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

# A latent channel has standard deviation std**(1 - WHITENING), std being that of its principal component. At 1 the
# faintest detail would be as strong as the mean colour, at 0 the added noise would hide all but the mean colour.
WHITENING = 0.5
LOG_VARIANCE = -30.0  # the posterior is a point, as far as float32 can tell


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """Principal components of square RGB patches, in the interface of diffusers' `AutoencoderKL`.

    Every `patch_size` x `patch_size` patch becomes `latent_channels` numbers. Times `config.scaling_factor` the latents
    of the pictures it was fitted to have unit variance over all channels together.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, patch_size: int = 8, latent_channels: int = 16, scaling_factor: float = 1.0) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, latent_channels, patch_size, stride=patch_size)
        self.decoder = nn.ConvTranspose2d(latent_channels, 3, patch_size, stride=patch_size)
        self.requires_grad_(False)

    @classmethod
    def fit(cls, pictures: Tensor, patch_size: int = 8, latent_channels: int = 16) -> PatchAutoencoder:
        """Fit to `pictures` [B,3,H,W] in [-1,1], whose sides are multiples of `patch_size`; a few hundred are plenty.

        Raises ValueError if there are fewer patches than latent channels, or more channels than a patch has numbers.
        """
        patches = nn.functional.unfold(pictures, patch_size, stride=patch_size)  # [B, 3*p*p, patches]
        patches = patches.transpose(1, 2).flatten(0, 1).double()  # [B*patches, 3*p*p]
        if latent_channels > min(patches.shape):
            raise ValueError(
                f"latent_channels is {latent_channels}, but {len(patches)} patches of {patches.shape[1]} numbers "
                f"allow at most {min(patches.shape)}; give more pictures or fewer channels"
            )
        # the mean pixel, not the mean patch: a transposed convolution has one bias per colour
        colour = patches.reshape(len(patches), 3, -1).mean((0, 2))
        variance, components = torch.linalg.eigh(patches.T.cov())
        std = variance.flip(0)[:latent_channels].clamp(min=1e-8).sqrt()
        components = components.flip(1).T[:latent_channels]  # [latent_channels, 3*p*p], the strongest first
        # the sign of eigenvectors is arbitrary: fix it, so that the same pictures always give the same weights
        components = components * components.sum(1).sign().where(components.sum(1) != 0, 1)[:, None]

        gain = std**-WHITENING
        scaling_factor = float((gain * std).square().mean().rsqrt())
        model: PatchAutoencoder = cls(patch_size, latent_channels, scaling_factor)
        kernel = (latent_channels, 3, patch_size, patch_size)
        model.load_state_dict(
            {
                "encoder.weight": (components * gain[:, None]).reshape(kernel),
                "encoder.bias": -gain * (components @ colour.repeat_interleave(patch_size**2)),
                "decoder.weight": (components / gain[:, None]).reshape(kernel),
                "decoder.bias": colour,
            }
        )
        return model

    def encode(self, x: Tensor) -> AutoencoderKLOutput:
        """`x` [B,3,H,W] in [-1,1] -> posterior over latents [B, latent_channels, H/patch_size, W/patch_size]."""
        mean = self.encoder(x)
        moments = torch.cat([mean, torch.full_like(mean, LOG_VARIANCE)], dim=1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments))

    def decode(self, z: Tensor) -> DecoderOutput:
        """`z` [B, latent_channels, h, w], not scaled -> `.sample` [B,3,H,W], about [-1,1] (not clamped)."""
        return DecoderOutput(sample=cast(Tensor, self.decoder(z)))
