"""One flipped bit anywhere in a catalog: never another picture, and what is lost is found, and comes back."""

import hashlib
import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from diffsim.db.catalog import Catalog
from diffsim.db.errors import CatalogError
from diffsim.db.files import Finding
from diffsim.db.metadata import PictureMetadata

PICTURES = 40
FLIPS = 60
SEED = 20
LEFT_OUT = ("private/", "*.gif", "übrig")
SAID = {number: PictureMetadata(camera=f"Camera {number}", keywords=("one", "two")) for number in range(1, 41, 3)}
TAKEN = {number: number * 10**18 for number in (3, 5, 9)}


def sha(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def path_of(number: int) -> bytes:
    return b"%02d.png" % number


def scan(catalog: Catalog) -> None:
    """What a run does: meet all files and hash them, extract what is pending."""
    (root,) = catalog.roots()
    rows = {row.path: row.id for row in catalog.files.below(root.id, b"")}
    findings = [
        Finding(rows.get(path_of(n)), root.id, path_of(n), 100 + n, n, n, sha(n), None) for n in range(PICTURES)
    ]
    catalog.files.write(findings, [])
    spaces = [space.id for space in catalog.spaces()]
    for lacking in (spaces, None):
        pictures = [(content.content_id, "PNG", 10, 10) for content in catalog.pending(lacking)]
        said = {content_id: SAID.get(content_id, PictureMetadata()) for content_id, *_ in pictures}
        catalog.mark_indexed(lacking or [], pictures, TAKEN, said)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "catalog.sqlite"
    with Catalog.open(path, create=True) as catalog:
        root = catalog.files.add_root(b"/pictures")
        catalog.files.set_left_out(root.id, LEFT_OUT, True)
        space = catalog.add_space("0123456789ab", "mini/look", "mini", "{}")
        scan(catalog)
        catalog.set_recall_file(space, 0, catalog.generation(), "ab" * 32)
        assert catalog.mend() is None
    return path.read_bytes()


def answers(path: Path) -> tuple[dict[bytes, list[bytes]], int]:
    """Hash -> the files that are shown for it, and how many pictures the space has. Asserts that dates and metadata
    that are given are right."""
    with Catalog.open(path, readonly=True) as catalog:
        (space,) = catalog.spaces()
        ids = {sha(number): catalog.content_by_sha256(sha(number)) for number in range(PICTURES)}
        known = {row: sha256 for sha256, row in ids.items() if row is not None}
        shown = catalog.files_of(known)
        found = {known[row]: [file.path for file in files] for row, files in shown.items() if files}
        dates = catalog.own_dates(known, set())
        assert all(TAKEN.get(row) == date for row, date in dates.items())
        said = catalog.metadata(known, set())
        assert all(SAID.get(row, PictureMetadata()) == each for row, each in said.items())
        hashes = catalog.indexed(space.id).hashes()
        return found, sum(hashes.get(row) == sha256 for row, sha256 in known.items())


def outcome(path: Path, truth: dict[bytes, list[bytes]]) -> str:
    """How a flip ended, in a word; asserts that nothing false was said."""
    lost = False
    try:
        found, pictures = answers(path)
        assert all(truth[sha256] == files for sha256, files in found.items())
        lost = len(found) < PICTURES or pictures < PICTURES
    except CatalogError:
        lost = True
    try:
        with Catalog.open(path) as catalog:
            fault = catalog.mend()
    except CatalogError as problem:
        assert (
            "restore it from a backup" in str(problem)
            or "update diffsim-search" in str(problem)
            or ("choose another index folder" in str(problem))
        )
        return "beyond repair"
    assert fault or not lost
    if not fault:
        return "harmless"
    with Catalog.open(path) as catalog:
        scan(catalog)
        assert catalog.mend() is None
    assert answers(path) == (truth, PICTURES)
    return "mended"


def test_a_flipped_bit_never_shows_another_picture_and_is_mended(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(sound)
    truth, _ = answers(path)
    chance = random.Random(SEED)
    full = [place for place, byte in enumerate(sound) if byte]
    outcomes: Counter[str] = Counter()
    for number in range(FLIPS):
        data = bytearray(sound)
        place = chance.choice(full) if number % 4 else chance.randrange(len(data))
        bit = chance.randrange(8)
        data[place] ^= 1 << bit
        path.write_bytes(data)
        try:
            outcomes[outcome(path, truth)] += 1
        except Exception as problem:
            raise AssertionError(f"bit {bit} of byte {place}") from problem
    # A third of what is not empty in so small a catalog is its schema.
    assert outcomes["mended"] > FLIPS // 3 and outcomes["beyond repair"] < FLIPS // 2


def test_a_row_that_its_index_does_not_know_is_read_again(sound: bytes, tmp_path: Path) -> None:
    """`quick_check` does not compare the two."""
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(sound)
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ix_files_content_id'").fetchone()
    data = bytearray(sound)
    start = (page - 1) * 4096
    place = data.index(bytes([3, 1, 1, 5, 5]), start)  # content 5, file 5
    data[place + 3] ^= 2
    path.write_bytes(data)
    with Catalog.open(path, readonly=True) as catalog:
        assert [file.path for file in catalog.files_of([7])[7]] == [b"/pictures/06.png"]
    with Catalog.open(path) as catalog:
        assert "ix_files_content_id" in (catalog.mend() or "")
        assert catalog.mend() is None
        assert [file.path for file in catalog.files_of([5])[5]] == [b"/pictures/04.png"]


def in_the_folders_row(data: bytes) -> range:
    """Where the row of the only folder is: its path, its name, what it leaves out, and its checksum."""
    start = data.index(b"/pictures/pictures" + LEFT_OUT[0].encode())
    return range(start, start + 18 + len("\n".join(LEFT_OUT).encode()) + 4)


@pytest.mark.parametrize("part", range(4))
def test_a_folder_never_forgets_what_it_leaves_out(sound: bytes, tmp_path: Path, part: int) -> None:
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(sound)
    with Catalog.open(path, readonly=True) as catalog:
        truth = catalog.roots()
    assert truth[0].left_out == LEFT_OUT and truth[0].include_hidden
    places = in_the_folders_row(sound)
    for place in places[part :: 4 * 3]:
        data = bytearray(sound)
        data[place] ^= 1 << random.Random(place).randrange(8)
        path.write_bytes(data)
        try:
            with Catalog.open(path, readonly=True) as catalog:
                assert catalog.roots() == truth  # its path may come from an index
        except CatalogError as problem:
            assert "diffsim verify" in str(problem)
        with Catalog.open(path) as catalog:
            assert catalog.mend()
            assert catalog.roots() == truth and catalog.mend() is None
            assert catalog.files_of([5])[5][0].path == b"/pictures/04.png"


def harmed(sound: bytes, folder: Path, statement: str) -> Path:
    """A catalog that something else has written to."""
    path = folder / "catalog.sqlite"
    path.write_bytes(sound)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
    return path


def test_a_flag_of_a_folder_is_sealed_too(sound: bytes, tmp_path: Path) -> None:
    path = harmed(sound, tmp_path, "UPDATE roots SET include_hidden = 0")
    with Catalog.open(path) as catalog:
        with pytest.raises(CatalogError, match="the folder /pictures is damaged"):
            catalog.roots()
        assert "the folder /pictures" in (catalog.mend() or "")
        assert catalog.roots()[0].include_hidden


def test_a_folder_with_more_than_a_bit_of_damage_keeps_its_files(sound: bytes, tmp_path: Path) -> None:
    path = harmed(sound, tmp_path, "UPDATE roots SET left_out = 'prizate/', display = '/pictored'")
    with Catalog.open(path) as catalog:
        assert catalog.mend() and catalog.mend() is None
        (root,) = catalog.roots()
        assert (root.path, root.display, root.left_out) == (b"/pictures", "/pictures", ("prizate/",))
        assert catalog.files_of([5])[5][0].path == b"/pictures/04.png"
