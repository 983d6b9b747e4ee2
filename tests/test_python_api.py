"""The Python interface: feature spaces with settings, pictures in memory, many queries, vectors and tables."""

import io
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import pytest
from conftest import DATA, TINY, random_picture
from PIL import Image

import diffsim
from diffsim.indexer.requests import requested_spaces
from diffsim.query.commands.options import _SPACE_OPTIONS
from diffsim.query.extract_pictures import TOGETHER
from diffsim.query.tables import MissingPackage
from diffsim.retrieval.extractor import Extractor, NotFinite
from diffsim.retrieval.pictures.images import UnreadableImage
from diffsim.retrieval.shard.part import SpacePart

STYLE = diffsim.Space(TINY, "style", size=64, tier="fp32")
LOOK = diffsim.Space(TINY, size=64, tier="fp32")
OPTIONS = diffsim.IndexOptions(workers=1, batch_size=4, device="cpu")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty indexed pictures in two spaces, five outside."""
    work = tmp_path_factory.mktemp("api")
    for folder, numbers in (("pictures", range(30)), ("outside", range(70, 75))):
        (work / folder).mkdir()
        for number in numbers:
            random_picture(number).save(work / folder / f"{number}.png")
    diffsim.index(work / "index", work / "pictures", spaces=[LOOK, STYLE], options=OPTIONS)
    return work


@pytest.fixture
def searcher(work: Path) -> diffsim.Searcher:
    return diffsim.open(work / "index", "cpu")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures went into each pass of a network."""
    seen: list[int] = []
    extract = Extractor.extract

    def counted(self: Extractor, pixels: np.ndarray) -> list:
        seen.append(len(pixels))
        return extract(self, pixels)

    monkeypatch.setattr(Extractor, "extract", counted)
    return seen


# ------------------------------------------------------------------------------------------- feature spaces


def test_a_space_has_what_the_command_has() -> None:
    assert {field.name for field in fields(diffsim.Space)} == {*_SPACE_OPTIONS, "by"}


def test_every_setting_of_a_space_arrives() -> None:
    asked = diffsim.Space(
        TINY,
        layers=["mid_block@10*3", "down_blocks.1.attentions.0"],
        timestep=20,
        size=72,
        noises=2,
        prompt="a house",
        seed=3,
        dtype="bfloat16",
        tier="int8",
    ).request()
    settings = asked.settings
    assert [(tap.module, tap.timestep, tap.weight) for tap in settings.taps] == [
        ("mid_block", 10, 3),
        ("down_blocks.1.attentions.0", 20, 1),
    ]
    assert (settings.size, settings.noises, settings.prompt, settings.seed) == (72, 2, "a house", 3)
    assert (settings.dtype, settings.tier, settings.variant) == ("bfloat16", "int8", "S")
    crossed = diffsim.Space(TINY, variant="C", adapter=DATA / "tiny-ip-adapter-plus").request()
    assert crossed.settings.variant == "C" and crossed.adapter
    assert diffsim.Space().request() == requested_spaces()[0]
    assert diffsim.Space(TINY, layers="mid_block").request() == diffsim.Space(TINY, layers=["mid_block"]).request()


def test_spaces_are_filled_as_asked(work: Path) -> None:
    with diffsim.open(work / "index", "cpu") as searcher:
        names = [space.name for space in searcher.spaces()]
        assert names == ["tiny-sd15/look", "tiny-sd15/style"]
        assert searcher.choose("style") == searcher.spaces()[1]
        kept, asked = searcher.collection.kit(searcher.choose("style")).settings, STYLE.request().settings
        assert (kept.size, kept.tier, kept.taps[0].timestep) == (asked.size, asked.tier, asked.taps[0].timestep)


