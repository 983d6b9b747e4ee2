"""Vision transformers: each family in its real layout, against transformers itself, from the folder to the command."""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import random_picture
from indexing import FAST, diffsim, problem
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_vits import MODELS, PREPROCESSING, make_vit
from transformers import CLIPVisionModelWithProjection

from diffsim.indexer.build import index_folders
from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.maintain import verify_index
from diffsim.indexer.requests import requested_spaces
from diffsim.retrieval.extractor import Extractor, make_space
from diffsim.retrieval.families import defaults_of, find_model, known_families, load_network
from diffsim.retrieval.families.vision_transformer import BadPreprocessing
from diffsim.retrieval.features import PictureFeatures
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.names import PROFILES
from diffsim.retrieval.networks import BadNetwork, BadSize, UnknownModule
from diffsim.retrieval.networks.vit import VitNetwork
from diffsim.retrieval.pictures.decode_pool import DecodePool
from diffsim.retrieval.pictures.images import decode
from diffsim.retrieval.score import score
from diffsim.retrieval.settings import InvalidSpace, SpaceSettings, Tap
from diffsim.retrieval.tiers import decode_tokens

ALL = pytest.mark.parametrize("name", MODELS)
EMBEDDING = pytest.mark.parametrize("name", [name for name in MODELS if name != "clip-headless"])
TAPS = (Tap("layers.2", 0), Tap("layers.0", 0, 2.0))


@pytest.fixture(scope="module")
def vits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("vits")
    return {name: make_vit(folder / name, name, PREPROCESSING if name == "clip" else None) for name in MODELS}


@cache
def network(folder: Path, dtype: str = "float32") -> VitNetwork:
    found = load_network(folder, dtype, "cpu")
    assert isinstance(found, VitNetwork)
    return found


@cache
def pictures(count: int, size: int = 32) -> np.ndarray:
    return np.stack([np.asarray(random_picture(seed).resize((size, size))) for seed in range(count)])


def space(folder: Path, taps: tuple[Tap, ...] = TAPS, size: int = 32, **settings: Any) -> SpaceKit:
    chosen = SpaceSettings(taps, size, **{"noises": 0, "tier": "fp32", **settings})
    return make_space(network(folder, chosen.dtype), chosen)


def extract(folder: Path, kit: SpaceKit, pixels: np.ndarray) -> list[PictureFeatures]:
    (features,) = Extractor(network(folder, kit.settings.dtype), [kit]).extract(pixels)
    return features


def tokens(kit: SpaceKit, features: list[PictureFeatures]) -> tuple[torch.Tensor, ...]:
    return decode_tokens([one.tokens for one in features], kit.shapes, kit.settings.tier)


@ALL
@pytest.mark.parametrize("size", [32, 48])
def test_the_map_is_what_the_layer_itself_computes(vits: dict[str, Path], name: str, size: int) -> None:
    """Against transformers alone: what its own layer hands to the output projection."""
    folder = vits[name]
    net = network(folder)
    kit = space(folder, size=size)
    ours = kit.attention(tokens(kit, extract(folder, kit, pictures(2, size))))
    theirs: dict[int, torch.Tensor] = {}
    outputs = [module for path, module in net.model.named_modules() if path.endswith(("self_attn.out_proj", "o_proj"))]
    assert len(outputs) == 3
    handles = [
        module.register_forward_pre_hook(lambda _, args, layer=layer: theirs.update({layer: args[0]}))
        for layer, module in enumerate(outputs)
    ]
    x = torch.from_numpy(pictures(2, size)).permute(0, 3, 1, 2) / 255
    x = (x - torch.tensor(net.settings.mean).view(3, 1, 1)) / torch.tensor(net.settings.std).view(3, 1, 1)
    more = {"interpolate_pos_encoding": True} if name.startswith(("clip", "siglip")) else {}
    with torch.inference_mode():
        net.model(x, **more)
    for handle in handles:
        handle.remove()
    for tap, layer in zip(ours, (2, 0), strict=True):
        map_ = tap.map.transpose(1, 2).flatten(2)
        assert map_.numpy() == pytest.approx(theirs[layer].numpy(), abs=1e-5)
        assert map_.std() > 0.1, "a comparison of something"


@ALL
def test_features_know_no_batch_order_or_history(vits: dict[str, Path], name: str) -> None:
    folder = vits[name]
    kit = space(folder)
    together = extract(folder, kit, pictures(3))
    for others in (
        [extract(folder, kit, pictures(3)[row : row + 1])[0] for row in range(3)],
        [extract(folder, kit, pictures(3)[[2, 0, 1]])[row] for row in (1, 2, 0)],
    ):
        for x, y in zip(tokens(kit, together), tokens(kit, others), strict=True):
            assert (x - y).abs().max() <= 1e-5 * y.abs().max()
    assert len({one.tokens for one in together}) == 3


