"""Mutated picture files of every format in one folder with sound ones, indexed by the real run.

Every file is indexed or has a reason; the sound ones have the scores that they have without the others.
"""

import io
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from odd_formats import dng, jxl, svg
from PIL import Image
from torture_ground import SIZE, Count, Ground, Outcome, Scores, in_process, shifted

from diffsim.indexer.build import IndexOptions, index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import requested_spaces
from diffsim.retrieval.pictures.extras import package_needed

_IN_A_RUN = 200
_KINDS = {
    ".jpg": {"format": "JPEG"},
    ".jpeg": {"format": "JPEG", "progressive": True, "quality": 90},
    ".mpo": {"format": "MPO"},
    ".png": {"format": "PNG"},
    ".apng": {"format": "PNG", "save_all": True},
    ".webp": {"format": "WEBP"},
    ".gif": {"format": "GIF"},
    ".tif": {"format": "TIFF"},
    ".tiff": {"format": "TIFF", "compression": "tiff_lzw"},
    ".bmp": {"format": "BMP"},
    ".avif": {"format": "AVIF", "speed": 10},
    ".jp2": {"format": "JPEG2000"},
    ".ico": {"format": "ICO"},
    ".ppm": {"format": "PPM"},
    ".tga": {"format": "TGA"},
    ".qoi": {"format": "QOI"},
}
_WITH_EXIF = (".jpg", ".jpeg", ".mpo", ".png", ".webp", ".tif", ".avif")


def sound(picture: Image.Image) -> dict[str, bytes]:
    """The picture in every format, with a date and an orientation where one has room for them. By suffix."""
    exif = Image.Exif()
    exif[0x0112], exif[0x0132] = 6, "2020:02:03 12:00:00"
    exif.get_ifd(0x8769).update({0x9003: "2020:02:03 12:00:00", 0x9011: "+02:00"})
    found = {}
    for suffix, settings in _KINDS.items():
        data = io.BytesIO()
        more = {"exif": exif.tobytes()} if suffix in _WITH_EXIF else {}
        picture.save(data, **settings, **more)  # type: ignore[arg-type]
        found[suffix] = data.getvalue()
    even = picture.resize((96, 64))
    makers: dict[str, Callable[[], bytes]] = {
        ".dng": lambda: dng(even, turn=6),
        ".nef": lambda: dng(even, preview=even.resize((48, 32)), turn=6),
        ".svg": lambda: svg(even),
        ".jxl": lambda: jxl(even, exif=exif.tobytes()),
    }
    return found | {suffix: make() for suffix, make in makers.items() if package_needed(suffix) is None}


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Flipped bits, overwritten, removed, doubled or inserted bytes, huge numbers, an end that is missing."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(min(len(changed), chance.choice((64, 1024, 10**9)))) if changed else 0
        length = chance.choice((1, 2, 4, 32))
        way = chance.randrange(7)
        if way < 2 and changed:
            changed[at] ^= 1 << chance.randrange(8)
        elif way == 2:
            changed[at : at + length] = chance.randbytes(length)
        elif way == 3:
            del changed[at : at + length]
        elif way == 4:
            changed[at:at] = changed[at : at + length]
        elif way == 5:
            changed[at : at + 4] = chance.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\xff\xff")
            )
        else:
            del changed[chance.randrange(len(changed) + 1) :]
    return bytes(changed)


def part(work: Path, ground: Ground, files: int, seed: int) -> Count:
    """Mutated files beside the pictures of the ground, some hundred in a run."""
    count = Count("mutated files")
    chance = random.Random(seed)
    seeds = sound(Image.open(next(iter(sorted(ground.gallery.iterdir())))))
    kinds, read = list(seeds), 0
    for start in range(0, files, _IN_A_RUN):
        number = min(_IN_A_RUN, files - start)
        folder, index = work / "folder", work / "index"
        for each in (folder, index):
            shutil.rmtree(each, ignore_errors=True)
        shutil.copytree(ground.index, index)
        folder.mkdir(parents=True)
        for place in range(start, start + number):
            suffix = kinds[place % len(kinds)]
            (folder / f"{place}{suffix}").write_bytes(mutated(seeds[suffix], chance))
        count.tried += number
        read += _run(ground, index, folder, number, count)
    count.facts = f"{len(kinds)} formats; {read} could still be read, the others have a reason"
    return count


def _run(ground: Ground, index: Path, folder: Path, number: int, count: Count) -> int:
    """One run over a folder of mutated files -> how many were indexed."""

    def work() -> tuple[int, int, list[str]]:
        requests = requested_spaces(ground.model, ["look"], size=SIZE, tier="fp32")
        options = IndexOptions(workers=2, batch_size=8, device="cpu", file_timeout_s=30, decoder_memory=10**9)
        report = index_folders(IndexFolder.open(index), [folder], requests, options)
        return report.account.indexed, report.account.on_disk, [reason for _, reason in report.account.failures]

    ran = in_process(work)
    if ran.how != "done":
        count.add("tracebacks", f"{folder}: {ran.value}")
        return 0
    indexed, on_disk, failed = ran.value  # type: ignore[misc]
    if on_disk != number or indexed + len(failed) != number or not all(failed):
        count.add("silent", f"of {number} files {indexed} were indexed and {len(failed)} failed with a reason")
    asked = in_process(lambda: ground.ask(index))
    if asked.how != "done":
        count.add("tracebacks", f"asked: {asked.value}")
        return indexed
    known: list[tuple[Scores, list[str]]] = [
        ({path: score for path, score in scores.items() if path in truth}, notes)
        for truth, (scores, notes) in zip(ground.truth, asked.value, strict=True)  # type: ignore[call-overload]
    ]
    if shifted([ground.truth], Outcome("done", known)):
        count.add("shifted", "a sound picture has another score")
    if any(scores.keys() != truth.keys() for truth, (scores, _) in zip(ground.truth, known, strict=True)):
        count.add("lost", "a sound picture is no hit any more")
    return indexed
