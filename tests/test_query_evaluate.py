"""`diffsim evaluate` on the project's own drawings with the tiny network, and the scores behind it."""

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from indexing import FAST, diffsim, lay_out_styles, problem
from PIL import Image

from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import requested_spaces
from diffsim.query.commands.evaluate import evaluate as evaluate_command
from diffsim.query.evaluation.contenders import open_paper_scorers, open_scorers, parse_spec
from diffsim.query.search import Searcher
from diffsim.retrieval.drawings.gallery import draw
from diffsim.retrieval.evaluation.benchmarks import READERS
from diffsim.retrieval.evaluation.paper_scorer import PaperScorer
from diffsim.retrieval.evaluation.triplets import SEED, read_triplets
from diffsim.retrieval.families import UnknownModel, load_network
from diffsim.retrieval.paper import PaperProtocol
from diffsim.retrieval.score import score_pair
from diffsim.retrieval.settings import InvalidSpace, SpaceSettings

STYLES = ("neon", "pencil", "glass")
SPEC = f"{TINY}/style@64px"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subjects in three styles as Sref is laid out, and a CSV of their styles."""
    return lay_out_styles(tmp_path_factory.mktemp("evaluate"))


def evaluate(work: Path, *arguments: str | Path) -> list[dict]:
    ran = diffsim("evaluate", *arguments, "--cache", work / "cache", "--device", "cpu", "--json")
    assert ran.code == 0, ran
    return [json.loads(line) for line in ran.out.splitlines()]


def paper_protocol(prompt: str) -> PaperProtocol:
    settings = SpaceSettings(parse_spec(SPEC).request.settings.taps, 64, prompt=prompt)
    return PaperProtocol(load_network(TINY, "float32", "cpu"), settings)


def nothing(done: int, total: int) -> None:
    pass


def test_every_kind_of_space_on_a_benchmark_of_the_paper(work):
    specs = ("colour-histogram", "thumbnail", "gradient-histogram", SPEC, f"{SPEC}:pooled")
    asked = [part for spec in specs for part in ("--space", spec)]
    rows = evaluate(work, "sref", work / "Sref", *asked)
    assert [row["space"] for row in rows] == list(specs)
    for row in rows:
        assert (row["benchmark"], row["triplets"], row["units"], row["unit"]) == ("sref", 2000, 3, "styles")
        value, low, high = (row["accuracy"][name] for name in ("value", "low", "high"))
        assert row["left_out"] == 0 and 0 <= low <= value <= high <= 1
        assert row["gain"]["value"] == pytest.approx(value - rows[0]["accuracy"]["value"])
    assert len({row["accuracy"]["value"] for row in rows}) > 1
    assert evaluate(work, "sref", work / "Sref", *asked) == rows  # deterministic, from the cache


def test_saved_triplets_give_the_same_figures(work, tmp_path):
    saved = tmp_path / "drawn.csv"
    asked = ("--space", SPEC, "--limit", "50", "--save-triplets", saved)
    (drawn,) = evaluate(work, "sref", work / "Sref", *asked)
    (again,) = evaluate(work, "triplets", saved, "--space", SPEC)
    assert drawn["triplets"] == 50
    figures = ("accuracy", "triplets", "ties", "units")
    assert [again[name] for name in figures] == [drawn[name] for name in figures]


def test_retrieval(work):
    rows = evaluate(work, "retrieval", work / "styles.csv", "--space", SPEC, "--space", "colour-histogram")
    for row in rows:
        assert (row["queries"], row["pictures"], row["groups"]) == (9, 9, 3)
        assert row["recall@10"]["value"] == 1 and row["precision@5"]["value"] <= 0.4
        assert 0 < row["mAP"]["low"] <= row["mAP"]["value"] <= row["mAP"]["high"] <= 1
    (some,) = evaluate(work, "retrieval", work / "styles.csv", "--space", SPEC, "--limit", "4")
    assert (some["queries"], some["pictures"]) == (4, 9)


def test_the_table(work):
    ran = diffsim("evaluate", "sref", work / "Sref", "--space", "thumbnail", "--limit", "40")
    head, row = ran.out.decode().splitlines()
    assert head.split("  ")[0] == "space" and head.endswith("styles") and row.startswith("thumbnail")
    assert "Note: with 3 styles, the intervals are rough" in ran.err
    ran = diffsim("evaluate", "retrieval", work / "styles.csv", "--space", "thumbnail")
    head, row = ran.out.decode().splitlines()
    assert "mAP %" in head and row.startswith("thumbnail") and "(" in row


def test_scores_are_those_of_a_search(work, tmp_path):
    pictures = sorted((work / "Sref").rglob("*.png"))
    with ExitStack() as opened:
        contenders = [parse_spec(SPEC), parse_spec(f"{SPEC}:pooled")]
        full, pooled = open_scorers(contenders, work, pictures, tmp_path / "cache", FAST, opened, on_progress=nothing)
        left, right = np.divmod(np.arange(81), 9)
        pairs = full.pairs(left, right, nothing).reshape(9, 9)
        matrix = full.matrix(np.arange(9), nothing)
        descriptors = pooled.matrix(np.arange(9), nothing)
        assert pooled.pairs(left, right, nothing).reshape(9, 9) == pytest.approx(descriptors, abs=1e-6)
    assert pairs == pytest.approx(matrix, abs=2e-6) and pairs == pytest.approx(pairs.T, abs=2e-6)
    assert np.diag(pairs) == pytest.approx(1, abs=1e-5)
    with Searcher(tmp_path / "cache", "cpu") as searcher:
        for row, picture in enumerate(pictures):
            for scores, more, near in ((matrix, {"exact": True}, 2e-6), (descriptors, {"rerank": False}, 1e-3)):
                hits = searcher.search(picture, k=9, **more)
                assert len(hits) == 8
                for hit in hits:
                    assert hit.score == pytest.approx(scores[row, pictures.index(Path(hit.path))], abs=near)


def test_only_the_pictures_of_the_question_are_extracted(work, tmp_path):
    (tmp_path / "t.csv").write_text("reference,closer,farther\na/1.png,a/2.png,b/1.png\n")
    for name in ("a/1", "a/2", "a/3", "b/1", "b/2"):
        (tmp_path / f"{name}.png").parent.mkdir(exist_ok=True)
        draw("cat", "neon", seed=int(name[-1]), size=64).save(tmp_path / f"{name}.png")
    draw("tree", "pencil", size=64).save(tmp_path / "b" / "1.png")
    asked = ("--space", SPEC, "--cache", tmp_path / "cache", "--device", "cpu", "--json")
    ran = diffsim("evaluate", "triplets", tmp_path / "t.csv", *asked)
    assert json.loads(ran.out)["triplets"] == 1
    with IndexFolder.open(tmp_path / "cache").catalog(readonly=True) as catalog:
        (space,) = catalog.spaces()
        assert len(catalog.indexed(space.id).ids) == 3


def test_unreadable_and_absent_pictures_leave_their_triplets_out_everywhere(work, tmp_path):
    for number in range(4):
        draw("cat", STYLES[number % 3], seed=number, size=64).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_text("no picture")
    rows = ("0.png,1.png,2.png,a", "0.png,bad.png,2.png,a", "0.png,gone.png,2.png,b", "3.png,1.png,2.png,b")
    (tmp_path / "t.csv").write_text("\n".join(["reference,closer,farther,unit", *rows]) + "\n")
    asked = ("--space", SPEC, "--space", f"{SPEC}:pooled", "--space", "thumbnail", "--json")
    ran = diffsim("evaluate", "triplets", tmp_path / "t.csv", *asked, "--cache", tmp_path / "cache")
    assert ran.code == 0, ran
    for line in ran.out.splitlines():
        row = json.loads(line)
        assert (row["triplets"], row["left_out"], row["units"]) == (2, 2, 2)
    assert "Note: 1 pictures are not there" in ran.err and "gone.png" in ran.err
    assert "Note: 2 triplets were left out" in ran.err


@pytest.mark.parametrize("spec", ["thumbnail", SPEC, f"{SPEC}:pooled"])
def test_a_folder_of_broken_pictures_is_named(tmp_path, spec):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_text(f"no picture {name}")
    (tmp_path / "t.csv").write_text("reference,closer,farther\na.png,b.png,c.png\n")
    (tmp_path / "r.csv").write_text("file,group\na.png,x\nb.png,x\n")
    for bench, file, words in (("triplets", "t.csv", "could be read"), ("retrieval", "r.csv", "can be found")):
        asked = ("--space", spec, "--cache", tmp_path / "cache", "--device", "cpu")
        ran = diffsim("evaluate", bench, tmp_path / file, *asked)
        assert ran.code == 1 and ran.out == b"" and words in ran.err and "Traceback" not in ran.err, ran


def test_the_paper_protocol_scores_the_reference_as_a(work, tmp_path):
    asked = ("--space", SPEC, "--limit", "25", "--prompt", "a drawing")
    (row,) = evaluate(work, "sref", work / "Sref", *asked, "--protocol", "paper", "--save-triplets", tmp_path / "t.csv")
    paper = paper_protocol("a drawing")

    def features(picture, role):
        return (paper.features(Image.open(picture).convert("RGB"), role),)

    right = []
    for triplet in read_triplets(tmp_path / "t.csv").triplets:
        near, far = (
            score_pair(features(triplet.reference, "A"), features(other, "B"), (1.0,)).score
            for other in (triplet.closer, triplet.farther)
        )
        right.append(near > far)
    assert row["accuracy"]["value"] == np.mean(right) and row["protocol"] == "paper" and row["triplets"] == 25


def test_the_paper_protocol_with_little_memory(work):
    pictures = [*sorted((work / "Sref").rglob("*.png"))[:4], work / "styles.csv"]  # the last is no picture
    left, right = np.divmod(np.arange(25), 5)
    plenty, scarce = (
        PaperScorer(paper_protocol("High quality image"), pictures, memory).pairs(left, right, nothing)
        for memory in (2**30, 1)
    )
    ((_, opened),) = open_paper_scorers([parse_spec(SPEC)], pictures, FAST)
    for same in (scarce, opened.pairs(left, right, nothing)):
        assert np.array_equal(plenty, same, equal_nan=True)
    read = plenty.reshape(5, 5)[:4, :4]
    assert np.isnan(plenty).sum() == 9 and (np.diag(read) < 0.9999).all() and not np.allclose(read, read.T)


@pytest.mark.parametrize("spec", ["thumbnail", f"{SPEC}:pooled", f"{TINY}/mid_block@51+up_blocks.1@t101@64px"])
def test_where_the_paper_protocol_does_not_apply(work, spec):
    ran = diffsim("evaluate", "sref", work / "Sref", "--space", SPEC, "--space", spec, "--protocol", "paper")
    assert "--protocol paper" in problem(ran) and spec in ran.err
    ran = diffsim("evaluate", "retrieval", work / "styles.csv", "--space", SPEC, "--protocol", "paper")
    assert ran.code == 2 and "--protocol paper" in ran.err


def test_mistakes_get_one_sentence(work, tmp_path):
    assert "colour-histogram" in problem(diffsim("evaluate", "sref", work / "Sref", "--space", "nonsense"))
    assert "unknown" in problem(diffsim("evaluate", "sref", work / "Sref", "--space", "mimi/style"))
    assert "tid2013" in problem(diffsim("evaluate", "tid2013", work / "styles.csv"))
    assert "data.csv" in problem(diffsim("evaluate", "nights", work / "Sref"))
    (tmp_path / "t.csv").write_text("reference,closer,farther\na,b,c\n")
    assert "None of the pictures is there" in problem(diffsim("evaluate", "triplets", tmp_path / "t.csv"))
    ran = diffsim("evaluate", "retrieval", work / "styles.csv", "--save-triplets", tmp_path / "x.csv")
    assert ran.code == 2 and ran.out == b""


def test_the_command_knows_every_benchmark():
    names = {parameter.name: parameter for parameter in evaluate_command.params}
    assert tuple(names["bench"].type.choices) == (*READERS, "retrieval")
    assert names["seed"].default == SEED


def test_specs():
    assert parse_spec("thumbnail").request is None
    style = parse_spec("mini/style:pooled")
    assert style.pooled and style.request == requested_spaces("mini", ["style"])[0]
    layer = parse_spec("mini/up_blocks.1.attentions.1@t101")
    assert layer.request == requested_spaces("mini", layers=["up_blocks.1.attentions.1@101"])[0]
    settings = parse_spec(f"{TINY}/mid_block.attentions.0@51*2+up_blocks.1@t101@64px").request.settings
    assert [str(tap) for tap in settings.taps] == ["mid_block.attentions.0@t51", "up_blocks.1@t101"]
    assert settings.size == 64 and settings.variant == "S" and settings.taps[0].weight == 2
    assert parse_spec("dinov2-small/global").request.settings.variant == "global"
    with pytest.raises(InvalidSpace, match="IP-Adapter"):
        parse_spec("mini/style-C")
    for spec in ("", "mini", "mini/", "mini/style:other", "mini/up@x", "/style"):
        with pytest.raises((InvalidSpace, UnknownModel)):
            parse_spec(spec)
