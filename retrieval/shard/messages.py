"""The inputs of a shard: plain values that can be pickled and sent to a shard anywhere."""

from dataclasses import dataclass

import numpy as np

from ..region import Box


@dataclass(frozen=True, eq=False)
class SpaceQuery:
    """One example in one feature space.

    space: fingerprint. descriptor: float16 [dimensions]. tokens: its token record in the tier of the space, empty if
    the space has no token stage. region: only the tokens that this box touches are compared, in one direction; in
    fractions of the part of the picture that the network sees.
    weight: of this similarity among several; negative weights push away. content_id: of the example, None for a
    picture that is not in the index.
    """

    space: str
    descriptor: np.ndarray
    tokens: bytes
    region: Box | None = None
    weight: float = 1.0
    content_id: int | None = None


@dataclass(frozen=True, eq=False)
class SpaceChanges:
    """Changes to the contents of one space in one shard since a point in time.

    ids: int64 [n], ascending; sha256: uint8 [n, 32]; visible: bool [n]; rewritten: bool [n], whether its features were
    written since then (else only its visibility may have changed). gone: int64 [m], contents that are no longer there.
    """

    ids: np.ndarray
    sha256: np.ndarray
    visible: np.ndarray
    rewritten: np.ndarray
    gone: np.ndarray
