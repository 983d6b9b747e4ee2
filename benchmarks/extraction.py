"""What does it cost to extract one picture with a network of the full Stable Diffusion 1.5 shape?

    python benchmarks/extraction.py FOLDER                  (CPU, float32: operations, time, memory, the whole command)
    python benchmarks/extraction.py FOLDER --device cuda --dtype bfloat16

FOLDER gets the network (random weights, 4.3 GB) the first time. Ours is Extractor.extract at the preset's layer; the
released way is what DiffSim's scripts do for each picture: encode prompt and negative prompt, sample from the
autoencoder, run the whole U-Net over both guidance branches. Both run the same weights in the same precision, in turn.
"""

import json
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
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffsim.retrieval.extractor import Extractor, make_space
from diffsim.retrieval.families import known_families, load_network
from diffsim.retrieval.settings import SpaceSettings
from diffsim.retrieval.shard.rerank import score_records
from diffsim.retrieval.tiers import decode_tokens

PROMPT = known_families().presets["sd15"].prompt
TAP = known_families().presets["sd15"].profiles["style"]
SIZE = 512
WAYS = ("ours", "released")


def make_network(folder: Path) -> None:
    """Stable Diffusion 1.5 with random weights, in the diffusers layout."""
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=64, block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        sample_size=512,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).save_pretrained(folder / "vae")
    text = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768
    )
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    letters = sorted(ByteLevel.alphabet())  # a vocabulary of single letters: the padded length is what costs
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "tokenizer").mkdir(exist_ok=True)
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({word: row for row, word in enumerate(words)}))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))


def pictures(count: int) -> np.ndarray:
    """uint8 [count, SIZE, SIZE, 3]."""
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def ways(folder: Path, dtype: str, device: str, only: str | None) -> dict[str, Callable[[np.ndarray], Any]]:
    """Each way as a function of pixels; with `only`, nothing else is loaded."""
    network = load_network(folder, dtype, device)
    found: dict[str, Callable[[np.ndarray], Any]] = {}
    if only != "released":
        kit = make_space(network, SpaceSettings((TAP,), SIZE, prompt=PROMPT, dtype=dtype))
        found["ours"] = Extractor(network, [kit]).extract
    if only == "ours":
        return found
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder").to(device, network.dtype).eval()

    def released(pixels: np.ndarray) -> torch.Tensor:
        with torch.inference_mode():
            words = tokenizer(["", PROMPT], padding="max_length", max_length=77, truncation=True, return_tensors="pt")
            prompts = encoder(words.input_ids.to(device))[0].repeat_interleave(len(pixels), 0)
            x = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).to(network.dtype) / 127.5 - 1
            latents = network.latents.scaled(network.latents.autoencoder.encode(x).latent_dist.sample())
            noisy = network.latents.noised(latents, torch.randn_like(latents), TAP.timestep)
            return network.unet(torch.cat([noisy, noisy]), TAP.timestep, encoder_hidden_states=prompts).sample.cpu()

    return {**found, "released": released}


