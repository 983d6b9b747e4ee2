"""Which of the training's objectives earn their place? Train the bundled network's recipe without each of them.

    python benchmarks/ablation.py OUT/train.csv ablation --steps 150
    python benchmarks/quality.py OUT --only style/triplets --space ablation/all/up_blocks.0.attentions.1@t51 ...

The table is what questions.py made. Every variant is trained from the same initial weights on the same batches, and is
written as a model folder of its name below the folder; those that are there are left alone. The pictures' features are
computed once, into `features` beside them. A variant's layers are then asked alone, without the encoder's, so that the
answers are those of what was trained.
"""

from dataclasses import replace
from pathlib import Path

import click
import torch

from diffsim.retrieval.training.encoded import encode_pictures
from diffsim.retrieval.training.model_folder import export
from diffsim.retrieval.training.pictures import read_pictures
from diffsim.retrieval.training.recipe import Recipe
from diffsim.retrieval.training.trainer import Trainer

VARIANTS: dict[str, dict[str, float]] = {
    "all": {},
    "without-keeping": {"keep_weight": 0.0},
    "without-denoising": {"denoising_weight": 0.0},
    "without-contrast": {"contrast_weight": 0.0},
    "denoising-alone": {"contrast_weight": 0.0, "keep_weight": 0.0},
}
"""What is changed in the recipe."""


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n", 1))
@click.argument("table", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--steps", type=click.IntRange(min=1), default=150, show_default=True, help="Training steps of each.")
def main(table: Path, out: Path, steps: int) -> None:
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    pictures, recipe = read_pictures(table), Recipe(steps=steps)
    encoded = encode_pictures(pictures, recipe, out / "features", "cpu")
    for name, changed in VARIANTS.items():
        if (out / name / "model_index.json").exists():
            continue
        trainer = Trainer(replace(recipe, **changed), pictures, encoded)
        while trainer.step < steps:
            losses = trainer.train_step().values()
            if trainer.step % 25 == 0:
                click.echo(f"{name}: step {trainer.step}, {trainer.seconds:.0f} s, losses {losses}", err=True)
        export(trainer, out / name)


if __name__ == "__main__":
    main()
