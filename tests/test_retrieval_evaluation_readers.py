"""The readers of published data sets, each on a small folder of its layout."""

import csv
import json
import random
from pathlib import Path

import pytest

from diffsim.retrieval.evaluation.benchmarks import READERS, read_benchmark
from diffsim.retrieval.evaluation.triplets import BadBenchmark, Triplet


def touch(root: Path, *names: str) -> None:
    """Files in a shuffled order of creation: readers must not depend on it."""
    for name in sorted(names, key=lambda name: hash(name[::-1])):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def short(root: Path, triplet: Triplet) -> tuple[str, str, str, str]:
    names = (str(path.relative_to(root)) for path in (triplet.reference, triplet.closer, triplet.farther))
    return (*names, triplet.unit)


@pytest.mark.parametrize("bench", ["sref", "instantstyle"])
def test_styles(tmp_path, bench):
    touch(tmp_path, *(f"Sref/{style}/{number}.png" for style in ("10", "2", "x y") for number in range(1, 5)))
    touch(tmp_path, "Sref/lonely/1.png", "Sref/10/notes.txt", ".cache/a/1.png", ".cache/a/2.png")
    question = read_benchmark(bench, tmp_path, 2334)
    assert len(question.triplets) == 2000 and question.unit == "styles"
    assert {triplet.unit for triplet in question.triplets} == {"Sref/10", "Sref/2", "Sref/x y"}
    for triplet in question.triplets:
        assert triplet.reference.parent == triplet.closer.parent != triplet.farther.parent
        assert triplet.reference != triplet.closer
        assert {path.suffix for path in (triplet.reference, triplet.closer, triplet.farther)} == {".png"}
    assert any("could not be confirmed" in note for note in question.notes) == (bench == "instantstyle")
    assert question.triplets == released_draws(tmp_path / "Sref", tmp_path)
    assert read_benchmark(bench, tmp_path, 1).triplets != question.triplets


def released_draws(folder: Path, root: Path) -> list[Triplet]:
    """style_main.py's draws, had its folders been listed in order."""
    styles = {style: sorted(style.glob("*.png")) for style in sorted(folder.iterdir()) if style.name != "lonely"}
    random.seed(2334)
    drawn = []
    for _ in range(2000):
        style_a, style_c = random.sample(list(styles), 2)
        a, b = random.sample(styles[style_a], 2)
        drawn.append(Triplet(a, b, random.choice(styles[style_c]), str(style_a.relative_to(root))))
    return drawn


def test_draws_do_not_depend_on_the_file_system_s_order(tmp_path):
    names = [f"{style}/{number}.jpg" for style in "abc" for number in range(3)]
    listed = []
    for copy, order in (("one", names), ("two", names[::-1])):
        for name in order:
            (tmp_path / copy / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / copy / name).touch()
        root = tmp_path / copy
        listed.append([short(root, triplet) for triplet in read_benchmark("sref", root, 7).triplets])
    assert listed[0] == listed[1]


def test_ip_whole(tmp_path):
    weights = ("1.0", "0.8", "0.6", "0.4", "0.35", "0.3", "0.2")
    touch(tmp_path, *(f"IPref/7/{weight}.png" for weight in weights), "IPA-bench/7.JPG")
    question = read_benchmark("ip", tmp_path, 0)
    assert [short(tmp_path, triplet) for triplet in question.triplets] == [
        ("IPA-bench/7.JPG", f"IPref/7/{higher}.png", f"IPref/7/{lower}.png", "7")
        for higher, lower in (("1.0", "0.6"), ("0.8", "0.4"), ("0.6", "0.3"), ("0.4", "0.35"), ("0.3", "0.2"))
    ]
    assert not any("left out" in note for note in question.notes)


def test_ip_as_published_uses_the_pairs_that_exist_and_says_what_is_missing(tmp_path):
    touch(tmp_path, *(f"{cls}/{weight}.png" for cls in ("1", "10") for weight in ("1.0", "0.8", "0.6", "0.4")))
    touch(tmp_path, "1.JPG")
    question = read_benchmark("ip", tmp_path, 0)
    assert [short(tmp_path, triplet)[1:] for triplet in question.triplets] == [
        ("1/1.0.png", "1/0.6.png", "1"),
        ("1/0.8.png", "1/0.4.png", "1"),
    ]
    assert any("8 of 10 pairs were left out" in note for note in question.notes)


def test_nights(tmp_path):
    rows = [
        (1, "val", 6, 1, 0, "Cat", True),
        (2, "train", 6, 1, 0, "cat", True),
        (3, "val", 7, 0, 1, "dog", False),
    ]
    with (tmp_path / "data.csv").open("w", newline="") as file:
        file.write("id,split,votes,left_vote,right_vote,ref_path,left_path,right_path,prompt,is_imagenet\n")
        table = csv.writer(file)
        for number, split, votes, left, right, prompt, imagenet in rows:
            paths = (f"ref/000/{number}.png", f"distort/000/{number}_0.png", f"distort/000/{number}_1.png")
            table.writerow([number, split, votes, left, right, *paths, prompt, imagenet])
    question = read_benchmark("nights", tmp_path, 0)
    assert [short(tmp_path, triplet) for triplet in question.triplets] == [
        ("ref/000/1.png", "distort/000/1_0.png", "distort/000/1_1.png", "cat"),
        ("ref/000/3.png", "distort/000/3_1.png", "distort/000/3_0.png", "dog"),
    ]


