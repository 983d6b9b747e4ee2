"""Networks of full size with random weights in their real layouts, so that nothing need be downloaded.

shrink: by so much every layer is narrower; for trying things out.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTTransformer2DModel,
    EulerDiscreteScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
)
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

Make = Callable[[Path], None]
"""Puts a network into a folder."""


def make_sd15(folder: Path, shrink: int = 1) -> None:
    """Stable Diffusion 1.5 in the diffusers layout."""
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=64,
        block_out_channels=_narrower((320, 640, 1280, 1280), shrink),
        cross_attention_dim=768 // shrink,
        attention_head_dim=8,
        norm_num_groups=32 // shrink,
    ).save_pretrained(folder / "unet")
    make_vae(folder / "vae", 0.18215, shrink)
    text = CLIPTextConfig(
        hidden_size=768 // shrink,
        intermediate_size=3072 // shrink,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_dim=768 // shrink,
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


def _narrower(widths: tuple[int, ...], shrink: int) -> tuple[int, ...]:
    return tuple(width // shrink for width in widths)


def make_sd15_with_adapter(folder: Path) -> None:
    """Stable Diffusion 1.5, IP-Adapter Plus and its ViT-H/14, the adapter's file in the network's folder."""
    make_sd15(folder)
    add_adapter(folder)


def make_sdxl_with_adapter(folder: Path) -> None:
    make_sdxl(folder)
    add_adapter(folder)


def add_adapter(folder: Path) -> None:
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
    save_file(ip_adapter_plus(unet, 1280), folder / "ip-adapter-plus.safetensors")


def ip_adapter_plus(unet: UNet2DConditionModel, seen: int) -> dict[str, torch.Tensor]:
    """Random weights by the names that are published. seen: channels of the image encoder."""
    words = unet.config.cross_attention_dim
    hidden = min(words, 1280)
    resampler = IPAdapterPlusImageProjection(seen, words, hidden_dims=hidden, heads=hidden // 64)
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


def make_vae(folder: Path, scaling_factor: float, shrink: int = 1) -> None:
    AutoencoderKL(
        sample_size=512,
        block_out_channels=_narrower((128, 256, 512, 512), shrink),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=32 // shrink,
        scaling_factor=scaling_factor,
    ).save_pretrained(folder)


def make_sd21(folder: Path) -> None:
    """Stable Diffusion 2.1 (768 px)."""
    make_sd15(folder)
    for part in ("unet", "text_encoder", "scheduler"):
        shutil.rmtree(folder / part)
    UNet2DConditionModel(
        sample_size=96,
        block_out_channels=(320, 640, 1280, 1280),
        attention_head_dim=(5, 10, 20, 20),
        cross_attention_dim=1024,
        use_linear_projection=True,
        upcast_attention=True,
    ).save_pretrained(folder / "unet")
    text = CLIPTextConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16)
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction"
    ).save_pretrained(folder / "scheduler")


def make_sdxl(folder: Path, shrink: int = 1) -> None:
    """Made and kept in bfloat16, the size of the files that the preset fetches."""
    make_sd15(folder, shrink)  # its tokenizer
    for part in ("unet", "vae", "text_encoder", "scheduler"):
        shutil.rmtree(folder / part)
    with _in_bfloat16():
        UNet2DConditionModel(
            sample_size=128,
            block_out_channels=_narrower((320, 640, 1280), shrink),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048 // shrink,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256 // shrink,
            projection_class_embeddings_input_dim=2816 // shrink,
            norm_num_groups=32 // shrink,
        ).save_pretrained(folder / "unet", max_shard_size="20GB")
        first = CLIPTextConfig(
            hidden_size=768 // shrink, intermediate_size=3072 // shrink, num_hidden_layers=12, num_attention_heads=12
        )
        CLIPTextModel(first).save_pretrained(folder / "text_encoder")
        second = CLIPTextConfig(
            hidden_size=1280 // shrink,
            intermediate_size=5120 // shrink,
            num_hidden_layers=32,
            num_attention_heads=20,
            hidden_act="gelu",
            projection_dim=1280 // shrink,
        )
        CLIPTextModelWithProjection(second).save_pretrained(folder / "text_encoder_2")
        make_vae(folder / "vae", 0.13025, shrink)
    shutil.copytree(folder / "tokenizer", folder / "tokenizer_2")
    EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        folder / "scheduler"
    )


@contextmanager
def _in_bfloat16() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def make_dit(folder: Path) -> None:
    torch.manual_seed(0)
    DiTTransformer2DModel(num_layers=28, out_channels=8, attention_bias=True).save_pretrained(folder / "transformer")
    make_vae(folder / "vae", 0.18215)
    DDIMScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear").save_pretrained(folder / "scheduler")


_BASE: dict[str, Any] = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
_DINOV2: dict[str, Any] = {"image_size": 518, "patch_size": 14, "mlp_ratio": 4}
DINOV2_BASE = _BASE | _DINOV2
DINOV2_SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6} | _DINOV2
CLIP_B32 = {"projection_dim": 512, "vision_config": _BASE | {"patch_size": 32, "projection_dim": 512}}
SIGLIP_B16 = {"vision_config": _BASE | {"intermediate_size": 3072, "image_size": 224, "patch_size": 16}}


def of_transformers(name: str, settings: dict[str, Any]) -> Make:
    """Makes a network of a class of transformers."""

    def make(folder: Path) -> None:
        torch.manual_seed(0)
        kind = getattr(transformers, name)
        kind(kind.config_class(**settings)).save_pretrained(folder)

    return make
