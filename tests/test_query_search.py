"""Questions: what they may ask for, what they find, and that they write nothing."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, random_picture
from indexing import FAST, NOBODY, build, copy_index, diffsim, draw, listing
from safetensors.torch import load_file, save_file

from benchmarks.kills import in_child
from diffsim.indexer.build import index_folders
from diffsim.indexer.choose import UnknownSpace
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import requested_spaces
from diffsim.query.compare import compare
from diffsim.query.query import BadQuery, Query
from diffsim.query.search import Searcher
from diffsim.retrieval.pictures.images import UnreadableImage
from diffsim.retrieval.score import score
from diffsim.retrieval.shard import rerank
from diffsim.retrieval.shard.rerank import score_queries
from diffsim.retrieval.space import SpaceMismatch


@pytest.fixture(scope="module")
def gallery() -> Iterator[Path]:
    """Thirty pictures and their index, where everybody may read them."""
    with tempfile.TemporaryDirectory() as work:
        Path(work).chmod(0o755)
        draw(Path(work) / "pictures", range(30))
        build(Path(work) / "index", Path(work) / "pictures")
        random_picture(77).save(Path(work) / "outside.png")
        yield Path(work)


@pytest.fixture(scope="module")
def searcher(gallery: Path) -> Searcher:
    return Searcher(gallery / "index", "cpu")


def test_the_query_is_left_out_unless_asked_for(searcher, gallery):
    picture = gallery / "pictures" / "07.png"
    without = searcher.search(picture, k=100)
    with_self = searcher.search(picture, k=100, include_self=True)
    assert len(without) == 29 and len(with_self) == 30
    assert with_self[0].path == str(picture) and with_self[0].score == pytest.approx(1, abs=1e-6)
    assert [hit.content_id for hit in with_self[1:]] == [hit.content_id for hit in without]


def test_only_the_file_that_was_named_is_left_out(gallery, tmp_path):
    pictures = shutil.copytree(gallery / "pictures", tmp_path / "pictures")
    (pictures / "copies").mkdir()
    copies = {str(shutil.copy(pictures / "07.png", pictures / "copies" / name)) for name in ("a.png", "b.png")}
    asked = shutil.copy(pictures / "07.png", tmp_path / "asked.png")
    (tmp_path / "link.png").symlink_to(pictures / "07.png")
    build(tmp_path / "index", pictures)
    with Searcher(tmp_path / "index", "cpu") as searcher:
        extracted = searcher.extract(asked)
        everything = {str(pictures / "07.png"), *copies}
        for subject, shown in (
            (asked, everything),  # from outside: do I have this very picture?
            (asked.read_bytes(), everything),
            (extracted, everything),
            (pictures / "07.png", copies),
            (os.path.relpath(pictures / "07.png"), copies),
            (tmp_path / "link.png", copies),
        ):
            answer = searcher.answer(Query(subject, k=5))
            (together,) = searcher.search_many([Query(subject, k=5)])
            (compared,) = compare(searcher, Query(subject, k=5)).answers
            for each in (answer, together, compared):
                assert each.hits[0].score == pytest.approx(1, abs=1e-6) and len(each.hits) == 5
                assert set(each.hits[0].paths) == shown
                assert "is byte for byte in the index: " in each.notes[0] and each.hits[0].path in each.notes[0]
        content = answer.hits[0].content_id
        (alone,) = (hit for hit in searcher.search(pictures / "08.png", k=100) if hit.content_id == content)
        assert set(alone.paths) == everything
        for subject in (content, pictures / "09.png"):  # an id means all files of a content; 09 has no copy
            answer = searcher.answer(Query(subject, k=100))
            own = searcher.search(subject, k=1, include_self=True)[0].content_id
            assert own not in [hit.content_id for hit in answer.hits] and answer.notes == []
        for copy in copies:
            Path(copy).unlink()
        assert content not in [hit.content_id for hit in searcher.search(pictures / "07.png", k=100)]


def test_two_stages_agree_with_the_exact_search(searcher, gallery):
    for picture in (gallery / "pictures" / "07.png", gallery / "outside.png"):
        exact = searcher.answer(Query(picture, k=5, exact=True))
        staged = searcher.answer(Query(picture, k=5, candidates=29))
        assert [hit.content_id for hit in staged.hits] == [hit.content_id for hit in exact.hits]
        assert np.allclose([hit.score for hit in staged.hits], [hit.score for hit in exact.hits], atol=1e-6)
        assert exact.scored >= staged.scored >= 29


def test_scores_know_no_batch(searcher, gallery, monkeypatch):
    space = searcher.choose(None)
    searcher.collection.refresh([space])
    kit, pictures = searcher.collection.kit(space), searcher.collection.ids(space.fingerprint)
    records = [(row, bytes(record)) for row, record in searcher.collection.tokens(space.fingerprint, pictures)]
    query = kit.read([records[4][1]])
    ids, (scores,) = score_queries(kit, [(query, score)], records)
    assert ids.tolist() == pictures.tolist() and scores[4] == pytest.approx(1, abs=1e-6)
    for floats in (1, 7 * sum(tokens * channels for tokens, channels in kit.shapes), 10**9):
        monkeypatch.setattr(rerank, "_CPU_BATCH_FLOATS", floats)
        again, (same,) = score_queries(kit, [(query, score)], records)
        assert np.array_equal(again, ids) and np.allclose(same, scores, rtol=0, atol=1e-6)


def test_few_candidates_are_the_first_ones(searcher, gallery):
    picture = gallery / "pictures" / "07.png"
    recalled = searcher.answer(Query(picture, k=4, rerank=False))
    assert [hit.recall_rank for hit in recalled.hits] == [1, 2, 3, 4]
    assert all(hit.by_chance is None for hit in recalled.hits)
    reranked = searcher.answer(Query(picture, k=4, candidates=4))
    assert {hit.content_id for hit in reranked.hits} == {hit.content_id for hit in recalled.hits}
    assert reranked.recalled == 4


def test_an_indexed_picture_and_a_copy_elsewhere_get_the_same_answer(searcher, gallery, tmp_path):
    copy = shutil.copy(gallery / "pictures" / "07.png", tmp_path / "copy.png")
    original = gallery / "pictures" / "07.png"
    found = searcher.search(copy, k=100)
    assert found == searcher.search(original, k=100, include_self=True)
    assert found[0].path == str(original) and len(found) == 30


def test_an_outside_picture_scores_as_if_it_were_indexed(searcher, gallery, tmp_path):
    draw(tmp_path / "pictures", range(30))
    shutil.copy(gallery / "outside.png", tmp_path / "pictures")
    build(tmp_path / "index", tmp_path / "pictures")
    outside = searcher.search(gallery / "outside.png", k=100)
    inside = Searcher(tmp_path / "index").search(tmp_path / "pictures" / "outside.png", k=100)
    assert [Path(hit.path).name for hit in outside] == [Path(hit.path).name for hit in inside]
    assert np.allclose([hit.score for hit in outside], [hit.score for hit in inside], atol=1e-5)


def test_max_by_chance_cuts_the_list(searcher, gallery):
    picture = gallery / "pictures" / "07.png"
    chances = [hit.by_chance for hit in searcher.search(picture, k=100)]
    assert all(chance is not None for chance in chances) and chances == sorted(chances)
    cut = searcher.search(picture, k=100, max_by_chance=chances[9])
    assert [hit.by_chance for hit in cut] == [chance for chance in chances if chance <= chances[9]]
    assert searcher.search(picture, max_by_chance=0.0) == []


@pytest.mark.parametrize(
    "settings",
    [{"k": 0}, {"candidates": 0}, {"exact": True, "rerank": False}, {"max_by_chance": 1.0, "rerank": False}],
)
def test_questions_that_are_not_allowed(settings, gallery):
    with pytest.raises(BadQuery, match=r"\.$"):
        Query(gallery / "outside.png", **settings)


def test_spaces_by_name_and_fingerprint(searcher, gallery):
    (space,) = searcher.spaces()
    for name in (None, "look", "tiny-sd15/look", space.fingerprint, space.fingerprint[:5]):
        assert searcher.choose(name) == space
    with pytest.raises(UnknownSpace, match=r"tiny-sd15/look \(" + space.fingerprint):
        searcher.choose("style")


def test_pictures_that_cannot_be_read(searcher, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    os.mkfifo(tmp_path / "pipe.png")
    for name, error, reason in (
        ("none.png", BadQuery, "No such file"),
        (".", BadQuery, "is not a file"),
        ("pipe.png", BadQuery, "is not a file"),
        ("text.png", UnreadableImage, "not a picture"),
    ):
        with pytest.raises(error, match=reason):
            searcher.search(tmp_path / name)


def test_other_weights_in_the_networks_folder_are_refused(gallery, tmp_path):
    """Indexed pictures can still be asked with; others cannot, because their features would be another network's."""
    network = Path(shutil.copytree(TINY, tmp_path / "network"))
    requests = requested_spaces(str(network), ["look"], size=64)
    index_folders(IndexFolder.create(tmp_path / "index"), [gallery / "pictures"], requests, FAST)
    weights = network / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_in.bias"] += 0.1
    save_file(tensors, weights)
    searcher = Searcher(tmp_path / "index", "cpu")
    (space,) = searcher.spaces()
    assert len(searcher.search(gallery / "pictures" / "03.png")) == 10
    with pytest.raises(SpaceMismatch, match=space.fingerprint):
        searcher.search(gallery / "outside.png")


