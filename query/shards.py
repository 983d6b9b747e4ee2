"""The shards of an index as a query asks them: all together, wherever they are. See also cluster.py."""

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from diffsim.retrieval.shard.part import SpacePart
from diffsim.retrieval.shard.shard import LocalShard

from .errors import QueryError


class NoShardAnswers(QueryError):
    """No shard of the index answered, so that there is nothing to rank."""


class Shards(Protocol):
    """unanswered: why a shard takes no part in the present question, by its number; empty if all do."""

    unanswered: dict[int, str]

    def begin(self, numbers: Collection[int]) -> set[int]:
        """Begin a question to these shards. Returns those that have nothing open: new ones, and those that come back
        after they were lost."""
        ...

    def call(self, method: str, arguments: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Call a method of `LocalShard` on shards by number, each with its own arguments, all at the same time. Those
        that do not answer are missing in what it returns, and take no further part in this question."""
        ...

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """Ask every shard that takes part the same, all at the same time; their answers in the order of their
        numbers."""
        ...

    def close(self) -> None:
        """Release everything. Closing twice is harmless."""
        ...


class LocalShards:
    """Shards in folders of this machine, asked one after another in this process: each uses all cores."""

    def __init__(self) -> None:
        self.unanswered: dict[int, str] = {}
        self._shards: dict[int, LocalShard] = {}

    def begin(self, numbers: Collection[int]) -> set[int]:
        fresh = set(numbers) - set(self._shards)
        self._shards |= {number: LocalShard() for number in sorted(fresh)}
        return fresh

    def call(self, method: str, arguments: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        return {number: getattr(self._shards[number], method)(*given) for number, given in arguments.items()}

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        return list(self.call(method, dict.fromkeys(sorted(self._shards), arguments)).values())

    def close(self) -> None:
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()

    def parts(self, space: str) -> list[SpacePart]:
        """Each shard's part of a space, for inspection."""
        return [part for number in sorted(self._shards) if (part := self._shards[number].part(space)) is not None]
