"""Feature spaces that a run must leave out, because their network is gone or has become another one."""

from dataclasses import dataclass

from diffsim.db.catalog import KnownSpace
from diffsim.retrieval.errors import RetrievalError
from diffsim.retrieval.families import FamilyProblem, MissingFamily, UnknownModel
from diffsim.retrieval.networks import BadNetwork
from diffsim.retrieval.space import OtherRevision, SpaceMismatch

UNUSABLE = (UnknownModel, FamilyProblem, BadNetwork, SpaceMismatch, OtherRevision)
"""What loading the network of an existing space may raise. One that is asked for fails earlier, and ends the run."""


@dataclass(frozen=True)
class SkippedSpace:
    """A space that could not be filled. reason: why, without a period. waiting: pictures that it lacks."""

    space: KnownSpace
    reason: str
    waiting: int

    def __str__(self) -> str:
        """One sentence with the way out."""
        fingerprint = self.space.fingerprint
        return (
            f"{self.space.name} ({fingerprint}) was left out and lacks {self.waiting} pictures: {self.reason}; "
            "what it holds stays searchable by indexed pictures, `diffsim index --by ...` makes a new space, and "
            f"`diffsim prune --space {fingerprint}` forgets this one."
        )


def reason(space: KnownSpace, problem: RetrievalError) -> str:
    """Why a space cannot be filled, from what its network raised (one of UNUSABLE)."""
    network = f"the network {space.network}" + (f" with the IP-Adapter {space.adapter}" if space.adapter else "")
    if isinstance(problem, SpaceMismatch):
        return f"the weights of {network} are not those that it was made with"
    if isinstance(problem, OtherRevision):
        return f"another version of {problem.program} made it"
    if isinstance(problem, MissingFamily):
        return f"no installed package provides the network family {problem.name} (install the one that does)"
    if isinstance(problem, UnknownModel):
        adapter_too = " --ip-adapter FOLDER" if space.adapter else ""
        return f"{network} is not on this machine (fetch it, or give a copy with --model FOLDER{adapter_too})"
    return f"{network} cannot be loaded ({str(problem).rstrip('.')})"
