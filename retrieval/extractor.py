"""The extractor: pictures in, attention tokens and descriptors out (engine protocol, DESIGN section 2).

The VAE posterior's mean, ONE noise tensor for every picture, one branch: a picture's features are a function of the
picture and the space alone, never of batch size, order, partner or history. On a CPU in float32, batches of 1 and 8
differ by about 1e-5 relative, because the matrix kernels sum in a different order.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import RetrievalError
from .features import PictureFeatures
from .kit import SpaceKit, constants_hash
from .networks import Network, Read, TapPlace, TextNetwork, dtype_name
from .pictures.images import DECODE_REVISION
from .settings import InvalidSpace, SpaceSettings
from .space import EXTRACTOR_REVISION, FeatureSpace, OtherRevision, SpaceMismatch
from .tiers import encode_tokens


class NotFinite(RetrievalError):
    """The network overflowed: its numbers cannot be used as features."""


class Extractor:
    """Runs one network for one or more of its spaces; pictures are encoded once for all of them, and spaces that use
    the same noise and prompt share the network's passes.

    The spaces must be of this network (SpaceMismatch) and of this code (OtherRevision), and share its precision,
    picture size and fit (ValueError).
    """

    def __init__(self, network: Network, kits: Sequence[SpaceKit]) -> None:
        for kit in kits:
            if kit.space.weights != network.weights:
                raise mismatch(kit.space, network)
            if (kit.space.decode_revision, kit.space.extractor_revision) != (DECODE_REVISION, EXTRACTOR_REVISION):
                raise OtherRevision(kit.space.fingerprint)
        shared = {(kit.settings.size, kit.settings.fit, kit.settings.dtype) for kit in kits}
        if len(shared) != 1 or kits[0].settings.dtype != dtype_name(network.dtype):
            raise ValueError("the spaces of one extractor share picture size, fit and the network's precision")
        self.network = network
        self.kits = [kit.to(network.device) for kit in kits]
        self.size = kits[0].settings.size
        self.fit = kits[0].settings.fit

    def extract(self, pixels: np.ndarray) -> list[list[PictureFeatures]]:
        """Features of pictures uint8 [pictures, size, size, 3]: for each space, one PictureFeatures per picture.

        Raises NotFinite.
        """
        with torch.inference_mode():
            encoded = self.network.encode(torch.from_numpy(pixels).to(self.network.device))
            reads: dict[str, Read] = {}
            for name, constants in {kit.space.constants: kit.constants for kit in self.kits}.items():
                taps = [tap for kit in self.kits if kit.space.constants == name for tap in kit.settings.taps]
                reads[name] = self.network.read(encoded, taps, constants) if taps else {}
            return [self._features(kit, encoded, reads[kit.space.constants]) for kit in self.kits]

    def by_picture(self, pixels: np.ndarray) -> list[list[PictureFeatures]]:
        """The same by picture: for each picture one PictureFeatures per space. A batch that does not fit the GPU is
        halved."""
        try:
            return [list(features) for features in zip(*self.extract(pixels), strict=True)]
        except torch.cuda.OutOfMemoryError:
            if len(pixels) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(pixels) // 2
        return self.by_picture(pixels[:half]) + self.by_picture(pixels[half:])

    def _features(self, kit: SpaceKit, encoded: dict[str, Tensor], read: Read) -> list[PictureFeatures]:
        if not kit.has_tokens:
            embedding = self._checked(kit, self.network.embed(encoded))
            return [PictureFeatures(row.half().numpy(), b"") for row in F.normalize(embedding, dim=1)]
        matrices = [
            self._checked(kit, matrix)
            for tap in kit.settings.taps
            for matrix in read[TapPlace(tap.module, tap.timestep)]
        ]
        pictures = range(len(matrices[0]))
        records = [encode_tokens([matrix[row] for matrix in matrices], kit.settings.tier) for row in pictures]
        # The descriptor is computed from the tokens as they will be read back from the store.
        descriptors = kit.descriptors(kit.read(records)).half().cpu().numpy()
        return [PictureFeatures(descriptor, record) for descriptor, record in zip(descriptors, records, strict=True)]

    def _checked(self, kit: SpaceKit, numbers: Tensor) -> Tensor:
        numbers = numbers.float().cpu()
        if not numbers.isfinite().all():
            raise NotFinite(
                f"The network in {self.network.folder} overflows in {kit.settings.dtype}; choose bfloat16 or float32."
            )
        return numbers


def mismatch(space: FeatureSpace, network: Network) -> RetrievalError:
    """Why the network does not match the space: other weights, or another revision of a package's family."""
    family, revision, _ = (*network.weights.split(":"), "", "")[:3]
    if space.family == family != "" and not space.weights.startswith(f"{family}:{revision}:"):
        return OtherRevision(space.fingerprint, f"the network family {family}")
    return SpaceMismatch(space.fingerprint, network.folder)


def make_space(network: Network, settings: SpaceSettings) -> SpaceKit:
    """Make a new feature space of a network: resolve names, draw the noise on the CPU, embed the prompt, copy layers.

    Raises UnknownModule, BadSize, InvalidSpace, BadNetwork; ValueError if the network was loaded in another precision.
    """
    if settings.dtype != dtype_name(network.dtype):
        raise ValueError(f"the network was loaded in {dtype_name(network.dtype)}, not in {settings.dtype}")
    if settings.variant not in network.variants:
        raise InvalidSpace(
            f"The network in {network.folder} has no variant {settings.variant}; choose "
            f"{' or '.join(network.variants)} (C, DiffSim's cross-attention, needs an IP-Adapter: --ip-adapter FOLDER)."
        )
    taps = tuple(replace(network.resolve(tap), weight=tap.weight) for tap in settings.taps)
    settings = replace(settings, taps=taps)
    constants = network.constants(settings)
    text = network.text if settings.variant == "global" and isinstance(network, TextNetwork) else ""
    space = FeatureSpace(settings, network.weights, constants_hash(constants), text=text)
    projections = tuple(network.projection(tap.module) for tap in taps)
    return SpaceKit(space, constants, projections, _shapes(network, settings, constants))


def _shapes(network: Network, settings: SpaceSettings, constants: dict[str, Tensor]) -> tuple[tuple[int, int], ...]:
    """(tokens, channels) of every matrix of a record, by running one black picture."""
    if not settings.taps:
        return ()
    with torch.inference_mode():
        blank = torch.zeros((1, settings.size, settings.size, 3), dtype=torch.uint8, device=network.device)
        given = {name: tensor.to(network.device) for name, tensor in constants.items()}
        read = network.read(network.encode(blank), settings.taps, given)
    return tuple(
        (matrix.shape[1], matrix.shape[2])
        for tap in settings.taps
        for matrix in read[TapPlace(tap.module, tap.timestep)]
    )
