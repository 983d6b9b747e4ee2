"""SDXL, DiT and DiffSim-C on tiny random networks in their real layouts: the numbers are those of diffusers' own
pipelines, features depend on picture and space alone, and what does not fit is refused in one sentence.
"""

import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import numpy as np
import pytest
import torch
from conftest import TINY, random_picture
from diffusers import (
    DDIMScheduler,
    DiTTransformer2DModel,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from indexing import diffsim, draw
from networks import ADAPTER, edit_json, tiny_dit, tiny_sdxl, tiny_sdxl_adapter
from safetensors.torch import load_file, save_file

from diffsim.retrieval.extractor import Extractor, make_space
from diffsim.retrieval.families import defaults_of, load_network
from diffsim.retrieval.features import PictureFeatures
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.names import PROFILES
from diffsim.retrieval.networks import BadNetwork, BadSize, Network
from diffsim.retrieval.networks.latents import Latents
from diffsim.retrieval.networks.prompts import embed_prompt
from diffsim.retrieval.networks.taps import block_attentions
from diffsim.retrieval.paper import NoPaperProtocol, PaperProtocol
from diffsim.retrieval.score import score
from diffsim.retrieval.settings import InvalidSpace, SpaceSettings, Tap
from diffsim.retrieval.tiers import decode_tokens

EULER_WARNS = "ignore:__array__ implementation:DeprecationWarning"  # diffusers' scheduler on numpy 2

SDXL_TAP = "up_blocks.0.attentions.1.transformer_blocks.3"
TAPS = MappingProxyType(
    {
        "sdxl": (Tap(SDXL_TAP, 251), Tap("down_blocks.1.attentions.0.transformer_blocks.1", 251), Tap(SDXL_TAP, 999)),
        "dit": (Tap("transformer_blocks.2", 251), Tap("transformer_blocks.0", 251), Tap("transformer_blocks.3", 999)),
        "sd15-C": (Tap("up_blocks.1.attentions.2", 251), Tap("mid_block", 501)),
        "sdxl-C": (Tap(SDXL_TAP, 251), Tap("mid_block.attentions.0.transformer_blocks.9", 501)),
    }
)


ROOT = TemporaryDirectory(prefix="diffsim-networks-")


@pytest.fixture(autouse=True, scope="module")
def _clean_up() -> Iterator[None]:
    yield
    ROOT.cleanup()


@cache
def folder(kind: str) -> Path:
    """Made once for all tests, which only read it."""
    place = Path(ROOT.name) / kind
    if kind == "sdxl-adapter":
        return tiny_sdxl_adapter(place, folder("sdxl"))
    return tiny_sdxl(place) if kind == "sdxl" else tiny_dit(place)


@cache
def network(kind: str) -> Network:
    if kind == "sd15-C":
        return load_network(TINY, "float32", "cpu", str(ADAPTER))
    if kind == "sdxl-C":
        return load_network(folder("sdxl"), "float32", "cpu", str(folder("sdxl-adapter")))
    return load_network(folder(kind), "float32", "cpu")


def space(kind: str, taps: tuple[Tap, ...] = (), size: int = 64, noises: int = 1) -> SpaceKit:
    variant = "C" if kind.endswith("-C") else "S"
    taps = taps or TAPS[kind]
    settings = SpaceSettings(taps, size, prompt="a house", noises=noises, variant=variant, tier="fp32")
    return make_space(network(kind), settings)


@cache
def pictures(count: int, size: int = 64) -> np.ndarray:
    return np.stack([np.asarray(random_picture(seed).resize((size, size))) for seed in range(count)])


def tokens(kit: SpaceKit, features: list[PictureFeatures]) -> list[torch.Tensor]:
    return decode_tokens([one.tokens for one in features], kit.shapes, "fp32")


def extract(kit: SpaceKit, pixels: np.ndarray, kind: str) -> list[torch.Tensor]:
    (features,) = Extractor(network(kind), [kit]).extract(pixels)
    return tokens(kit, features)


def assert_close(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    for x, y in zip(ours, theirs, strict=True):
        assert x.shape == y.shape
        assert (x - y).abs().max() <= 1e-5 * y.abs().max()


@pytest.mark.parametrize("kind", TAPS)
def test_features_know_no_batch_or_order(kind: str) -> None:
    kit, pixels = space(kind), pictures(3)
    together = extract(kit, pixels, kind)
    alone = [extract(kit, pixels[row : row + 1], kind) for row in range(3)]
    assert_close(together, [torch.cat(rows) for rows in zip(*alone, strict=True)])
    assert_close([matrix[[2, 0, 1]] for matrix in together], extract(kit, pixels[[2, 0, 1]], kind))
    assert all((matrix[0] - matrix[1]).abs().max() > 1e-3 * matrix.abs().max() for matrix in together)


@pytest.mark.parametrize("kind", TAPS)
def test_a_picture_scores_one_against_itself_and_the_score_is_symmetric(kind: str) -> None:
    kit = space(kind)
    features = kit.attention(extract(kit, pictures(3), kind))
    matrix = torch.stack([score([tap[row : row + 1] for tap in features], features, kit.weights) for row in range(3)])
    assert matrix.diagonal().numpy() == pytest.approx(1, abs=1e-6)
    assert (matrix - matrix.T).abs().max() < 1e-6
    assert matrix[~torch.eye(3, dtype=torch.bool)].max() < 0.99999


@pytest.mark.parametrize("kind", TAPS)
def test_several_noises_are_averaged(kind: str) -> None:
    kit = space(kind, noises=4)
    noises = kit.constants["noise"]
    assert len(noises) == 4 and len({float(noise.sum()) for noise in noises}) == 4
    net = network(kind)
    encoded = net.encode(torch.from_numpy(pictures(2)))
    each = [net.read(encoded, kit.settings.taps, {**kit.constants, "noise": noise[None]}) for noise in noises]
    for place, matrices in net.read(encoded, kit.settings.taps, kit.constants).items():
        for part, matrix in enumerate(matrices):
            mean = torch.stack([one[place][part] for one in each]).mean(0)
            assert matrix.numpy() == pytest.approx(mean.numpy(), abs=1e-6)


@pytest.mark.parametrize("kind", TAPS)
def test_no_noise_is_the_clean_picture_at_the_timestep(kind: str) -> None:
    """As CleanDIFT is read: the latents as they are, and the network is told the tap's timestep."""
    kit = space(kind, taps=(TAPS[kind][0],), noises=0)
    assert "noise" not in kit.constants
    net = network(kind)
    encoded = net.encode(torch.from_numpy(pictures(2)))
    (clean,) = net.read(encoded, kit.settings.taps, kit.constants).values()
    none = {**kit.constants, "noise": torch.zeros(1, *encoded["latents"].shape[1:])}
    net.latents.signal[251], kept = 1.0, float(net.latents.signal[251])  # type: ignore[attr-defined]
    try:
        (unmixed,) = net.read(encoded, kit.settings.taps, none).values()
    finally:
        net.latents.signal[251] = kept  # type: ignore[attr-defined]
    assert all(torch.equal(x, y) for x, y in zip(clean, unmixed, strict=True))
    (noisy,) = net.read(encoded, kit.settings.taps, space(kind).constants).values()
    assert (clean[0] - noisy[0]).abs().max() > 1e-2


def whole_pass(module: torch.nn.Module, forward: object) -> torch.Tensor:
    """What a norm gives in one whole pass of the network."""
    seen: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda _module, _args, output: seen.append(output))
    with torch.inference_mode():
        forward()  # type: ignore[operator]
    handle.remove()
    return seen[0][0] if isinstance(seen[0], tuple) else seen[0]


@pytest.mark.filterwarnings(EULER_WARNS)
def test_sdxl_is_read_as_its_pipeline_runs_it() -> None:
    """Prompt, pooled prompt and size by StableDiffusionXLPipeline, noise and scale by its Euler scheduler."""
    kit, pixels = space("sdxl", taps=(Tap(SDXL_TAP, 251),), size=96), pictures(2, 96)
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder("sdxl"), dtype=torch.float32)
    words, _, pooled, _ = pipeline.encode_prompt("a house", device="cpu", do_classifier_free_guidance=False)
    width = pipeline.text_encoder_2.config.projection_dim
    sizes = pipeline._get_add_time_ids(
        (96, 96), (0, 0), (96, 96), dtype=torch.float32, text_encoder_projection_dim=width
    )
    assert kit.constants["conditioning"].numpy() == pytest.approx(words.detach().numpy(), abs=1e-6)
    assert kit.constants["pooled"].numpy() == pytest.approx(pooled.detach().numpy(), abs=1e-6)
    assert torch.equal(kit.constants["time_ids"], sizes)
    pipeline.scheduler.set_timesteps(1000)
    noise = kit.constants["noise"]
    with torch.inference_mode():
        latents = pipeline.vae.encode(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mode()
        latents = latents * pipeline.vae.config.scaling_factor
        noisy = pipeline.scheduler.add_noise(latents, noise, torch.tensor([251]))
        noisy = pipeline.scheduler.scale_model_input(noisy, torch.tensor(251))
    added = {"text_embeds": pooled.expand(2, -1), "time_ids": sizes.expand(2, -1)}
    seen = whole_pass(
        pipeline.unet.get_submodule(SDXL_TAP).norm1,
        lambda: pipeline.unet(noisy, 251, encoder_hidden_states=words.expand(2, -1, -1), added_cond_kwargs=added),
    )
    (ours,) = extract(kit, pixels, "sdxl")
    assert ours.numpy() == pytest.approx(seen.numpy(), abs=2e-5)


@pytest.mark.filterwarnings(EULER_WARNS)
@pytest.mark.parametrize("timestep", [0, 101, 251, 501, 900, 999])
def test_mixing_by_variance_is_what_euler_feeds_the_network(timestep: int) -> None:
    """Euler adds sigma x noise and divides by sqrt(sigma^2 + 1): the same latents, whose variance stays."""
    latents = Latents.load(folder("sdxl"), torch.float32, "cpu")
    scheduler = EulerDiscreteScheduler.from_pretrained(folder("sdxl") / "scheduler")
    scheduler.set_timesteps(timesteps=[timestep])
    clean, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    fed = scheduler.scale_model_input(
        scheduler.add_noise(clean, noise, scheduler.timesteps[:1]), scheduler.timesteps[0]
    )
    assert latents.noised(clean, noise, timestep).numpy() == pytest.approx(fed.numpy(), abs=1e-5)


def test_dit_is_read_at_the_noise_level_that_it_is_told_without_a_class() -> None:
    kit, pixels = space("dit", taps=(Tap("transformer_blocks.2", 251),), size=64), pictures(2)
    transformer = DiTTransformer2DModel.from_pretrained(folder("dit") / "transformer").eval()
    scheduler = DDIMScheduler.from_pretrained(folder("dit") / "scheduler")
    noisy = scheduler.add_noise(
        network("dit").encode(torch.from_numpy(pixels))["latents"],
        kit.constants["noise"].expand(2, -1, -1, -1),
        torch.tensor([251, 251]),
    )
    told = {"timestep": torch.tensor([251, 251]), "class_labels": torch.tensor([5, 5])}
    seen = whole_pass(transformer.transformer_blocks[2].norm1, lambda: transformer(noisy, **told))
    (ours,) = extract(kit, pixels, "dit")
    assert ours.numpy() == pytest.approx(seen.numpy(), abs=2e-5)
    assert kit.projections[0].biases[0] is not None
    assert set(kit.constants) == {"noise"}


def test_sizes() -> None:
    assert space("dit", size=96).shapes[0] == (36, 16), "positions are spread over a larger grid"
    assert space("sdxl", size=96).shapes[0] == (9, 32)
    assert space("sdxl", size=72).shapes[0] == (9, 32), "halves of odd grids are rounded up"
    for kind, unit in (("dit", 16), ("sdxl", 8)):
        with pytest.raises(BadSize, match=rf"size 68 does not suit this network; choose a multiple of {unit}\.$"):
            space(kind, size=68)


def test_the_size_is_part_of_what_sdxl_is_told() -> None:
    assert space("sdxl", size=96).constants["time_ids"].tolist() == [[96, 96, 0, 0, 96, 96]]


def test_every_layer_of_sdxl_and_dit_can_be_tapped() -> None:
    names = block_attentions(network("sdxl").unet, "attn1")  # type: ignore[attr-defined]
    assert len(names) == 70, "as many as the real one has"
    assert len(extract(space("sdxl", taps=tuple(Tap(name, 5) for name in names)), pictures(1), "sdxl")) == 70
    assert network("dit").resolve(Tap("transformer_blocks.3", 5)).module == "transformer_blocks.3.attn1"


def broken(kind: str, to: Path) -> Path:
    return Path(shutil.copytree(folder(kind), to / kind))


def refusal(place: Path, adapter: Path | str = "", embed: bool = False) -> str:
    with pytest.raises(BadNetwork) as caught:
        net = load_network(place, "float32", "cpu", str(adapter))
        if embed:
            net.constants(SpaceSettings((Tap("mid_block", 1),), 64, prompt="a house"))
    assert re.fullmatch(r"[A-Z/][^\n]*[^.\n]\.", str(caught.value)), str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "file", "name"),
    [
        ("sdxl", "unet/diffusion_pytorch_model.safetensors", "add_embedding.linear_1.weight"),
        ("sdxl", "text_encoder_2/model.safetensors", "text_projection.weight"),
        ("dit", "transformer/diffusion_pytorch_model.safetensors", "transformer_blocks.3.attn1.to_v.bias"),
    ],
)
def test_a_missing_weight_is_named(kind: str, file: str, name: str, tmp_path: Path) -> None:
    place = broken(kind, tmp_path)
    tensors = load_file(place / file)
    del tensors[name]
    save_file(tensors, place / file, metadata={"format": "pt"})
    assert name in refusal(place, embed=True)


