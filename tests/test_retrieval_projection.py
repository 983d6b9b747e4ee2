"""Queries, keys and values from a layer's own weights: the numbers that diffusers' own processors compute."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, random_picture
from diffusers.models.attention_processor import Attention, LuminaAttnProcessor2_0
from diffusers.models.normalization import RMSNorm
from indexing import diffsim, problem
from networks import tiny_dit
from torch import nn

from diffsim.indexer.index_folder import IndexFolder
from diffsim.retrieval.extractor import make_space
from diffsim.retrieval.families import load_network
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.projection import Norm, Projection, UnknownProjection
from diffsim.retrieval.settings import SpaceSettings, Tap

HEADS, HEAD_DIM, CHANNELS = 3, 4, 10


def shaken(module: nn.Module) -> Any:
    """With norms that change something: weights are not 1 any more, biases not 0."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.requires_grad_(False).eval()


def attention(qk_norm: str | None, **more: Any) -> Any:
    torch.manual_seed(2)
    sizes = {"query_dim": CHANNELS, "heads": HEADS, "kv_heads": HEADS, "dim_head": HEAD_DIM}
    return shaken(Attention(**sizes, qk_norm=qk_norm, **more))


def projection_of(layer: Any) -> Projection:
    return Projection.of(layer, layer.to_q, layer.to_k, layer.to_v)


def as_diffusers(layer: Any, tokens: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Queries, keys and values that the layer's own processor hands to the attention, [pictures, heads, tokens,
    head_dim], and the map that it gets."""
    seen: list[torch.Tensor] = []
    attend = F.scaled_dot_product_attention

    def listening(query: Any, key: Any, value: Any, **more: Any) -> torch.Tensor:
        found = attend(query, key, value, **more)
        seen.extend((query, key, value, found))
        return found

    across = isinstance(layer.processor, LuminaAttnProcessor2_0)
    more = {"encoder_hidden_states": tokens, "attention_mask": torch.ones(tokens.shape[:2])} if across else {}
    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(F, "scaled_dot_product_attention", listening)
        layer(tokens, **more)
    assert len(seen) == 4
    return seen


ACROSS = {"processor": LuminaAttnProcessor2_0()}
CONFIGURATIONS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "none": (None, {}),
    "none, biased": (None, {"bias": True}),
    "rms_norm": ("rms_norm", {}),
    "rms_norm, biased": ("rms_norm", {"bias": True}),
    "rms_norm, large eps": ("rms_norm", {"eps": 0.3}),
    "rms_norm, plain": ("rms_norm", {"elementwise_affine": False, "eps": 1e-6}),
    "layer_norm": ("layer_norm", {}),
    "layer_norm, large eps": ("layer_norm", {"eps": 0.3, "bias": True}),
    "layer_norm, plain": ("layer_norm", {"elementwise_affine": False}),
    "fp32_layer_norm": ("fp32_layer_norm", {"eps": 0.1}),
    "layer_norm_across_heads": ("layer_norm_across_heads", ACROSS | {"eps": 0.2}),
    "rms_norm_across_heads": ("rms_norm_across_heads", ACROSS | {"bias": True}),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_numbers_are_those_of_diffusers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qk_norm, more = CONFIGURATIONS[name]
    layer = attention(qk_norm, **more)
    tokens = torch.randn(2, 7, CHANNELS, generator=torch.Generator().manual_seed(1))
    project = projection_of(layer)
    assert project.kind == ("linear" if qk_norm is None else "linear+qk-norm")
    restored = Projection.from_record(json.loads(json.dumps(project.record())), project.tensors())
    for ours in (project([tokens]), restored.to("cpu")([tokens])):
        found = (ours.query, ours.key, ours.value, ours.map)
        for one, other in zip(found, as_diffusers(layer, tokens, monkeypatch), strict=True):
            theirs = other if other.shape == one.shape else other.transpose(1, 2)
            assert one.shape == (2, HEADS, 7, HEAD_DIM) and (one - theirs).abs().max() < 1e-5
    if qk_norm:  # and the norm is no ornament
        plain = Projection(project.heads, project.weights, project.biases)([tokens])
        assert (plain.query - ours.query).abs().max() > 0.01


@pytest.mark.parametrize(
    "norm",
    [
        RMSNorm(HEAD_DIM, 1e-3, bias=True),
        nn.RMSNorm(HEAD_DIM, eps=None),
        nn.RMSNorm(HEAD_DIM, elementwise_affine=False, eps=0.1),
        nn.LayerNorm(HEAD_DIM, bias=False),
    ],
    ids=str,
)
def test_a_norm_is_that_of_its_library(norm: nn.Module) -> None:
    numbers = torch.randn(2, 5, HEADS * HEAD_DIM, generator=torch.Generator().manual_seed(4))
    theirs = shaken(norm)(numbers.view(2, 5, HEADS, HEAD_DIM)).flatten(2)
    assert (Norm.of(norm)(numbers) - theirs).abs().max() < 1e-6


def test_one_of_the_two_may_be_missing() -> None:
    layer = attention("rms_norm")
    layer.norm_q = None
    project = projection_of(layer)
    assert project.kind == "linear+qk-norm" and list(project.record()["norms"]) == ["key"]
    assert set(project.tensors()) == {"0.weight", "key.weight"}


class Centred(nn.LayerNorm):
    pass


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (lambda: attention("l2"), "by LpNorm cannot be read"),
        (lambda: with_norm(Centred(HEAD_DIM)), "by Centred cannot be read"),
        (lambda: with_norm(nn.LayerNorm(2)), "normalises 2 at a time cannot be read"),
        (lambda: attention(None, norm_num_groups=2), "normalise their input"),
        (lambda: attention(None, added_kv_proj_dim=5), "take in other tokens"),
        (lambda: attention(None, scale_qk=False), "scale their logits otherwise"),
        (lambda: shaken(Attention(CHANNELS, heads=2, kv_heads=1, dim_head=4)), "share keys between heads"),
    ],
)
def test_layers_that_compute_more_are_refused(layer: Callable[[], Any], said: str) -> None:
    with pytest.raises(UnknownProjection, match=rf"^A[^\n]*{said}[^\n]*; choose another layer\.$"):
        projection_of(layer())


def with_norm(norm: nn.Module) -> Any:
    layer = attention(None)
    layer.norm_k = norm
    return layer


def test_a_cross_attention_with_norms_is_refused() -> None:
    """diffusers' IP-Adapter processors leave the norms out."""
    layer = attention("rms_norm")
    with pytest.raises(UnknownProjection, match="Cross-attention layers that normalise"):
        Projection.of(layer, layer.to_q, layer.to_k, layer.to_v, cross=True)