@ALL
def test_the_score_is_symmetric_and_one_for_itself(vits: dict[str, Path], name: str) -> None:
    kit = space(vits[name])
    read = kit.attention(tokens(kit, extract(vits[name], kit, pictures(3))))
    scores = torch.stack([score([tap[row : row + 1] for tap in read], read, kit.weights) for row in range(3)])
    assert scores.diagonal().numpy() == pytest.approx(1, abs=1e-6)
    assert scores.numpy() == pytest.approx(scores.T.numpy(), abs=1e-6)
    assert (scores.fill_diagonal_(0) < 0.9999).all()


@ALL
def test_all_tokens_stay_in(vits: dict[str, Path], name: str) -> None:
    extra = {"clip": 1, "clip-vision": 1, "clip-headless": 1, "dinov2": 1, "dinov2-registers": 3, "dinov3": 3}
    assert space(vits[name]).shapes == ((16 + extra.get(name, 0), 24),) * 2


@EMBEDDING
def test_the_global_embedding_is_the_networks_own(vits: dict[str, Path], name: str) -> None:
    folder = vits[name]
    net = network(folder)
    kit = space(folder, (), variant="global")
    features = extract(folder, kit, pictures(3))
    with torch.inference_mode():
        pixels = net.encode(torch.from_numpy(pictures(3)))["pictures"]
        output = net.model(pixels)
        if name in ("clip", "clip-vision"):
            pooled = net.model.vision_model(pixels).pooler_output
            theirs = net.model.visual_projection(pooled)
        elif name.startswith("dino"):
            theirs = output.last_hidden_state[:, 0]
        else:
            theirs = net.model.head(output.last_hidden_state)
    theirs = torch.nn.functional.normalize(theirs, dim=1).numpy()
    assert np.stack([one.descriptor for one in features]) == pytest.approx(theirs, abs=1e-3)
    assert all(one.descriptor.dtype == np.float16 and one.tokens == b"" for one in features)
    assert len({one.descriptor.tobytes() for one in features}) == 3


def test_a_whole_clip_is_read_as_its_vision_part(vits: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    theirs = CLIPVisionModelWithProjection.from_pretrained(vits["clip"]).eval()
    capfd.readouterr()
    net = load_network(vits["clip"], "float32", "cpu")
    assert "UNEXPECTED" not in capfd.readouterr().err, "nobody is told of 200 text weights"
    encoded = net.encode(torch.from_numpy(pictures(2)))
    with torch.inference_mode():
        assert torch.equal(net.embed(encoded), theirs(encoded["pictures"]).image_embeds)


def test_towers_saved_by_transformers_4_load(vits: dict[str, Path], tmp_path: Path) -> None:
    """There, a vision tower's weights stood below `vision_model.`."""
    for name in ("clip-headless", "siglip-vision"):
        folder = Path(shutil.copytree(vits[name], tmp_path / name))
        weights = load_file(folder / "model.safetensors")
        renamed = {f"vision_model.{key}": tensor for key, tensor in weights.items()}
        save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
        kit = space(vits[name])
        old = network(folder)
        (features,) = Extractor(old, [make_space(old, SpaceSettings(TAPS, 32, noises=0, tier="fp32"))]).extract(
            pictures(1)
        )
        assert features[0].tokens == extract(vits[name], kit, pictures(1))[0].tokens


@ALL
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close(vits: dict[str, Path], name: str, dtype: str) -> None:
    low, kit = space(vits[name], size=48, dtype=dtype), space(vits[name], size=48)
    assert low.space.fingerprint != kit.space.fingerprint
    pairs = zip(*(tokens(each, extract(vits[name], each, pictures(2, 48))) for each in (low, kit)), strict=True)
    for x, y in pairs:
        assert (x - y).square().mean().sqrt() <= 0.05 * y.std()


def test_a_kit_keeps_rotary_positions(vits: dict[str, Path], tmp_path: Path) -> None:
    kit = space(vits["dinov3"])
    assert kit.constants["rotary"].shape == (2, 19, 8)
    kit.save(tmp_path)
    loaded = SpaceKit.load(tmp_path)
    read = tokens(kit, extract(vits["dinov3"], kit, pictures(2)))
    for ours, theirs in zip(loaded.attention(read), kit.attention(read), strict=True):
        assert torch.equal(ours.query, theirs.query) and torch.equal(ours.map, theirs.map)
    bare = SpaceKit(kit.space, {}, kit.projections, kit.shapes)
    assert not torch.allclose(bare.attention(read)[0].map, kit.attention(read)[0].map, atol=1e-3)


@ALL
def test_a_missing_weight_is_named(vits: dict[str, Path], name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(vits[name], tmp_path / name))
    weights = load_file(folder / "model.safetensors")
    key = next(key for key in weights if "text" not in key and key.endswith(("layer_norm2.bias", "norm2.bias")))
    del weights[key]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadNetwork, match=r"lacks 1 weights, among them .*norm2\.bias; .*\.$"):
        load_network(folder, "float32", "cpu")


