"""Load a diffusion network's components from a folder in the diffusers layout.

Components, not pipelines: `unet/` and `scheduler/` by diffusers' own classes, `vae/` by diffusers' or by our small
PatchAutoencoder, chosen by `_class_name` from a closed table. Only safetensors are read, remote code never runs, and a
missing weight is an error (diffusers alone would go on with random ones).
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .errors import RetrievalError
from .patch_autoencoder import PatchAutoencoder

AUTOENCODERS: dict[str, Any] = {"AutoencoderKL": diffusers.AutoencoderKL, "PatchAutoencoder": PatchAutoencoder}

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_FOREIGN_CONDITIONING = ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "num_class_embeds")
"""Settings of U-Nets that want more than latents, timestep and prompt; SDXL has the first."""

_REMARKS = ("_diffusers_version", "_name_or_path", "transformers_version")
"""What a configuration says without meaning anything."""


_COPY_AGAIN = "copy the network's folder again."


class BadNetwork(RetrievalError):
    """A folder does not hold a network that can be used."""


@dataclass(frozen=True)
class Network:
    """A loaded network in evaluation mode.

    unet, autoencoder: diffusers models (an autoencoder is one of AUTOENCODERS).
    weights: SHA-256 (hex) of the weights of U-Net, autoencoder and text encoder, of what their configurations and the
    scheduler's say, and of the tokenizer or the stored conditioning.
    signal: alphas_cumprod [timesteps], float64: share of the picture's variance at each DDPM timestep.
    """

    folder: Path
    unet: Any
    autoencoder: Any
    signal: Tensor
    weights: str
    dtype: torch.dtype
    device: torch.device

    @property
    def dtype_name(self) -> str:
        """`float32`, `bfloat16` or `float16`."""
        return str(self.dtype).removeprefix("torch.")

    def conditioning(self, prompt: str) -> Tensor:
        """Prompt embedding [1, words, channels], float32: the text encoder's where there is one, else the stored
        `conditioning.safetensors`, else zeros."""
        return _conditioning(self.folder, prompt, self.unet.config.cross_attention_dim)


def load_network(folder: Path, dtype: str, device: str) -> Network:
    """Load U-Net, autoencoder and noise schedule. Raises BadNetwork, which names the file that is wrong."""
    precision = DTYPES[dtype]
    unet = _load(diffusers.UNet2DConditionModel, folder / "unet", precision)
    foreign = [setting for setting in _FOREIGN_CONDITIONING if unet.config.get(setting)]
    if foreign:
        raise BadNetwork(
            f"The network in {folder} wants more than a prompt ({', '.join(foreign)}), which is not supported yet; "
            "use a Stable Diffusion 1.x or 2.x network."
        )
    name = _read_json(folder / "vae" / "config.json").get("_class_name")
    if name not in AUTOENCODERS:
        raise BadNetwork(
            f"The autoencoder class {name!r} in {folder / 'vae'} is not supported; "
            f"it must be one of {', '.join(AUTOENCODERS)}."
        )
    autoencoder = _load(AUTOENCODERS[name], folder / "vae", _autoencoder_dtype(folder, precision))
    if unet.config.in_channels != autoencoder.config.latent_channels:
        raise BadNetwork(
            f"The U-Net in {folder} takes {unet.config.in_channels} channels where its autoencoder makes "
            f"{autoencoder.config.latent_channels}; inpainting, depth and upscaling networks are not supported."
        )
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
    upcast = precision is torch.float16 and _read_json(folder / "vae" / "config.json").get("force_upcast", False)
    return torch.bfloat16 if upcast else precision


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise BadNetwork(f"{path} cannot be read ({problem}); {_COPY_AGAIN}") from problem
    if not isinstance(values, dict):
        raise BadNetwork(f"{path} is not a table of settings; {_COPY_AGAIN}")
    return values


def _weight_files(folder: Path) -> tuple[str | None, list[Path]]:
    """The variant and the files that from_pretrained reads: the plain ones, else the half precision ones (`fp16`)."""
    for variant, name, index in (
        (None, "model.safetensors", "model.safetensors.index.json"),
        ("fp16", "model.fp16.safetensors", "model.safetensors.index.fp16.json"),
    ):
        for stem in ("diffusion_pytorch_", ""):
            if (folder / (stem + index)).is_file():
                shards = _read_json(folder / (stem + index)).get("weight_map", {})
                return variant, [folder / shard for shard in sorted(set(shards.values()))]
            if (folder / (stem + name)).is_file():
                return variant, [folder / (stem + name)]
    return None, []


def _load(loader: Any, folder: Path, precision: torch.dtype | None) -> Any:
    """from_pretrained of diffusers or transformers, offline, safetensors only, with every weight accounted for."""
    _read_json(folder / "config.json")
    options = {} if precision is None else {"torch_dtype": precision}
    try:
        model, report = loader.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            variant=_weight_files(folder)[0],
            low_cpu_mem_usage=False,
            **options,
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as problem:
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise BadNetwork(f"The weights in {folder} cannot be loaded ({reason}); {_COPY_AGAIN}") from problem
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report.get("mismatched_keys", ()))
    if missing:
        raise BadNetwork(f"The folder {folder} lacks {len(missing)} weights, among them {missing[0]}; {_COPY_AGAIN}")
    return model


def _signal(folder: Path) -> Tensor:
    path = folder / "scheduler_config.json"
    config = _read_json(path)
    try:
        scheduler_class = getattr(diffusers, str(config.get("_class_name")))
        signal: Tensor = scheduler_class.from_config(config).alphas_cumprod.double()
    except (AttributeError, ImportError, RuntimeError, TypeError, ValueError) as problem:
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise BadNetwork(
            f"{path} describes no noise schedule with alphas_cumprod ({reason}); {_COPY_AGAIN}"
        ) from problem
    if len(signal) != 1000:
        raise BadNetwork(f"{path} has {len(signal)} timesteps; a network trained with 1000 is needed.")
    return signal


def _hash_weights(folder: Path) -> str:
    """Hash of the bytes of the files that are read and of the meaning of the configurations (without remarks)."""
    parts = [folder / part for part in ("unet", "vae", "text_encoder")]
    tokenizer = sorted((folder / "tokenizer").glob("*.json")) + sorted((folder / "tokenizer").glob("*.txt"))
    weights = [path for part in parts for path in _weight_files(part)[1]]
    digest = hashlib.sha256()
    for path in filter(Path.is_file, [*weights, *tokenizer, folder / "conditioning.safetensors"]):
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    for path in [part / "config.json" for part in parts] + [folder / "scheduler" / "scheduler_config.json"]:
        if path.is_file():
            meaning = {key: value for key, value in _read_json(path).items() if key not in _REMARKS}
            digest.update(json.dumps(meaning, sort_keys=True).encode())
    return digest.hexdigest()


def _conditioning(folder: Path, prompt: str, channels: int) -> Tensor:
    if (folder / "text_encoder").is_dir():
        return _encode_prompt(folder, prompt)
    index = folder / "model_index.json"
    listed = _read_json(index).get("text_encoder") if index.is_file() else None
    if listed and listed[0]:
        raise BadNetwork(f"The folder {folder} lists a text encoder but has no text_encoder/; {_COPY_AGAIN}")
    stored = folder / "conditioning.safetensors"
    if not stored.is_file():
        return torch.zeros(1, 1, channels)
    try:
        embedding = load_file(stored)["prompt_embeds"].float()
    except (OSError, KeyError, SafetensorError) as problem:
        raise BadNetwork(f"{stored} holds no readable prompt_embeds ({problem}); {_COPY_AGAIN}") from problem
    if embedding.ndim != 3 or embedding.shape[0] != 1 or embedding.shape[2] != channels:
        raise BadNetwork(
            f"prompt_embeds in {stored} has shape {tuple(embedding.shape)}; [1, words, {channels}] is needed."
        )
    return embedding


def _encode_prompt(folder: Path, prompt: str) -> Tensor:
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        tokenizer: Any = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError) as problem:
        raise BadNetwork(f"The tokenizer in {folder / 'tokenizer'} cannot be loaded; {_COPY_AGAIN}") from problem
    encoder = _load(CLIPTextModel, folder / "text_encoder", None).float().eval()
    length = tokenizer.model_max_length
    words = tokenizer(prompt, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    mask = words.attention_mask if getattr(encoder.config, "use_attention_mask", False) else None
    with torch.inference_mode():
        embedding: Tensor = encoder(words.input_ids, attention_mask=mask)[0].float()
    return embedding.clone()
