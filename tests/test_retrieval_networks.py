"""Networks from folders: every weight accounted for, every fault named in one sentence; presets and where they are."""

import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import diffusers
import pytest
import torch
import transformers
from conftest import TINY
from diffusers import UNet2DConditionModel
from networks import ADAPTER, edit_json
from safetensors.torch import load_file, save_file
from tiny_vits import make_vit

from diffsim.retrieval.families import (
    AdapterPreset,
    Preset,
    UnknownModel,
    defaults_of,
    find_adapter,
    find_model,
    known_families,
    load_network,
)
from diffsim.retrieval.families.fetch import CannotFetch, fetch
from diffsim.retrieval.names import COLOUR, PROFILES
from diffsim.retrieval.networks import BadNetwork
from diffsim.retrieval.settings import InvalidSpace, SpaceSettings, Tap

TAPS = (Tap("mid_block", 101),)
BUILT_IN = [member.family for member in known_families().members if not member.package]
PRESETS = [preset for family in BUILT_IN for preset in family.presets]
ADAPTERS = [adapter for family in BUILT_IN for adapter in family.adapters]

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
ONE_SENTENCE = re.compile(r"[A-Z/][^\n]*[^.\n]\.", re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny network that may be broken."""
    return Path(shutil.copytree(TINY, tmp_path / "network"))


@cache
def tiny_weights() -> str:
    return load_network(TINY, "float32", "cpu").weights


def edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def refusal(folder: Path, prompt: str | None = None) -> str:
    with pytest.raises(BadNetwork) as caught:
        network = load_network(folder, "float32", "cpu")
        if prompt is not None:
            network.constants(SpaceSettings(TAPS, 64, prompt=prompt))
    assert ONE_SENTENCE.fullmatch(str(caught.value)), str(caught.value)
    return str(caught.value)


def test_diffusers_alone_goes_on_with_random_weights(folder: Path) -> None:
    """Why every weight is accounted for."""
    edit_tensors(folder / UNET, lambda tensors: tensors.pop("conv_in.weight"))
    torch.manual_seed(0)
    first = UNet2DConditionModel.from_pretrained(folder / "unet", low_cpu_mem_usage=False).conv_in.weight
    second = UNet2DConditionModel.from_pretrained(folder / "unet", low_cpu_mem_usage=False).conv_in.weight
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (UNET, "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"),
        (UNET, "conv_in.bias"),
        (VAE, "encoder.conv_in.weight"),
        (TEXT, "text_model.encoder.layers.1.mlp.fc1.bias"),
    ],
)
def test_a_missing_weight_is_named(folder: Path, file: str, name: str) -> None:
    tensors = load_file(folder / file)
    name = name if name in tensors else name.removeprefix("text_model.")
    edit_tensors(folder / file, lambda tensors: tensors.pop(name))
    sentence = refusal(folder, prompt="a house")
    assert name.removeprefix("text_model.") in sentence
    assert str((folder / file).parent) in sentence


@pytest.mark.parametrize("file", [UNET, VAE])
def test_a_weight_of_another_shape_is_refused(folder: Path, file: str) -> None:
    def halve(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in tensors if name.endswith("conv_in.weight"))
        tensors[name] = tensors[name][:2].clone()

    edit_tensors(folder / file, halve)
    assert str((folder / file).parent) in refusal(folder)


@pytest.mark.parametrize("file", [UNET, VAE, TEXT])
@pytest.mark.parametrize("change", ["cut", "empty", "noise", "missing"])
def test_a_broken_weight_file_is_refused(folder: Path, file: str, change: str) -> None:
    path = folder / file
    data = path.read_bytes()
    path.unlink()
    if change != "missing":
        path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "noise": b"\xff" * 1000}[change])
    assert str(path.parent) in refusal(folder, prompt="a house")


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_pickled_weights_are_refused(folder: Path, part: str) -> None:
    path = folder / part / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    assert "safetensors" in refusal(folder)


@pytest.mark.parametrize("file", ["unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"_class_name": "Nothing"}'])
def test_a_broken_configuration_is_refused(folder: Path, file: str, text: str | None) -> None:
    (folder / file).unlink()
    if text is not None:
        (folder / file).write_text(text)
    assert str((folder / file).parent) in refusal(folder)


def test_a_broken_index_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "text_encoder")
    (folder / "model_index.json").write_text("{")
    assert "model_index.json" in refusal(folder, prompt="")


def test_a_listed_text_encoder_must_be_there(folder: Path) -> None:
    shutil.rmtree(folder / "text_encoder")
    assert "lists a text encoder" in refusal(folder, prompt="a house")


@pytest.mark.parametrize("shown", [True, False])
def test_loading_is_silent_and_leaves_the_libraries_settings_alone(capfd, caplog, shown: bool) -> None:
    libraries = (diffusers.utils.logging, transformers.utils.logging)
    before = [library.is_progress_bar_enabled() for library in libraries]
    verbosity = [library.get_verbosity() for library in libraries]
    try:
        for library in libraries:
            library.enable_progress_bar() if shown else library.disable_progress_bar()
        load_network(TINY, "float32", "cpu", str(ADAPTER)).constants(SpaceSettings(TAPS, 64, prompt="a house"))
        assert [library.is_progress_bar_enabled() for library in libraries] == [shown, shown]
        assert [library.get_verbosity() for library in libraries] == verbosity
    finally:
        for library, enabled in zip(libraries, before, strict=True):
            library.enable_progress_bar() if enabled else library.disable_progress_bar()
    assert capfd.readouterr().err == ""
    assert not caplog.records


def test_a_text_encoder_wants_its_tokenizer(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer")
    assert "tokenizer" in refusal(folder, prompt="a house")


def test_an_unknown_autoencoder_is_refused(folder: Path) -> None:
    edit_json(folder / "vae" / "config.json", _class_name="AutoencoderTiny")
    sentence = refusal(folder)
    assert "'AutoencoderTiny'" in sentence and "AutoencoderKL, FeatureMaps" in sentence


@pytest.mark.parametrize("scheduler", ["FlowMatchEulerDiscreteScheduler", "StableDiffusionPipeline", "logging"])
def test_a_scheduler_without_ddpm_steps_is_refused(folder: Path, scheduler: str) -> None:
    edit_json(folder / "scheduler" / "scheduler_config.json", _class_name=scheduler)
    assert "alphas_cumprod" in refusal(folder)


def test_a_scheduler_of_other_steps_is_refused(folder: Path) -> None:
    edit_json(folder / "scheduler" / "scheduler_config.json", num_train_timesteps=100)
    assert "100 timesteps" in refusal(folder)


def test_the_signal_falls_from_one(folder: Path) -> None:
    signal = load_network(folder, "float32", "cpu").latents.signal
    assert (len(signal), signal.dtype) == (1000, torch.float64)
    assert signal[0] > 0.99 and 0 < signal[999] < 0.01
    assert (signal.diff() < 0).all()


def resized_unet(folder: Path, **settings: object) -> None:
    unet = UNet2DConditionModel.from_config({**UNet2DConditionModel.load_config(folder / "unet"), **settings})
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet")


def test_networks_that_want_more_than_a_picture_are_refused(folder: Path) -> None:
    resized_unet(folder, in_channels=9)
    assert "9 channels" in refusal(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_class_embeds": 3},
        {"addition_embed_type": "text", "encoder_hid_dim": 32},
    ],
)
def test_networks_that_want_more_than_a_prompt_are_refused(folder: Path, settings: dict) -> None:
    resized_unet(folder, **settings)
    assert next(iter(settings)) in refusal(folder)


@pytest.mark.parametrize("file", [UNET, VAE, TEXT])
def test_one_number_changes_the_hash(folder: Path, file: str) -> None:
    def nudge(tensors: dict[str, torch.Tensor]) -> None:
        numbers = max(tensors.values(), key=torch.numel).view(-1)
        numbers[7] = torch.nextafter(numbers[7], torch.tensor(9, dtype=numbers.dtype))

    edit_tensors(folder / file, lambda tensors: None)
    before = load_network(folder, "float32", "cpu").weights
    edit_tensors(folder / file, nudge)
    assert load_network(folder, "float32", "cpu").weights != before


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("unet/config.json", {"norm_eps": 1e-6}),
        ("vae/config.json", {"scaling_factor": 0.2}),
        ("scheduler/scheduler_config.json", {"beta_end": 0.013}),
        ("text_encoder/config.json", {"layer_norm_eps": 1e-6}),
    ],
)
def test_a_setting_changes_the_hash(folder: Path, file: str, values: dict) -> None:
    edit_json(folder / file, **values)
    assert load_network(folder, "float32", "cpu").weights != tiny_weights()


def test_place_and_remarks_do_not_change_the_hash(folder: Path) -> None:
    """Nor do files that are not read: other precisions, other formats, an older average."""
    for part in ("unet", "vae"):
        edit_json(folder / part / "config.json", _diffusers_version="0.1", _name_or_path="elsewhere")
        for kind in ("fp16.safetensors", "non_ema.safetensors", "bin"):
            (folder / part / f"diffusion_pytorch_model.{kind}").write_bytes(b"not read")
    edit_json(folder / "text_encoder" / "config.json", transformers_version="4.0")
    assert load_network(folder, "float32", "cpu").weights == tiny_weights()


def test_an_unknown_model_names_the_choices(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownModel, match=r"^The network 'nothing' is unknown; choose one of mini, sd15, sd21, .*, or .*\.$"
    ):
        find_model("nothing")
    with pytest.raises(UnknownModel, match=r"has no unet/config.json, nor a .*; --model takes mini, .*\.$"):
        find_model(str(tmp_path))
    with pytest.raises(UnknownModel, match=r"^The network 'nothing' is unknown; choose one of mini, .*\.$"):
        fetch("nothing")
    assert find_model(str(TINY)) == TINY.resolve()


@pytest.mark.parametrize("name", [preset.name for preset in PRESETS if preset.sources])
def test_a_missing_preset_names_the_command_and_the_way_round(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFSIM_MODELS", str(tmp_path))
    with pytest.raises(
        UnknownModel, match=rf"^The network {name} .* `diffsim models fetch {name}`, .* --model FOLDER\.$"
    ):
        find_model(name)
    shutil.copytree(TINY, tmp_path / name)
    if known_families().of_preset(name).family.name == "vision-transformer":  # of another family: it is not the network
        with pytest.raises(UnknownModel):
            find_model(name)
        make_vit(tmp_path / name, "dinov2")
    assert find_model(name) == tmp_path / name
    assert fetch(name) == tmp_path / name


@pytest.mark.parametrize("preset", [*PRESETS, *ADAPTERS], ids=lambda preset: preset.name)
def test_presets_are_pinned_to_a_commit(preset: Preset | AdapterPreset) -> None:
    for source in preset.sources:
        assert re.fullmatch("[0-9a-f]{40}", source.revision)
        assert not any(pattern.endswith((".bin", ".ckpt", ".py", "*")) for pattern in source.files)
    if isinstance(preset, Preset):
        assert set(preset.profiles) == ({COLOUR} if preset.name == COLOUR else set(PROFILES))
        assert preset.adapter in ("", *(adapter.name for adapter in ADAPTERS))
        assert [bool(preset.sources), bool(preset.local_only), bool(preset.bundled)].count(True) == 1


def test_a_network_that_is_only_published_as_pickles_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSIM_MODELS", str(tmp_path))
    for ask in (find_model, fetch):
        with pytest.raises(
            (UnknownModel, CannotFetch), match=r"^The network dit-xl-2-256 .* pickles.* --model FOLDER\.$"
        ):
            ask("dit-xl-2-256")


def test_a_missing_adapter_names_the_command_and_the_way_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSIM_MODELS", str(tmp_path))
    with pytest.raises(UnknownModel, match=r"`diffsim models fetch ip-adapter-plus-sd15`, .* --ip-adapter FOLDER\.$"):
        find_adapter("ip-adapter-plus-sd15")
    with pytest.raises(UnknownModel, match=r"^There is no IP-Adapter at 'nothing'"):
        find_adapter("nothing")


def test_profiles_are_the_released_timesteps() -> None:
    assert [defaults_of("sd15").taps(profile)[0].timestep for profile in PROFILES] == [101, 251, 501]
    assert defaults_of(str(TINY)).taps("look") == defaults_of("sd15").taps("look")
    with pytest.raises(InvalidSpace, match=r"'colour' is unknown; choose one of style, instance, look\.$"):
        defaults_of("mini").taps("colour")
