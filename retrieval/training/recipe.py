"""Everything except the pictures that determines the weights."""

from dataclasses import dataclass
from typing import Any

# Stable Diffusion's noise, but with v-prediction, whose target is well scaled at every timestep.
SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
}


@dataclass(frozen=True)
class Recipe:
    """The network, its batches and its optimizer.

    A step sees three parts: `denoised` pictures at every timestep, a grid of `motifs` in their own styles (where the
    folders have any) and a grid of `painted` pictures, both (subjects, styles) and at one timestep of 1 to
    `contrast_timestep`.
    """

    steps: int = 3000
    seed: int = 0
    # the network
    picture_size: int = 128  # pixels; crops of the cached pictures are resized to it
    cached_size: int = 160  # pixels
    patch_size: int = 8
    latent_channels: int = 16
    block_out_channels: tuple[int, ...] = (64, 128, 160)
    layers_per_block: int = 1
    head_channels: int = 32
    cross_attention_dim: int = 64
    subject_tap: str = "up_blocks.0.attentions.1"
    style_tap: str = "up_blocks.1.attentions.1"
    look_tap: str = "up_blocks.1.attentions.0"  # read for the profile, not trained by the score
    read_at: int = 51  # the timestep of the profiles
    # batches
    denoised: int = 12
    motifs: tuple[int, int] = (7, 4)
    painted: tuple[int, int] = (5, 4)
    contrast_timestep: int = 200
    # losses
    snr_limit: float = 5.0  # min-SNR-gamma, arXiv 2303.09556
    subject_temperature: float = 0.03
    style_temperature: float = 0.05
    contrast_weight: float = 0.2
    grid_denoising: float = 0.25  # the weight of denoising the grids, which are all at early timesteps
    # optimizer
    learning_rate: float = 6e-4
    warm_up_steps: int = 100
    cool_down: float = 0.4  # the share of the steps over which the rate falls to a fiftieth
    ema_decay: float = 0.995

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        left = (self.steps - step) / (self.cool_down * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warm_up_steps, max(0.02, left))