def test_pickled_weights_are_refused(vits: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(vits["dinov2"], tmp_path / "vit"))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadNetwork, match="safetensors"):
        load_network(folder, "float32", "cpu")


def test_what_changes_a_number_changes_the_hash(vits: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(vits["clip"], tmp_path / "vit"))
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(PREPROCESSING | {"feature_extractor_type": "a remark"}))
    assert load_network(folder, "float32", "cpu").weights == network(vits["clip"]).weights
    path.write_text(json.dumps(PREPROCESSING | {"image_std": [0.2, 0.25, 0.31]}))
    assert load_network(folder, "float32", "cpu").weights != network(vits["clip"]).weights


@pytest.mark.parametrize(
    "name", ["layers.1", "layer.1", "encoder.layer.1", "vision_model.encoder.layers.1.self_attn", "model.layer.1"]
)
def test_layers_by_the_names_that_people_know(vits: dict[str, Path], name: str) -> None:
    assert network(vits["dinov2"]).resolve(Tap(name, 0, 2.0)) == Tap("layers.1", 0, 2.0)


@pytest.mark.parametrize("name", ["layers.3", "encoder", "", "1", "layers.-1", "up_blocks.1.attentions.2"])
def test_a_wrong_layer_lists_all_others(vits: dict[str, Path], name: str) -> None:
    with pytest.raises(UnknownModule, match=r"read here; choose one of: layers\.0, layers\.1, layers\.2\.$"):
        network(vits["clip"]).resolve(Tap(name, 0))


def test_what_a_vision_transformer_does_not_know_is_refused(vits: dict[str, Path]) -> None:
    with pytest.raises(InvalidSpace, match=r"was trained without noise, so there is no timestep 101; .*\.$"):
        space(vits["clip"], (Tap("layers.1", 101),))
    for settings in ({"prompt": "a house"}, {"noises": 1}):
        with pytest.raises(InvalidSpace, match=r"takes only a picture; .*\.$"):
            space(vits["clip"], **settings)
    with pytest.raises(InvalidSpace, match="no variant C; choose S or global"):
        space(vits["clip"], variant="C")
    with pytest.raises(InvalidSpace, match="no variant global; choose S "):
        space(vits["clip-headless"], (), variant="global")
    with pytest.raises(BadNetwork, match=r"takes no IP-Adapter; drop --ip-adapter, .*\.$"):
        load_network(vits["clip"], "float32", "cpu", adapter="somewhere")


def test_what_has_no_effect_makes_no_second_space(vits: dict[str, Path]) -> None:
    assert space(vits["clip"], seed=1).space.fingerprint == space(vits["clip"], seed=2).space.fingerprint
    kits = [space(vits["clip"], (), variant="global", tier=tier) for tier in ("fp32", "int8")]
    assert kits[0].space.fingerprint == kits[1].space.fingerprint


@ALL
@pytest.mark.parametrize("size", [4, 33, 60])
def test_sizes_that_do_not_suit_are_refused(vits: dict[str, Path], name: str, size: int) -> None:
    with pytest.raises(BadSize, match=rf"^The picture size {size} does not suit .* multiple of 8\.$"):
        space(vits[name], size=size)


