"""Text as an example: CLIP's and SigLIP's own embeddings, mixed with pictures and signs, and what a text may not be."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from conftest import TINY, random_picture
from indexing import FAST, diffsim, draw, problem
from tiny_texts import make_clip, make_siglip
from tiny_vits import make_vit

from diffsim import Example, Query, Text
from diffsim.indexer.build import index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import requested_spaces
from diffsim.query.query import BadQuery
from diffsim.query.search import Searcher
from diffsim.retrieval.families import load_network
from diffsim.retrieval.texts import OtherTokenizer

TEXTS = ["a red bicycle in the rain", "cat", "a drawing of an old house at night"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures in a space of tokens and in two that take text."""
    work = tmp_path_factory.mktemp("texts")
    draw(work / "pictures", range(40))
    random_picture(77).save(work / "outside.png")
    requests = requested_spaces(str(TINY), ["style", "instance"], size=64, tier="fp32")
    for make in (make_clip, make_siglip):
        name = make.__name__.removeprefix("make_")
        requests += requested_spaces(str(make(work / name)), variant="global")
    index_folders(IndexFolder.create(work / "index"), [work / "pictures"], requests, FAST)
    return work


@pytest.fixture
def searcher(work: Path) -> Searcher:
    return Searcher(work / "index", "cpu")


