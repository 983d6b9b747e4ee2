"""An index that the first version made (tests/data/index-format-1.tar.gz: six pictures, in int8) goes on to work."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from conftest import DATA, TINY, random_picture
from indexing import FAST, diffsim, listing, problem

from diffsim.db.migrations import MIGRATIONS
from diffsim.db.shards import KnownShard
from diffsim.indexer.build import index_folders
from diffsim.indexer.estimate import estimate
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.maintain import verify_index
from diffsim.indexer.requests import requested_spaces
from diffsim.query.search import Searcher
from diffsim.retrieval.pictures.images import DECODE_REVISION
from diffsim.retrieval.space import OtherRevision

MEMORY = 2**30
SPACE = "b0d1087cae01"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The index, its pictures (which lay elsewhere when it was made), and what it answered."""
    with tarfile.open(DATA / "index-format-1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def answers(folder: Path) -> dict[str, list[str]]:
    with Searcher(folder / "index", "cpu") as searcher:
        return {
            picture.name: [
                (Path(hit.path).name, pytest.approx(hit.score, abs=2e-6))
                for hit in searcher.search(picture, k=100, include_self=True)
            ]
            for picture in sorted((folder / "pictures").iterdir())
        }


def expected(folder: Path) -> dict[str, list[tuple[str, float]]]:
    found = json.loads((folder / "answers.json").read_text())
    return {picture: [tuple(hit) for hit in hits] for picture, hits in found.items()}


def test_it_is_not_read_before_it_is_migrated(old):
    before = listing(old / "index")
    for command in (("query", old / "pictures" / "03.png"), ("status",)):
        text = problem(diffsim(*command, "--index", old / "index"))
        assert (
            f"has schema version 1 and this program reads version {len(MIGRATIONS)}; run `diffsim index` on it once"
            in text
        )
    assert listing(old / "index") == before


def test_a_dry_run_reads_it_and_leaves_it_as_it_is(old):
    before = listing(old / "index")
    random_picture(20).save(old / "pictures" / "new.png")
    found = estimate(old / "index", [old / "pictures"], (), FAST)
    assert (found.pictures, found.known, found.todo) == (7, 6, 0)
    assert [(space.space.fingerprint, space.waiting) for space in found.skipped] == [(SPACE, 1)]
    assert listing(old / "index") == before


def test_a_run_migrates_it(old):
    index = IndexFolder.open(old / "index")
    former = index.space(SPACE) / "recall.faiss"
    assert former.exists()
    report = index_folders(index, [old / "pictures"], (), FAST)
    assert (report.extracted, report.account.copied, report.account.indexed) == (0, 6, 6)
    assert [(file.shard, file.pictures) for file in report.recall] == [(0, 6)]
    assert not former.exists() and len(list(index.shard(SPACE, 0).glob("recall-*.faiss"))) == 1
    assert answers(old) == expected(old)
    assert index_folders(index, [], (), FAST).recall == []
    (checked,) = verify_index(index, MEMORY).spaces
    assert (checked.pictures, checked.damaged, checked.orphans, checked.rebuilt) == (6, [], 0, False)
    lines = diffsim("status", "--index", old / "index").out.decode().splitlines()
    assert f"space    tiny-sd15/look ({SPACE}): 12 files, 6 pictures" in lines
    with index.catalog(readonly=True) as catalog:
        assert catalog.shards() == [KnownShard(0, 1_000_000)]
        assert [(root.left_out, root.include_hidden) for root in catalog.roots()] == [((), False)] * 2
        assert catalog.space_changes(1, 7).complete  # nothing is known of what changed before the migration
        assert not catalog.space_changes(1, catalog.generation()).complete


def test_verify_migrates_it_too(old):
    ran = diffsim("verify", "--index", old / "index")
    assert ran.code == 0 and ran.out.decode().splitlines() == [
        "tiny-sd15/look: 6 pictures, 0 damaged",
        "tiny-sd15/look: the FAISS file was rebuilt",
        "clean",
    ]


def test_pictures_are_decoded_otherwise_now_so_new_ones_go_into_a_new_space(old):
    random_picture(20).save(old / "pictures" / "new.png")
    shutil.copytree(TINY, old / "tiny-sd15")
    request = requested_spaces(str(old / "tiny-sd15"), ["look"], size=64, tier="int8")
    index = IndexFolder.open(old / "index")
    report = index_folders(index, [old / "pictures"], request, FAST)
    (made,) = report.spaces
    assert made.known.fingerprint != SPACE and made.kit.space.decode_revision == DECODE_REVISION
    assert (report.extracted, report.account.indexed) == (7, 7)
    with index.catalog() as catalog:
        former, _ = catalog.spaces()
        catalog.add_space(former.fingerprint, former.name, str(old / "tiny-sd15"), former.record)  # where it is now
    (skipped,) = index_folders(index, [], (), FAST).skipped
    assert str(skipped).startswith(
        f"tiny-sd15/look ({SPACE}) was left out and lacks 1 pictures: another version of this"
    )
    with Searcher(old / "index", "cpu") as searcher:
        hits = searcher.search(old / "pictures" / "new.png", k=100, include_self=True)
        assert len(hits) == 7 and hits[0].path == str(old / "pictures" / "new.png")
        with pytest.raises(OtherRevision, match="make a new space with `diffsim index --by"):
            searcher.search(old / "pictures" / "new.png", spaces=[SPACE])
        found = searcher.search(old / "pictures" / "03.png", spaces=[SPACE], k=100, include_self=True)
    assert [(Path(hit.path).name, pytest.approx(hit.score, abs=2e-6)) for hit in found] == expected(old)["03.png"]