@pytest.mark.parametrize("name", ["text_encoder", "text_encoder_2", "tokenizer_2"])
def test_sdxl_wants_both_text_encoders(name: str, tmp_path: Path) -> None:
    place = broken("sdxl", tmp_path)
    shutil.rmtree(place / name)
    assert name in refusal(place, embed=True)


def test_a_text_encoder_of_another_width_is_refused(tmp_path: Path) -> None:
    place = broken("sdxl", tmp_path)
    shutil.rmtree(place / "text_encoder")
    shutil.copytree(TINY / "text_encoder", place / "text_encoder")
    edit_json(place / "unet" / "config.json", projection_class_embeddings_input_dim=13 + 6 * 8)
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(place / "unet"))
    unet.save_pretrained(place / "unet")
    assert "pooled" in refusal(place, embed=True) and "13 channels" in refusal(place, embed=True)


def test_without_text_encoders_the_conditioning_is_stored_or_zero(tmp_path: Path) -> None:
    place = broken("sdxl", tmp_path)
    for name in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
        shutil.rmtree(place / name)
    assert "lists a text encoder" in refusal(place, embed=True)
    (place / "model_index.json").unlink()
    assert all((tensor == 0).all() for tensor in embed_prompt(place, "ignored", 48, 12).values())
    before = load_network(place, "float32", "cpu").weights
    stored = {"prompt_embeds": torch.randn(1, 5, 48), "pooled_prompt_embeds": torch.randn(1, 12)}
    save_file(stored, place / "conditioning.safetensors")
    after = load_network(place, "float32", "cpu")
    assert after.weights != before
    constants = after.constants(SpaceSettings(TAPS["sdxl"], 64, prompt="ignored"))
    assert torch.equal(constants["conditioning"], stored["prompt_embeds"])
    assert torch.equal(constants["pooled"], stored["pooled_prompt_embeds"])
    save_file({"prompt_embeds": torch.randn(1, 5, 47)}, place / "conditioning.safetensors")
    assert "48 channels" in refusal(place, embed=True)


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("sdxl", "text_encoder_2/model.safetensors"),
        ("sdxl", "tokenizer_2/tokenizer_config.json"),
        ("sdxl", "text_encoder_2/config.json"),
        ("dit", "transformer/diffusion_pytorch_model.safetensors"),
        ("dit", "scheduler/scheduler_config.json"),
    ],
)
def test_what_changes_a_number_changes_the_hash(kind: str, file: str, tmp_path: Path) -> None:
    place = broken(kind, tmp_path)
    if file.endswith(".json"):
        edit_json(place / file, note="another")
    else:
        tensors = load_file(place / file)
        max(tensors.values(), key=torch.numel).view(-1)[3] += 1
        save_file(tensors, place / file, metadata={"format": "pt"})
    assert load_network(place, "float32", "cpu").weights != network(kind).weights