def teraflop(work: Callable[[np.ndarray], Any]) -> float:
    """Operations for one picture in units of 10^12, a multiplication with its addition counted as two.

    Attention is made to run as plain matrix products meanwhile, because the counter does not know the CPU's fused one.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work(pictures(1))
    return counter.get_total_flops() / 1e12


def seconds(work: Callable[[], Any], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def compare(folder: Path, dtype: str, rounds: int) -> None:
    """Operations and time on the CPU, one picture at a time."""
    both = ways(folder, dtype, "cpu", None)
    counted = {name: teraflop(both[name]) for name in WAYS}
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    for picture in pictures(rounds):
        for name in WAYS:
            taken[name].append(seconds(lambda name=name, picture=picture: both[name](picture[None]), "cpu"))
    for name in WAYS:
        middle = statistics.median(taken[name])
        spread = f"{min(taken[name]):.2f}-{max(taken[name]):.2f}"
        click.echo(f"{name:9} {counted[name]:.3f} TFLOP, {middle:.2f} s a picture ({spread})")
    ratio = statistics.median(taken["released"]) / statistics.median(taken["ours"])
    click.echo(f"released / ours: operations {counted['released'] / counted['ours']:.2f}, time {ratio:.2f}")


def report_memory(folder: Path, dtype: str, only: str) -> None:
    """Peak resident memory of a process that loads what one way needs and extracts two pictures."""
    work = ways(folder, dtype, "cpu", only)[only]
    for picture in pictures(2):
        work(picture[None])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    click.echo(f"{only:9} peak memory {peak / 1e9:.2f} GB")


def whole_command(folder: Path) -> None:
    """Load, extract, index and answer with the real command."""
    command = Path(sys.executable).with_name("diffsim")
    with tempfile.TemporaryDirectory() as scratch:
        gallery, index = Path(scratch) / "gallery", Path(scratch) / "index"
        gallery.mkdir()
        for number, picture in enumerate(pictures(4)):
            Image.fromarray(picture).save((gallery if number else gallery.parent) / f"{number}.png")
        for title, arguments in (
            ("index 3 pictures", ("index", gallery, "--model", folder, "--by", "style")),
            ("query, indexed picture", ("query", gallery / "1.png")),
            ("query, other picture", ("query", gallery.parent / "0.png")),
        ):
            started = time.perf_counter()
            subprocess.run([command, *arguments, "--index", index], check=True, capture_output=True)
            click.echo(f"diffsim {title}: {time.perf_counter() - started:.1f} s")


def on_gpu(folder: Path, dtype: str, device: str, batches: tuple[int, ...]) -> None:
    """Milliseconds per picture over batch sizes with the share of each stage, then rerank of 1,000 candidates."""
    both = ways(folder, dtype, device, None)
    extractor = both["ours"].__self__  # type: ignore[attr-defined]
    network, (kit,) = extractor.network, extractor.kits
    for size in batches:
        pixels = pictures(size)

        def stages(pixels: np.ndarray = pixels) -> list[float]:
            with torch.inference_mode():
                sent = seconds(lambda: torch.from_numpy(pixels).to(device), device)
                kept: list[Any] = []
                on_device = torch.from_numpy(pixels).to(device)
                vae = seconds(lambda: kept.append(network.encode(on_device)), device)
                unet = seconds(lambda: kept.append(network.read(kept[0], kit.settings.taps, kit.constants)), device)
                ((tokens,),) = kept[1].values()
                back = seconds(lambda: tokens.cpu(), device)
            rows = [seconds(lambda way=way: both[way](pixels), device) for way in WAYS]
            return [1e3 * value / len(pixels) for value in (*rows, vae, unet, sent + back)]

        stages()  # warm up
        ours, released, vae, unet, moved = np.median([stages() for _ in range(5)], axis=0)
        click.echo(
            f"batch {size:3d}: ours {ours:.2f} ms (VAE {vae:.2f}, U-Net {unet:.2f}, transfers {moved:.2f}), "
            f"released way {released:.2f} ms"
        )
    records = [features.tokens for features in extractor.extract(pictures(4))[0]]
    gallery = [(number, records[number % 4]) for number in range(1000)]
    query = kit.attention([tap.to(device) for tap in decode_tokens(records[:1], kit.shapes, kit.settings.tier)])
    with torch.inference_mode():
        times = [seconds(lambda: score_records(kit, query, gallery), device) for _ in range(4)]
    click.echo(f"rerank of 1,000 candidates: {1e3 * statistics.median(times[1:]):.0f} ms")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--device", default="cpu", show_default=True)
@click.option("--dtype", default="float32", show_default=True)
@click.option("--rounds", default=4, show_default=True, help="Pictures for each way, on the CPU.")
@click.option("--batch", "batches", multiple=True, type=int, default=(1, 4, 16, 64), help="On a GPU only.")
@click.option("--memory-of", type=click.Choice(WAYS), help="Only report the peak memory of one way (CPU).")
def main(folder: Path, device: str, dtype: str, rounds: int, batches: tuple[int, ...], memory_of: str | None) -> None:
    """Our extraction against the released way, at the full size of Stable Diffusion 1.5."""
    if not (folder / "model_index.json").exists():
        click.echo("Making the network ...", err=True)
        make_network(folder)
    if memory_of:
        report_memory(folder, dtype, memory_of)
        return
    click.echo(f"{SIZE} px, {dtype} on {device}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    if device != "cpu":
        on_gpu(folder, dtype, device, batches)
        return
    compare(folder, dtype, rounds)
    for way in WAYS:
        subprocess.run([sys.executable, __file__, str(folder), "--dtype", dtype, "--memory-of", way], check=True)
    whole_command(folder)


if __name__ == "__main__":
    main()
