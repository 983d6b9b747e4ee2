"""Filters in the catalog: what passes, by file and by content, at the very bounds."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from diffsim.db.catalog import Catalog
from diffsim.db.files import Finding
from diffsim.db.filters import NO_FILTERS, BadFilter, Filters

NOON = datetime(2020, 2, 3, 12, tzinfo=UTC)
NOON_NS = 1_580_731_200 * 10**9


def sha(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.fixture
def catalog(place: Path | str) -> Iterator[Catalog]:
    """Contents 1 to 5 in two roots; 1 has two files; one file has no time; one is missing."""
    with Catalog.open(place, create=True) as catalog:
        roots = [catalog.files.add_root(path).id for path in (b"/photos", b"/photos-too")]
        rows = [
            (0, b"a/1.jpg", 100, NOON_NS, 1),
            (0, b"b/1.jpg", 100, NOON_NS + 10**9, 1),
            (0, b"a/deep/2.png", 200, NOON_NS - 1, 2),
            (0, b"a-z/3.png", 300, NOON_NS, 3),
            (1, b"4.webp", 400, None, 4),
            (1, b"5.jpg", 500, NOON_NS, 5),
        ]
        catalog.files.write([Finding(None, roots[r], p, s, t, t, sha(c), None) for r, p, s, t, c in rows], [])
        sizes = [(1, "MPO", 100, 50), (2, "PNG", 50, 100), (3, "PNG", 99, 99), (4, "WEBP", 10, 300), (5, "JPEG", 9, 9)]
        space = catalog.add_space("f", "name", "network", "{}")
        catalog.mark_indexed([space], sizes)
        gone = catalog.files.at(roots[1], b"5.jpg")
        assert gone is not None
        catalog.files.set_missing([gone.id], [])
        yield catalog


@pytest.mark.parametrize(
    ("filters", "passing"),
    [
        (NO_FILTERS, [1, 2, 3, 4]),
        (Filters(folders="/photos/a"), [1, 2]),
        (Filters(folders="/photos/a/"), [1, 2]),
        (Filters(folders=Path("/photos/a/deep")), [2]),
        (Filters(folders=["/photos/b", "/photos-too"]), [1, 4]),
        (Filters(folders="/photos"), [1, 2, 3]),
        (Filters(folders="/"), [1, 2, 3, 4]),
        (Filters(after=NOON), [1, 3]),
        (Filters(before=NOON), [2]),
        (Filters(folders="/photos/a", after=datetime(2020, 2, 3, 12, 0, 1, tzinfo=UTC)), []),
        (Filters(folders="/photos/b", after=datetime(2020, 2, 3, 12, 0, 1, tzinfo=UTC)), [1]),
        (Filters(min_side=50), [1, 2, 3]),
        (Filters(min_side=51), [3]),
        (Filters(max_side=100), [1, 2, 3]),
        (Filters(max_side=99), [3]),
        (Filters(min_bytes=200, max_bytes=300), [2, 3]),
        (Filters(formats="jpg"), [1]),
        (Filters(formats=[".PNG", "webp"]), [2, 3, 4]),
        (Filters(formats="png", folders="/photos/a", before=NOON, min_side=50, max_bytes=200), [2]),
    ],
    ids=repr,
)
def test_what_passes(catalog: Catalog, filters: Filters, passing: list[int]) -> None:
    ids, undated = catalog.matching(filters)
    assert ids.tolist() == passing
    wanted = [(4, b"/photos-too/4.webp")] if filters in (Filters(after=NOON), Filters(before=NOON)) else []
    assert undated == wanted


@pytest.mark.parametrize("folder", ["/elsewhere", "/photos/none", "/photos-", "/photos/a/1.jpg"])
def test_a_folder_of_which_nothing_is_known(catalog: Catalog, folder: str) -> None:
    said = f"of the folder {folder} is in the index; name .* one of: /photos, /photos-too"
    with pytest.raises(BadFilter, match=said):
        catalog.matching(Filters(folders=["/photos", folder]))
    with pytest.raises(BadFilter, match="The path of a folder is empty"):
        Filters(folders=["/photos", ""])


def test_times_at_the_bounds() -> None:
    filters = Filters(after=NOON, before=datetime(2020, 2, 3, 13, tzinfo=UTC))
    assert filters.in_time(NOON_NS) and not filters.in_time(NOON_NS - 1)
    assert filters.in_time(NOON_NS + 3600 * 10**9 - 1) and not filters.in_time(NOON_NS + 3600 * 10**9)


@pytest.mark.parametrize(
    ("filters", "passing", "undated"),
    [
        (Filters(after=NOON), [1, 4], (1, 4)),
        (Filters(before=NOON), [2, 3], (1, 4)),
        (Filters(after=NOON, folders="/photos/a"), [1], (1, 2)),
        (Filters(before=NOON, formats="png"), [2, 3], (1, 2)),
        (Filters(before=NOON, formats="jp2"), [], (0, 0)),
    ],
    ids=repr,
)
def test_its_own_date_comes_before_that_of_the_file(
    catalog: Catalog, filters: Filters, passing: list[int], undated: tuple[int, int]
) -> None:
    """1 and 4 have one of noon, 3 a nanosecond before; 2 has none."""
    (space,) = catalog.spaces()
    sizes = [(1, "MPO", 100, 50), (3, "PNG", 99, 99), (4, "WEBP", 10, 300)]
    catalog.mark_indexed([space.id], sizes, {1: NOON_NS, 3: NOON_NS - 1, 4: NOON_NS})
    ids, to_be_asked = catalog.matching(filters)
    assert (ids.tolist(), to_be_asked) == (passing, [])
    assert catalog.matching(filters, [1, 2, 3, 4, 5])[0].tolist() == passing
    assert catalog.count_undated(filters) == undated


def test_pictures_by_id(catalog: Catalog) -> None:
    assert list(catalog.pictures([3, 1, 99])) == [1, 3]
    known = catalog.pictures([1])[1]
    assert (known.sha256, known.size, known.format, known.width, known.height) == (sha(1), 100, "MPO", 100, 50)
