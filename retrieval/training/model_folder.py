"""Writes and reads a trained network as a folder in the layout of Stable Diffusion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..families.stable_diffusion import READ_AS
from ..networks.patch_autoencoder import PatchAutoencoder
from .pictures import TrainingError
from .trainer import Trainer, build_unet

_WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")
_PROMPT = "conditioning.safetensors"
_PARTS = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": [PatchAutoencoder.__module__, PatchAutoencoder.__name__],
    "scheduler": ["diffusers", "DDPMScheduler"],
}


def export(trainer: Trainer, out: Path) -> None:
    """Write the averaged weights in float16, and the settings to read the network with."""
    recipe = trainer.recipe
    unet = build_unet(recipe)
    unet.load_state_dict(trainer.ema.state_dict())
    unet.half().save_pretrained(out / "unet")
    trainer.vae.save_pretrained(out / "vae")
    trainer.scheduler.save_pretrained(out / "scheduler")
    save_file({"prompt_embeds": trainer.prompt_embeds}, out / _PROMPT)
    _write_json(out / "model_index.json", _PARTS)
    taps = {"style": recipe.style_tap, "instance": recipe.subject_tap, "look": recipe.look_tap}
    profiles = {profile: [tap, recipe.read_at] for profile, tap in taps.items()}
    _write_json(out / READ_AS, {"size": recipe.picture_size, "profiles": profiles})


def start_from(trainer: Trainer, model: Path) -> None:
    """Load the weights, latents and prompt of a folder that `export` wrote into a trainer. Raises TrainingError."""
    refused = TrainingError(
        f"{model} does not hold a network of this recipe's shape, so training cannot start from it; "
        "give mini or a folder that this command wrote, or start afresh without --from"
    )
    if not all((model / part).is_file() for part in (_WEIGHTS, _PROMPT, Path("vae", "config.json"))):
        raise refused
    weights = load_file(model / _WEIGHTS)
    vae = PatchAutoencoder.from_pretrained(model / "vae", low_cpu_mem_usage=False)
    for given, ours in ((weights, trainer.unet.state_dict()), (vae.state_dict(), trainer.vae.state_dict())):
        if _shapes(given) != _shapes(ours):
            raise refused
    trainer.unet.load_state_dict(weights)
    trainer.ema.load_state_dict(weights)
    trainer.vae.load_state_dict(vae.state_dict())
    trainer.vae.register_to_config(scaling_factor=vae.config.scaling_factor)
    trainer.prompt_embeds = load_file(model / _PROMPT)["prompt_embeds"]


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