def test_other_transformers_are_refused(tmp_path: Path) -> None:
    place = broken("dit", tmp_path)
    edit_json(place / "transformer" / "config.json", _class_name="Transformer2DModel", norm_type="ada_norm_single")
    assert "is not a DiT" in refusal(place)
    edit_json(place / "transformer" / "config.json", _class_name="SD3Transformer2DModel", norm_type="ada_norm_zero")
    assert "SD3Transformer2DModel" in refusal(place)


def test_an_adapter_of_another_network_is_one_sentence(tmp_path: Path) -> None:
    for place, adapter in ((folder("sdxl"), ADAPTER), (TINY, folder("sdxl-adapter"))):
        sentence = refusal(place, adapter)
        assert "is not an IP-Adapter for the network" in sentence and "size mismatch for to_k_ip" in sentence
    assert "takes no IP-Adapter" in refusal(folder("dit"), ADAPTER)
    with pytest.raises(InvalidSpace, match=r"has no variant C; choose S "):
        make_space(network("dit"), SpaceSettings(TAPS["dit"], 64, variant="C"))


def test_the_paper_protocol_is_not_that_of_sdxl_or_dit() -> None:
    for kind in ("sdxl", "dit"):
        with pytest.raises(NoPaperProtocol):
            PaperProtocol(network(kind), SpaceSettings(TAPS[kind][:1], 64))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["sdxl", "dit"])