def test_one_folder_one_profile_and_one_space_stand_alone(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "outside", tmp_path / "p")
    done: list[tuple[int, int]] = []
    report = diffsim.index(
        str(tmp_path / "index"),
        str(tmp_path / "p"),
        by="look",
        model=TINY,
        options=OPTIONS,
        on_progress=lambda *step: done.append(step),
    )
    assert report.account.indexed == 5 and [space.known.name for space in report.spaces] == ["tiny-sd15/look"]
    assert done[-1] == (5, 5)
    again = diffsim.index(tmp_path / "index", spaces=STYLE, options=OPTIONS)
    assert again.extracted == 5 and [space.known.name for space in again.spaces] == ["tiny-sd15/style"]


def test_mistakes_of_indexing_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(diffsim.RetrievalError, match=r"named twice; give either `spaces` or `model` and `by`\.$"):
        diffsim.index(tmp_path / "index", tmp_path, spaces=LOOK, by="style")
    with pytest.raises(diffsim.RetrievalError, match="named twice"):
        diffsim.score(tmp_path, tmp_path, space=LOOK, by="style")
    with pytest.raises(diffsim.IndexerError, match="no index"):
        diffsim.index(tmp_path / "index")
    with pytest.raises(diffsim.RetrievalError, match="'color' is unknown"):
        diffsim.index(tmp_path / "index", tmp_path, by="color")
    assert not (tmp_path / "index").exists()


# ------------------------------------------------------------------------------------------- pictures in memory


def test_a_picture_is_what_it_is_wherever_it_comes_from(searcher: diffsim.Searcher, work: Path) -> None:
    path = work / "outside" / "70.png"
    image = Image.open(path)
    expected = [(hit.path, pytest.approx(hit.score, abs=1e-6)) for hit in searcher.search(path, k=5)]
    for subject in (str(path), path.read_bytes(), image, np.asarray(image), image.convert("RGBA")):
        assert [(hit.path, hit.score) for hit in searcher.search(subject, k=5)] == expected


def test_an_indexed_picture_is_known_by_its_bytes_and_its_id(searcher: diffsim.Searcher, work: Path) -> None:
    path = work / "pictures" / "3.png"
    expected = searcher.search(path, k=5)
    found = searcher.embeddings()
    content_id = found.ids[found.paths.index(os.fspath(path))]
    assert isinstance(content_id, np.int64)
    assert searcher.search(content_id, k=5) == expected
    assert searcher.search(path.read_bytes(), k=5) == searcher.search(path, k=5, include_self=True)


def test_other_modes_of_images_are_taken(searcher: diffsim.Searcher) -> None:
    plain = random_picture(70)
    for mode in ("CMYK", "YCbCr", "HSV"):
        other = plain.convert(mode)
        assert searcher.search(other, k=30) == searcher.search(other.convert("RGB"), k=30), mode
    turned = plain.rotate(-90, expand=True)
    turned.getexif()[0x0112] = 8  # to be shown turned back
    upright, stated = (searcher.search(each, k=1)[0].score for each in (plain, turned))
    assert stated == pytest.approx(upright, abs=1e-6)


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        (np.zeros((4, 4), np.uint8), r"uint8 \[4, 4\].*give uint8 \[height, width, 3\]"),
        (np.zeros((4, 4, 3)), "float64"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
        (Image.new("F", (8, 8)), "mode F.*convert it to RGB"),
        (None, "NoneType cannot be queried with"),
        (b"no picture", "Cannot read the picture: "),
    ],
)
def test_what_is_no_picture_is_one_sentence(searcher: diffsim.Searcher, subject: object, words: str) -> None:
    with pytest.raises(diffsim.Error, match=rf"{words}.*\.$"):
        searcher.search(subject)  # type: ignore[arg-type]


def test_an_image_of_a_file_cut_short_is_one_sentence(searcher: diffsim.Searcher, work: Path) -> None:
    image = Image.open(io.BytesIO((work / "pictures" / "3.png").read_bytes()[:900]))
    with pytest.raises(diffsim.QueryError, match=r"image cannot be read \(.*\.$"):
        searcher.search(image)


# ------------------------------------------------------------------------------------------- many queries


