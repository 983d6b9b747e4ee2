"""The conditioning of a U-Net: the text encoder's embedding of a prompt, a stored one, or none."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .files import COPY_AGAIN, BadNetwork, load_component, read_json


def prompt_embedding(folder: Path, prompt: str, channels: int) -> Tensor:
    """[1, words, channels], float32: the text encoder's where there is one, else the stored
    `conditioning.safetensors`, else zeros. Raises BadNetwork."""
    if (folder / "text_encoder").is_dir():
        return _encode(folder, prompt)
    index = folder / "model_index.json"
    listed = read_json(index).get("text_encoder") if index.is_file() else None
    if listed and listed[0]:
        raise BadNetwork(f"The folder {folder} lists a text encoder but has no text_encoder/; {COPY_AGAIN}")
    stored = folder / "conditioning.safetensors"
    if not stored.is_file():
        return torch.zeros(1, 1, channels)
    try:
        embedding = load_file(stored)["prompt_embeds"].float()
    except (OSError, KeyError, SafetensorError) as problem:
        raise BadNetwork(f"{stored} holds no readable prompt_embeds ({problem}); {COPY_AGAIN}") from problem
    if embedding.ndim != 3 or embedding.shape[0] != 1 or embedding.shape[2] != channels:
        raise BadNetwork(
            f"prompt_embeds in {stored} has shape {tuple(embedding.shape)}; [1, words, {channels}] is needed."
        )
    return embedding


def _encode(folder: Path, prompt: str) -> Tensor:
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        tokenizer: Any = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError) as problem:
        raise BadNetwork(f"The tokenizer in {folder / 'tokenizer'} cannot be loaded; {COPY_AGAIN}") from problem
    encoder = load_component(CLIPTextModel, folder / "text_encoder").float().eval()
    length = tokenizer.model_max_length
    words = tokenizer(prompt, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    mask = words.attention_mask if getattr(encoder.config, "use_attention_mask", False) else None
    with torch.inference_mode():
        embedding: Tensor = encoder(words.input_ids, attention_mask=mask)[0].float()
    return embedding.clone()