def test_cute(tmp_path):
    conditions = ("wild", "studio")
    touch(
        tmp_path,
        *(
            f"{category}/{thing}/{condition}/{number}.jpg"
            for category in ("apple", "mug")
            for thing in ("a", "b")
            for condition in conditions
            for number in range(3)
        ),
        "lonely/a/wild/0.jpg",
        "lonely/a/wild/1.jpg",
    )
    question = read_benchmark("cute", tmp_path, 2334)
    assert len(question.triplets) == 2 * 2 * 10
    for triplet in question.triplets:
        condition, thing = triplet.reference.parent, triplet.reference.parent.parent
        assert triplet.closer.parent == condition and triplet.closer != triplet.reference
        assert triplet.farther.parent.name == condition.name
        assert triplet.farther.parent.parent != thing and triplet.farther.parents[2] == thing.parent
        assert triplet.unit == thing.parent.name
    assert {triplet.reference.parent.name for triplet in question.triplets} == set(conditions)
    assert any("10 of 50 draws were left out" in note for note in question.notes)


@pytest.mark.parametrize(("references", "distorted"), [("", ""), ("reference_images/", "distorted_images/")])
def test_tid2013(tmp_path, references, distorted):
    touch(tmp_path, *(f"{references}{'I' if n % 2 else 'i'}{n:02d}.BMP" for n in range(1, 26)))
    touch(
        tmp_path,
        *(
            f"{distorted}{'i' if n % 3 else 'I'}{n:02d}_{kind:02d}_{level}.bmp"
            for n in range(1, 26)
            for kind in range(1, 25)
            for level in (1, 2, 3)
        ),
    )
    question = read_benchmark("tid2013", tmp_path, 0)
    assert len(question.triplets) == 600 and len({triplet.unit for triplet in question.triplets}) == 25
    assert short(tmp_path, question.triplets[25]) == (
        f"{references}i02.BMP",
        f"{distorted}i02_02_2.bmp",
        f"{distorted}i02_02_3.bmp",
        "i02",
    )
    (tmp_path / f"{distorted}i02_02_3.bmp").unlink()
    question = read_benchmark("tid2013", tmp_path, 0)
    assert len(question.triplets) == 599
    assert any("1 of 600 pairs were left out" in note and "i02, distortion 02" in note for note in question.notes)


def dreambench(root: Path, first: dict[str, int], second: dict[str, int]) -> None:
    for group, ratings in (("group1", first), ("group2", second)):
        folder = root / "data_human_rating" / "merged_data" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "dreambooth_sd-cp.json").write_text(json.dumps(ratings))


def test_dreambench(tmp_path):
    system = "samples/dreambooth_sd_gs7_5"
    references = ("kitten_1", "kitten_10")
    for reference in references:
        touch(tmp_path, f"{system}/src_image/{reference}/0_0.jpg")
        touch(tmp_path, *(f"{system}/tgt_image/{reference}/{prompt}_0.jpg" for prompt in range(4)))
    touch(tmp_path, "samples/dreambooth_lora_sdxl_gs7_5/src_image/kitten_1/0_0.jpg")
    # kitten_1: means 0, 4, 2; prompt 3 is rated too differently. kitten_10: no gap of 2.
    first = {"kitten_1-0": 0, "kitten_1-1": 4, "kitten_1-2": 2, "kitten_1-3": 0, "kitten_10-0": 1, "kitten_10-1": 2}
    second = {"kitten_1-0": 0, "kitten_1-1": 4, "kitten_1-2": 2, "kitten_1-3": 3, "kitten_10-0": 1, "kitten_10-1": 2}
    dreambench(tmp_path, first, second)
    question = read_benchmark("dreambench", tmp_path, 2334)
    made = f"{system}/tgt_image/kitten_1"
    assert [short(tmp_path, triplet) for triplet in question.triplets] == [
        (f"{system}/src_image/kitten_1/0_0.jpg", f"{made}/{better}_0.jpg", f"{made}/{worse}_0.jpg", "kitten_1")
        for better, worse in ((1, 0), (2, 0), (1, 2))
    ]


def test_dreambench_draws_five_pairs_of_many(tmp_path):
    system = "blip_diffusion_gs7_5"
    touch(tmp_path, f"{system}/src_image/cat/0_0.jpg", *(f"{system}/tgt_image/cat/{n}_0.jpg" for n in range(9)))
    dreambench(tmp_path, {}, {})
    for group in ("group1", "group2"):
        ratings = {f"cat-{number}": number % 2 * 4 for number in range(9)}
        (tmp_path / f"data_human_rating/merged_data/{group}/blip_diffusion-cp.json").write_text(json.dumps(ratings))
    triplets = read_benchmark("dreambench", tmp_path, 2334).triplets
    assert len(triplets) == len(set(triplets)) == 5
    assert all(int(t.closer.name[0]) % 2 == 1 and int(t.farther.name[0]) % 2 == 0 for t in triplets)
    assert read_benchmark("dreambench", tmp_path, 2334).triplets == triplets


@pytest.mark.parametrize("bench", list(READERS))
def test_another_folder_is_refused_in_one_sentence(tmp_path, bench):
    touch(tmp_path, "a.png", "b/c.png")
    with pytest.raises(BadBenchmark) as caught:
        read_benchmark(bench, tmp_path / "nowhere" if bench == "triplets" else tmp_path, 0)
    assert str(caught.value).endswith(".") and str(tmp_path) in str(caught.value)