def expected(folder: Path, texts: list[str]) -> torch.Tensor:
    """What transformers makes of the texts, as its documentation says for each of the two."""
    model = transformers.AutoModel.from_pretrained(folder)
    padding = "max_length" if folder.name == "siglip" else True
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        texts, padding=padding, truncation=True, return_tensors="pt", max_length=16 if folder.name == "siglip" else 24
    )
    with torch.inference_mode():
        return model.get_text_features(**tokens).pooler_output


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_embeddings_are_those_of_transformers(work: Path, name: str) -> None:
    network = load_network(work / name, "float32", "cpu")
    wanted = expected(work / name, TEXTS)
    with torch.inference_mode():
        made = torch.cat([network.embed_text(text).vector for text in TEXTS])
        assert torch.allclose(made, wanted, atol=1e-5, rtol=0)
        assert not torch.allclose(made[0], made[1], atol=0.1)  # the tower does look at the text
        pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
        encoded = network.encode(pixels)
        model = transformers.AutoModel.from_pretrained(work / name)
        pictures = model.get_image_features(pixel_values=encoded["pictures"]).pooler_output
        assert torch.allclose(network.embed(encoded), pictures, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_scores_are_cosines_of_text_and_picture(work: Path, searcher: Searcher, name: str) -> None:
    hits = searcher.search(Text(TEXTS[0]), spaces=f"{name}/global", k=100, exact=True)
    found = searcher.embeddings(f"{name}/global")
    text = torch.nn.functional.normalize(expected(work / name, TEXTS[:1]), dim=1)[0].numpy()
    cosines = dict(zip(found.ids.tolist(), (found.descriptors @ text).tolist(), strict=True))
    assert len(hits) == 40
    assert [hit.score for hit in hits] == pytest.approx([cosines[hit.content_id] for hit in hits], abs=2e-3)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_mixed_examples_are_each_standardised(searcher: Searcher, work: Path) -> None:
    """Against numpy: a picture in its own space, texts with signs in another, each in units of its scores here."""
    examples = [
        Example(work / "outside.png", spaces=["style"]),
        Example(Text("at night"), 0.5),
        Example(Text("a drawing"), -2),
    ]
    asked = searcher.encode(Query(examples, spaces=["siglip/global"]))
    answer = searcher.answer(Query(examples, spaces=["siglip/global"], k=100, exact=True))
    assert answer.name == "tiny-sd15/style + siglip/global"
    sample = searcher.collection.null_sample(asked.fingerprints, 256, np.empty(0, np.int64))
    ids, rows = searcher.collection.score(asked.parts, searcher.embeddings("style").ids)
    total = dict.fromkeys(ids.tolist(), 0.0)
    for scores, weight in zip(rows, (1, 0.5, -2), strict=True):
        null = scores[np.isin(ids, sample)]
        for content_id, score in zip(ids.tolist(), scores.tolist(), strict=True):
            total[content_id] += weight * (score - null.mean()) / null.std()
    assert [hit.score for hit in answer.hits] == pytest.approx([total[hit.content_id] for hit in answer.hits], abs=1e-3)


def test_a_text_goes_where_texts_are_taken(searcher: Searcher, work: Path) -> None:
    first = searcher.answer(Query(Text("cat")))
    assert first.name == "clip/global"  # the index's first that takes text
    mixed = searcher.answer(Query([work / "outside.png", Example(Text("cat"), -1)]))
    assert mixed.name == "tiny-sd15/style + clip/global"
    both = searcher.answer(Query(Text("cat"), spaces=["clip/global", "siglip/global:3"]))
    assert both.name == "clip/global + siglip/global"
    parts = searcher.encode(Query(Text("cat"), spaces=["clip/global", "siglip/global:3"])).parts
    assert [part.weight for part in parts] == [0.25, 0.75]
    with pytest.raises(BadQuery, match=r"tiny-sd15/style takes no text .* ask in `--space clip/global`\.$"):
        searcher.search(Text("cat"), spaces="style")
    with pytest.raises(BadQuery, match="takes no text"):
        searcher.search([work / "outside.png", Example(Text("cat"), spaces=["instance"])])  # type: ignore[list-item]


def test_many_at_once(searcher: Searcher, work: Path) -> None:
    queries = [Query(Text("cat")), Query(Text("cat"), spaces="style"), Query(work / "outside.png"), Query(Text("old"))]
    found = searcher.search_many(queries, errors="return")
    assert isinstance(found[1], BadQuery)
    for query, answer in zip(queries, found, strict=True):
        if answer is not found[1]:
            assert [hit.path for hit in answer.hits] == [hit.path for hit in searcher.answer(query).hits]  # type: ignore[union-attr]


def test_a_long_text_is_cut_with_a_note(searcher: Searcher) -> None:
    answer = searcher.answer(Query(Text("x " * 50_000)))
    told = "The text is too long for clip/global, which read its beginning, up to: …"
    assert answer.notes == [told + " ".join("x" * 22)]
    same = searcher.answer(Query(Text("x " * 30)))
    assert [hit.score for hit in same.hits] == pytest.approx([hit.score for hit in answer.hits], abs=1e-4)
    assert searcher.answer(Query(Text("x " * 10))).notes == []
    assert "read its beginning" in searcher.answer(Query(Text("x" * 100_000), spaces="siglip/global")).notes[0]


@pytest.mark.parametrize("text", ["", "  ", "\n\t\x00"])
def test_an_empty_text_is_refused(text: str) -> None:
    with pytest.raises(BadQuery, match=r"^The text is empty; say what a picture should show"):
        Text(text)


def test_odd_texts(searcher: Searcher) -> None:
    with pytest.raises(BadQuery, match=r"bytes that are no characters"):
        Text("caf\udce9")
    assert Text("a\x00b\x1b").text == "a b"
    for text in ("日本語", "\u202ereversed", "🚲" * 40, "<|endoftext|>", "a\u0301" * 500, "&amp; <b>"):
        assert len(searcher.search(Text(text), spaces=["clip/global", "siglip/global"], k=3)) == 3
    with pytest.raises(BadQuery, match="A region belongs to a picture"):
        Example(Text("cat"), region=(0, 0, 0.5, 0.5))
    with pytest.raises(BadQuery, match="a text has no parts"):
        searcher.pair(Text("cat"), 1)
    with pytest.raises(BadQuery, match="nothing to extract"):
        searcher.extract(Text("cat"))


# Feature spaces


def test_the_fingerprint_covers_the_tokenizer_of_spaces_that_take_text(tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "clip")
    spaces = {}
    for name in ("with", "changed", "without"):
        if name == "changed":
            config = json.loads((folder / "tokenizer.json").read_text())
            config["model"]["vocab"]["a</w>"], config["model"]["vocab"]["b</w>"] = (
                config["model"]["vocab"]["b</w>"],
                config["model"]["vocab"]["a</w>"],
            )
            (folder / "tokenizer.json").write_text(json.dumps(config))
        if name == "without":
            (folder / "tokenizer.json").unlink()
        spaces[name] = space_of(folder)
    assert len({space.fingerprint for space in spaces.values()}) == 3
    assert len({space.weights for space in spaces.values()}) == 1
    # As every record from before there were texts: their fingerprints stay.
    assert "text" not in spaces["without"].record()
    assert spaces["without"] == type(spaces["without"]).from_record(spaces["without"].record())
    assert spaces["with"] == type(spaces["with"]).from_record(json.loads(json.dumps(spaces["with"].record())))


def test_spaces_of_tokens_do_not_know_the_tokenizer(tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "clip")
    before = space_of(folder, variant="S")
    (folder / "tokenizer.json").unlink()
    assert space_of(folder, variant="S") == before


def space_of(folder: Path, variant: str = "global"):  # type: ignore[no-untyped-def]
    from diffsim.indexer.spaces import Networks, make_kit

    (request,) = requested_spaces(str(folder), variant=variant)
    return make_kit(request, Networks("cpu")).space


def test_indexing_does_not_load_the_text_tower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffsim.retrieval.networks.text_tower import TextTower

    draw(tmp_path / "pictures", range(2))
    monkeypatch.setattr(TextTower, "load", lambda *_: pytest.fail("it was loaded"))
    requests = requested_spaces(str(make_clip(tmp_path / "clip")), variant="global")
    index_folders(IndexFolder.create(tmp_path / "index"), [tmp_path / "pictures"], requests, FAST)


def test_another_tokenizer_is_not_asked(tmp_path: Path) -> None:
    draw(tmp_path / "pictures", range(3))
    clip = make_clip(tmp_path / "clip")
    requests = requested_spaces(str(clip), variant="global")
    index_folders(IndexFolder.create(tmp_path / "index"), [tmp_path / "pictures"], requests, FAST)
    (clip / "tokenizer.json").write_text((clip / "tokenizer.json").read_text() + " ")
    with pytest.raises(OtherTokenizer, match="put that one back, or make a new space"):
        Searcher(tmp_path / "index", "cpu").search(Text("cat"))
    assert Searcher(tmp_path / "index", "cpu").search(tmp_path / "pictures" / "00.png", k=1)


@pytest.mark.parametrize("network", ["dinov2", "clip-vision", "siglip"])
def test_a_space_without_text(tmp_path: Path, network: str) -> None:
    """No text tower, or no tokenizer beside it, as in indexes from before there were texts."""
    draw(tmp_path / "pictures", range(3))
    requests = requested_spaces(str(make_vit(tmp_path / "net", network)), variant="global")
    index_folders(IndexFolder.create(tmp_path / "index"), [tmp_path / "pictures"], requests, FAST)
    searcher = Searcher(tmp_path / "index", "cpu")
    with pytest.raises(BadQuery) as told:
        searcher.search(Text("cat"))
    assert str(told.value) == (
        "No feature space of this index takes text; fetch a network that reads text with `diffsim models fetch "
        "clip-vit-b32` and add its space with `diffsim index --model clip-vit-b32 --variant global`."
    )
    with pytest.raises(BadQuery, match=r"net/global takes no text \(its network had no text tower, or no tokenizer\)"):
        searcher.search(Text("cat"), spaces="net/global")
    assert searcher.search(tmp_path / "pictures" / "00.png", k=2)


# The command


def test_the_command(work: Path, tmp_path: Path) -> None:
    index = work / "index"
    asked = ["query", "--index", index, "--text", "a red bicycle", "--format", "json", "--space", "siglip/global"]
    ran = diffsim(*asked)
    assert ran.code == 0, ran.err
    hits = Searcher(index, "cpu").search(Text("a red bicycle"), spaces="siglip/global")
    assert [json.loads(line)["path"] for line in ran.out.splitlines()] == [hit.path for hit in hits]
    sheet = tmp_path / "sheet.png"
    mixed = ["--add-text", "at night", "--subtract-text", "0.5:a drawing", "--sheet", sheet, "--format", "json"]
    ran = diffsim("query", "--index", index, work / "outside.png", *mixed)
    assert ran.code == 0 and sheet.exists(), ran.err
    examples = [work / "outside.png", Example(Text("at night")), Example(Text("a drawing"), -0.5)]
    hits = Searcher(index, "cpu").search(examples)
    assert [json.loads(line)["path"] for line in ran.out.splitlines()] == [hit.path for hit in hits]


def test_wrong_commands(work: Path) -> None:
    asked = ("query", "--index", work / "index")
    assert problem(diffsim(*asked, "--text", "")).startswith("The text is empty;")
    assert problem(diffsim(*asked, "--text", b"caf\xe9")).startswith("The text holds bytes")
    assert problem(diffsim(*asked, "--text", "cat", "--by", "style")).startswith("The feature space tiny-sd15/style")
    for wrong in ((), (work / "outside.png", "--text", "cat"), (work / "outside.png", "--add-text", "0:cat")):
        ran = diffsim(*asked, *wrong)
        assert ran.code == 2 and ran.out == b"" and "Traceback" not in ran.err, ran


# Weights of feature spaces


def test_spaces_have_weights(searcher: Searcher, work: Path) -> None:
    picture = work / "outside.png"
    weighed = searcher.encode(Query(picture, spaces=["style:0.7", "tiny-sd15/instance:0.3"]))
    assert [part.weight for part in weighed.parts] == pytest.approx([0.7, 0.3])
    alone = searcher.answer(Query(picture, spaces=["style:5"]))
    assert alone.hits == searcher.answer(Query(picture, spaces=["style"])).hits
    ids, rows = searcher.collection.score(weighed.parts, searcher.embeddings("style").ids)
    null = np.isin(ids, searcher.collection.null_sample(weighed.fingerprints, 256, np.empty(0, np.int64)))
    units = (rows - rows[:, null].mean(1)[:, None]) / rows[:, null].std(1)[:, None]
    total = dict(zip(ids.tolist(), (np.array([0.7, 0.3]) @ units).tolist(), strict=True))
    hits = searcher.search(picture, spaces=["style:0.7", "instance:0.3"], k=100, exact=True)
    assert [hit.score for hit in hits] == pytest.approx([total[hit.content_id] for hit in hits], abs=1e-3)
    own = Example(picture, -1, spaces=["style:1", "instance:3"])
    parts = searcher.encode(Query([picture, own], spaces="style")).parts
    assert [part.weight for part in parts] == [1, -0.25, -0.75]


@pytest.mark.parametrize("wrong", ["style:0", "style:-1", "style:x", "style:", "style:nan", "style:inf"])
def test_bad_weights(searcher: Searcher, work: Path, wrong: str) -> None:
    with pytest.raises(BadQuery, match=r"is not a weight for the feature space style; write a number above 0"):
        searcher.search(work / "outside.png", spaces=[wrong, "instance"])


def test_a_bad_weight_in_the_command(work: Path) -> None:
    asked = ("query", "--index", work / "index", work / "outside.png", "--by", "style:x")
    assert problem(diffsim(*asked)).startswith("'x' is not a weight for the feature space style;")


def test_two_weights_for_one_space(searcher: Searcher, work: Path) -> None:
    with pytest.raises(BadQuery, match="is given two weights; give one"):
        searcher.search(work / "outside.png", spaces=["style:1", "tiny-sd15/style:2"])


def test_weights_in_the_command(work: Path, searcher: Searcher) -> None:
    given = ["--by", "style:0.7", "--by", "instance:0.3", "--format", "paths"]
    ran = diffsim("query", "--index", work / "index", work / "outside.png", *given)
    hits = searcher.search(work / "outside.png", spaces=["style:0.7", "instance:0.3"])
    assert ran.out.decode().splitlines() == [hit.path for hit in hits]