def test_half_precision_is_close(kind: str, dtype: str) -> None:
    low = load_network(folder(kind), dtype, "cpu")
    assert low.latents.autoencoder.model.dtype == torch.bfloat16  # type: ignore[attr-defined]
    kit = space(kind)
    sides = []
    for net in (low, network(kind)):
        encoded = net.encode(torch.from_numpy(pictures(2)))
        sides.append(
            [matrix for matrices in net.read(encoded, kit.settings.taps, kit.constants).values() for matrix in matrices]
        )
    for x, y in zip(*sides, strict=True):
        assert x.dtype == torch.float32
        assert (x - y).square().mean().sqrt() <= 0.05 * y.std()


def test_the_defaults_of_a_folder_are_those_of_its_kind(tmp_path: Path) -> None:
    sdxl, dit = defaults_of(str(folder("sdxl"))), defaults_of(str(folder("dit")))
    assert (sdxl.size, sdxl.adapter) == (512, "ip-adapter-plus-sdxl")
    assert sdxl.profiles == defaults_of("sdxl").profiles
    assert (dit.size, dit.prompt, dit.adapter) == (64, "", "")
    assert [dit.profiles[name] for name in PROFILES] == [
        (Tap("transformer_blocks.2", step),) for step in (101, 251, 501)
    ]
    shutil.copytree(TINY / "unet", tmp_path / "unet")
    edit_json(tmp_path / "unet" / "config.json", cross_attention_dim=1024, sample_size=64)
    assert (defaults_of(str(tmp_path)).size, defaults_of(str(tmp_path)).adapter) == (512, "")
    (tmp_path / "unet" / "config.json").write_text("{")
    assert defaults_of(str(tmp_path)).profiles == defaults_of("sd15").profiles


