"""The paper protocol: pair scores as DiffSim's released code computes them (showlab/DiffSim, commit 06d48b1).

Unlike the engine's, a picture's features depend on its role here: one generator draws, in this order, the posterior
sample of A, that of B, the noise of A, the noise of B; both guidance branches (empty prompt, prompt) go through the
network and into one vector. So score(A, A) < 1 and score(A, B) != score(B, A), and nothing can be indexed. With a fixed
seed the four draws are constants: `features` may be kept per picture and role. Scores are `score.score_pair`'s.
"""

import hashlib
import json
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .errors import RetrievalError
from .networks.unet import UNetNetwork
from .pictures.images import fitted
from .projection import Projection
from .score import AttentionFeatures
from .settings import SpaceSettings
from .space import EXTRACTOR_REVISION

Role = Literal["A", "B"]


class NoPaperProtocol(RetrievalError):
    """The released code does not have this setting."""


class PaperProtocol:
    """One tap of one network under the released protocol.

    settings: only tap, size, prompt and seed are used; fit, precision and tier are the protocol's or the network's.
    Raises NoPaperProtocol, UnknownModule, BadSize, BadNetwork.
    """

    def __init__(self, network: object, settings: SpaceSettings) -> None:
        if not isinstance(network, UNetNetwork) or network.is_sdxl:
            raise NoPaperProtocol(
                "The paper protocol is that of Stable Diffusion 1.x and 2.x U-Nets; leave out --protocol paper, "
                "or choose such a network with --model."
            )
        if len(settings.taps) != 1:
            raise NoPaperProtocol(
                f"The paper protocol reads one layer, not {len(settings.taps)}; name one, or leave out "
                "--protocol paper."
            )
        if settings.noises != 1:
            raise NoPaperProtocol(
                f"The paper protocol adds one noise to each picture, not {settings.noises}; leave out "
                "--noises or --protocol paper."
            )
        self.network = network
        self.tap = network.resolve(settings.taps[0])
        self.size = settings.size
        prompts = [network.constants(replace(settings, prompt=text))["conditioning"] for text in ("", settings.prompt)]
        self._constants = {"conditioning": torch.cat(prompts).to(network.device)}
        side = settings.size // network.latents.autoencoder.factor
        shape = (4, 1, network.latents.autoencoder.channels, side, side)
        generator = torch.Generator("cpu").manual_seed(settings.seed)
        self._draws = torch.randn(shape, generator=generator).to(network.device)
        tap, asked = str(self.tap), (settings.size, settings.prompt, settings.seed)
        record = [network.weights, tap, *asked, str(network.dtype), EXTRACTOR_REVISION]
        self.fingerprint = "paper-" + hashlib.sha256(json.dumps(record).encode()).hexdigest()[:12]
        self._projection: Projection = network.projection(self.tap.module).to(network.device)

    def features(self, picture: Image.Image, role: Role) -> AttentionFeatures:
        """Features of one upright RGB picture: both branches as heads, [1, 2 x heads, tokens, head_dim]."""
        sample, noise = self._draws["AB".index(role)], self._draws[2 + "AB".index(role)]
        pixels = torch.from_numpy(np.array(fitted(picture, self.size, "squash")))[None].to(self.network.device)
        with torch.inference_mode():
            latents = self.network.latents.autoencoder.sample(pixels, sample)
            noisy = self.network.latents.noised(latents, noise, self.tap.timestep)
            entered = self.network.enter(
                [self.tap.module], noisy.expand(2, -1, -1, -1), self.tap.timestep, self._constants, self._image(picture)
            )
            both = self._projection(entered[self.tap.module])
        return AttentionFeatures(*(_branches(part) for part in (both.query, both.key, both.value, both.map)))

    def _image(self, picture: Image.Image) -> Tensor | None:
        """The input of the IP-Adapter, [2, 1, ...]: a picture of zeros in the branch of the empty prompt."""
        if self.network.adapter is None:
            return None
        shown = self.network.adapter.preprocess([picture]).to(self.network.device)
        return self.network.adapter.encode(torch.cat([torch.zeros_like(shown), shown]))


def _branches(part: Tensor) -> Tensor:
    return part.flatten(0, 1)[None]