# ------------------------------------------------------------------------------------------- reading only


def test_a_read_only_index_can_be_asked_by_another_user(gallery):
    index = copy_index(gallery / "index", gallery / "read-only")
    for path in [index, *index.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = listing(index)
    ask = ("query", "--index", index, "--format", "paths", "--device", "cpu")
    ran = diffsim(*ask, gallery / "pictures" / "07.png", uid=NOBODY)
    assert ran.code == 0 and len(ran.out.splitlines()) == 10, ran
    assert diffsim("status", "--index", index, uid=NOBODY).code == 0
    assert listing(index) == before
    # By this user, because nobody may be unable to start Python, which decoding needs.
    assert len(diffsim(*ask, gallery / "outside.png").out.splitlines()) == 10
    for path in [index, *index.rglob("*")]:  # else only root could remove it
        path.chmod(0o755)


def test_a_question_by_the_owner_changes_nothing_either(gallery, tmp_path):
    index = copy_index(gallery / "index", tmp_path / "index")
    before = {name: size for name, (size, _) in listing(index).items()}

    def ask() -> None:
        assert len(Searcher(index, "cpu").search(gallery / "pictures" / "07.png")) == 10

    _, status = os.waitpid(in_child(ask), 0)
    assert status == 0
    assert {name: size for name, (size, _) in listing(index).items()} == before


def test_an_open_searcher_sees_what_was_added_and_removed(tmp_path):
    draw(tmp_path / "pictures", range(4))
    build(tmp_path / "index", tmp_path / "pictures")
    searcher = Searcher(tmp_path / "index", "cpu")
    picture = tmp_path / "pictures" / "01.png"
    assert len(searcher.search(picture)) == 3
    draw(tmp_path / "pictures", range(4, 7))
    build(tmp_path / "index", tmp_path / "pictures")
    assert len(searcher.search(picture)) == 6
    (tmp_path / "pictures" / "00.png").unlink()
    assert len(searcher.search(picture)) == 5