def test_many_queries_are_answered_as_one_by_one(searcher: diffsim.Searcher, work: Path, passes: list[int]) -> None:
    outside = sorted((work / "outside").iterdir())
    queries = [
        diffsim.Query(outside[0], k=3),
        outside[1],
        diffsim.Query([outside[2], diffsim.Example(work / "pictures" / "3.png", -0.5)], spaces=["look", "style"]),
        diffsim.Query(diffsim.Example(outside[0], region=(0, 0, 0.5, 1)), k=4),
        diffsim.Query(outside[3], spaces="style", rerank=False),
        work / "pictures" / "5.png",
    ]
    answers = searcher.search_many(queries)
    # In the first space alone two pictures, one of them for two queries; in both one; in the other one.
    assert sorted(passes) == [1, 1, 2]
    alone = [searcher.answer(each if isinstance(each, diffsim.Query) else diffsim.Query(each)) for each in queries]
    assert [[hit.path for hit in answer.hits] for answer in answers] == [
        [hit.path for hit in answer.hits] for answer in alone
    ]
    for one, other in zip(answers, alone, strict=True):
        assert [hit.score for hit in one.hits] == pytest.approx([hit.score for hit in other.hits], abs=1e-4)
        assert (one.spaces, one.pictures, one.scored, one.notes) == (
            other.spaces,
            other.pictures,
            other.scored,
            other.notes,
        )


def test_pictures_go_through_the_network_together(
    searcher: diffsim.Searcher, tmp_path: Path, passes: list[int]
) -> None:
    pictures = [random_picture(200 + number) for number in range(TOGETHER + 3)]
    answers = searcher.search_many(iter(pictures))
    assert passes == [TOGETHER, 3] and len(answers) == len(pictures)
    assert searcher.search_many([]) == []


