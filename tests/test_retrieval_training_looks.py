"""Random treatments of pictures."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffsim.retrieval.training.treatments import FILTERS, Look


@given(st.sampled_from(sorted(FILTERS)), st.integers(0, 2**32 - 1))
def test_every_filter_keeps_size_and_kind_and_is_settled_by_its_lots(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)
    look = Look(((name, rng.random(8)),))
    once, twice = (look.paint(picture, np.random.default_rng(1)) for _ in range(2))
    assert once.shape == picture.shape and once.dtype == np.uint8
    assert (once == twice).all()


@given(st.integers(0, 2**32 - 1))
def test_a_white_ground_can_stay_white_under_any_look(seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = np.full((24, 24, 3), 255, np.uint8)
    picture[8:16, 8:16] = rng.integers(0, 200, 3)
    look = replace(Look.draw(rng), paper=None, white_ground=True)
    painted = look.paint(picture, rng)
    assert (painted[[0, -1]] == 255).all() and (painted[:, [0, -1]] == 255).all()


def test_looks_differ_in_what_they_do_to_a_white_ground() -> None:
    rng = np.random.default_rng(0)
    looks = [Look.draw(rng) for _ in range(1000)]
    papers, white = [look for look in looks if look.paper is not None], [look for look in looks if look.white_ground]
    assert not any(look.white_ground for look in papers)
    assert (len(papers) / 1000, len(white) / 1000) == pytest.approx((0.4, 0.4), abs=0.1)  # six standard deviations


def test_a_margin_makes_a_picture_smaller_on_the_colour_of_its_corner() -> None:
    picture = np.full((100, 100, 3), 30, np.uint8)
    picture[10:90, 10:90] = 200
    painted = Look(margin=0.125).paint(picture, np.random.default_rng(0))
    assert painted.shape == picture.shape
    assert (painted[:15] == 30).all() and (painted[:, -15:] == 30).all()
    assert (painted[25:75, 25:75] == 200).all()  # 10 + 12 pixels of 124 around it, now 18 of 100


def test_a_palette_is_the_same_few_colours_for_every_picture() -> None:
    rng = np.random.default_rng(0)
    look = Look((("palette", rng.random(8)),))
    colours = [look.paint(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), rng).reshape(-1, 3) for _ in range(2)]
    first, second = ({tuple(colour) for colour in np.unique(some, axis=0)} for some in colours)
    assert first == second and 3 < len(first) <= 40 and (0, 0, 0) not in first
