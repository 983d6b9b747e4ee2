"""What a feature space keeps: its fingerprint, its record and the files beside it."""

import json
import subprocess
import sys
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file, save_file
from torch import nn

from diffsim.retrieval.extractor import make_space
from diffsim.retrieval.families import load_network
from diffsim.retrieval.kit import DamagedKit, SpaceKit, constants_hash
from diffsim.retrieval.networks.unet import UNetNetwork
from diffsim.retrieval.projection import Projection
from diffsim.retrieval.settings import InvalidSpace, SpaceSettings, Tap
from diffsim.retrieval.space import FeatureSpace

TAPS = (Tap("mid_block.attentions.0", 101), Tap("up_blocks.1.attentions.0", 501, 2.0))

SPACE = FeatureSpace(SpaceSettings((Tap("a.attn1", 101), Tap("b.attn1", 251)), 512), "w", "c")

CHANGES = {
    "weights": "x",
    "taps": SPACE.settings.taps[:1],
    "size": 256,
    "constants": "x",
    "noises": 4,
    "prompt": "x",
    "seed": 1,
    "variant": "C",
    "fit": "crop 512",
    "dtype": "bfloat16",
    "tier": "int8",
    "decode_revision": 99,
    "extractor_revision": 99,
}

SETTINGS = {field.name for field in fields(SpaceSettings)}


@cache
def network() -> UNetNetwork:
    return load_network(TINY, "float32", "cpu")


@cache
def kit() -> SpaceKit:
    return make_space(network(), SpaceSettings(TAPS, 64, prompt="a red house"))


def changed(name: str) -> FeatureSpace:
    if name in SETTINGS:
        return replace(SPACE, settings=replace(SPACE.settings, **{name: CHANGES[name]}))
    return replace(SPACE, **{name: CHANGES[name]})


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_changes_the_fingerprint(name: str) -> None:
    assert changed(name).fingerprint != SPACE.fingerprint


@pytest.mark.parametrize(
    "taps",
    [
        SPACE.settings.taps[::-1],
        (replace(SPACE.settings.taps[0], module="c.attn1"), SPACE.settings.taps[1]),
        (replace(SPACE.settings.taps[0], timestep=102), SPACE.settings.taps[1]),
        (replace(SPACE.settings.taps[0], weight=1.5), SPACE.settings.taps[1]),
    ],
)
def test_every_part_of_a_tap_changes_the_fingerprint(taps: tuple[Tap, ...]) -> None:
    assert replace(SPACE, settings=replace(SPACE.settings, taps=taps)).fingerprint != SPACE.fingerprint


def test_equal_spaces_have_one_fingerprint() -> None:
    whole = FeatureSpace(SpaceSettings((Tap("a.attn1", 101, 1), Tap("b.attn1", 251, 1)), 512), "w", "c")
    assert whole == SPACE
    assert whole.fingerprint == SPACE.fingerprint


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    code = (
        "import json, sys; from diffsim.retrieval.space import FeatureSpace;"
        "print(FeatureSpace.from_record(json.load(sys.stdin)).fingerprint, 'torch' in sys.modules)"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(SPACE.record()),
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[1])},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [SPACE.fingerprint, "False"]


def test_the_record_comes_back() -> None:
    assert FeatureSpace.from_record(json.loads(json.dumps(SPACE.record()))) == SPACE


@pytest.mark.parametrize(
    "record",
    [
        {**SPACE.record(), "unknown": 1},
        {name: value for name, value in SPACE.record().items() if name != "size"},
        {name: value for name, value in SPACE.record().items() if name != "taps"},
        {**SPACE.record(), "taps": [{"module": "a", "timestep": 1, "depth": 2}]},
        {**SPACE.record(), "taps": []},
        {**SPACE.record(), "tier": "int4"},
        {**SPACE.record(), "dtype": "float8"},
    ],
)
def test_a_record_of_another_version_is_refused(record: dict) -> None:
    with pytest.raises(InvalidSpace, match=r"\.$"):
        FeatureSpace.from_record(record)


@pytest.mark.parametrize("timestep", [-1, 1000])
def test_timesteps_end_at_999(timestep: int) -> None:
    with pytest.raises(InvalidSpace, match=f"timestep {timestep} .* 0 to 999"):
        Tap("a", timestep)


@pytest.mark.parametrize("weight", [0, -1, float("inf"), float("nan")])
def test_weights_are_positive(weight: float) -> None:
    with pytest.raises(InvalidSpace, match="weight"):
        Tap("a", 1, weight)


@pytest.mark.parametrize("name", CHANGES)
def test_only_drawn_and_computed_tensors_may_differ_between_equal_requests(name: str) -> None:
    assert SPACE.same_request(changed(name)) == (name == "constants")


