"""The Python interface: what it promises, and the handful of lines of the README."""

import os
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

import diffsim


def test_the_public_names_are_a_promise():
    assert diffsim.__all__ == [
        "Agreement",
        "Answer",
        "CatalogError",
        "Embeddings",
        "Error",
        "Example",
        "ExtractedPicture",
        "FeatureSpace",
        "Filters",
        "Hit",
        "IndexOptions",
        "IndexReport",
        "IndexerError",
        "KnownSpace",
        "Pair",
        "PairScore",
        "PictureMetadata",
        "Query",
        "QueryError",
        "RetrievalError",
        "Searcher",
        "Space",
        "SpaceSettings",
        "Subject",
        "Tap",
        "Text",
        "Unanswered",
        "explain",
        "export",
        "index",
        "open",
        "score",
    ]
    assert all(hasattr(diffsim, name) for name in diffsim.__all__)
    assert diffsim.__version__ == version("diffsim-search")


def test_index_and_search_with_the_bundled_network(pictures, tmp_path):
    report = diffsim.index(tmp_path / "index", [pictures], by=["style"], options=diffsim.IndexOptions(workers=1))
    assert report.extracted == report.account.indexed == 12
    hits = diffsim.open(tmp_path / "index").search(pictures / "03.png", k=5)
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert all(isinstance(hit, diffsim.Hit) and Path(hit.path).is_file() for hit in hits)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert os.fspath(pictures / "03.png") not in [hit.path for hit in hits]


def test_two_pictures_without_an_index(pictures):
    a, b = pictures / "03.png", pictures / "04.png"
    assert diffsim.score(a, a, by="style").score == pytest.approx(1, abs=1e-6)
    there, back = diffsim.score(a, b), diffsim.score(b, a)
    assert there.score == pytest.approx(back.score, abs=1e-6) and there.score < 0.9999
    assert there.forward == pytest.approx(back.backward, abs=1e-6)


def test_without_choices_every_space_of_the_index_is_filled(pictures, tmp_path):
    options = diffsim.IndexOptions(workers=1)
    first = diffsim.index(tmp_path / "index", [pictures], by=["style", "look"], options=options)
    assert len(first.spaces) == 2 and first.extracted == 12
    shutil.copy(pictures / "00.png", pictures / "copy.png")
    (pictures / "00.png").unlink()
    again = diffsim.index(tmp_path / "index", [pictures], options=options)
    assert [space.known.name for space in again.spaces] == ["mini/style", "mini/look"]
    assert again.extracted == 0 and again.account.moved == 1


def test_settings_are_keywords_of_query(pictures, tmp_path):
    diffsim.index(tmp_path / "index", [pictures], options=diffsim.IndexOptions(workers=1))
    searcher = diffsim.open(tmp_path / "index")
    assert len(searcher.search(pictures / "03.png", k=3)) == 3
    answer = searcher.answer(diffsim.Query(pictures / "03.png", k=2, exact=True))
    assert isinstance(answer, diffsim.Answer) and answer.scored == 11
    assert answer.hits == searcher.search(pictures / "03.png", k=2, exact=True)
    with pytest.raises(TypeError):
        searcher.search(pictures / "03.png", top=3)


def test_errors_have_three_bases(tmp_path):
    with pytest.raises(diffsim.IndexerError, match="no index"):
        diffsim.open(tmp_path)
    with pytest.raises(diffsim.RetrievalError, match="unknown"):
        diffsim.index(tmp_path / "index", [tmp_path], model="no-such-network")
    assert not (tmp_path / "index").exists()
