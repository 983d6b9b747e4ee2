"""A sweep as curves: figure against timestep, a panel for each layer, a line with its 95 % interval for each size."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import QueryError
from ..outputs import MARK, check_output, write_output
from .sweep import Setting

# Okabe and Ito's colours, which colour-blind people can distinguish, each with its own marker.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_GREY = "#BBBBBB"
_ACROSS = 4
"""Panels in a row."""

Figures = dict[tuple[str, int, int], dict[str, Any]]
"""By layer, size and timestep: value, low and high in 0..1."""


class CannotPlot(QueryError):
    """The curves cannot be drawn."""


def check_plot(path: Path, *, force: bool = False) -> None:
    """Check that the plot can be written, before the work is done. Raises CannotPlot, CannotWrite."""
    check_output(path, (".png", ".svg"), force=force)
    if importlib.util.find_spec("matplotlib") is None:
        raise CannotPlot("A plot needs one more package: pip install 'diffsim-search[plot]'.")


def draw_curves(
    path: Path, points: Sequence[Setting], figures: Sequence[dict[str, Any]], name: str, title: str
) -> None:
    """Write a PNG or SVG. figures: of each point, with value, low and high in 0..1; name: of the figure.

    If there is only one timestep, the layers are the horizontal axis of a single panel.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # not pyplot: no window and no global state

    found = {(point.layer, point.size, point.timestep): figure for point, figure in zip(points, figures, strict=True)}
    with rc_context({"svg.hashsalt": "diffsim", "font.size": 9}):
        sheet = Figure(layout="constrained", facecolor="white")
        panel = (
            _by_layer(sheet, found) if len({point.timestep for point in points}) == 1 else _by_timestep(sheet, found)
        )
        sheet.supylabel(f"{name}, %", fontsize=9)
        sheet.suptitle(title, x=0.01, ha="left", fontsize=11)
        sheet.legend(*panel.get_legend_handles_labels(), loc="outside upper right", frameon=False, ncols=_ACROSS)
        svg = path.suffix.lower() == ".svg"
        metadata = {"Date": None, "Title": MARK} if svg else {"Software": MARK}
        write_output(path, lambda part: sheet.savefig(part, dpi=130, metadata=metadata))


def _by_timestep(sheet: Any, found: Figures) -> Any:
    """A panel for each layer: the intervals of many layers in one panel would hide each other. With one size, the other
    layers' lines are drawn behind in grey."""
    layers, sizes, timesteps = (list(dict.fromkeys(column)) for column in zip(*found, strict=True))
    across = min(_ACROSS, len(layers))
    down = -(-len(layers) // across)
    sheet.set_size_inches(max(5.5, 0.6 + 2.6 * across), 1.0 + 2.1 * down)
    panels = sheet.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, layer in zip(panels, layers, strict=False):
        for other in layers if len(sizes) == 1 else []:
            behind = _per_cent([found[other, sizes[0], one] for one in timesteps])[1]
            panel.plot(timesteps, behind, color=_GREY, linewidth=0.7)
        for number, size in enumerate(sizes):
            _line(panel, timesteps, [found[layer, size, one] for one in timesteps], number, size)
        panel.set_title(layer, fontsize=9)
    for panel in panels[len(layers) :]:
        panel.set_visible(False)
    for panel in panels[max(0, len(layers) - across) : len(layers)]:  # the lowest of each column
        panel.tick_params(labelbottom=True)
    grey = "; grey: the other layers" if len(sizes) == 1 < len(layers) else ""
    sheet.supxlabel(f"DDPM timestep (larger is noisier); band: 95 % interval{grey}", fontsize=9)
    return panels[0]


def _by_layer(sheet: Any, found: Figures) -> Any:
    layers, sizes, timesteps = (list(dict.fromkeys(column)) for column in zip(*found, strict=True))
    sheet.set_size_inches(3.6 + 0.35 * len(layers), 4.2)
    panel = sheet.subplots()
    for number, size in enumerate(sizes):
        _line(panel, range(len(layers)), [found[layer, size, timesteps[0]] for layer in layers], number, size)
    panel.set_xticks(range(len(layers)), layers, rotation=60, ha="right", rotation_mode="anchor")
    sheet.supxlabel(f"layer, at timestep {timesteps[0]}; band: 95 % interval", fontsize=9)
    return panel


def _line(panel: Any, across: Sequence[int], figures: Sequence[dict[str, Any]], number: int, size: int) -> None:
    """Draw one size's figures and their intervals."""
    colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
    low, value, high = _per_cent(figures)
    panel.fill_between(across, low, high, color=colour, alpha=0.2, linewidth=0)
    panel.plot(across, value, color=colour, marker=marker, markersize=4, label=f"{size} px")
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _per_cent(figures: Sequence[dict[str, Any]]) -> list[list[float]]:
    """Lower ends, values and upper ends; without an interval, the value itself."""
    return [
        [100 * (figure["value"] if figure[name] is None else figure[name]) for figure in figures]
        for name in ("low", "value", "high")
    ]
