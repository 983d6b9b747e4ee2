"""What do diffusion networks of full size cost? Random weights in the real layout, so that nothing need be downloaded.

    python benchmarks/full_size_diffusion.py                     (all of NETWORKS, on the CPU)
    python benchmarks/full_size_diffusion.py sdxl dit-xl-2-256

For each network, one after the other and in a process of its own: make its folder (temporary, as large as the real
one), load it, make the space of its preset's profile, extract two pictures one at a time, index two and ask with one
that is not indexed, all with the preset's own settings. A multiplication with its addition counts as two operations.
The scores mean nothing.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel, EulerDiscreteScheduler, UNet2DConditionModel
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from PIL import Image
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from benchmarks.extraction import make_network as make_sd15
from benchmarks.kills import in_child
from retrieval.extractor import Extractor, make_space
from retrieval.networks import load_network
from retrieval.presets import PRESETS


def make_sd15_with_adapter(folder: Path) -> None:
    """Stable Diffusion 1.5, IP-Adapter Plus and its ViT-H/14, the adapter's file in the network's folder."""
    make_sd15(folder)
    vision = CLIPVisionConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=16,
        patch_size=14,
        hidden_act="gelu",
        projection_dim=1024,
    )
    CLIPVisionModelWithProjection(vision).save_pretrained(folder / "image_encoder")
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
    save_file(ip_adapter_plus(unet, 1280), folder / "ip-adapter-plus_sd15.safetensors")


def ip_adapter_plus(unet: UNet2DConditionModel, seen: int) -> dict[str, torch.Tensor]:
    """Random weights by the names that are published. seen: channels of the image encoder."""
    words = unet.config.cross_attention_dim
    resampler = IPAdapterPlusImageProjection(seen, words, hidden_dims=words, heads=12)
    tensors = {f"image_proj.{name}": tensor for name, tensor in resampler.state_dict().items() if "layers" not in name}
    for number, layer in enumerate(resampler.layers):
        attention, forward = f"image_proj.layers.{number}.0", f"image_proj.layers.{number}.1"
        for ours, theirs in (("norm1", layer.ln0), ("norm2", layer.ln1)):
            tensors |= {f"{attention}.{ours}.{name}": tensor for name, tensor in theirs.state_dict().items()}
        tensors[f"{attention}.to_q.weight"] = layer.attn.to_q.weight
        tensors[f"{attention}.to_kv.weight"] = torch.cat([layer.attn.to_k.weight, layer.attn.to_v.weight])
        tensors[f"{attention}.to_out.weight"] = layer.attn.to_out[0].weight
        tensors |= {f"{forward}.0.{name}": tensor for name, tensor in layer.ff[0].state_dict().items()}
        tensors[f"{forward}.1.weight"] = layer.ff[1].net[0].proj.weight
        tensors[f"{forward}.3.weight"] = layer.ff[1].net[2].weight
    for number, name in enumerate(unet.attn_processors):
        if ".attn2." in name:
            width = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            for part in ("to_k_ip", "to_v_ip"):
                tensors[f"ip_adapter.{number}.{part}.weight"] = torch.randn(width, words) / words**0.5
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def make_vae(folder: Path, scaling_factor: float) -> None:
    AutoencoderKL(
        sample_size=512,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=scaling_factor,
    ).save_pretrained(folder)


def make_sdxl(folder: Path) -> None:
    """Made and kept in bfloat16, the size of the files that the preset fetches."""
    make_sd15(folder)  # its tokenizer
    for part in ("unet", "vae", "text_encoder", "scheduler"):
        shutil.rmtree(folder / part)
    torch.set_default_dtype(torch.bfloat16)
    UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    ).save_pretrained(folder / "unet", max_shard_size="20GB")
    first = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    CLIPTextModel(first).save_pretrained(folder / "text_encoder")
    second = CLIPTextConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=20,
        hidden_act="gelu",
        projection_dim=1280,
    )
    CLIPTextModelWithProjection(second).save_pretrained(folder / "text_encoder_2")
    make_vae(folder / "vae", 0.13025)
    shutil.copytree(folder / "tokenizer", folder / "tokenizer_2")
    EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        folder / "scheduler"
    )


def make_dit(folder: Path) -> None:
    torch.manual_seed(0)
    DiTTransformer2DModel(num_layers=28, out_channels=8, attention_bias=True).save_pretrained(folder / "transformer")
    make_vae(folder / "vae", 0.18215)
    DDIMScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear").save_pretrained(folder / "scheduler")


@dataclass(frozen=True)
class Measured:
    """make: makes the folder. preset: whose settings and profile are measured. adapter: with variant C."""

    make: Callable[[Path], None]
    preset: str
    profile: str
    dtype: str = "float32"
    adapter: bool = False


NETWORKS = {
    "sd15": Measured(make_sd15, "sd15", "style"),
    "sd15-C": Measured(make_sd15_with_adapter, "sd15", "style", adapter=True),
    "sdxl": Measured(make_sdxl, "sdxl", "style", "bfloat16"),
    "dit-xl-2-256": Measured(make_dit, "dit-xl-2-256", "style"),
    "cleandift-sd15": Measured(make_sd15, "cleandift-sd15", "style"),
}


def measure(name: str) -> None:
    """One network, start to end; prints a line for each step."""
    what = NETWORKS[name]
    preset = PRESETS[what.preset]
    tap = preset.profiles[what.profile]
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
        kit = make_space(
            network,
            [tap],
            size=preset.size,
            prompt=preset.prompt,
            noises=preset.noises,
            variant=network.variants[0],
            dtype=what.dtype,
        )
        extractor = Extractor(network, [kit])
        pixels = np.random.default_rng(0).integers(0, 256, (3, preset.size, preset.size, 3), np.uint8)
        for picture in pixels[:2]:
            started, computed = time.perf_counter(), time.process_time()
            ((features,),) = extractor.extract(picture[None])
            passed = time.perf_counter() - started
            click.echo(f"  extract, picture {passed:7.2f} s ({time.process_time() - computed:.2f} s of a core)")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        click.echo(f"  peak memory      {peak / 1e9:7.2f} GB")
        click.echo(
            f"  record           {len(features.tokens) / 1e3:7.0f} KB ({kit.space.tier}), "
            f"descriptor {len(features.descriptor)} numbers"
        )
        # As plain matrix products, because the counter does not know the CPU's fused attention.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            extractor.extract(pixels[:1])
        click.echo(f"  operations       {counter.get_total_flops() / 1e12:7.3f} TFLOP a picture, its own map included")
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
    """Load, extract, index and ask with diffusion networks of full size."""
    if here:
        measure(names[0])
        return
    click.echo(f"{torch.get_num_threads()} threads")
    for name in names or NETWORKS:
        subprocess.run([sys.executable, __file__, "--here", name], check=True)


if __name__ == "__main__":
    main()
