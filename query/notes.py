"""Notes on an answer for the user, as sentences."""

import os
from collections.abc import Sequence

import numpy as np

from diffsim.db.catalog import Catalog, KnownSpace

from .collection import Collection

NOTHING_PASSES = "No picture passes the filters; ask for less, or see what is there with `diffsim status`."

ALL_FOLDED = "Every picture was compared: those that are not shown are near copies of these."

REGION_AGAINST_ALL = "The region was scored against every picture."
REGION_RECALLED = "Candidates for the region were recalled by the whole picture; --exact scores every picture."

_NAMED = 3
"""Pictures that a note names; the rest are counted."""


def damaged_rows(pictures: int) -> str:
    """pictures: of which the catalog has rows that do not fit their checksum."""
    return (
        f"The catalog's rows of {pictures} pictures are damaged and were left out; run `diffsim verify`, then "
        "`diffsim index`."
    )


def absent(catalog: Catalog, collection: Collection, ids: np.ndarray, spaces: Sequence[KnownSpace]) -> list[str]:
    """Names the candidates that some of the spaces lack; ids: int64, of these candidates."""
    if not len(ids):
        return []
    files = catalog.files_of(ids[:_NAMED].tolist())
    names = [os.fsdecode(found[0].path) for found in files.values() if found]
    more = f" and {len(ids) - len(names)} more" if len(ids) > len(names) else ""
    lacking = [space.name for space in spaces if not collection.among([space.fingerprint], ids).all()]
    return [
        f"Left out because {' and '.join(lacking)} {'lacks' if len(lacking) == 1 else 'lack'} them: "
        f"{', '.join(names)}{more}; `diffsim index` fills every space."
    ]


def without_sketches(count: int) -> str:
    """A sentence on pictures that an older program indexed, or whose sketches are damaged."""
    return (
        f"{count} pictures have no sketch to tell copies by and were decoded, which takes longer; the next "
        "`diffsim index` makes the sketches."
    )
