import numpy as np
import pytest
import torch
from conftest import random_picture
from PIL import Image
from test_retrieval_score import features

from diffsim.query.figures.heatmap import COLOURS, PANEL, colour_range, colours, draw_agreement, heat, panel
from diffsim.query.figures.sheet import MARGIN
from diffsim.retrieval.agreement import Agreement, Region, agreement


def why_of(a_from_b: torch.Tensor, b_from_a: torch.Tensor, *regions: Region) -> Agreement:
    return Agreement(0.5, a_from_b, b_from_a, regions)


def lightness(rgb: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB 0..255."""
    linear = np.where(rgb <= 0.04045 * 255, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    return 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16


def test_the_colour_scale_brightens_evenly() -> None:
    """So it reads without colours too; even steps of the value look even."""
    steps = np.diff(lightness(colours(np.linspace(0, 1, 10), 0, 1)))
    assert steps.min() > 0.7 * steps.mean() and steps.max() < 1.3 * steps.mean()
    assert (colours(np.array([-9.0, 9.0]), 0, 1) == COLOURS[[0, -1]]).all()


@pytest.mark.parametrize(
    ("smallest", "largest", "ends"),
    [(0.412, 0.873, (0.40, 0.90)), (1, 1, (0.9, 1)), (-1, 1, (-1, 1)), (0.95, 1, (0.9, 1)), (0.3, 0.3, (0.2, 0.3))],
)
def test_the_scale_covers_both_maps(smallest: float, largest: float, ends: tuple[float, float]) -> None:
    one, other = torch.full((2, 2), largest), torch.full((2, 2), smallest)
    assert colour_range(why_of(one, other)) == pytest.approx(ends)
    assert colour_range(why_of(other, one)) == pytest.approx(ends)


def test_heat_lies_where_the_values_are() -> None:
    values = np.zeros((4, 4), np.float32)
    values[0, 3] = 1
    shown = np.asarray(heat(Image.new("RGB", (200, 100), (130, 130, 130)), values, 0, 1), np.float32)
    assert shown.shape == (PANEL // 2, PANEL, 3)
    bright = lightness(shown)
    row, column = np.unravel_index(bright.argmax(), bright.shape)
    assert row < PANEL / 8 and column > PANEL * 3 / 4
    assert bright[-1, 0] < 35 < bright[row, column] - 20


@pytest.mark.parametrize("size", [(64, 64), (800, 200), (3, 900), (1, 1)])
def test_pictures_of_any_shape(size: tuple[int, int]) -> None:
    a, b = features(1, tokens=16), features(2, tokens=16)
    drawing = draw_agreement(
        Image.new("RGB", size, "red"), random_picture(2), agreement([a], [b], [1.0]), "日本語 " * 90
    )
    assert drawing.mode == "RGB"
    box = panel(Image.new("RGB", (PANEL, PANEL)), Image.new("RGB", size), 0, 0)
    assert max(box[2] - box[0], box[3] - box[1]) == PANEL


def test_numbers_stand_where_the_regions_are() -> None:
    region = Region(0, 3, 0.9, torch.zeros(4, 4), (3, 0))
    flat = torch.full((4, 4), 0.5)
    white = Image.new("RGB", (100, 100), "white")
    marked = np.asarray(draw_agreement(white, white, why_of(flat, flat, region), ""), np.int16)
    plain = np.asarray(draw_agreement(white, white, why_of(flat, flat), ""), np.int16)
    rows, columns = np.nonzero(np.abs(marked - plain).sum(2))
    pictures = rows > 150  # below the captions, which differ too
    rows, columns = rows[pictures], columns[pictures]
    left = columns < MARGIN + PANEL
    cell = PANEL / 4
    assert columns[left].min() > MARGIN + 3 * cell and rows[left].max() < 150 + cell
    assert rows[~left].min() > 120 + 3 * cell and columns[~left].max() < 2 * PANEL


def test_a_picture_and_itself_is_one_bright_colour() -> None:
    a = features(1, tokens=16)
    why = agreement([a], [a], [1.0])
    assert colour_range(why) == pytest.approx((0.9, 1))
    shown = np.asarray(heat(Image.new("RGB", (64, 64), "grey"), why.a_from_b.numpy(), 0.9, 1), np.float32)
    assert lightness(shown).min() > 70
