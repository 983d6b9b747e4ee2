"""Reads a network's folder: configurations, safetensors only, every weight checked, and one hash over all of it."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from ..errors import COPY_AGAIN, BadNetwork
from ..json_table import read_table

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_OWN_IMPLEMENTATIONS = (None, True, False, "eager", "sdpa")

_REMARKS = ("_diffusers_version", "_name_or_path", "transformers_version")
"""Entries of a configuration that have no effect."""


def first_line(problem: Exception) -> str:
    """The part of another library's error to quote: its first line that is not a heading."""
    first, *rest = (str(problem).strip() or type(problem).__name__).splitlines()
    return rest[0].strip().removesuffix(".") if first.endswith(":") and rest else first


def weight_files(folder: Path) -> tuple[str | None, list[Path]]:
    """The variant and the files that from_pretrained reads: the plain ones, else the half precision ones (`fp16`)."""
    for variant, name, index in (
        (None, "model.safetensors", "model.safetensors.index.json"),
        ("fp16", "model.fp16.safetensors", "model.safetensors.index.fp16.json"),
    ):
        for stem in ("diffusion_pytorch_", ""):
            if (folder / (stem + index)).is_file():
                shards = read_table(folder / (stem + index)).get("weight_map", {})
                return variant, [folder / shard for shard in sorted(set(shards.values()))]
            if (folder / (stem + name)).is_file():
                return variant, [folder / (stem + name)]
    return None, []


def load_component(loader: Any, folder: Path, precision: torch.dtype) -> Any:
    """from_pretrained of diffusers or transformers, offline, safetensors only, with every weight checked.

    Raises BadNetwork: diffusers itself would continue with random weights if some are missing.
    """
    _check_plain(folder / "config.json")
    try:
        with quietly():
            model, report = loader.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                variant=weight_files(folder)[0],
                low_cpu_mem_usage=False,
                torch_dtype=precision,
            )
    except Exception as problem:  # whatever these libraries raise for a configuration that they do not expect
        raise BadNetwork(f"The weights in {folder} cannot be loaded ({first_line(problem)}); {COPY_AGAIN}") from problem
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report.get("mismatched_keys", ()))
    if missing:
        raise BadNetwork(f"The folder {folder} lacks {len(missing)} weights, among them {missing[0]}; {COPY_AGAIN}")
    weights = [weight for weight in model.parameters() if weight.is_floating_point()]
    if not all(bool(weight.isfinite().all()) for weight in weights):
        raise BadNetwork(f"Some weights in {folder} are no numbers (NaN or infinite); {COPY_AGAIN}")
    if weights and not any(bool(weight.any()) for weight in weights):
        raise BadNetwork(f"All weights in {folder} are zero, so that all pictures would be alike; {COPY_AGAIN}")
    return model


def _check_plain(path: Path) -> None:
    """Refuse a configuration that would have the libraries load other code than their own: a kernel from a hub, a
    quantiser's package."""
    waiting: list[Any] = [read_table(path)]
    while waiting:
        entries = waiting.pop()
        for name, value in entries.items() if isinstance(entries, dict) else enumerate(entries):
            kernel = "_implementation" in str(name) and value not in _OWN_IMPLEMENTATIONS
            if kernel or ("quantization_config" in str(name) and value is not None):
                raise BadNetwork(
                    f"{path} asks for {name} {value!r}, which other code would have to be loaded for; delete that "
                    "entry if the weights are plain ones, or use another copy of the network."
                )
            if isinstance(value, dict | list):
                waiting.append(value)


@contextmanager
def quietly() -> Iterator[None]:
    """Silence the libraries' progress bars and messages: stderr is the command's. Restores their global switches."""
    with ExitStack() as back:
        for library in (diffusers.utils.logging, transformers.utils.logging):
            back.callback(library.set_verbosity, library.get_verbosity())
            library.set_verbosity_error()
            if library.is_progress_bar_enabled():
                library.disable_progress_bar()
                back.callback(library.enable_progress_bar)
        yield


def hash_network(folder: Path, parts: Sequence[str]) -> str:
    """SHA-256 (hex) of the weights and configurations of a diffusion network's parts, of its noise schedule, its
    tokenizers and its stored conditioning."""
    places = [folder / part for part in parts]
    tokenizers = [folder / name for name in ("tokenizer", "tokenizer_2")]
    vocabularies = [path for place in tokenizers for kind in ("*.json", "*.txt") for path in sorted(place.glob(kind))]
    return hash_files(
        [
            *(path for place in places for path in weight_files(place)[1]),
            *vocabularies,
            folder / "conditioning.safetensors",
        ],
        [place / "config.json" for place in places] + [folder / "scheduler" / "scheduler_config.json"],
    )


def hash_files(files: Iterable[Path], configurations: Iterable[Path]) -> str:
    """SHA-256 (hex) of the bytes of the files and of the effective entries of the configurations."""
    digest = hashlib.sha256()
    for path in filter(Path.is_file, files):
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    for path in filter(Path.is_file, configurations):
        meaning = {key: value for key, value in read_table(path).items() if key not in _REMARKS}
        digest.update(json.dumps(meaning, sort_keys=True).encode())
    return digest.hexdigest()
