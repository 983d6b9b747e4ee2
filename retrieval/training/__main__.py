"""The command: python -m diffsim.retrieval.training FOLDER... --out MODEL"""

from pathlib import Path

import click
import torch

from ..errors import RetrievalError
from ..families import find_model
from .recipe import Recipe
from .run import train


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Model folder to write.")
@click.option("--steps", type=click.IntRange(min=1), default=Recipe.steps, show_default=True, help="Training steps.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of weights, crops, filters and noise.")
@click.option(
    "--without",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file that lists pictures not to train on, one path per line, relative to the file's folder.",
)
@click.option(
    "--from", "start", metavar="MODEL", help="Start from a network: mini, or a folder that this command wrote."
)
@click.option("--snapshots", type=click.IntRange(min=0), default=0, help="Also write OUT.step-N every N steps.")
@click.option("--resume", is_flag=True, help="Continue from the checkpoint beside OUT.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
def main(
    folders: tuple[Path, ...],
    out: Path,
    steps: int,
    seed: int,
    without: Path | None,
    start: str | None,
    snapshots: int,
    resume: bool,
    device: str,
    threads: int,
) -> None:
    """Train on the pictures in FOLDERS and write a model folder that `diffsim index --model` accepts.

    Each folder has the same share, and within it each subfolder. A name that is in several subfolders is treated as one
    subject in several styles. Beside OUT, it writes OUT.pictures.npy (the decoded pictures), OUT.loss.csv, a plot of it
    (OUT.loss.png, with matplotlib) and OUT.checkpoint.pt, from which --resume continues to the same weights.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("PyTorch finds no CUDA device here; use --device cpu.")
    torch.set_num_threads(threads)
    left_out = set()
    if without is not None:
        lines = without.read_text(encoding="utf-8").splitlines()
        left_out = {(without.parent / line).resolve() for line in lines if line}
    recipe = Recipe(steps=steps, seed=seed)
    try:
        trainer = train(
            folders,
            out,
            recipe,
            without=left_out,
            snapshots=snapshots,
            start=find_model(start) if start else None,
            resume=resume,
            device=device,
        )
    except RetrievalError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{trainer.step} steps in {trainer.seconds / 60:.1f} min: {out}", err=True)


if __name__ == "__main__":
    main()
