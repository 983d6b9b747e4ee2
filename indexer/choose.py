"""Which feature space a name means. Several may bear one name: a new one is built while the old one keeps answering."""

from collections.abc import Mapping, Sequence

from diffsim.db.catalog import KnownSpace
from diffsim.errors import did_you_mean

from .errors import IndexerError


class UnknownSpace(IndexerError):
    """A name or fingerprint means no feature space of the index, or more than one."""


def find_spaces(spaces: Sequence[KnownSpace], wanted: str) -> list[KnownSpace]:
    """The space with this fingerprint, else all with this name (`mini/style`) or this last part of one (`style`), in
    the order of `spaces`, else the one whose fingerprint begins so. Raises UnknownSpace."""
    if exact := [space for space in spaces if space.fingerprint == wanted]:
        return exact
    if named := [space for space in spaces if wanted in (space.name, space.name.partition("/")[2])]:
        return named
    begun = [space for space in spaces if wanted and space.fingerprint.startswith(wanted)]
    if len(begun) > 1:
        raise ambiguous(wanted, begun)
    if not begun:
        names = {part for space in spaces for part in (space.name, space.name.partition("/")[2])}
        meant = did_you_mean(wanted, names)
        raise UnknownSpace(f"{wanted!r} is no feature space of this index{meant}; choose one of: {listed(spaces)}.")
    return begun


def ambiguous(wanted: str, found: Sequence[KnownSpace]) -> UnknownSpace:
    return UnknownSpace(f"{wanted!r} stands for several feature spaces; choose one of: {listed(found)}.")


def answering(spaces: Sequence[KnownSpace], visible: Mapping[int, int]) -> KnownSpace:
    """Of spaces of one name, oldest first, the one that answers for it: the newest that holds at least as many pictures
    as each older one. visible: space id -> pictures with a present file."""
    return max(enumerate(spaces), key=lambda item: (visible[item[1].id], item[0]))[1]


def listed(spaces: Sequence[KnownSpace]) -> str:
    return ", ".join(f"{space.name} ({space.fingerprint})" for space in spaces) or "none, it is empty"
