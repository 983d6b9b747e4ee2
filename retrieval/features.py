"""The stored features of one picture in one feature space."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class PictureFeatures:
    """One picture in one space. descriptor: float16 [dimensions]. tokens: a token record of the space's tier (see
    tiers.py), empty if the space has no token stage."""

    descriptor: np.ndarray
    tokens: bytes
