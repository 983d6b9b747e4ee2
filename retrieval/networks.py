"""Load a diffusion network's components from a folder in the diffusers layout.

Components, not pipelines: `unet/` and `scheduler/` by diffusers' own classes, `vae/` by diffusers' or by our small
PatchAutoencoder, chosen by `_class_name` from a closed table. Only safetensors are read, remote code never runs, and a
missing weight is an error (diffusers alone would go on with random ones).
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .errors import RetrievalError
from .patch_autoencoder import PatchAutoencoder

AUTOENCODERS: dict[str, Any] = {"AutoencoderKL": diffusers.AutoencoderKL, "PatchAutoencoder": PatchAutoencoder}

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class BadNetwork(RetrievalError):
    """A folder does not hold a network that can be used."""


@dataclass(frozen=True)
class Network:
    """A loaded network in evaluation mode.

    weights: SHA-256 (hex) of U-Net and autoencoder weights and of what their configurations and the scheduler's say.
    signal: alphas_cumprod [timesteps], float64: share of the picture's variance at each DDPM timestep.
    """

    folder: Path
    unet: nn.Module
    autoencoder: nn.Module
    signal: Tensor
    weights: str
    dtype: torch.dtype
    device: torch.device

    def conditioning(self, prompt: str) -> Tensor:
        """Prompt embedding [1, words, channels], float32: the text encoder's where there is one, else the stored
        `conditioning.safetensors`, else zeros."""
        return _conditioning(self.folder, prompt, self.unet.config.cross_attention_dim)


def load_network(folder: Path, dtype: str, device: str) -> Network:
    """Load U-Net, autoencoder and noise schedule. Raises BadNetwork, which names the file that is wrong."""
    precision = DTYPES[dtype]
    unet = _load(diffusers.UNet2DConditionModel, folder / "unet", precision)
    if unet.config.addition_embed_type is not None:
        raise BadNetwork(f"The network in {folder} wants {unet.config.addition_embed_type} conditioning (SDXL), which is not supported yet; use a Stable Diffusion 1.x or 2.x network.")
    name = _config(folder / "vae").get("_class_name")
    if name not in AUTOENCODERS:
        raise BadNetwork(f"The autoencoder class {name!r} in {folder / 'vae'} is not supported; it must be one of {', '.join(AUTOENCODERS)}.")
    autoencoder = _load(AUTOENCODERS[name], folder / "vae", _autoencoder_dtype(folder, precision))
    return Network(
        folder,
        unet.to(device).eval().requires_grad_(False),
        autoencoder.to(device).eval().requires_grad_(False),
        _signal(folder / "scheduler"),
        _hash_weights(folder),
        precision,
        torch.device(device),
    )


def _autoencoder_dtype(folder: Path, precision: torch.dtype) -> torch.dtype:
    """bfloat16 in place of float16 where the configuration asks to upcast: SDXL's autoencoder overflows in float16."""
    upcast = precision is torch.float16 and _config(folder / "vae").get("force_upcast", False)
    return torch.bfloat16 if upcast else precision


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return config
    except (OSError, ValueError) as problem:
        raise BadNetwork(f"{folder / 'config.json'} cannot be read ({problem}); copy the network's folder again.") from problem


def _variant(folder: Path) -> str | None:
    """The half precision files where they are the only ones."""
    plain = any(folder.glob("*model.safetensors")) or any(folder.glob("*.safetensors.index.json"))
    return "fp16" if not plain and any(folder.glob("*.fp16.safetensors")) else None


def _load(loader: Any, folder: Path, precision: torch.dtype | None) -> Any:
    """from_pretrained of diffusers or transformers, offline, safetensors only, with every weight accounted for."""
    options = {} if precision is None else {"torch_dtype": precision}
    try:
        model, report = loader.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            variant=_variant(folder),
            low_cpu_mem_usage=False,
            **options,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as problem:
        reason = str(problem).strip().splitlines()[0]
        raise BadNetwork(f"The weights in {folder} cannot be loaded ({reason}); copy the network's folder again.") from problem
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report.get("mismatched_keys", ()))
    if missing:
        raise BadNetwork(f"{len(missing)} weights are missing in {folder}, among them {missing[0]}; copy the network's folder again.")
    return model


def _signal(folder: Path) -> Tensor:
    path = folder / "scheduler_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        scheduler_class = getattr(diffusers, str(config.get("_class_name")))
        signal: Tensor = scheduler_class.from_config(config).alphas_cumprod.double()
    except (OSError, ValueError, AttributeError, TypeError) as problem:
        raise BadNetwork(f"{path} describes no noise schedule with alphas_cumprod ({problem}); copy the network's folder again.") from problem
    if len(signal) != 1000:
        raise BadNetwork(f"{path} has {len(signal)} timesteps; a network trained with 1000 is needed.")
    return signal


def _hash_weights(folder: Path) -> str:
    """Hash of the bytes of the weight files and of the meaning of the configurations (without version remarks)."""
    digest = hashlib.sha256()
    for part in ("unet", "vae"):
        variant = _variant(folder / part)
        files = sorted((folder / part).glob("*.safetensors"))
        for path in [file for file in files if (".fp16." in file.name) == (variant == "fp16")]:
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    for path in (folder / "unet" / "config.json", folder / "vae" / "config.json", folder / "scheduler" / "scheduler_config.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        meaning = {key: value for key, value in config.items() if key not in ("_diffusers_version", "_name_or_path")}
        digest.update(json.dumps(meaning, sort_keys=True).encode())
    return digest.hexdigest()


def _conditioning(folder: Path, prompt: str, channels: int) -> Tensor:
    if (folder / "text_encoder").is_dir():
        return _encode_prompt(folder, prompt)
    index = folder / "model_index.json"
    listed = json.loads(index.read_text(encoding="utf-8")).get("text_encoder") if index.is_file() else None
    if listed and listed[0]:
        raise BadNetwork(f"The folder {folder} lists a text encoder but has no text_encoder/; copy the network's folder again.")
    stored = folder / "conditioning.safetensors"
    if not stored.is_file():
        return torch.zeros(1, 1, channels)
    try:
        embedding = load_file(stored)["prompt_embeds"].float()
    except (OSError, KeyError, SafetensorError) as problem:
        raise BadNetwork(f"{stored} holds no readable prompt_embeds ({problem}); copy the network's folder again.") from problem
    if embedding.ndim != 3 or embedding.shape[0] != 1 or embedding.shape[2] != channels:
        raise BadNetwork(f"prompt_embeds in {stored} has shape {tuple(embedding.shape)}; [1, words, {channels}] is needed.")
    return embedding


def _encode_prompt(folder: Path, prompt: str) -> Tensor:
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        tokenizer: Callable[..., Any] = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError) as problem:
        raise BadNetwork(f"The tokenizer in {folder / 'tokenizer'} cannot be loaded; copy the network's folder again.") from problem
    encoder = _load(CLIPTextModel, folder / "text_encoder", None).float().eval()
    words = tokenizer(prompt, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt")
    mask = words.attention_mask if getattr(encoder.config, "use_attention_mask", False) else None
    with torch.inference_mode():
        embedding: Tensor = encoder(words.input_ids, attention_mask=mask)[0].float()
    return embedding.clone()
