"""A whole run: from a table of pictures to a model folder, with a log, checkpoints and snapshots."""

from __future__ import annotations

import csv
from dataclasses import fields
from pathlib import Path

from .curve import draw_losses
from .encoded import encode_pictures
from .model_folder import export
from .pack import unpacked
from .pictures import read_pictures
from .recipe import Recipe
from .trainer import Losses, Trainer

_LOG_EVERY = 25
_CHECKPOINT_EVERY = 100


def train(
    table: Path,
    out: Path,
    recipe: Recipe,
    *,
    until: int | None = None,
    snapshots: int = 0,
    resume: bool = False,
    device: str = "cpu",
) -> Trainer:
    """Train for `recipe.steps` steps, or only to step `until` of them, and write the model folder OUT.

    table: see `read_pictures`, or a packed set. snapshots: also write OUT.step-N at this interval of steps. Raises
    TrainingError, BadNetwork.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = {
        kind: out.with_name(f"{out.name}.{kind}")
        for kind in ("pictures", "features", "checkpoint.pt", "loss.csv", "loss.png")
    }
    pictures = read_pictures(unpacked(table, beside["pictures"]))
    trainer = Trainer(recipe, pictures, encode_pictures(pictures, recipe, beside["features"], device), device)
    if resume:
        trainer.load_checkpoint(beside["checkpoint.pt"])
    kept = _log_until(beside["loss.csv"], trainer.step) if resume else []
    with beside["loss.csv"].open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([["step", "seconds", *(field.name for field in fields(Losses))], *kept])
        seen: list[list[float]] = []
        while trainer.step < (recipe.steps if until is None else until):
            seen.append(trainer.train_step().values())
            if trainer.step % _LOG_EVERY == 0:
                means = [round(sum(column) / len(seen), 5) for column in zip(*seen, strict=True)]
                rows.writerow([trainer.step, round(trainer.seconds), *means])
                file.flush()
                seen.clear()
            if trainer.step % _CHECKPOINT_EVERY == 0:
                trainer.save_checkpoint(beside["checkpoint.pt"])
            if snapshots and trainer.step % snapshots == 0:
                export(trainer, out.with_name(f"{out.name}.step-{trainer.step}"))
    trainer.save_checkpoint(beside["checkpoint.pt"])
    export(trainer, out)
    draw_losses(beside["loss.csv"], beside["loss.png"])
    return trainer


def _log_until(log: Path, step: int) -> list[list[str]]:
    """The log up to a checkpoint's step; a run that was killed may have logged more."""
    with log.open(newline="") as file:
        return [row for row in list(csv.reader(file))[1:] if int(row[0]) <= step]
