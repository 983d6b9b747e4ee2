"""Tiny CLIP and SigLIP with their text towers, as they are published, each with a real tokenizer."""

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel

_WORDS = "a red bicycle in the rain, a drawing of a cat at night; the house stands near an old tree"
_COMMON = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_VISION = _COMMON | {"image_size": 32, "patch_size": 8}


def make_clip(folder: Path) -> Path:
    """24 tokens a text at most, a letter each, two of them at its ends."""
    torch.manual_seed(7)
    alphabet = sorted(ByteLevel.alphabet())
    words = [*alphabet, *(f"{letter}</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])
    end = len(words) - 1
    text = _COMMON | {
        "vocab_size": len(words),
        "max_position_embeddings": 24,
        "projection_dim": 12,
        "bos_token_id": end - 1,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    config = transformers.CLIPConfig(
        text_config=text, vision_config=_VISION | {"projection_dim": 12}, projection_dim=12
    )
    return _saved(folder, transformers.CLIPModel(config), tokenizer)


def make_siglip(folder: Path) -> Path:
    """16 tokens a text at most, pieces of words."""
    torch.manual_seed(7)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([_WORDS] * 4),
        model_writer=model,
        vocab_size=48,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        hard_vocab_limit=False,
        minloglevel=3,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())
    tokenizer = transformers.SiglipTokenizer(
        str(folder / "spiece.model"), model_max_length=16, model_input_names=["input_ids"]
    )
    text = _COMMON | {"vocab_size": len(tokenizer), "max_position_embeddings": 16}
    return _saved(
        folder, transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=_VISION)), tokenizer
    )


def _saved(folder: Path, model: Any, tokenizer: Any) -> Path:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    preparation = {"do_center_crop": False, "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(preparation))
    return folder