def test_a_folder_says_how_it_is_asked(vits: dict[str, Path]) -> None:
    asked = {name: defaults_of(str(folder)) for name, folder in vits.items()}
    assert {name: (preset.size, preset.fit) for name, preset in asked.items()} == {
        "clip": (32, "crop 36"),  # as its preprocessor_config.json says; the others as their family does
        "clip-vision": (32, "crop 32"),
        "clip-headless": (32, "crop 32"),
        "siglip": (32, "squash"),
        "siglip-vision": (32, "squash"),
        "dinov2": (224, "crop 256"),
        "dinov2-registers": (224, "crop 256"),
        "dinov3": (224, "squash"),
    }
    assert all((preset.prompt, preset.noises) == ("", 0) for preset in asked.values())
    taps = [defaults_of(str(vits["clip"])).taps(profile)[0] for profile in PROFILES]
    assert taps == [Tap("layers.0", 0), Tap("layers.2", 0), Tap("layers.1", 0)]
    assert [defaults_of("dinov2-base").taps(profile)[0].module for profile in PROFILES] == [
        "layers.3",
        "layers.10",
        "layers.6",
    ]
    assert network(vits["clip"]).settings.mean == (0.4, 0.5, 0.6)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"size": 24, "crop_size": 24, "do_center_crop": True}, (24, "crop 24")),  # CLIP's, as first published
        ({"size": {"height": 40, "width": 40}, "do_center_crop": False}, (40, "squash")),
        ({"image_mean": [0, 0, 0]}, (32, "crop 32")),
    ],
)
def test_preprocessing_as_it_is_written(tmp_path: Path, values: dict, expected: tuple[int, str]) -> None:
    preset = defaults_of(str(make_vit(tmp_path, "clip-vision", values)))
    assert (preset.size, preset.fit) == expected


@pytest.mark.parametrize(
    "values", [{"size": {"height": 40, "width": 60}, "do_center_crop": False}, {"image_mean": 0.5}, {"crop_size": "x"}]
)
def test_preprocessing_that_is_not_understood_is_refused(tmp_path: Path, values: dict) -> None:
    folder = make_vit(tmp_path, "clip-vision", values)
    for ask in (find_model, lambda place: load_network(Path(place), "float32", "cpu")):
        with pytest.raises(BadPreprocessing, match=r"in a way that is not supported \(.*\.$"):
            ask(str(folder))


def test_a_broken_preprocessing_file_is_refused(tmp_path: Path) -> None:
    (make_vit(tmp_path, "dinov2") / "preprocessor_config.json").write_text("{")
    with pytest.raises(BadNetwork, match=r"preprocessor_config.json cannot be read"):
        load_network(tmp_path, "float32", "cpu")


@pytest.mark.parametrize("fit", ["crop", "crop 31", "crop 0", "crop -40", "crop 40.5", "Crop 40", "stretch", ""])
def test_a_fit_that_is_unknown_or_too_small_is_refused(fit: str) -> None:
    with pytest.raises(
        InvalidSpace, match=r"cannot be used at size 32; choose squash, or crop N with N of at least 32\.$"
    ):
        SpaceSettings(TAPS, 32, fit=fit)


def test_the_crop_grows_with_the_size(vits: dict[str, Path]) -> None:
    for size, fit in ((64, "crop 72"), (None, "crop 36"), (40, "crop 45")):
        (request,) = requested_spaces(str(vits["clip"]), size=size)
        assert request.settings.fit == fit
    (request,) = requested_spaces(str(vits["siglip"]), size=64)
    assert request.settings.fit == "squash"


def test_presets_are_as_their_families(vits: dict[str, Path]) -> None:
    for preset, name in (("clip-vit-b32", "clip"), ("dinov2-small", "dinov2"), ("siglip-base", "siglip")):
        found, expected = (
            known_families().presets[preset],
            {"clip": "crop 224", "dinov2": "crop 256", "siglip": "squash"}[name],
        )
        assert (found.size, found.fit, found.noises, found.prompt) == (224, expected, 0, "")
    for preset, fit in (("siglip-base", "squash"), ("dinov2-base", "crop 512")):
        assert known_families().presets[preset].settings(TAPS, size=448).fit == fit


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    folder = tmp_path / "gallery"
    folder.mkdir()
    for number in range(5):
        random_picture(number, 90, 60 + 20 * number).save(folder / f"{number}.png")
    return folder


def test_index_and_query_by_layer(vits: dict[str, Path], gallery: Path, tmp_path: Path) -> None:
    place = ("--index", tmp_path / "index")
    ran = diffsim("index", gallery, "--model", vits["clip"], "--layer", "encoder.layers.1", *place)
    assert ran.code == 0 and ran.out.startswith(b"on disk  5 = 5 new"), ran
    asked = diffsim("query", gallery / "3.png", "--include-self", "-k", "3", "--format", "json", *place)
    assert asked.code == 0, asked
    hits = [json.loads(line) for line in asked.out.splitlines()]
    assert len(hits) == 3 and hits[0]["path"].endswith("3.png") and hits[0]["score"] == pytest.approx(1, abs=1e-3)
    # A copy in other bytes is a picture that is not in the index: decoded, cropped and extracted in the same way.
    Image.open(gallery / "3.png").save(tmp_path / "copy.bmp")
    asked = diffsim("query", tmp_path / "copy.bmp", "-k", "1", "--format", "json", *place)
    (hit,) = [json.loads(line) for line in asked.out.splitlines()]
    assert hit["path"].endswith("3.png") and hit["score"] == pytest.approx(1, abs=1e-3)
    dry = diffsim("index", gallery, "--model", vits["clip"], "--variant", "global", "--dry-run", *place)
    assert b"To do: 5" in dry.out and b" 200 bytes of disk" in dry.out, dry  # 5 x 20 numbers of 2 bytes


