"""Texts as examples: the feature spaces that take them, and their features there."""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from diffsim.db.catalog import KnownSpace
from diffsim.retrieval.features import PictureFeatures

from .choose import SpaceChooser
from .collection import Collection
from .extract_pictures import PictureExtractor
from .query import BadQuery, Example, Query, Text
from .text import printable
from .weighed import WeighedSpace, shared, weighed_spaces

if TYPE_CHECKING:
    from diffsim.retrieval.texts import TextFeatures

HOW_TO_ADD = (
    "fetch a network that reads text with `diffsim models fetch clip-vit-b32` and add its space with `diffsim index "
    "--model clip-vit-b32 --variant global`"
)
"""How an index comes by a feature space that takes texts."""

_KEPT = 64
"""Texts whose features are kept: a search asks for the same ones again."""

_SHOWN = 60
"""Characters of a text in a note."""


@lru_cache(maxsize=256)
def _takes_text(record: str) -> bool:
    try:
        return bool(json.loads(record).get("text"))
    except (ValueError, AttributeError, RecursionError):
        return False


def takes_text(space: KnownSpace) -> bool:
    """Whether texts can be compared with the pictures of a space; no network is loaded for that."""
    return _takes_text(space.record)


def spaces_of_text(chooser: SpaceChooser, example: Example, query: Query) -> list[WeighedSpace]:
    """The spaces in which a text is compared: its own; else the query's that take texts; else, beside pictures or where
    the query names none, the index's first that does. Raises BadQuery, UnknownSpace."""
    names = example.spaces or query.spaces
    named = weighed_spaces(chooser, names) if names else []
    taking = [(space, weight) for space, weight in named if takes_text(space)]
    refusing = [space for space, _ in named if not takes_text(space)]
    if refusing and (example.spaces or (not taking and _only_texts(query))):
        raise BadQuery(_refusal(refusing[0], chooser))
    if taking:
        return shared(taking)
    chooser.one(None)  # an empty index says so
    known = [space for space in chooser.all() if takes_text(space)]
    if not known:
        raise BadQuery(f"No feature space of this index takes text; {HOW_TO_ADD}.")
    return [(chooser.first(known), 1.0)]


def _only_texts(query: Query) -> bool:
    return all(isinstance(example.subject, Text) for example in query.all_examples if not example.spaces)


def _refusal(space: KnownSpace, chooser: SpaceChooser) -> str:
    others = [f"`--space {each.name}`" for each in chooser.all() if takes_text(each) and each.name != space.name]
    embeds = json.loads(space.record).get("variant") == "global"
    why = "its network had no text tower, or no tokenizer" if embeds else "only spaces of the variant global can"
    return f"The feature space {space.name} takes no text ({why}); {f'ask in {others[0]}' if others else HOW_TO_ADD}."


class TextEncoder:
    """Texts' features. Keeps some; the networks are those of the pictures."""

    def __init__(self, collection: Collection, pictures: PictureExtractor) -> None:
        self._collection = collection
        self._pictures = pictures
        self._found = lru_cache(maxsize=_KEPT)(self._find)

    def features(self, space: KnownSpace, text: Text) -> PictureFeatures:
        """Raises BadQuery for a space that takes no text, UnknownModel, SpaceMismatch, BadNetwork, ..."""
        return self._found(space, text).features

    def notes(self, spaces: Sequence[KnownSpace], text: Text) -> list[str]:
        """What was cut of it, as sentences."""
        found = ((space, self._found(space, text).read) for space in spaces)
        return [
            f"The text is too long for {space.name}, which read its beginning, up to: …{printable(read[-_SHOWN:])}"
            for space, read in found
            if read is not None
        ]

    def _find(self, space: KnownSpace, text: Text) -> "TextFeatures":
        from diffsim.retrieval.texts import text_features

        if not takes_text(space):
            raise BadQuery(f"The feature space {space.name} takes no text; ask in another, or with a picture.")
        return text_features(self._pictures.network(space), self._collection.kit(space), text.text)
