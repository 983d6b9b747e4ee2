"""The conditioning of a U-Net: the text encoders' embedding of a prompt, a stored one, or none."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import COPY_AGAIN, BadNetwork
from ..json_table import read_table
from .files import load_component


def embed_prompt(folder: Path, prompt: str, channels: int, pooled_channels: int = 0) -> dict[str, Tensor]:
    """`conditioning` [1, words, channels], and `pooled` [1, pooled_channels] if the U-Net takes one (SDXL), float32.

    From the text encoders if there are any, else the stored `conditioning.safetensors`, else zeros. Raises BadNetwork.
    """
    wanted = ("text_encoder", "text_encoder_2") if pooled_channels else ("text_encoder",)
    missing = [name for name in wanted if not (folder / name).is_dir()]
    index = folder / "model_index.json"
    listed = read_table(index) if missing and index.is_file() else {}
    for name in missing:
        if len(missing) < len(wanted) or (listed.get(name) or [None])[0]:
            raise BadNetwork(f"The folder {folder} lists a text encoder but has no {name}/; {COPY_AGAIN}")
    if missing:
        embedded = _stored(folder, channels, pooled_channels)
    else:
        embedded = _encode_twice(folder, prompt) if pooled_channels else {"conditioning": _encode(folder, prompt)}
    for name, dimensions, width in (("conditioning", 3, channels), ("pooled", 2, pooled_channels)):
        shape = tuple(embedded[name].shape) if name in embedded else (1,) * (dimensions - 1) + (width,)
        if len(shape) != dimensions or shape[0] != 1 or shape[-1] != width:
            raise BadNetwork(
                f"The prompt's {name} in {folder} has shape {shape}, but one row with {width} channels is needed; "
                f"{COPY_AGAIN}"
            )
    return embedded


def _stored(folder: Path, channels: int, pooled_channels: int) -> dict[str, Tensor]:
    embedded = {"conditioning": torch.zeros(1, 1, channels)}
    if pooled_channels:
        embedded["pooled"] = torch.zeros(1, pooled_channels)
    path = folder / "conditioning.safetensors"
    if not path.is_file():
        return embedded
    try:
        stored = load_file(path)
        embedded["conditioning"] = stored["prompt_embeds"].float()
    except (OSError, KeyError, SafetensorError) as problem:
        raise BadNetwork(f"{path} holds no readable prompt_embeds ({problem}); {COPY_AGAIN}") from problem
    if pooled_channels and "pooled_prompt_embeds" in stored:
        embedded["pooled"] = stored["pooled_prompt_embeds"].float()
    return embedded


def _encode(folder: Path, prompt: str) -> Tensor:
    """Stable Diffusion 1.x and 2.x: the last layer, normalised, [1, words, channels]."""
    from transformers import CLIPTextModel

    encoder = load_component(CLIPTextModel, folder / "text_encoder", torch.float32).eval()
    words = _tokenize(folder / "tokenizer", prompt)
    mask = words.attention_mask if getattr(encoder.config, "use_attention_mask", False) else None
    with torch.inference_mode():
        embedding: Tensor = encoder(words.input_ids, attention_mask=mask)[0].float()
    return embedding.clone()


def _encode_twice(folder: Path, prompt: str) -> dict[str, Tensor]:
    """SDXL: the penultimate layer of both encoders, concatenated, and the second's projected embedding."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    layers = []
    for loader, number in ((CLIPTextModel, ""), (CLIPTextModelWithProjection, "_2")):
        encoder = load_component(loader, folder / f"text_encoder{number}", torch.float32).eval()
        words = _tokenize(folder / f"tokenizer{number}", prompt)
        with torch.inference_mode():
            output = encoder(words.input_ids, output_hidden_states=True)
        layers.append(output.hidden_states[-2])
    return {"conditioning": torch.cat(layers, dim=2), "pooled": output.text_embeds.clone()}


def _tokenize(folder: Path, prompt: str) -> Any:
    from transformers import CLIPTokenizer

    try:
        tokenizer: Any = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as problem:
        raise BadNetwork(f"The tokenizer in {folder} cannot be loaded; {COPY_AGAIN}") from problem
    length = tokenizer.model_max_length
    return tokenizer(prompt, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
