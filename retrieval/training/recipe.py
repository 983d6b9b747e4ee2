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

    A step sees `denoised` pictures at every timestep, and grids at one timestep each, of 1 to `contrast_timestep`:
    `motifs`, subjects in their own styles; `painted`, pictures under the same looks; `kinds`, several pictures of each
    of some subjects. Grids are given as (subjects, styles) and (subjects, pictures of each).
    """

    steps: int = 1400
    seed: int = 0
    # the pictures' features
    picture_size: int = 224  # pixels
    versions: int = 2  # of each picture: as it is, and augmented
    painted_grids: int = 240
    # the network
    block_out_channels: tuple[int, ...] = (64, 224)
    layers_per_block: int = 1
    head_channels: int = 32
    cross_attention_dim: int = 64
    subject_tap: str = "up_blocks.0.attentions.0"
    style_tap: str = "up_blocks.0.attentions.1"
    read_at: int = 51  # the timestep of the profiles
    # batches
    denoised: int = 14
    motifs: tuple[int, int] = (5, 4)
    painted: tuple[int, int] = (4, 4)
    kinds: tuple[int, int] = (8, 3)
    contrast_timestep: int = 200
    # losses
    denoising_weight: float = 1.0
    snr_limit: float = 5.0  # min-SNR-gamma, arXiv 2303.09556
    subject_temperature: float = 0.03
    style_temperature: float = 0.05
    contrast_weight: float = 0.2
    keep_temperature: float = 0.1  # of the encoder's own similarities
    keep_weight: float = 0.2
    # optimizer
    learning_rate: float = 6e-4
    warm_up_steps: int = 100
    cool_down: float = 0.4  # the share of the steps over which the rate falls to a fiftieth
    ema_decay: float = 0.995

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        left = (self.steps - step) / (self.cool_down * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warm_up_steps, max(0.02, left))
