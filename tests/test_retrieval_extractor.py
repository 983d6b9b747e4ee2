"""The extractor on real small networks: features depend on picture and space alone; many kinds of networks load.

Tolerance: within 1e-5 of the largest number of a tap (float32, CPU), because the matrix kernels sum in another order in
batches of another size; a descriptor may in addition differ in the last bit of float16.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, random_picture
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from diffsim.retrieval.extractor import Extractor, NotFinite, make_space
from diffsim.retrieval.families import known_families, load_network
from diffsim.retrieval.families.preset import BUNDLED
from diffsim.retrieval.features import PictureFeatures
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.networks import BadSize, UnknownModule
from diffsim.retrieval.networks.prompts import embed_prompt
from diffsim.retrieval.networks.taps import block_attentions, resolve_module, run_to_taps
from diffsim.retrieval.networks.unet import UNetNetwork
from diffsim.retrieval.pictures.images import decode
from diffsim.retrieval.score import score
from diffsim.retrieval.settings import SpaceSettings, Tap
from diffsim.retrieval.space import OtherRevision, SpaceMismatch
from diffsim.retrieval.tiers import decode_tokens

MINI = BUNDLED / "mini"
DOWN, MID, UP = "down_blocks.0.attentions.1", "mid_block.attentions.0", "up_blocks.1.attentions.2"
SEVERAL = (Tap(MID, 101), Tap(UP, 501, 2.0), Tap(DOWN, 501), Tap(UP, 0), Tap(UP, 999))


@cache
def network(folder: Path = TINY, dtype: str = "float32") -> UNetNetwork:
    return load_network(folder, dtype, "cpu")


@cache
def pictures(count: int, size: int) -> np.ndarray:
    drawn = [random_picture(seed).resize((size, size)) for seed in range(count)]
    return np.stack([np.asarray(picture) for picture in drawn])


def space(folder: Path = TINY, taps: Sequence[Tap] = (Tap(UP, 251),), size: int = 64, **more: Any) -> SpaceKit:
    settings = SpaceSettings(tuple(taps), size, **more)
    return make_space(network(folder, settings.dtype), settings)


def extractor(*kits: SpaceKit, folder: Path = TINY) -> Extractor:
    return Extractor(network(folder, kits[0].settings.dtype), kits)


def assert_equal_features(kit: SpaceKit, ours: list[PictureFeatures], theirs: list[PictureFeatures]) -> None:
    assert kit.settings.tier == "fp32" and len(ours) == len(theirs)
    read = [decode_tokens([one.tokens for one in side], kit.shapes, "fp32") for side in (ours, theirs)]
    for tap, (x, y) in enumerate(zip(*read, strict=True)):
        assert (x - y).abs().max() <= 1e-5 * y.abs().max(), f"tap {tap}"
    for one, other in zip(ours, theirs, strict=True):
        assert one.descriptor == pytest.approx(other.descriptor, rel=2e-3, abs=2e-5)


def mini_taps() -> tuple[Tap, ...]:
    return tuple({tap for taps in known_families().presets["mini"].profiles.values() for tap in taps})


@pytest.mark.parametrize(
    ("folder", "taps", "size"),
    [(TINY, SEVERAL, 64), (TINY, SEVERAL, 128), (MINI, None, 128)],
    ids=["tiny-64", "tiny-128", "mini-128"],
)
def test_features_know_no_batch_order_or_history(folder: Path, taps: tuple[Tap, ...] | None, size: int) -> None:
    kit = space(folder, taps or mini_taps(), size, tier="fp32")
    run = extractor(kit, folder=folder)
    pixels = pictures(8, size)
    (together,) = run.extract(pixels)
    alone = [run.extract(pixels[row : row + 1])[0][0] for row in range(8)]
    assert_equal_features(kit, together, alone)
    order = np.random.default_rng(4).permutation(8)
    (shuffled,) = run.extract(pixels[order])
    assert_equal_features(kit, shuffled, [together[row] for row in order])
    assert len({one.tokens for one in together}) == 8, "different pictures have different features"


def test_the_same_picture_gives_the_same_bytes() -> None:
    run = extractor(space(tier="fp32"))
    (first,), (second,) = run.extract(pictures(3, 64)), extractor(space(tier="fp32")).extract(pictures(3, 64))
    assert [one.tokens for one in first] == [one.tokens for one in second]
    assert all((one.descriptor == other.descriptor).all() for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize(("tier", "within"), [("fp32", 1e-6), ("fp16", 1e-6), ("int8", 1e-4)])
def test_a_picture_scores_one_against_itself_on_every_tier(tier: str, within: float) -> None:
    kit = space(taps=SEVERAL[:3], size=128, tier=tier)
    (features,) = extractor(kit).extract(pictures(3, 128))
    read = kit.attention(decode_tokens([one.tokens for one in features], kit.shapes, tier))
    scores = score([tap[:1] for tap in read], read, kit.weights)
    assert scores[0].item() == pytest.approx(1, abs=within)
    assert (scores[1:] < 0.9999).all()
    # The descriptor is of the tokens as they are read back.
    assert features[0].descriptor == pytest.approx(kit.descriptors(read)[0].numpy(), abs=1e-3)
    assert np.linalg.norm(features[0].descriptor.astype(np.float64)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("size", [64, 72, 104])
def test_tokens_are_what_enters_the_layer(size: int) -> None:
    """Against diffusers alone: the pictures encoded, noised and passed through the whole U-Net."""
    kit = space(taps=(Tap(UP, 501),), size=size, tier="fp32")
    net = network()
    pixels = pictures(2, size)
    seen: list[torch.Tensor] = []
    block = net.unet.get_submodule(UP).transformer_blocks[0]
    handle = block.norm1.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.inference_mode():
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
        latents = (
            net.latents.autoencoder.model.encode(x).latent_dist.mode()
            * net.latents.autoencoder.model.config.scaling_factor
        )
        signal = net.latents.signal[501].float()
        noisy = signal.sqrt() * latents + (1 - signal).sqrt() * kit.constants["noise"]
        net.unet(noisy, 501, encoder_hidden_states=kit.constants["conditioning"].expand(2, -1, -1))
    handle.remove()
    (features,) = extractor(kit).extract(pixels)
    (tokens,) = decode_tokens([one.tokens for one in features], kit.shapes, "fp32")
    assert tokens.numpy() == pytest.approx(seen[0].numpy(), abs=1e-5)


def count_runs(unet: nn.Module, forward: Callable[[], object]) -> list[str]:
    """Names of the leaf modules that ran, in turn."""
    ran: list[str] = []
    leaves = [(name, module) for name, module in unet.named_modules() if not any(module.children())]
    handles = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))  # type: ignore[misc]
        for name, module in leaves
    ]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return ran


@pytest.mark.parametrize("modules", [(DOWN,), (MID, DOWN), (UP, MID)])
def test_the_network_runs_only_to_the_last_tap(modules: tuple[str, ...]) -> None:
    unet = network().unet
    full = [resolve_module(block_attentions(unet, "attn1"), module) for module in modules]
    latents, words = torch.randn(1, 4, 8, 8), torch.zeros(1, 1, 32)
    ran = count_runs(unet, lambda: run_to_taps(unet, full, lambda: unet(latents, 5, encoder_hidden_states=words)))
    with torch.inference_mode():
        whole = count_runs(unet, lambda: unet(latents, 5, encoder_hidden_states=words))
    end = max(whole.index(f"{name}.to_q") for name in full)
    assert ran == whole[:end], "everything before the last tap, and nothing after it"


def hooks(unet: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in unet.modules())


def test_hooks_are_removed_whatever_happens() -> None:
    net = network()
    before = hooks(net.unet)
    full = [net.resolve(Tap(name, 1)).module for name in (DOWN, UP)]

    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_to_taps(net.unet, full, fail)
    with pytest.raises(AttributeError):
        run_to_taps(net.unet, [*full, "nowhere.attn1"], lambda: None)
    with pytest.raises(RuntimeError, match="without entering"):
        run_to_taps(net.unet, full, lambda: None)
    with pytest.raises(RuntimeError):
        net.enter(full[:1], torch.zeros(1, 3, 8, 8), 1, {"conditioning": torch.zeros(1, 1, 32)}, None)
    run_to_taps(net.unet, full, lambda: net.unet(torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 1, 32)))
    assert hooks(net.unet) == before


def choices(unet: nn.Module, name: str) -> tuple[str, list[str]]:
    with pytest.raises(UnknownModule) as caught:
        resolve_module(block_attentions(unet, "attn1"), name)
    problem, listed = str(caught.value).removesuffix(".").split("; choose one of: ")
    return problem, listed.split(", ")


def test_module_names_may_be_cut() -> None:
    unet = network().unet
    full = "up_blocks.1.attentions.2.transformer_blocks.0.attn1"
    for name in (full, full.removesuffix(".attn1"), UP):
        assert resolve_module(block_attentions(unet, "attn1"), name) == full
    assert resolve_module(block_attentions(unet, "attn1"), "mid_block") == f"{MID}.transformer_blocks.0.attn1"


@pytest.mark.parametrize(
    "name", ["", "up", "up_blocks.1.attentions.9", "up_blocks.1.attentions.2.transformer_blocks.0.attn2", "conv_in"]
)
def test_a_wrong_module_lists_all_others(name: str) -> None:
    unet = network().unet
    problem, listed = choices(unet, name)
    assert problem == f"The layer {name!r} is not an attention layer that can be read here"
    valid = block_attentions(unet, "attn1")
    assert [resolve_module(valid, choice) for choice in listed] == valid
    assert len(listed) == 16


def test_an_ambiguous_module_lists_its_own() -> None:
    unet = network().unet
    problem, listed = choices(unet, "up_blocks.1")
    assert "means several" in problem
    assert listed == [f"up_blocks.1.attentions.{number}" for number in range(3)]


def test_names_are_long_enough_where_a_transformer_has_several_blocks() -> None:
    unet = tiny_unet(transformer_layers_per_block=2)
    _, listed = choices(unet, "mid_block")
    assert listed == [f"mid_block.attentions.0.transformer_blocks.{number}" for number in range(2)]
    _, listed = choices(unet, "nowhere")
    valid = block_attentions(unet, "attn1")
    assert [resolve_module(valid, choice) for choice in listed] == valid


def test_every_layer_can_be_tapped() -> None:
    names = block_attentions(network().unet, "attn1")
    kit = space(taps=[Tap(name, 251) for name in names], tier="fp32")
    (features,) = extractor(kit).extract(pictures(2, 64))
    assert all(one.tokens and np.isfinite(one.descriptor).all() for one in features)
    assert {channels for _, channels in kit.shapes} == {8, 16, 32}


def test_two_spaces_of_one_extractor_are_as_each_alone() -> None:
    first = space(taps=SEVERAL[:2], tier="fp32")
    second = space(taps=(Tap(DOWN, 101),), tier="fp32", prompt="a house")
    both = extractor(first, second).extract(pictures(3, 64))
    for kit, ours in zip((first, second), both, strict=True):
        (alone,) = extractor(kit).extract(pictures(3, 64))
        assert [one.tokens for one in ours] == [one.tokens for one in alone]


@pytest.mark.parametrize("revision", ["decode_revision", "extractor_revision"])
def test_a_kit_of_another_version_of_the_code_is_refused(revision: str) -> None:
    kit = space()
    older = replace(kit, space=replace(kit.space, **{revision: 0}))
    with pytest.raises(OtherRevision, match=f"{older.space.fingerprint} was made by another version"):
        extractor(older)


def test_spaces_of_one_noise_and_prompt_share_their_passes() -> None:
    """One pass of the U-Net a timestep, however many spaces and layers; another prompt needs passes of its own."""
    alike = [space(taps=(Tap(name, 251), Tap(MID, 101)), tier="fp32") for name in (UP, DOWN)]
    other = space(taps=(Tap(UP, 251),), tier="fp32", prompt="a house")
    for kits, expected in ((alike, 2), ([*alike, other], 3)):
        run = extractor(*kits)
        passes: list[int] = []
        handle = run.network.unet.conv_in.register_forward_pre_hook(lambda *_, seen=passes: seen.append(1))
        run.extract(pictures(2, 64))
        handle.remove()
        assert len(passes) == expected


def test_a_kit_of_another_network_is_refused() -> None:
    with pytest.raises(SpaceMismatch, match="cannot be compared"):
        Extractor(network(TINY), [space(MINI, mini_taps())])


def test_an_extractor_has_one_size_and_precision() -> None:
    with pytest.raises(ValueError, match="share picture size"):
        extractor(space(), space(size=128))
    with pytest.raises(ValueError, match="precision"):
        Extractor(network(TINY, "bfloat16"), [space()])
    with pytest.raises(ValueError, match="float32, not in bfloat16"):
        make_space(network(), SpaceSettings((Tap(UP, 1),), 64, dtype="bfloat16"))


@pytest.mark.parametrize("size", [4, 63, 65, 100])
def test_sizes_that_do_not_suit_are_refused(size: int) -> None:
    with pytest.raises(BadSize, match=rf"^The picture size {size} does not suit .* multiple of 8\.$"):
        space(size=size)


def test_prompt_seed_and_timestep_make_another_space() -> None:
    ours = space(tier="fp32")
    (base,) = extractor(ours).extract(pictures(1, 64))
    for other in (
        space(tier="fp32", prompt="a house"),
        space(tier="fp32", seed=1),
        space(tier="fp32", taps=(Tap(UP, 252),)),
    ):
        assert other.space.fingerprint != ours.space.fingerprint
        (features,) = extractor(other).extract(pictures(1, 64))
        assert features[0].tokens != base[0].tokens


def test_numbers_that_overflow_are_an_error(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TINY, tmp_path / "network"))
    net = load_network(folder, "float32", "cpu")
    kit = make_space(net, SpaceSettings((Tap(UP, 251),), 64))
    net.unet.conv_in.weight.fill_(float("inf"))
    with pytest.raises(NotFinite, match=r"overflows in float32; .*\.$"):
        Extractor(net, [kit]).extract(pictures(1, 64))


def test_the_bundled_network_needs_no_text_encoder() -> None:
    assert not (MINI / "text_encoder").exists()
    kit = space(MINI, mini_taps(), 128)
    assert kit.constants["conditioning"].shape[0] == 1
    data = (Path(__file__).parent / "data" / "images" / "a.png").read_bytes()
    (features,) = extractor(kit, folder=MINI).extract(decode(data, 128).pixels[None])
    assert np.isfinite(features[0].descriptor).all()


def without_text_encoder(folder: Path) -> Path:
    copied = Path(shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("text_encoder", "tokenizer")))
    index = json.loads((copied / "model_index.json").read_text())
    index = {name: value for name, value in index.items() if name not in ("text_encoder", "tokenizer")}
    (copied / "model_index.json").write_text(json.dumps(index))
    return copied


def test_without_a_text_encoder_the_conditioning_is_stored_or_zero(tmp_path: Path) -> None:
    plain = load_network(without_text_encoder(tmp_path / "plain"), "float32", "cpu")
    assert torch.equal(embed_prompt(plain.folder, "ignored", 32)["conditioning"], torch.zeros(1, 1, 32))
    folder = without_text_encoder(tmp_path / "stored")
    embedding = torch.randn(1, 5, 32)
    save_file({"prompt_embeds": embedding}, folder / "conditioning.safetensors")
    stored = load_network(folder, "float32", "cpu")
    assert torch.equal(embed_prompt(stored.folder, "ignored", 32)["conditioning"], embedding)
    assert stored.weights != plain.weights
    kits = [make_space(net, SpaceSettings((Tap(UP, 251),), 64, tier="fp32")) for net in (plain, stored)]
    first, second = (
        Extractor(net, [kit]).extract(pictures(1, 64)) for net, kit in zip((plain, stored), kits, strict=True)
    )
    assert first[0][0].tokens != second[0][0].tokens


def tiny_unet(**settings: object) -> UNet2DConditionModel:
    torch.manual_seed(11)
    return UNet2DConditionModel.from_config({**UNet2DConditionModel.load_config(TINY / "unet"), **settings}).eval()


def sd2(folder: Path) -> Path:
    """Stable Diffusion 2.x in little: linear projections, heads counted per level, another text width, v-prediction."""
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("unet", "text_encoder"))
    unet = tiny_unet(
        use_linear_projection=True, attention_head_dim=[1, 2, 4, 4], cross_attention_dim=48, upcast_attention=True
    )
    unet.save_pretrained(folder / "unet")
    config = CLIPTextConfig.from_pretrained(
        TINY / "text_encoder", hidden_size=48, hidden_act="gelu", num_attention_heads=4
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps({**json.loads(scheduler.read_text()), "prediction_type": "v_prediction"}))
    return folder


def test_stable_diffusion_2_layout(tmp_path: Path) -> None:
    net = load_network(sd2(tmp_path / "sd2"), "float32", "cpu")
    taps = tuple(Tap(name, 251) for name in block_attentions(net.unet, "attn1"))
    kit = make_space(net, SpaceSettings(taps, 64, prompt="a house", tier="fp32"))
    assert kit.constants["conditioning"].shape == (1, 77, 48)
    assert {projection.heads for projection in kit.projections} == {1, 2, 4}
    run = Extractor(net, [kit])
    (together,) = run.extract(pictures(3, 64))
    assert_equal_features(kit, together, [run.extract(pictures(3, 64)[row : row + 1])[0][0] for row in range(3)])


def test_half_precision_files_alone_are_enough(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TINY, tmp_path / "half", ignore=shutil.ignore_patterns("*.safetensors")))
    low = load_network(TINY, "float16", "cpu")
    low.unet.save_pretrained(folder / "unet", variant="fp16")
    low.latents.autoencoder.model.half().save_pretrained(folder / "vae", variant="fp16")
    CLIPTextModel.from_pretrained(TINY / "text_encoder").save_pretrained(folder / "text_encoder", variant="fp16")
    assert (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    half = load_network(folder, "float32", "cpu")
    ours, theirs = (embed_prompt(place, "a house", 32)["conditioning"].numpy() for place in (folder, TINY))
    assert ours == pytest.approx(theirs, abs=1e-5)
    check_close(half, network(), 0.02)


def test_sharded_files(tmp_path: Path) -> None:
    for variant, name in ((None, "index.json"), ("fp16", "index.fp16.json")):
        folder = tmp_path / str(variant)
        shutil.copytree(
            TINY, folder, ignore=lambda at, names: [n for n in names if "unet" in at and n.endswith("tensors")]
        )
        network().unet.save_pretrained(folder / "unet", variant=variant, max_shard_size="200KB")
        assert (folder / "unet" / f"diffusion_pytorch_model.safetensors.{name}").is_file()
        sharded = load_network(folder, "float32", "cpu")
        check_close(sharded, network(), 1e-6)
        shard = sorted((folder / "unet").glob("*.safetensors"))[-1]
        data = bytearray(shard.read_bytes())
        data[-3] ^= 1
        shard.write_bytes(data)
        assert load_network(folder, "float32", "cpu").weights != sharded.weights


def check_close(ours: UNetNetwork, theirs: UNetNetwork, within: float) -> None:
    """Tokens of the same taps agree within a share of their spread."""
    constants = {"noise": torch.zeros(1, 4, 8, 8), "conditioning": torch.zeros(1, 1, 32)}
    taps = [theirs.resolve(Tap(module, 251)) for module in (DOWN, UP)]
    sides = []
    for net in (ours, theirs):
        with torch.inference_mode():
            read = net.read(net.encode(torch.from_numpy(pictures(2, 64))), taps, constants)
            sides.append([tokens for (tokens,) in read.values()])
    for x, y in zip(*sides, strict=True):
        assert (x.float() - y.float()).square().mean().sqrt() <= within * y.float().std()


@pytest.mark.parametrize(("dtype", "within"), [("bfloat16", 0.05), ("float16", 0.05)])
def test_half_precision_is_close(dtype: str, within: float) -> None:
    """float16 with the autoencoder in bfloat16, as its configuration asks (force_upcast)."""
    low = network(TINY, dtype)
    assert low.unet.dtype == low.dtype == getattr(torch, dtype)
    assert low.latents.autoencoder.model.dtype == torch.bfloat16
    assert low.weights == network().weights
    check_close(low, network(), within)
    kit = space(dtype=dtype)
    assert kit.space.fingerprint != space().space.fingerprint
    (features,) = extractor(kit).extract(pictures(2, 64))
    assert np.isfinite(features[0].descriptor).all()
