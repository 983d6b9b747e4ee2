"""A whole run: from folders of pictures to a model folder, with a log, checkpoints and snapshots."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from pathlib import Path

from .curve import draw_losses
from .model_folder import export, start_from
from .pictures import read_pictures
from .recipe import Recipe
from .trainer import Trainer

_LOG_EVERY = 50
_CHECKPOINT_EVERY = 250


def train(
    folders: Sequence[Path],
    out: Path,
    recipe: Recipe,
    *,
    until: int | None = None,
    without: Collection[Path] = (),
    snapshots: int = 0,
    start: Path | None = None,
    resume: bool = False,
    device: str = "cpu",
) -> Trainer:
    """Train for `recipe.steps` steps, or only to step `until` of them, and write the model folder OUT.

    without: pictures (resolved paths) to leave out. snapshots: also write OUT.step-N at this interval of steps.
    start: a model folder whose weights to start from. Raises TrainingError.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = {
        kind: out.with_name(f"{out.name}.{kind}") for kind in ("pictures.npy", "checkpoint.pt", "loss.csv", "loss.png")
    }
    pictures = read_pictures(folders, recipe.cached_size, beside["pictures.npy"], without)
    trainer = Trainer(recipe, pictures, device)
    if start is not None:
        start_from(trainer, start)
    if resume:
        trainer.load_checkpoint(beside["checkpoint.pt"])
    kept = _log_until(beside["loss.csv"], trainer.step) if resume else []
    with beside["loss.csv"].open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([["step", "seconds", "denoising", "subject", "style"], *kept])
        seen: list[list[float]] = []
        while trainer.step < (recipe.steps if until is None else until):
            losses = trainer.train_step()
            seen.append([float(loss.detach()) for loss in (losses.denoising, losses.subject, losses.style)])
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
