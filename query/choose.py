"""Resolves the names in a query to feature spaces of an open index."""

from collections.abc import Sequence
from pathlib import Path

from diffsim.db.catalog import Catalog, KnownSpace
from diffsim.indexer.choose import UnknownSpace, ambiguous, answering, find_spaces


class SpaceChooser:
    """Caches the number of pictures per space until the catalog changes. path: of the index, for messages."""

    def __init__(self, path: Path, catalog: Catalog) -> None:
        self._path = path
        self._catalog = catalog
        self._visible_at: tuple[int, dict[int, int]] | None = None  # the catalog's generation, and the counts

    def all(self) -> list[KnownSpace]:
        """The feature spaces of the index, oldest first."""
        return self._catalog.spaces()

    def one(self, wanted: str | None) -> KnownSpace:
        """The feature space with this name or fingerprint; None means the index's first. Raises UnknownSpace."""
        spaces = self.all()
        if not spaces:
            raise UnknownSpace(
                f"The index in {self._path} holds no pictures yet; add some with `diffsim index FOLDER`."
            )
        found = find_spaces(spaces, spaces[0].name if wanted is None else wanted)
        if len(found) == 1:
            return found[0]
        if len({space.name for space in found}) > 1:
            raise ambiguous(str(wanted), found)
        return answering(found, self._visible())

    def first(self, spaces: Sequence[KnownSpace]) -> KnownSpace:
        """Of some spaces of the index, the one that answers for the name of the first of them."""
        return answering([space for space in spaces if space.name == spaces[0].name], self._visible())

    def several(self, names: Sequence[str]) -> list[KnownSpace]:
        """The same for several names, each space once; an empty sequence means the index's first."""
        return list({space.fingerprint: space for space in map(self.one, names or (None,))}.values())

    def _visible(self) -> dict[int, int]:
        generation = self._catalog.generation()
        if self._visible_at is None or self._visible_at[0] != generation:
            self._visible_at = generation, self._catalog.visible_pictures()
        return self._visible_at[1]