@pytest.fixture
def normalised(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """While this lasts, diffusers gives every transformer block norms on queries and keys."""
    monkeypatch.setattr("diffusers.models.attention.Attention", partial(Attention, qk_norm="rms_norm", eps=1e-3))
    return monkeypatch


def tiny_unet(folder: Path) -> Path:
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("image_encoder", "unet"))
    torch.manual_seed(7)
    unet = diffusers.UNet2DConditionModel.from_config(diffusers.UNet2DConditionModel.load_config(TINY / "unet"))
    shaken(unet).save_pretrained(folder / "unet")
    return folder


MADE = {"unet": (tiny_unet, "up_blocks.1.attentions.2@251"), "dit": (tiny_dit, "transformer_blocks.2@251")}


@pytest.mark.parametrize("kind", MADE)
def test_index_and_query_a_network_with_norms(kind: str, tmp_path: Path, normalised: pytest.MonkeyPatch) -> None:
    make, layer = MADE[kind]
    network = make(tmp_path / "network")
    (tmp_path / "pictures").mkdir()
    for number in range(5):
        random_picture(number).save(tmp_path / "pictures" / f"{number}.png")
    random_picture(9).save(tmp_path / "outside.png")
    asked = ("--model", network, "--layer", layer, "--size", "64", "--tier", "fp32", "--device", "cpu")
    ran = diffsim("index", tmp_path / "pictures", "--index", tmp_path / "index", *asked)
    assert ran.code == 0, ran
    outside = query(tmp_path / "outside.png", tmp_path)
    assert len(outside) == 5 and all(-1 <= hit["score"] < 0.9999 for hit in outside)
    scored = diffsim("score", tmp_path / "outside.png", outside[0]["path"], "--json", *asked[:6], "--device", "cpu")
    assert json.loads(scored.out)["score"] == pytest.approx(outside[0]["score"], abs=1e-5)

    normalised.undo()  # an indexed picture needs no network, and so nobody who knows of its norms
    shutil.rmtree(network)
    inside = query(tmp_path / "pictures" / "3.png", tmp_path, "--include-self")
    assert inside[0]["path"].endswith("3.png") and inside[0]["score"] == pytest.approx(1, abs=1e-6)
    kit = SpaceKit.load(next((IndexFolder.open(tmp_path / "index").path / "spaces").iterdir()))
    (project,) = kit.projections
    assert project.kind == "linear+qk-norm" and project.query_norm and project.query_norm.eps == 1e-3
    without = Projection(project.heads, project.weights, project.biases)
    tokens = torch.randn(1, *kit.shapes[0], generator=torch.Generator().manual_seed(1))
    assert (without([tokens]).map - project([tokens]).map).abs().max() > 1e-3


def query(picture: Path, work: Path, *more: str) -> list[dict]:
    asked = ("--index", work / "index", "--format", "json", "--device", "cpu", *more)
    ran = diffsim("query", picture, *asked)
    assert ran.code == 0, ran
    return [json.loads(line) for line in ran.out.splitlines()]


def small_kit() -> SpaceKit:
    return make_space(load_network(TINY, "float32", "cpu"), SpaceSettings((Tap("mid_block", 101),), 64))


def test_a_space_of_the_first_versions_is_linear(tmp_path: Path) -> None:
    """They wrote the numbers of heads alone."""
    kit = small_kit()
    kit.save(tmp_path)
    details = json.loads((tmp_path / "space.json").read_text())
    del details["details"]
    assert details.pop("projections") == [{"kind": "linear", "heads": kit.projections[0].heads}]
    (tmp_path / "space.json").write_text(json.dumps({**details, "heads": [kit.projections[0].heads]}))
    (old,), (new,) = SpaceKit.load(tmp_path).projections, kit.projections
    assert old.kind == "linear" and old.heads == new.heads and torch.equal(old.weights[0], new.weights[0])


def test_a_kind_of_a_later_version_is_one_sentence(tmp_path: Path) -> None:
    random_picture(1).save(tmp_path / "a.png")
    asked = ("--model", TINY, "--size", "64", "--device", "cpu")
    assert diffsim("index", tmp_path, "--index", tmp_path / "index", *asked).code == 0
    (space,) = (tmp_path / "index" / "spaces").iterdir()
    details = json.loads((space / "space.json").read_text())
    details["projections"][0]["kind"] = "identity"
    (space / "space.json").write_text(json.dumps(details))
    said = problem(diffsim("query", tmp_path / "a.png", "--index", tmp_path / "index", "--device", "cpu"))
    assert str(space) in said and "'identity'" in said and said.endswith("; update diffsim-search.")
