"""The paper protocol: pair scores as DiffSim's released code computes them (showlab/DiffSim, commit 06d48b1).

Unlike the engine's, a picture's features depend on its role here: one generator draws, in this order, the posterior
sample of A, that of B, the noise of A, the noise of B; both guidance branches (empty prompt, prompt) go through the
network and into one vector. So score(A, A) < 1 and score(A, B) != score(B, A), and nothing can be indexed. With a fixed
seed the four draws are constants: `features` may be kept per picture and role. Scores are `score.score_pair`'s.
"""

import hashlib
import json
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .errors import RetrievalError
from .kit import Projection
from .networks.unet import UNetNetwork
from .pictures.images import fitted
from .score import AttentionFeatures
from .space import EXTRACTOR_REVISION, Tap

Role = Literal["A", "B"]


class NoPaperProtocol(RetrievalError):
    """The released code has no such setting."""


class PaperProtocol:
    """One tap of one network under the released protocol.

    Raises NoPaperProtocol, UnknownModule, BadSize, BadNetwork.
    """

    def __init__(self, network: object, tap: Tap, *, size: int, prompt: str, seed: int) -> None:
        if not isinstance(network, UNetNetwork) or network.is_sdxl:
            raise NoPaperProtocol(
                "The paper protocol is that of Stable Diffusion 1.x and 2.x U-Nets; leave out --protocol paper, "
                "or choose such a network with --model."
            )
        self.network = network
        self.tap = network.resolve(tap)
        self.size = size
        prompts = [
            network.constants(size=size, prompt=text, seed=seed, noises=0)["conditioning"] for text in ("", prompt)
        ]
        self._constants = {"conditioning": torch.cat(prompts).to(network.device)}
        side = size // network.latents.factor
        shape = (4, 1, network.latents.channels, side, side)
        self._draws = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)).to(network.device)
        record = [network.weights, str(self.tap), size, prompt, seed, str(network.dtype), EXTRACTOR_REVISION]
        self.fingerprint = "paper-" + hashlib.sha256(json.dumps(record).encode()).hexdigest()[:12]
        self._projection: Projection = network.projection(self.tap.module).to(network.device)

    def features(self, picture: Image.Image, role: Role) -> AttentionFeatures:
        """Of one upright RGB picture: both branches as heads, [1, 2 x heads, tokens, head_dim]."""
        sample, noise = self._draws["AB".index(role)], self._draws[2 + "AB".index(role)]
        pixels = torch.from_numpy(np.array(fitted(picture, self.size, "squash")))[None].to(self.network.device)
        with torch.inference_mode():
            posterior = self.network.latents.posterior(pixels)
            latents = self.network.latents.scaled(posterior.mean.float() + posterior.std.float() * sample)
            noisy = self.network.latents.noised(latents, noise, self.tap.timestep)
            entered = self.network.enter(
                [self.tap.module], noisy.expand(2, -1, -1, -1), self.tap.timestep, self._constants, self._image(picture)
            )
            both = self._projection(entered[self.tap.module])
        return AttentionFeatures(*(_branches(part) for part in (both.query, both.key, both.value, both.map)))

    def _image(self, picture: Image.Image) -> Tensor | None:
        """What the IP-Adapter is given, [2, 1, ...]: a picture of zeros in the branch of the empty prompt."""
        if self.network.adapter is None:
            return None
        shown = self.network.adapter.preprocess([picture]).to(self.network.device)
        return self.network.adapter.encode(torch.cat([torch.zeros_like(shown), shown]))


def _branches(part: Tensor) -> Tensor:
    return part.flatten(0, 1)[None]
