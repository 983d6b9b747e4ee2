"""What does a picture cost in each kind of network, at full size? Random weights, so that nothing need be downloaded.

    python benchmarks/full_size.py                     (all of NETWORKS, on the CPU)
    python benchmarks/full_size.py sd15 dinov2-small

For each network, one after the other and in a process of its own: make its folder (temporary, as large as the real
one), load it, make the space of its preset's profile, extract two pictures one at a time, index two and ask with one
that is not indexed, all with the preset's own settings. A multiplication with its addition counts as two operations.
The scores mean nothing.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import full_size_networks as makers
import numpy as np
import torch
from kills import in_child
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffsim.retrieval.extractor import Extractor, make_space
from diffsim.retrieval.families import known_families, load_network


@dataclass(frozen=True)
class Measured:
    """make: makes the folder. preset: whose settings and profile are measured. adapter: with variant C."""

    make: makers.Make
    preset: str
    profile: str = "style"
    dtype: str = "float32"
    adapter: bool = False


NETWORKS = {
    "clip-vit-b32": Measured(makers.of_transformers("CLIPModel", makers.CLIP_B32), "clip-vit-b32"),
    "dinov2-small": Measured(makers.of_transformers("Dinov2Model", makers.DINOV2_SMALL), "dinov2-small"),
    "dinov2-base": Measured(makers.of_transformers("Dinov2Model", makers.DINOV2_BASE), "dinov2-base"),
    "siglip-base": Measured(makers.of_transformers("SiglipModel", makers.SIGLIP_B16), "siglip-base"),
    "dit-xl-2-256": Measured(makers.make_dit, "dit-xl-2-256"),
    "sd15": Measured(makers.make_sd15, "sd15"),
    "sd15-C": Measured(makers.make_sd15_with_adapter, "sd15", adapter=True),
    "cleandift-sd15": Measured(makers.make_sd15, "cleandift-sd15"),
    "sd21": Measured(makers.make_sd21, "sd21"),
    "cleandift-sd21": Measured(makers.make_sd21, "cleandift-sd21"),
    "sdxl": Measured(makers.make_sdxl, "sdxl", dtype="bfloat16"),
    "sdxl-C": Measured(makers.make_sdxl_with_adapter, "sdxl", dtype="bfloat16", adapter=True),
}


def measure(name: str) -> None:
    """One network, start to end; prints a line for each step."""
    what = NETWORKS[name]
    preset = known_families().presets[what.preset]
    (tap,) = preset.profiles[what.profile]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        # In a child, because the memory that making it takes is not what using it takes.
        _, status = os.waitpid(in_child(lambda: what.make(folder)), 0)
        if status:
            raise click.ClickException(f"The network {name} could not be made.")
        disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        click.echo(
            f"{name}: {disk / 1e9:.2f} GB, {tap} at {preset.size} px, {what.dtype}, load {os.getloadavg()[0]:.1f}"
        )
        adapter = str(folder) if what.adapter else ""

        started = time.perf_counter()
        network = load_network(folder, what.dtype, "cpu", adapter)
        click.echo(f"  load             {time.perf_counter() - started:7.2f} s, weights hashed")
        kit = make_space(network, preset.settings((tap,), variant=network.variants[0], dtype=what.dtype))
        extractor = Extractor(network, [kit])
        pixels = np.random.default_rng(0).integers(0, 256, (3, preset.size, preset.size, 3), np.uint8)
        extractor.extract(pixels[:1])  # the first pass is slower
        for picture in pixels[1:]:
            started, computed = time.perf_counter(), time.process_time()
            ((features,),) = extractor.extract(picture[None])
            passed = time.perf_counter() - started
            click.echo(f"  extract, picture {passed:7.2f} s ({time.process_time() - computed:.2f} s of a core)")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        click.echo(f"  peak memory      {peak / 1e9:7.2f} GB")
        click.echo(
            f"  record           {len(features.tokens) / 1e3:7.0f} KB ({kit.settings.tier}), "
            f"descriptor {len(features.descriptor)} numbers"
        )
        # As plain matrix products, because the counter does not know the CPU's fused attention.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            extractor.extract(pixels[:1])
        click.echo(f"  operations       {counter.get_total_flops() / 1e12:7.4f} TFLOP a picture, its own map included")
        del network, extractor
        layer = f"{tap.module}@{tap.timestep}"
        more = ("--ip-adapter", adapter) if adapter else ()
        settings = ("--dtype", what.dtype, "--layer", layer, "--noises", str(preset.noises), "--size", str(preset.size))
        whole_command(("--model", folder, *settings, *more), pixels)


def whole_command(model: tuple[str | Path, ...], pixels: np.ndarray) -> None:
    """Index two pictures and ask with a third, by the real command."""
    command = Path(sys.executable).with_name("diffsim")
    with tempfile.TemporaryDirectory() as scratch:
        gallery, index = Path(scratch) / "gallery", Path(scratch) / "index"
        gallery.mkdir()
        for number, picture in enumerate(pixels):
            Image.fromarray(picture).save((gallery if number else gallery.parent) / f"{number}.png")
        for title, arguments in (
            ("index 2 pictures", ("index", gallery, *model)),
            ("query          ", ("query", gallery.parent / "0.png")),
        ):
            started = time.perf_counter()
            done = subprocess.run([command, *arguments, "--index", index], check=False, capture_output=True, text=True)
            if done.returncode:
                raise click.ClickException(done.stderr)
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
