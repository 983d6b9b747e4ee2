"""Feature spaces: one frozen record of everything that changes a number.

Two pictures can be compared only in the same space. A space is identified by its `fingerprint`; a new network, tap,
prompt, seed, size, precision or revision of our own code is a new space beside the old one, never a change of it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from .errors import RetrievalError
from .pictures.images import DECODE_REVISION
from .settings import InvalidSpace, SpaceSettings

EXTRACTOR_REVISION = 1
"""Raised whenever this project's code changes a number in a token record or a descriptor."""


class SpaceMismatch(RetrievalError):
    """The network is not the one that a feature space was made with."""

    def __init__(self, fingerprint: str, network: object) -> None:
        super().__init__(
            f"The weights of the network {network} differ from those that the feature space {fingerprint} was made "
            "with, so new features cannot be compared with its own; query with an indexed picture, which needs no "
            "network, or make a new space with `diffsim index --by ...`."
        )


class OtherRevision(RetrievalError):
    """Another version of a program made a feature space; this one would compute different numbers."""

    def __init__(self, fingerprint: str, program: str = "this program") -> None:
        self.program = program
        super().__init__(
            f"The feature space {fingerprint} was made by another version of {program}, and what this one computes "
            "cannot be compared with it; query with an indexed picture, which needs no network, or make a new space "
            "with `diffsim index --by ...`."
        )


@dataclass(frozen=True)
class FeatureSpace:
    """Everything that changes a number (DESIGN section 3).

    weights, constants: hash of the network's weights and configuration (text encoders included), and of the tensors
    that all pictures share: the noise, the prompt embedding, ... The weights of a network that another package reads
    begin with the name and revision of its family, `FAMILY:REVISION:`.
    text: hash of the network's tokenizer if texts can be compared with the pictures of this space, else empty.
    """

    settings: SpaceSettings
    weights: str
    constants: str
    decode_revision: int = DECODE_REVISION
    extractor_revision: int = EXTRACTOR_REVISION
    text: str = ""

    @property
    def family(self) -> str:
        """Name of the network's family if another package provides it, else empty."""
        return self.weights.split(":")[0] if ":" in self.weights else ""

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that identify the whole record."""
        return hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()[:12]

    def record(self) -> dict[str, Any]:
        """The record as plain values, for JSON: one table, the settings among the rest."""
        rest = asdict(self)
        settings: dict[str, Any] = rest.pop("settings")
        if not self.text:
            del rest["text"]  # as in records from before there were texts, whose fingerprints stay
        return settings | rest

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "FeatureSpace":
        """The inverse of `record`; raises InvalidSpace for a record of another program version."""
        own = {field.name for field in fields(cls)} & record.keys()
        try:
            settings = SpaceSettings.from_record({name: record[name] for name in record.keys() - own})
            return cls(settings, **{name: record[name] for name in own})
        except (TypeError, KeyError) as problem:
            raise InvalidSpace(f"A feature space written by another version cannot be read ({problem}).") from problem

    def same_request(self, other: "FeatureSpace") -> bool:
        """Whether both were requested in the same way: only the drawn noise and the numbers of the prompt embedding may
        differ (no library guarantees a stable generator, or the same last digit on another processor; an existing space
        keeps the tensors that it saved)."""
        return replace(self, constants=other.constants) == other
