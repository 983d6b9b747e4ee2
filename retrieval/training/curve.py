"""The log of a training run as a plot."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

_PANELS = {
    "denoising": "denoising error",
    "subject": "same subject, by the score",
    "style": "same style, by the score",
    "keeping": "departure from the encoder",
}


def draw_losses(log: Path, out: Path) -> bool:
    """Write a PNG with a panel for each loss over the steps; returns False, and writes nothing, without matplotlib or
    if the log is still empty."""
    with log.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure  # not pyplot: no window and no global state

    steps = [int(row["step"]) for row in rows]
    sheet = Figure(figsize=(11, 2.8), layout="constrained", facecolor="white")
    for axes, (column, title) in zip(sheet.subplots(1, len(_PANELS)), _PANELS.items(), strict=True):
        axes.plot(steps, [float(row[column]) for row in rows], color="#0072B2")
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel(f"step, {int(rows[-1]['seconds']) / 60:.0f} min in all", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#E5E5E5")
    sheet.savefig(out, dpi=120)
    return True
