"""The text tower of CLIP and SigLIP: a text in, one vector in the space of their picture embeddings out.

It is read from the same weights as the vision tower, but only when a text is asked: indexing never loads it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from ..errors import COPY_AGAIN, BadNetwork
from .files import first_line, hash_files, load_component, quietly
from .network import EmbeddedText

_LOADERS = {"clip": "CLIPTextModelWithProjection", "siglip": "SiglipTextModel"}
"""Classes of transformers by `model_type` of the whole network. SigLIP 2 of one picture size is a `siglip` too."""

_VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt", "spiece.model", "tokenizer.model")
_CONFIGURATIONS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")

_LONGEST = 10_000
"""Characters of a text that are tokenized at all; no tower reads as many."""


def tokenizer_hash(folder: Path, kind: str) -> str:
    """SHA-256 (hex) of the tokenizer in a network's folder; empty without one, or for a kind without a text tower."""
    vocabularies = [folder / name for name in _VOCABULARIES if (folder / name).is_file()]
    if kind not in _LOADERS or not vocabularies:
        return ""
    return hash_files(vocabularies, [folder / name for name in _CONFIGURATIONS])


@dataclass(frozen=True)
class TextTower:
    """A loaded tower. length: of a text in tokens, with those that begin and end it."""

    folder: Path
    kind: str
    model: Any
    tokenizer: Any
    length: int

    @classmethod
    def load(cls, folder: Path, kind: str, dtype: torch.dtype, device: torch.device) -> "TextTower":
        """Raises BadNetwork."""
        tokenizer = _tokenizer(folder)
        found = getattr(transformers, _LOADERS[kind])
        # The vision part of such a checkpoint is not loaded here, which transformers would report in some 200 lines.
        ignored = {"_keys_to_ignore_on_load_unexpected": ["^vision_", "^visual_", "^logit_"]}
        model = load_component(type(found.__name__, (found,), ignored), folder, dtype)
        model = model.to(device).eval().requires_grad_(False)
        return cls(folder, kind, model, tokenizer, model.config.max_position_embeddings)

    def embed(self, text: str) -> EmbeddedText:
        """Raises BadNetwork if the tokenizer and the tower do not fit."""
        asked = text[:_LONGEST]
        if self.kind == "siglip":
            asked = asked.lower()  # both versions were trained so; the second's tokenizer leaves it to the caller
        # SigLIP was trained on texts of one length; whether padding is masked is for the tokenizer's folder to say.
        padding = "max_length" if self.kind == "siglip" else False
        with quietly():
            whole = len(self.tokenizer(asked).input_ids)
            given = self.tokenizer(
                asked, padding=padding, truncation=True, max_length=self.length, return_tensors="pt"
            ).to(self.model.device)
        if int(given.input_ids.max()) >= self.model.config.vocab_size:
            raise BadNetwork(f"The tokenizer in {self.folder} has more tokens than its text tower; {COPY_AGAIN}")
        output = self.model(**given)
        vector: Tensor = output.text_embeds if "text_embeds" in output else output.pooler_output
        read = None
        if len(asked) < len(text) or whole > self.length:
            read = self.tokenizer.decode(given.input_ids[0], skip_special_tokens=True)
        return EmbeddedText(vector.float(), read)


def _tokenizer(folder: Path) -> Any:
    try:
        with quietly():
            return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ImportError as problem:
        raise BadNetwork(
            f"The tokenizer in {folder} needs the package sentencepiece; install it with "
            "`pip install 'diffsim-search[text]'`."
        ) from problem
    except Exception as problem:  # its libraries raise plain Exception
        raise BadNetwork(
            f"The tokenizer in {folder} cannot be loaded ({first_line(problem).rstrip('.')}); {COPY_AGAIN}"
        ) from problem