@pytest.mark.parametrize("rescaled", [False, True])
def test_the_noise_schedule_is_what_the_scheduler_says(rescaled: bool, tmp_path: Path) -> None:
    """Stable Diffusion 2.x: v-prediction does not move it, a last step of pure noise does."""
    place = Path(shutil.copytree(TINY, tmp_path / "network"))
    config = place / "scheduler" / "scheduler_config.json"
    edit_json(config, _class_name="DDIMScheduler", prediction_type="v_prediction", rescale_betas_zero_snr=rescaled)
    signal = load_network(place, "float32", "cpu").latents.signal  # type: ignore[attr-defined]
    assert torch.equal(signal, DDIMScheduler.from_pretrained(config.parent).alphas_cumprod.double())
    assert (float(signal[999]) < 1e-12) == rescaled


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("sd15", ("--variant", "C", "--ip-adapter", "{adapter}", "--layer", "up_blocks.1.attentions.2@251")),
        ("sdxl", ("--ip-adapter", "{sdxl_adapter}", "--by", "style")),
        ("dit", ("--by", "instance", "--by", "look", "--noises", "2")),
    ],
)
def test_index_and_ask_by_command(model: str, options: tuple[str, ...], tmp_path: Path) -> None:
    draw(tmp_path / "pictures", range(5))
    place = TINY if model == "sd15" else folder(model)
    given = [option.format(adapter=ADAPTER, sdxl_adapter=folder("sdxl-adapter")) for option in options]
    ran = diffsim(
        "index", tmp_path / "pictures", "--index", tmp_path / "index", "--model", place, "--size", "64", *given
    )
    assert ran.code == 0, ran
    random_picture(2).save(tmp_path / "asked.png")
    for question in (tmp_path / "pictures" / "02.png", tmp_path / "asked.png"):
        asked = ("query", question, "--index", tmp_path / "index", "--format", "paths", "--include-self")
        ran = diffsim(*asked, *(("--by", "look") if model == "dit" else ()))
        assert ran.code == 0, ran
        assert Path(ran.out.decode().splitlines()[0]).name == "02.png"
        assert len(ran.out.splitlines()) == 5
