"""Writes a trained network as a folder in the layout of Stable Diffusion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file

from ..networks.feature_maps import FeatureMaps
from .trainer import Trainer, build_unet

_PARTS = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": [FeatureMaps.__module__, FeatureMaps.__name__],
    "scheduler": ["diffusers", "DDPMScheduler"],
}


def export(trainer: Trainer, out: Path) -> None:
    """Write the averaged weights in float16, and the statistics of its latents. The encoder's own weights are not part
    of the folder."""
    unet = build_unet(trainer.recipe)
    unet.load_state_dict(trainer.ema.state_dict())
    unet.half().save_pretrained(out / "unet")
    trainer.encoded.statistics.save(out / "vae")
    trainer.scheduler.save_pretrained(out / "scheduler")
    save_file({"prompt_embeds": trainer.prompt_embeds}, out / "conditioning.safetensors")
    _write_json(out / "model_index.json", _PARTS)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
