"""What do networks of full size cost? Random weights in the real layout, so that nothing need be downloaded.

    python benchmarks/full_size.py                     (all of NETWORKS, on the CPU)
    python benchmarks/full_size.py clip-vit-b32 dinov2-small

For each network, in a process of its own: make its folder (temporary, as large as the real one), load it, make the
space of its preset, extract two pictures one at a time, index three and ask with one that is not indexed, all with the
preset's own settings. A multiplication with its addition counts as two operations. The scores mean nothing.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import transformers
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.kills import in_child
from retrieval.extractor import Extractor, make_space
from retrieval.networks import load_network
from retrieval.presets import PRESETS

Make = Callable[[Path], None]

_BASE: dict[str, Any] = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
_SMALL: dict[str, Any] = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
_DINOV2: dict[str, Any] = {"image_size": 518, "patch_size": 14, "mlp_ratio": 4}
_CLIP_B32: dict[str, Any] = {"projection_dim": 512, "vision_config": _BASE | {"patch_size": 32, "projection_dim": 512}}
_SIGLIP_B16: dict[str, Any] = {
    "vision_config": _BASE | {"intermediate_size": 3072, "image_size": 224, "patch_size": 16}
}


def of_transformers(name: str, settings: dict[str, Any]) -> Make:
    """Makes a network of a class of transformers."""

    def make(folder: Path) -> None:
        torch.manual_seed(0)
        kind = getattr(transformers, name)
        kind(kind.config_class(**settings)).save_pretrained(folder)

    return make


NETWORKS: dict[str, tuple[Make, str, str]] = {
    "clip-vit-b32": (of_transformers("CLIPModel", _CLIP_B32), "look", "float32"),
    "dinov2-small": (of_transformers("Dinov2Model", _SMALL | _DINOV2), "look", "float32"),
    "dinov2-base": (of_transformers("Dinov2Model", _BASE | _DINOV2), "look", "float32"),
    "siglip-base": (of_transformers("SiglipModel", _SIGLIP_B16), "look", "float32"),
}
"""By preset: how to make its folder, the profile that is asked, the precision."""


def measure(name: str) -> None:
    """One network, start to end; prints a line for each step."""
    make, profile, dtype = NETWORKS[name]
    preset = PRESETS[name]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        # In a child, because the memory that making it takes is not what using it takes.
        _, status = os.waitpid(in_child(lambda: make(folder)), 0)
        if status:
            raise click.ClickException(f"The network {name} could not be made.")
        disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        click.echo(
            f"{name}: {disk / 1e6:,.0f} MB, {profile} at {preset.size} px, {dtype}, load {os.getloadavg()[0]:.1f}"
        )

        started = time.perf_counter()
        network = load_network(folder, dtype, "cpu")
        click.echo(f"  load             {time.perf_counter() - started:7.2f} s")
        kit = make_space(
            network,
            [preset.profiles[profile]],
            size=preset.size,
            prompt=preset.prompt,
            noises=preset.noises,
            fit=preset.fit_at(preset.size),
            dtype=dtype,
        )
        extractor = Extractor(network, [kit])
        pixels = np.random.default_rng(0).integers(0, 256, (4, preset.size, preset.size, 3), np.uint8)
        extractor.extract(pixels[:1])  # the first pass is slower
        for number in (1, 2):
            started = time.perf_counter()
            ((features,),) = extractor.extract(pixels[number : number + 1])
            click.echo(f"  extract, picture {time.perf_counter() - started:7.3f} s")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        click.echo(f"  peak memory      {peak / 1e9:7.2f} GB")
        click.echo(
            f"  record           {len(features.tokens) / 1e3:7.0f} KB ({kit.space.tier}), "
            f"descriptor {len(features.descriptor)} numbers"
        )
        # As plain matrix products, because the counter does not know the CPU's fused attention.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            extractor.extract(pixels[:1])
        click.echo(f"  operations       {counter.get_total_flops() / 1e9:7.2f} GFLOP a picture, its own map included")
        whole_command(folder, profile, dtype, pixels)


def whole_command(folder: Path, profile: str, dtype: str, pixels: np.ndarray) -> None:
    """Index three pictures and ask with a fourth, by the real command."""
    command = Path(sys.executable).with_name("diffsim")
    with tempfile.TemporaryDirectory() as scratch:
        gallery, index = Path(scratch) / "gallery", Path(scratch) / "index"
        gallery.mkdir()
        for number, picture in enumerate(pixels):
            Image.fromarray(picture).save((gallery if number else gallery.parent) / f"{number}.png")
        model = ("--model", folder, "--by", profile, "--dtype", dtype)
        for title, arguments in (
            ("index 3 pictures", ("index", gallery, *model)),
            ("query          ", ("query", gallery.parent / "0.png")),
        ):
            started = time.perf_counter()
            subprocess.run([command, *arguments, "--index", index], check=True, capture_output=True)
            click.echo(f"  {title} {time.perf_counter() - started:7.2f} s, new process")


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(NETWORKS)))
@click.option("--here", is_flag=True, hidden=True, help="Measure in this process.")
def main(names: tuple[str, ...], here: bool) -> None:
    """Load, extract, index and ask with networks of full size."""
    if here:
        measure(names[0])
        return
    click.echo(f"{torch.get_num_threads()} threads")
    for name in names or NETWORKS:
        subprocess.run([sys.executable, __file__, "--here", name], check=True)


if __name__ == "__main__":
    main()