def test_projection_answers_like_the_layer() -> None:
    """Without and with bias: heads split as diffusers splits them, the map equals the layer's before its output."""
    for attention in (network().unet.mid_block.attentions[0].transformer_blocks[0].attn1, biased()):
        tokens = torch.randn(3, 5, attention.to_q.in_features, generator=torch.Generator().manual_seed(1))
        features = projection_of(attention)([tokens])
        with torch.inference_mode():
            for ours, layer in ((features.query, "to_q"), (features.key, "to_k"), (features.value, "to_v")):
                theirs = getattr(attention, layer)(tokens).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
                assert ours.numpy() == pytest.approx(theirs.numpy(), abs=1e-6)
            ours = attention.to_out[0](features.map.transpose(1, 2).flatten(2))
            assert ours.numpy() == pytest.approx(attention(tokens).numpy(), abs=1e-5)


def projection_of(attention: nn.Module) -> Projection:
    return Projection.of(attention, attention.to_q, attention.to_k, attention.to_v)


def biased() -> nn.Module:
    from diffusers.models.attention_processor import Attention

    torch.manual_seed(2)
    attention: nn.Module = Attention(query_dim=12, heads=3, dim_head=4, bias=True).requires_grad_(False)
    return attention


def test_a_kit_comes_back(tmp_path: Path) -> None:
    kit().save(tmp_path / "space")
    loaded = SpaceKit.load(tmp_path / "space")
    assert loaded.space == kit().space
    assert loaded.space.fingerprint == kit().space.fingerprint
    assert (loaded.shapes, loaded.weights) == (((1, 32), (4, 32)), (1.0, 2.0))
    assert set(loaded.constants) == {"conditioning", "noise"}
    assert all(torch.equal(loaded.constants[name], kit().constants[name]) for name in loaded.constants)
    tokens = [torch.randn(2, *shape) for shape in loaded.shapes]
    for ours, theirs in zip(loaded.attention(tokens), kit().attention(tokens), strict=True):
        assert torch.equal(ours.query, theirs.query) and torch.equal(ours.map, theirs.map)
    assert sorted(file.name for file in (tmp_path / "space").iterdir()) == ["space.json", "space.safetensors"]


def test_a_biased_projection_comes_back(tmp_path: Path) -> None:
    projections = (projection_of(biased()), kit().projections[1])
    replace(kit(), projections=projections).save(tmp_path)
    first, second = SpaceKit.load(tmp_path).projections
    assert first.biases[0] is not None and torch.equal(first.biases[0], projections[0].biases[0])
    assert second.biases == (None,)


@pytest.mark.parametrize("name", ["constants.noise", "constants.conditioning", "taps.0.0.weight", "taps.1.0.weight"])
def test_an_altered_tensor_is_found(tmp_path: Path, name: str) -> None:
    kit().save(tmp_path)
    tensors = load_file(tmp_path / "space.safetensors")
    tensors[name].view(-1)[3] += 1e-3
    save_file(tensors, tmp_path / "space.safetensors")
    with pytest.raises(DamagedKit, match=r"altered .* index again\.$"):
        SpaceKit.load(tmp_path)


def test_noise_of_another_space_is_found(tmp_path: Path) -> None:
    """Both files whole, but not of one space."""
    replace(kit(), constants={**kit().constants, "noise": kit().constants["noise"] + 1}).save(tmp_path)
    with pytest.raises(DamagedKit, match="altered"):
        SpaceKit.load(tmp_path)


@pytest.mark.parametrize("name", ["space.json", "space.safetensors"])
@pytest.mark.parametrize("change", ["missing", "empty", "cut", "other"])
def test_a_missing_or_broken_file_is_named(tmp_path: Path, name: str, change: str) -> None:
    kit().save(tmp_path)
    path = tmp_path / name
    if change == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": path.read_bytes()[:-40], "other": b"[1, 2]"}[change])
    with pytest.raises(DamagedKit, match=r"cannot be read .* index again\.$"):
        SpaceKit.load(tmp_path)


def test_the_hash_of_constants_is_of_names_shapes_and_numbers() -> None:
    tensor = torch.arange(6.0)
    (same, strided, shaped, moved, named) = (
        {"noise": tensor.double()},
        {"noise": torch.stack([tensor, tensor], 1)[:, 0]},
        {"noise": tensor.view(2, 3)},
        {"noise": tensor + torch.tensor([0, 0, 0, 0, 0, 1e-6])},
        {"words": tensor},
    )
    ours = constants_hash({"noise": tensor})
    assert constants_hash(same) == ours == constants_hash(strided)
    assert ours not in (constants_hash(shaped), constants_hash(moved), constants_hash(named))
