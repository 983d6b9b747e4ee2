"""Write a network folder with a model's architecture and a U-Net of random weights: what do trained weights add?

    python benchmarks/random_network.py MODEL OUT --seed 0

MODEL is a preset or a folder; autoencoder, noise schedule and prompt (or its text encoder) are copied as they are. Use
OUT as the MODEL of a space with the layer, timestep and picture size of the space that it is compared with, for example
`OUT/up_blocks.1.attentions.1@t501@128px` beside `mini/style`.
"""

import shutil
from pathlib import Path

import click
import diffusers
import torch

from diffsim.retrieval.families import find_model


@click.command()
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True, help="Of the random weights.")
def main(model: str, out: Path, seed: int) -> None:
    """Write the folder OUT, which must be new."""
    if out.exists():
        raise click.UsageError(f"{out} is there already; name a new folder.")
    folder = find_model(model)
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns("unet"))
    torch.manual_seed(seed)
    config = diffusers.UNet2DConditionModel.load_config(folder / "unet")
    unet = diffusers.UNet2DConditionModel.from_config(config)
    unet.save_pretrained(out / "unet")
    click.echo(f"{sum(weight.numel() for weight in unet.parameters())} random weights in {out}", err=True)


if __name__ == "__main__":
    main()
