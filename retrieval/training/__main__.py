"""The command: python -m diffsim.retrieval.training TABLE --out MODEL"""

from pathlib import Path

import click
import torch

from ..errors import RetrievalError
from .recipe import Recipe
from .run import train


@click.command()
@click.argument("table", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Model folder to write.")
@click.option("--steps", type=click.IntRange(min=1), default=Recipe.steps, show_default=True, help="Training steps.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of weights, crops, filters and noise.")
@click.option("--snapshots", type=click.IntRange(min=0), default=0, help="Also write OUT.step-N every N steps.")
@click.option("--resume", is_flag=True, help="Continue from the checkpoint beside OUT.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
def main(
    table: Path, out: Path, steps: int, seed: int, snapshots: int, resume: bool, device: str, threads: int
) -> None:
    """Train on the pictures of TABLE and write a model folder that `diffsim index --model` accepts.

    TABLE is a CSV with the columns file (relative to TABLE's folder), collection, style and subject; style and subject
    may be empty. Or it is what `python -m diffsim.retrieval.training.pack` made of one, to be trained on elsewhere; it
    is unpacked into OUT.pictures. Every collection has the same share. On a GPU the network runs in bfloat16. Beside
    OUT, it writes OUT.features (the encoder's features of all pictures), OUT.loss.csv, a plot of it (OUT.loss.png, with
    matplotlib) and OUT.checkpoint.pt, from which --resume continues to the same weights.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("PyTorch finds no CUDA device here; use --device cpu.")
    torch.set_num_threads(threads)
    recipe = Recipe(steps=steps, seed=seed)
    try:
        trainer = train(table, out, recipe, snapshots=snapshots, resume=resume, device=device)
    except RetrievalError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{trainer.step} steps in {trainer.seconds / 60:.1f} min: {out}", err=True)


if __name__ == "__main__":
    main()
