import itertools
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from diffsim.retrieval.drawings.__main__ import main
from diffsim.retrieval.drawings.gallery import STYLES, SUBJECTS, draw, label_map
from diffsim.retrieval.drawings.subjects import ROLES
from diffsim.retrieval.drawings.subjects import SUBJECTS as SHAPES


def test_the_gallery_is_large_enough_to_search() -> None:
    assert len(SUBJECTS) >= 12
    assert len(STYLES) >= 8
    assert len(set(SUBJECTS)) == len(SUBJECTS)
    # `<subject>-<style>.png` must come apart again.
    assert not [name for name in SUBJECTS + STYLES if "-" in name]


@pytest.mark.parametrize("style", STYLES)
def test_the_same_seed_draws_the_same_bytes(style: str) -> None:
    first, second = draw("cat", style, seed=3, size=96), draw("cat", style, seed=3, size=96)
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("style", STYLES)
def test_another_seed_places_and_paints_anew(style: str) -> None:
    first, second = (np.asarray(draw("house", style, seed, 96), dtype=float) for seed in (0, 1))
    assert np.abs(first - second).mean() > 4


def test_pictures_of_one_style_differ_in_setting_and_colours() -> None:
    corners = {draw(subject, "poster", size=64).getpixel((0, 0)) for subject in SUBJECTS}
    assert len(corners) >= 4


def test_every_subject_in_every_style_is_a_picture_of_its_own() -> None:
    pictures = [draw(subject, style, size=64) for subject in SUBJECTS for style in STYLES]
    assert {(picture.mode, picture.size) for picture in pictures} == {("RGB", (64, 64))}
    assert len({picture.tobytes() for picture in pictures}) == len(SUBJECTS) * len(STYLES)
    assert min(np.asarray(picture, dtype=float).std() for picture in pictures) > 5


def test_each_subject_fills_its_frame_with_known_roles() -> None:
    for subject, parts in ((name, shape()) for name, shape in SHAPES.items()):
        points = np.concatenate([part.points for part in parts])
        assert (np.ptp(points, axis=0) > 55).all(), subject
        assert points.min() >= -5, subject
        assert points.max() <= 105, subject
        assert {part.role for part in parts} <= set(ROLES[2:]), subject
        # A part that later ones hide altogether is a slip of the pen.
        visible = set(np.unique(label_map([parts[0], *parts], 200)))
        assert visible >= set(range(1, len(parts) + 1)), subject


def test_same_seed_at_another_size_is_the_same_scene() -> None:
    small, large = (draw("boat", "poster", seed=5, size=size) for size in (96, 192))
    difference = np.abs(np.asarray(large.reduce(2), dtype=float) - np.asarray(small, dtype=float))
    assert difference.mean() < 4


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(("dragon", "ink"), "dragon"), (("cat", "oil"), "oil"), (("cat", "ink", 0, 8), "8")],
)
def test_what_is_not_offered_is_refused_by_name(arguments: tuple, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        draw(*arguments)


def test_the_command_writes_one_file_per_pair_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two subjects and styles stand for all: the loop is the same and 140 pictures take their time.
    monkeypatch.setattr("diffsim.retrieval.drawings.__main__.SUBJECTS", SUBJECTS[:2])
    monkeypatch.setattr("diffsim.retrieval.drawings.__main__.STYLES", STYLES[:2])
    result = CliRunner().invoke(main, [str(tmp_path / "gallery")])
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    expected = {f"{subject}-{style}.png" for subject, style in itertools.product(SUBJECTS[:2], STYLES[:2])}
    assert {path.name for path in (tmp_path / "gallery").iterdir()} == expected
    with Image.open(tmp_path / "gallery" / f"{SUBJECTS[1]}-{STYLES[0]}.png") as picture:
        assert picture.size == (384, 384)
        assert picture.tobytes() == draw(SUBJECTS[1], STYLES[0]).tobytes()
