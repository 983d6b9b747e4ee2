"""The collections of pictures that the bundled network is trained on and asked about, and what of them is held out.

DATA holds the unpacked collections, each with its manifest.csv: photos, styles, icons/dev, varied, domains. Held out
are 13 families of icon sets and two sets of emoji, a quarter of the icons' and a third of the emoji's subjects, a third
of the classes of groceries and of the objects seen several times, and a quarter of all other pictures. `domains` (PACS)
is for asking only.
"""

import csv
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

HELD_EMOJI = ("fluent_3d", "openmoji")

_MEDIA = {
    "painting (watercolour)": "watercolour",
    "drawing (clip art)": "clip art",
    "3D render": "render",
    "photo": "photograph",
    "photo (product)": "photograph",
}
_NAMED_SUBJECTS = ("usda_pomological", "openclipart")
"""Of the varied pictures without an object of their own, those whose label says what is shown."""

_SMALL = (
    "abo_samples", "boss_objects", "budgie_backgrounds", "commons_animals", "desktop_wallpapers", "endless_sky",
    "freeorion", "gcompris", "lire_ferrari", "museum_open_access", "tarot_rws", "wp_twentytwentyfive",
)  # fmt: skip
"""Varied pictures that are one collection together: on its own each has too few."""


@dataclass(frozen=True)
class Row:
    """A picture. source: where it is from. style, subject: what a training is told; empty where nothing is.

    label: its class, as its source names it. thing: an object seen in several pictures. lookalike: subjects that look
    alike share one. family: sets of icons that share drawings share one. author: whom its licence asks to name, with
    the address of the picture where there is one.
    """

    file: Path
    source: str
    style: str
    subject: str
    label: str = ""
    thing: str = ""
    lookalike: str = ""
    family: str = ""
    licence: str = ""
    author: str = ""
    coloured: bool = False
    held: bool = True

    @property
    def collection(self) -> str:
        return "various" if self.source in _SMALL else self.source

    @property
    def trainable(self) -> bool:
        """Whether its licence lets weights that were trained on it be given away under this project's own. The emoji
        under CC-BY-SA are named in the model card."""
        share_alike = "BY-SA" in self.licence and self.source != "emoji"
        return not share_alike and self.source != "procgen_assets"  # whose licences are not known file by file


def read_collections(data: Path) -> list[Row]:
    """All pictures, in the order of their manifests."""
    rows = [*_photos(data), *_emoji(data), *_icons(data), *_varied(data)]
    held_icons = _held_families(rows)
    chosen = {
        "icons": _pick((row.lookalike for row in rows if row.source == "icons"), 0.25, 3),
        "emoji": _pick((row.lookalike for row in rows if row.source == "emoji"), 0.33, 4),
        "grocery": _pick((row.label for row in rows if row.source == "grocery"), 0.33, 5),
    }
    things = _pick((row.thing for row in rows if row.thing), 0.33, 6)

    def held(number: int, row: Row) -> bool:
        if row.source == "icons":
            return row.style in held_icons or row.lookalike in chosen["icons"]
        if row.source == "emoji":
            return row.style in HELD_EMOJI or row.lookalike in chosen["emoji"]
        if row.source == "grocery":
            return row.label in chosen["grocery"]
        if row.thing:
            return row.thing in things
        return random.Random(f"{number}x").random() < 0.25

    return [replace(row, held=held(number, row)) for number, row in enumerate(rows)] + _domains(data)


def unseen_subjects(rows: Iterable[Row]) -> dict[str, set[str]]:
    """Of the emoji and of the icons, the look-alike groups that no training saw in any style."""
    rows = list(rows)
    return {
        source: {row.lookalike for row in rows if row.source == source}
        - {row.lookalike for row in rows if row.source == source and not row.held}
        for source in ("emoji", "icons")
    }


def unseen_styles(rows: Iterable[Row]) -> dict[str, set[str]]:
    """Of the emoji and of the icons, the styles that no training saw."""
    rows = list(rows)
    return {
        source: {row.style for row in rows if row.source == source}
        - {row.style for row in rows if row.source == source and not row.held}
        for source in ("emoji", "icons")
    }


def _photos(data: Path) -> list[Row]:
    return [
        Row(
            data / line["file"],
            line["source"],
            "photograph",
            line["label"],
            line["label"],
            licence=line["licence"],
            author=line["attribution"],
        )
        for line in _manifest(data / "photos")
    ]


def _emoji(data: Path) -> list[Row]:
    return [
        Row(
            data / line["file"], "emoji", line["style"], line["subject"], lookalike=line["lookalike_group"],
            licence=line["licence"],
        )
        for line in _manifest(data / "styles")
    ]  # fmt: skip


def _icons(data: Path) -> list[Row]:
    folder = data / "icons" / "dev"
    return [
        Row(
            folder / line["file"], "icons", line["style"], line["subject"], lookalike=line["lookalike_group"],
            family=line["family"], licence=line["licence"], author=line["author"], coloured=line["coloured"] == "1",
        )
        for line in _manifest(folder)
    ]  # fmt: skip


def _varied(data: Path) -> list[Row]:
    rows = []
    for line in _manifest(data / "varied"):
        source, label = line["source"], line["label"]
        named = label if source in _NAMED_SUBJECTS and label != "unsorted" else ""
        subject = "" if source in ("endless_sky", "gcompris") else line["instance"] or named
        style = _MEDIA.get(line["medium"], line["medium"])
        more = {"licence": line["licence"], "author": line["attribution"] or line["author"]}
        rows.append(Row(data / line["file"], source, style, subject, label, line["instance"], **more))
    return rows


def _domains(data: Path) -> list[Row]:
    return [
        Row(data / line["file"], "domains", line["domain"], line["class"], line["class"])
        for line in _manifest(data / "domains")
    ]


def _manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _pick(names: Iterable[str], share: float, seed: int) -> set[str]:
    listed = sorted(set(names))
    random.Random(seed).shuffle(listed)
    return set(listed[: round(share * len(listed))])


def _held_families(rows: Iterable[Row]) -> set[str]:
    """The styles of three families of icon sets in colour and of ten others."""
    styles, coloured = defaultdict(set), set()
    for row in rows:
        if row.source == "icons":
            styles[row.family].add(row.style)
            coloured |= {row.style} if row.coloured else set()
    in_colour = [family for family in sorted(styles) if styles[family] & coloured]
    others = [family for family in sorted(styles) if not styles[family] & coloured]
    random.Random(1).shuffle(in_colour)
    random.Random(2).shuffle(others)
    return set().union(*(styles[family] for family in (*in_colour[:3], *others[:10])))