def test_what_is_alike_by_chance_is_scored_once_for_many_queries(
    searcher: diffsim.Searcher, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where examples are of the sample themselves, and with filters."""
    paths = sorted((work / "pictures").iterdir())[:3]
    few = diffsim.Filters(folders=[work / "pictures"], min_side=72)
    queries = [
        *(diffsim.Query(path, k=30) for path in paths),
        diffsim.Query([work / "outside" / "70.png", paths[0]], k=30, filters=few),
        diffsim.Query(paths[1], k=30, include_self=True),
    ]
    read = 0
    tokens = SpacePart.tokens

    def counted(self: SpacePart, ids: np.ndarray) -> Iterator[tuple[int, memoryview]]:
        nonlocal read
        read += len(ids)
        return tokens(self, ids)

    monkeypatch.setattr(SpacePart, "tokens", counted)
    alone = [searcher.answer(query) for query in queries]
    one_by_one, read = read, 0
    answers = searcher.search_many(queries)
    assert one_by_one > 5 * 28 and read < one_by_one / 2
    for one, other in zip(answers, alone, strict=True):
        assert [hit.content_id for hit in one.hits] == [hit.content_id for hit in other.hits]
        assert [hit.score for hit in one.hits] == pytest.approx([hit.score for hit in other.hits], abs=1e-5)
        chances = [[hit.by_chance for hit in answer.hits] for answer in (one, other)]
        assert chances[0] == pytest.approx(chances[1], rel=1e-3)
        assert (one.scored, one.recalled, one.notes) == (other.scored, other.recalled, other.notes)


def test_a_bad_picture_does_not_spoil_the_others(searcher: diffsim.Searcher, work: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes((work / "outside" / "71.png").read_bytes()[:900])
    good = work / "outside" / "70.png"
    queries = [
        tmp_path / "broken.png",
        good,
        tmp_path / "missing.png",
        diffsim.Query(good, spaces="nothing"),
        4711,
        diffsim.Query([good, tmp_path / "broken.png"]),
        good,
    ]
    found = searcher.search_many(queries, errors="return")
    kinds = [type(each).__name__ for each in found]
    assert kinds == ["UnreadableImage", "Answer", "BadQuery", "UnknownSpace", "BadQuery", "UnreadableImage", "Answer"]
    assert found[1] == found[6] == searcher.answer(diffsim.Query(good))
    assert "broken.png" in str(found[0]) and "missing.png" in str(found[2])
    with pytest.raises(UnreadableImage, match=r"broken\.png"):
        searcher.search_many(queries)
    with pytest.raises(diffsim.QueryError, match="choose `raise` or `return`"):
        searcher.search_many([good], errors="ignore")  # type: ignore[call-overload]


def test_a_picture_that_overflows_has_a_pass_of_its_own(
    searcher: diffsim.Searcher, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract = Extractor.extract

    def overflowing(self: Extractor, pixels: np.ndarray) -> list:
        if any(picture.min() == 255 for picture in pixels):
            raise NotFinite("The network overflows.")
        return extract(self, pixels)

    monkeypatch.setattr(Extractor, "extract", overflowing)
    white = Image.new("RGB", (64, 64), "white")
    good = work / "outside" / "70.png"
    found = searcher.search_many([good, white, work / "outside" / "71.png"], errors="return")
    assert [type(each).__name__ for each in found] == ["Answer", "NotFinite", "Answer"]
    assert found[0] == searcher.answer(diffsim.Query(good))


# ------------------------------------------------------------------------------------------- vectors and tables


def test_embeddings_are_what_recall_compares(searcher: diffsim.Searcher, work: Path) -> None:
    for space in ("look", "style"):
        found = searcher.embeddings(space)
        assert found.ids.dtype == np.int64 and found.descriptors.dtype == np.float32
        assert len(found.ids) == len(found.paths) == len(found.descriptors) == 30
        assert np.all(np.diff(found.ids) > 0)
        assert np.linalg.norm(found.descriptors, axis=1) == pytest.approx(1, abs=2e-3)
        place = found.paths.index(os.fspath(work / "pictures" / "7.png"))
        cosines = found.descriptors @ found.descriptors[place]
        hits = searcher.search(int(found.ids[place]), spaces=space, rerank=False, include_self=True, k=30)
        assert [found.paths[row] for row in np.argsort(-cosines)] == [hit.path for hit in hits]
        assert np.sort(cosines)[::-1] == pytest.approx([hit.score for hit in hits], abs=1e-3)


def test_embeddings_follow_the_index(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "outside", tmp_path / "p")
    diffsim.index(tmp_path / "index", tmp_path / "p", spaces=LOOK, options=OPTIONS)
    searcher = diffsim.open(tmp_path / "index", "cpu")
    assert len(searcher.embeddings().paths) == 5
    (tmp_path / "p" / "71.png").unlink()
    diffsim.index(tmp_path / "index", spaces=LOOK, options=OPTIONS)
    assert [Path(path).name for path in searcher.embeddings().paths] == ["70.png", "72.png", "73.png", "74.png"]


@pytest.fixture
def odd(work: Path, tmp_path: Path) -> diffsim.Answer:
    """An answer with a name that is not UTF-8, two files of one content and a near copy."""
    folder = tmp_path / "odd"
    folder.mkdir()
    for number in range(1, 8):
        random_picture(number).save(folder / f"{number}.png")
    shutil.copy(folder / "1.png", os.fsencode(folder) + b"/caf\xe9.png")
    picture = random_picture(2)
    picture.putpixel((0, 0), (1, 2, 3))
    picture.save(folder / "near.png")
    diffsim.index(tmp_path / "index", folder, spaces=LOOK, options=OPTIONS)
    query = diffsim.Query(work / "outside" / "70.png", k=7, fold=True)
    return diffsim.open(tmp_path / "index", "cpu").answer(query)


def test_a_table_of_pandas(odd: diffsim.Answer) -> None:
    table = odd.to_pandas()
    assert list(table) == [
        "rank",
        "score",
        "likeness",
        "by_chance",
        "recall_rank",
        "path",
        "content_id",
        "offline",
        "paths",
        "duplicates",
    ]
    assert len(table) == len(odd.hits) == 7
    assert table["rank"].tolist() == [*range(1, 8)] and table["score"].tolist() == [hit.score for hit in odd.hits]
    assert table.dtypes["by_chance"] == table.dtypes["likeness"] == np.float64 and table.dtypes["offline"] == np.bool_
    assert sorted(map(len, table["paths"])) == [1, 1, 1, 1, 1, 1, 2]
    assert any(path.endswith("caf\\xe9.png") for paths in table["paths"] for path in paths)
    assert sum(map(len, table["duplicates"])) == 1
    empty = diffsim.Answer([], [], 0, 0, 0, []).to_pandas()
    assert len(empty) == 0 and list(empty.dtypes) == list(table.dtypes)
    assert isinstance(table, pandas.DataFrame)


def test_a_table_of_arrow(odd: diffsim.Answer) -> None:
    table = odd.to_arrow()
    assert isinstance(table, pyarrow.Table) and table.num_rows == 7
    assert table.column("score").to_pylist() == [hit.score for hit in odd.hits]
    assert table.schema.field("paths").type == pyarrow.list_(pyarrow.string())
    assert table.schema == diffsim.Answer([], [], 0, 0, 0, []).to_arrow().schema
    assert [len(paths) for paths in table.column("duplicates").to_pylist()].count(1) == 1


@pytest.mark.parametrize(("name", "method"), [("pandas", "to_pandas"), ("pyarrow", "to_arrow")])
def test_without_the_package_a_table_is_one_sentence(name: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackage, match=rf"needs {name}; install it with: pip install {name}\.$"):
        getattr(diffsim.Answer([], [], 0, 0, 0, []), method)()


# ------------------------------------------------------------------------------------------- pairs


def test_a_pair_may_be_in_memory(work: Path) -> None:
    a, b = (work / "pictures" / name for name in ("1.png", "2.png"))
    expected = diffsim.score(a, b, space=LOOK)
    for one, other in ((a.read_bytes(), Image.open(b)), (np.asarray(Image.open(a)), str(b))):
        found = diffsim.score(one, other, space=LOOK)
        assert (found.forward, found.backward) == pytest.approx((expected.forward, expected.backward), abs=1e-6)
    paper = diffsim.score(a.read_bytes(), b, space=LOOK, protocol="paper")
    assert paper == diffsim.score(a, b, space=LOOK, protocol="paper") != expected
    apart = diffsim.score(a, b, space=LOOK, metric="mse")
    assert apart.score > 0 and diffsim.score(a, a, space=LOOK, metric="mse").score == pytest.approx(0, abs=1e-9)


def test_a_pair_is_explained_alike_with_and_without_an_index(searcher: diffsim.Searcher, work: Path) -> None:
    a, b = (work / "pictures" / name for name in ("1.png", "2.png"))
    outside, inside = diffsim.explain(a, b, space=LOOK, device="cpu"), searcher.pair(a, b).agreement()
    assert outside.score == pytest.approx(inside.score, abs=1e-5)
    assert outside.score == pytest.approx(diffsim.score(a, b, space=LOOK, device="cpu").score, abs=1e-6)
    assert np.asarray(outside.a_from_b) == pytest.approx(np.asarray(inside.a_from_b), abs=1e-4)
    assert len(outside.regions) == len(inside.regions) > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"protocol": "papr"}, "'papr' is unknown; choose one of engine, paper"),
        ({"metric": "l2"}, "'l2' is unknown; choose one of cosine, mse"),
        ({"a": 3}, "`Searcher.pair`"),
        ({"a": b"nothing"}, "Cannot read the picture: "),
        ({"a": b"nothing", "protocol": "paper"}, "Cannot read the picture: "),
        ({"a": "nowhere.png"}, "no file nowhere.png"),
    ],
)
def test_mistakes_of_pairs_are_one_sentence(arguments: dict, words: str, work: Path) -> None:
    given = {"a": work / "pictures" / "1.png", "b": work / "pictures" / "2.png", "space": LOOK, **arguments}
    with pytest.raises(diffsim.Error) as raised:
        diffsim.score(**given)
    assert words in str(raised.value) and str(raised.value).endswith(".")
