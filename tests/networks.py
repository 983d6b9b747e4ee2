"""Tiny random networks in the real layouts of SDXL and DiT, and an IP-Adapter Plus for the former, made from seeds."""

import json
import shutil
from pathlib import Path

import torch
from conftest import DATA, TINY
from diffusers import DDIMScheduler, DiTTransformer2DModel, EulerDiscreteScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

ADAPTER = DATA / "tiny-ip-adapter-plus"
"""For Stable Diffusion 1.5's layout; its image encoder is in TINY."""


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def tiny_sdxl(folder: Path) -> Path:
    """Stable Diffusion XL's layout, with as many attention layers as the real one."""
    left_out = ("unet", "text_encoder", "scheduler", "image_encoder", "feature_extractor")
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns(*left_out))
    torch.manual_seed(21)
    UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(1, 2, 4),
        cross_attention_dim=32 + 16,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=12 + 6 * 8,
        norm_num_groups=4,
    ).save_pretrained(folder / "unet")
    first = CLIPTextConfig.from_pretrained(TINY / "text_encoder", num_hidden_layers=3)
    CLIPTextModel(first).save_pretrained(folder / "text_encoder")
    second = CLIPTextConfig.from_pretrained(
        TINY / "text_encoder", hidden_size=16, hidden_act="gelu", num_hidden_layers=3, projection_dim=12
    )
    CLIPTextModelWithProjection(second).save_pretrained(folder / "text_encoder_2")
    shutil.copytree(folder / "tokenizer", folder / "tokenizer_2")
    edit_json(folder / "tokenizer_2" / "tokenizer_config.json", pad_token="!")
    EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    ).save_pretrained(folder / "scheduler")
    edit_json(folder / "vae" / "config.json", scaling_factor=0.13025)
    index = {
        "_class_name": "StableDiffusionXLPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def tiny_sdxl_adapter(folder: Path, sdxl: Path) -> Path:
    """IP-Adapter Plus for the tiny SDXL, beside its image encoder, as it is published."""
    shutil.copytree(TINY / "image_encoder", folder / "image_encoder")
    words = UNet2DConditionModel.load_config(sdxl / "unet")["cross_attention_dim"]
    tensors = {
        name: tensor for name, tensor in load_file(next(ADAPTER.iterdir())).items() if name.startswith("image_proj.")
    }
    torch.manual_seed(22)
    for name in ("proj_out.weight", "proj_out.bias", "norm_out.weight", "norm_out.bias"):
        shape = (words, *tensors[f"image_proj.{name}"].shape[1:])
        tensors[f"image_proj.{name}"] = torch.randn(shape) / 4
    unet = UNet2DConditionModel.from_pretrained(sdxl / "unet")
    for number, name in enumerate(unet.attn_processors):
        if ".attn2." in name:
            width = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            for part in ("to_k_ip", "to_v_ip"):
                tensors[f"ip_adapter.{number}.{part}.weight"] = torch.randn(width, words) / 8
    save_file(tensors, folder / "ip-adapter-plus_sdxl_vit-h.safetensors")
    return folder


def tiny_dit(folder: Path) -> Path:
    """DiT's layout as it is on the hub: an older name of the class, and its own noise schedule."""
    shutil.copytree(TINY / "vae", folder / "vae")
    torch.manual_seed(23)
    DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=4,
        sample_size=8,
        out_channels=8,
        num_embeds_ada_norm=5,
        attention_bias=True,
    ).save_pretrained(folder / "transformer")
    edit_json(folder / "transformer" / "config.json", _class_name="Transformer2DModel", attention_type="default")
    DDIMScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear").save_pretrained(folder / "scheduler")
    return folder
