"""A network's folder from anywhere: it loads no other code, and whatever it says wrongly is one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY
from networks import edit_json
from safetensors.torch import load_file, save_file
from tiny_vits import PREPROCESSING, make_vit

from diffsim.indexer.requests import requested_spaces
from diffsim.retrieval.errors import RetrievalError
from diffsim.retrieval.families.locate import load_network
from diffsim.retrieval.networks import BadNetwork

KERNEL = "evil/kernel"
NESTED = "[" * 100_000


@pytest.fixture
def unet(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "network"))


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    return make_vit(tmp_path / "vit", "clip", PREPROCESSING)


def refused(folder: Path, match: str) -> None:
    with pytest.raises(BadNetwork, match=match) as caught:
        load_network(folder, "float32", "cpu")
    assert str(caught.value).endswith(".") and str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        {"attn_implementation": KERNEL},
        {"_attn_implementation": KERNEL},
        {"_attn_implementation_internal": KERNEL},
        {"attn_implementation": {"vision_config": KERNEL}},
        {"experts_implementation": KERNEL},
        {"quantization_config": {"quant_method": "evil"}},
    ],
)
def test_a_network_that_asks_for_other_code_is_refused(vit: Path, entry: dict[str, object]) -> None:
    plain = (vit / "config.json").read_text()
    edit_json(vit / "config.json", **entry)
    refused(vit, "which other code would have to be loaded for")
    (vit / "config.json").write_text(plain)
    edit_json(vit / "config.json", vision_config={**json.loads(plain)["vision_config"], **entry})
    refused(vit, "which other code would have to be loaded for")


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_so_is_a_part_of_a_diffusion_network(unet: Path, part: str) -> None:
    edit_json(unet / part / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    refused(unet, "which other code would have to be loaded for")


def test_the_attention_of_the_libraries_themselves_may_be_named(vit: Path) -> None:
    edit_json(vit / "config.json", _attn_implementation="sdpa", quantization_config=None)
    assert load_network(vit, "float32", "cpu")


def change_weights(part: Path, change: Callable[[torch.Tensor], torch.Tensor], most: int) -> None:
    """Change the first `most` tensors of a part."""
    (path,) = part.glob("*.safetensors")
    tensors = load_file(path)
    changed = {name: change(tensor) for name, tensor in list(tensors.items())[:most]}
    save_file(tensors | changed, path, {"format": "pt"})


@pytest.mark.parametrize("part", ["unet", "vae"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(unet: Path, part: str, number: float) -> None:
    change_weights(unet / part, lambda tensor: tensor.fill_(number), 1)
    refused(unet, "Some weights in .* are no numbers")


def test_weights_that_are_all_zero_are_refused(unet: Path) -> None:
    change_weights(unet / "unet", torch.zeros_like, 3)
    assert load_network(unet, "float32", "cpu")  # some may be
    change_weights(unet / "unet", torch.zeros_like, 10_000)
    refused(unet, "All weights in .* are zero")


@pytest.mark.parametrize("file", ["unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"])
def test_nested_json_is_a_broken_file(unet: Path, file: str) -> None:
    (unet / file).write_text(NESTED)
    refused(unet, "cannot be read")


@pytest.mark.parametrize(
    "entry",
    [
        {"size": {"shortest_edge": 10**9}},
        {"crop_size": {"height": 10**6, "width": 10**6}},
        {"size": 1e9},
        {"size": {"shortest_edge": True}, "crop_size": None},
        {"image_mean": "evil"},
    ],
)
def test_a_preparation_that_cannot_be_is_one_sentence(vit: Path, entry: dict[str, object]) -> None:
    edit_json(vit / "preprocessor_config.json", **entry)
    with pytest.raises(RetrievalError, match="not supported"):
        requested_spaces(str(vit), ["look"])


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "evil"},
        {"torch_dtype": ["evil"]},
        {"hidden_size": "wide"},
        {"num_attention_heads": 0},
        {"hidden_act": "evil"},
        {"image_size": 0},
        {"patch_size": [1, 2, 3]},
    ],
)
def test_a_configuration_that_cannot_be_is_one_sentence(vit: Path, entry: dict[str, object]) -> None:
    config = json.loads((vit / "config.json").read_text())
    edit_json(vit / "config.json", vision_config={**config["vision_config"], **entry}, **entry)
    try:
        load_network(vit, "float32", "cpu")
    except RetrievalError as problem:
        assert str(problem).endswith(".")
