"""A sweep as curves: figure against timestep, a line for each layer, its 95 % interval, a panel for each size."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval.errors import RetrievalError

from .sweep import Setting

# Okabe and Ito's colours, told apart by colour-blind eyes too; without the yellow, which is too light for a line.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", ":", "-.")


class CannotPlot(RetrievalError):
    """The curves cannot be drawn as asked."""


def check_plot(path: Path) -> None:
    """Raises CannotPlot, so that it is known before the work is done."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise CannotPlot(f"The plot {path} is neither .png nor .svg; name such a file.")
    if not path.parent.is_dir():
        raise CannotPlot(f"The folder of the plot {path} is not there; make it, or name another file.")
    if importlib.util.find_spec("matplotlib") is None:
        raise CannotPlot("A plot needs one more package: pip install 'diffsim-search[plot]'.")


def draw_curves(
    path: Path, points: Sequence[Setting], figures: Sequence[dict[str, Any]], name: str, title: str
) -> None:
    """Write a PNG or SVG. figures: of each point, with value, low and high in 0..1. Where there is one timestep only,
    the layers themselves are the horizontal axis. Raises CannotPlot."""
    check_plot(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # without pyplot: no window, and nothing global

    layers, sizes, timesteps = (
        list(dict.fromkeys(getattr(point, of) for point in points)) for of in ("layer", "size", "timestep")
    )
    place = {(point.layer, point.size, point.timestep): figure for point, figure in zip(points, figures, strict=True)}
    with rc_context({"svg.hashsalt": "diffsim", "font.size": 10}):
        sheet = Figure(figsize=(1.5 + 5.0 * len(sizes) + 2.0, 4.6), layout="constrained", facecolor="white")
        panels = sheet.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
        for panel, size in zip(panels, sizes, strict=True):
            panel.set_title(f"{size} px", loc="left", fontsize=10)
            panel.grid(alpha=0.25)
            panel.spines[["top", "right"]].set_visible(False)
            if len(timesteps) == 1:
                _by_layer(panel, layers, [place[layer, size, timesteps[0]] for layer in layers])
                continue
            for number, layer in enumerate(layers):
                _by_timestep(panel, number, layer, timesteps, [place[layer, size, one] for one in timesteps])
            panel.set_xlabel("DDPM timestep (larger is noisier)")
            panel.set_xticks(timesteps)
            panel.tick_params(axis="x", labelrotation=90 if len(timesteps) > 8 else 0)
        panels[0].set_ylabel(f"{name}, %  (band: 95 % interval)")
        sheet.suptitle(title, x=0.01, ha="left", fontsize=11)
        if len(timesteps) > 1:
            handles, labels = panels[0].get_legend_handles_labels()
            sheet.legend(handles, labels, loc="outside right upper", frameon=False, title="layer", alignment="left")
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
        sheet.savefig(path, dpi=130, metadata=metadata)


def _by_timestep(panel: Any, number: int, layer: str, timesteps: Sequence[int], figures: Sequence[Any]) -> None:
    colour = _COLOURS[number % len(_COLOURS)]
    dash = _DASHES[number // len(_COLOURS) % len(_DASHES)]
    marker = _MARKERS[number % len(_MARKERS)]
    low, value, high = _per_cent(figures)
    panel.fill_between(timesteps, low, high, color=colour, alpha=0.10, linewidth=0)
    panel.plot(timesteps, value, color=colour, linestyle=dash, marker=marker, markersize=5, label=layer)


def _by_layer(panel: Any, layers: Sequence[str], figures: Sequence[Any]) -> None:
    low, value, high = _per_cent(figures)
    places = range(len(layers))
    panel.fill_between(places, low, high, color=_COLOURS[0], alpha=0.15, linewidth=0)
    panel.plot(places, value, color=_COLOURS[0], marker=_MARKERS[0], markersize=5)
    panel.set_xticks(places, layers, rotation=60, ha="right", rotation_mode="anchor")


def _per_cent(figures: Sequence[dict[str, Any]]) -> list[list[float]]:
    """Lower ends, values and upper ends; a figure without an interval is its own."""
    return [
        [100 * (figure["value"] if figure[name] is None else figure[name]) for figure in figures]
        for name in ("low", "value", "high")
    ]
