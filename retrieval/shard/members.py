"""Sets of content ids, as one byte per id of a range, so that every membership test is a look-up."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np


@dataclass(frozen=True, eq=False)
class Members:
    """first: the smallest id of the range. table: bool [ids of the range]."""

    first: int
    table: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray) -> "Members":
        """The set of these ids, int64, in any order."""
        if not len(ids):
            return cls(0, np.empty(0, np.bool_))
        first = int(ids.min())
        table = np.zeros(int(ids.max()) - first + 1, np.bool_)
        table[ids - first] = True
        return cls(first, table)

    @property
    def end(self) -> int:
        return self.first + len(self.table)

    def __len__(self) -> int:
        return int(np.count_nonzero(self.table))

    def has(self, ids: np.ndarray) -> np.ndarray:
        """Which of the ids are members: bool, in their order."""
        inside = (ids >= self.first) & (ids < self.end)
        found = np.zeros(len(ids), np.bool_)
        found[inside] = self.table[ids[inside] - self.first]
        return found

    def ids(self) -> np.ndarray:
        """All members, int64, ascending."""
        return np.flatnonzero(self.table) + self.first

    def within(self, others: "Members") -> "Members":
        """The intersection of both."""
        first, end = max(self.first, others.first), min(self.end, others.end)
        if first >= end:
            return Members(0, np.empty(0, np.bool_))
        ours, theirs = (each.table[first - each.first : end - each.first] for each in (self, others))
        return Members(first, ours & theirs)

    def changed(self, added: np.ndarray, removed: np.ndarray) -> "Members":
        """The set with some ids added and some removed; an id in both is added."""
        first, end = self.first, self.end
        if len(added):
            first = min(first, int(added.min())) if len(self.table) else int(added.min())
            end = max(end, int(added.max()) + 1)
        table = np.zeros(end - first, np.bool_)
        if len(self.table):
            table[self.first - first : self.end - first] = self.table
        table[removed[(removed >= first) & (removed < end)] - first] = False
        table[added - first] = True
        return Members(first, table)


def common(sets: Sequence[Members]) -> Members:
    """The intersection of several sets."""
    return reduce(Members.within, sets)
