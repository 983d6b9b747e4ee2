"""What does it cost to extract one picture with a network of the full Stable Diffusion 1.5 shape?

    python benchmarks/extraction.py FOLDER

On the CPU: operations, time, memory, and the whole command; on a GPU, gpu.py measures. FOLDER gets the network (random
weights, 4.3 GB) the first time. Ours is Extractor.extract at the preset's layer; the
released way is what DiffSim's scripts do for each picture: encode prompt and negative prompt, sample from the
autoencoder, run the whole U-Net over both guidance branches. Both run the same weights in the same precision, in turn.
"""

import os
import resource
import statistics
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
from full_size_networks import make_sd15
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextModel, CLIPTokenizer

from diffsim.retrieval.extractor import Extractor, make_space
from diffsim.retrieval.families import known_families, load_network
from diffsim.retrieval.settings import SpaceSettings

PROMPT = known_families().presets["sd15"].prompt
TAP = known_families().presets["sd15"].profiles["style"][0]
WAYS = ("ours", "released")


def pictures(count: int, size: int) -> np.ndarray:
    """uint8 [count, size, size, 3]."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def ways(folder: Path, dtype: str, size: int, only: str | None) -> dict[str, Callable[[np.ndarray], Any]]:
    """Each way as a function of pixels; with `only`, nothing else is loaded."""
    network = load_network(folder, dtype, "cpu")
    found: dict[str, Callable[[np.ndarray], Any]] = {}
    if only != "released":
        kit = make_space(network, SpaceSettings((TAP,), size, prompt=PROMPT, dtype=dtype))
        found["ours"] = Extractor(network, [kit]).extract
    if only == "ours":
        return found
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder").to(network.dtype).eval()

    def released(pixels: np.ndarray) -> torch.Tensor:
        with torch.inference_mode():
            words = tokenizer(["", PROMPT], padding="max_length", max_length=77, truncation=True, return_tensors="pt")
            prompts = encoder(words.input_ids)[0].repeat_interleave(len(pixels), 0)
            x = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(network.dtype) / 127.5 - 1
            latents = network.latents.scaled(network.latents.autoencoder.encode(x).latent_dist.sample())
            noisy = network.latents.noised(latents, torch.randn_like(latents), TAP.timestep)
            return network.unet(torch.cat([noisy, noisy]), TAP.timestep, encoder_hidden_states=prompts).sample

    return {**found, "released": released}


def teraflop(work: Callable[[np.ndarray], Any], size: int) -> float:
    """Operations for one picture in units of 10^12, a multiplication with its addition counted as two.

    Attention is made to run as plain matrix products meanwhile, because the counter does not know the CPU's fused one.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work(pictures(1, size))
    return counter.get_total_flops() / 1e12


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(folder: Path, dtype: str, size: int, rounds: int) -> None:
    """Operations and time, one picture at a time."""
    both = ways(folder, dtype, size, None)
    counted = {name: teraflop(both[name], size) for name in WAYS}
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    for picture in pictures(rounds, size):
        for name in WAYS:
            taken[name].append(seconds(lambda name=name, picture=picture: both[name](picture[None])))
    for name in WAYS:
        middle = statistics.median(taken[name])
        spread = f"{min(taken[name]):.2f}-{max(taken[name]):.2f}"
        click.echo(f"{name:9} {counted[name]:.4g} TFLOP, {middle:.2f} s a picture ({spread})")
    ratio = statistics.median(taken["released"]) / statistics.median(taken["ours"])
    click.echo(f"released / ours: operations {counted['released'] / counted['ours']:.2f}, time {ratio:.2f}")


def report_memory(folder: Path, dtype: str, size: int, only: str) -> None:
    """Peak resident memory of a process that loads what one way needs and extracts two pictures."""
    work = ways(folder, dtype, size, only)[only]
    for picture in pictures(2, size):
        work(picture[None])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    click.echo(f"{only:9} peak memory {peak / 1e9:.2f} GB")


def whole_command(folder: Path, size: int) -> None:
    """Load, extract, index and answer with the real command."""
    command = Path(sys.executable).with_name("diffsim")
    with tempfile.TemporaryDirectory() as scratch:
        gallery, index = Path(scratch) / "gallery", Path(scratch) / "index"
        gallery.mkdir()
        for number, picture in enumerate(pictures(4, size)):
            Image.fromarray(picture).save((gallery if number else gallery.parent) / f"{number}.png")
        for title, arguments in (
            ("index 3 pictures", ("index", gallery, "--model", folder, "--by", "style", "--size", str(size))),
            ("query, indexed picture", ("query", gallery / "1.png")),
            ("query, other picture", ("query", gallery.parent / "0.png")),
        ):
            started = time.perf_counter()
            subprocess.run([command, *arguments, "--index", index], check=True, capture_output=True)
            click.echo(f"diffsim {title}: {time.perf_counter() - started:.1f} s")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--dtype", default="float32", show_default=True)
@click.option("--size", default=512, show_default=True, help="Side of the pictures, pixels.")
@click.option("--rounds", default=4, show_default=True, help="Pictures for each way.")
@click.option("--memory-of", type=click.Choice(WAYS), help="Only report the peak memory of one way.")
def main(folder: Path, dtype: str, size: int, rounds: int, memory_of: str | None) -> None:
    """Our extraction against the released way, at the full size of Stable Diffusion 1.5."""
    if not (folder / "model_index.json").exists():
        click.echo("Making the network ...", err=True)
        make_sd15(folder)
    if memory_of:
        report_memory(folder, dtype, size, memory_of)
        return
    click.echo(f"{size} px, {dtype}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    compare(folder, dtype, size, rounds)
    for way in WAYS:
        again = [sys.executable, __file__, str(folder), "--dtype", dtype, "--size", str(size), "--memory-of", way]
        subprocess.run(again, check=True)
    whole_command(folder, size)


if __name__ == "__main__":
    main()
