"""Texts in the feature spaces of networks with a text tower: one descriptor each, compared with those of pictures."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .errors import RetrievalError
from .extractor import NotFinite, mismatch
from .features import PictureFeatures
from .kit import SpaceKit
from .networks import Network, TextNetwork
from .space import EXTRACTOR_REVISION, OtherRevision


class OtherTokenizer(RetrievalError):
    """The tokenizer is not the one that a feature space was made with."""


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """A text in one space. features: with a descriptor and no tokens. read: where only the beginning of the text was
    read, that beginning; else None."""

    features: PictureFeatures
    read: str | None


def text_features(network: Network, kit: SpaceKit, text: str) -> TextFeatures:
    """A text as it is compared with the pictures of a space that takes texts (`FeatureSpace.text`).

    Raises SpaceMismatch, OtherRevision, OtherTokenizer, BadNetwork, NotFinite.
    """
    space = kit.space
    if space.weights != network.weights:
        raise mismatch(space, network)
    if space.extractor_revision != EXTRACTOR_REVISION:
        raise OtherRevision(space.fingerprint)
    if not isinstance(network, TextNetwork) or network.text != space.text:
        raise OtherTokenizer(
            f"The tokenizer of the network {network.folder} differs from the one that the feature space "
            f"{space.fingerprint} was made with; put that one back, or make a new space with `diffsim index --model "
            f"{network.folder} --variant global`."
        )
    with torch.inference_mode():
        vector, read = network.embed_text(text)
        vector = vector.float().cpu()
        if not vector.isfinite().all():
            raise NotFinite(
                f"The network in {network.folder} overflows in {kit.settings.dtype}; choose bfloat16 or float32."
            )
        return TextFeatures(PictureFeatures(F.normalize(vector, dim=1)[0].half().numpy(), b""), read)