def test_index_and_query_by_global_embedding(vits: dict[str, Path], gallery: Path, tmp_path: Path) -> None:
    place = ("--index", tmp_path / "index")
    assert diffsim("index", gallery, "--model", vits["dinov2"], "--variant", "global", "--size", "32", *place).code == 0
    Image.open(gallery / "2.png").save(tmp_path / "copy.bmp")
    for asked, more in ((gallery / "2.png", ("--include-self",)), (tmp_path / "copy.bmp", ())):
        ran = diffsim("query", asked, "-k", "1", "--format", "json", *more, *place)
        assert ran.code == 0, ran
        hit = json.loads(ran.out)
        assert hit["path"].endswith("2.png") and hit["score"] == pytest.approx(1, abs=1e-3)


def test_score_of_a_pair(vits: dict[str, Path], gallery: Path, tmp_path: Path) -> None:
    """Cropped as an index does: what lies outside of the middle has no part in it."""
    wide = random_picture(1, 200, 90)
    wide.save(tmp_path / "wide.png")
    wide.paste("red", (0, 0, 45, 90))  # the middle begins at 55; the filter sees six pixels more
    wide.save(tmp_path / "red.png")
    ask = ("score", tmp_path / "wide.png", tmp_path / "red.png", "--model", vits["clip-vision"], "--json")
    for more, same in (((), True), (("--variant", "global"), True), (("--model", vits["siglip"]), False)):
        ran = diffsim(*ask, *more)
        assert ran.code == 0, ran
        assert (json.loads(ran.out)["score"] > 0.99999) == same, ran
    assert "Stable Diffusion 1.x" in problem(diffsim(*ask, "--protocol", "paper"))


def test_mistakes_on_the_command_line_are_one_sentence(vits: dict[str, Path], gallery: Path, tmp_path: Path) -> None:
    ask = ("index", gallery, "--index", tmp_path / "index", "--model", vits["clip"])
    assert "choose one of: layers.0, layers.1, layers.2." in problem(diffsim(*ask, "--layer", "layers.7"))
    assert "was trained without noise" in problem(diffsim(*ask, "--timestep", "5"))
    assert "choose a multiple of 8." in problem(diffsim(*ask, "--size", "33"))
    assert "global embedding has no layers" in problem(diffsim(*ask, "--variant", "global", "--by", "style"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "vit"}')
    assert "vision transformer (clip, " in problem(diffsim(*ask[:-1], tmp_path / "other"))


def test_index_by_global_embedding(vits: dict[str, Path], gallery: Path, tmp_path: Path) -> None:
    index = IndexFolder.create(tmp_path / "index")
    requests = requested_spaces(str(vits["clip"]), variant="global") + requested_spaces(str(vits["clip"]), ["look"])
    report = index_folders(index, [gallery], requests, FAST)
    assert report.extracted == 5 and [space.known.name for space in report.spaces] == ["clip/global", "clip/look"]
    kit = SpaceKit.load(index.space(report.spaces[0].known.fingerprint))
    assert not kit.has_tokens and kit.settings.fit == "crop 36"
    with index.catalog(readonly=True) as catalog, index.store(kit.space.fingerprint, 0, readonly=True) as store:
        contents = catalog.indexed(report.spaces[0].known.id)
        wanted = dict(zip(contents.ids.tolist(), contents.sha256, strict=True))
        _, descriptors = store.descriptors(wanted)
        assert descriptors.dtype == np.float16 and descriptors.shape == (5, 20)
        assert [bytes(record) for _, record in store.tokens(wanted)] == [b""] * 5
    with DecodePool(1, 32, fit="crop 36") as pool:
        pixels = np.stack([pool.decode(gallery / f"{number}.png").pixels for number in range(5)])
    assert np.array_equal(descriptors, np.stack([one.descriptor for one in extract(vits["clip"], kit, pixels)]))
    checked = verify_index(index, 2**20)
    assert [(each.pictures, each.damaged, each.orphans) for each in checked.spaces] == [(5, [], 0)] * 2
    again = index_folders(index, [gallery], requests, FAST)
    assert again.extracted == 0 and len(again.spaces) == 2
    with open(gallery / "0.png", "rb") as file:
        assert decode(file.read(), 32, "crop 36").pixels.shape == (32, 32, 3)
