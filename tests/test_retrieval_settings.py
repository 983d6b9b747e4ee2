"""The settings of a feature space: validated once, and written as they always were."""

import json
from dataclasses import asdict, fields

import pytest

from diffsim.indexer.requests import requested_spaces
from diffsim.retrieval.families import known_families
from diffsim.retrieval.settings import InvalidSpace, SpaceSettings, Tap
from diffsim.retrieval.space import FeatureSpace

TAP = Tap("layers.6", 0)
S, C = ".transformer_blocks.0.attn1", ".transformer_blocks.0.attn2"

SPACES = {
    # As the first released version of this program computed them: an index is found by these digits.
    "2d64b81903de": FeatureSpace(SpaceSettings((Tap("a.attn1", 101), Tap("b.attn1", 251)), 512), "w", "c", 2),
    "2de0ec9e99ae": FeatureSpace(
        SpaceSettings((Tap(f"up_blocks.1.attentions.1{S}", 51),), 128, tier="int8"), "9f" * 32, "0a" * 32, 2
    ),
    "fb4737033231": FeatureSpace(
        SpaceSettings(
            (Tap(f"up_blocks.1.attentions.2{C}", 101, 0.5), Tap(f"mid_block.attentions.0{C}", 501, 2)),
            512,
            prompt="High quality image",
            seed=7,
            noises=4,
            variant="C",
            dtype="bfloat16",
            tier="fp32",
        ),
        "9f" * 32 + "+" + "77" * 32,
        "c",
        2,
    ),
    "cd2261fb820d": FeatureSpace(SpaceSettings((TAP,), 224, "crop 256", noises=0, dtype="float16"), "v", "e", 2),
    "c53b311ed479": FeatureSpace(
        SpaceSettings((), 224, "crop 224", noises=0, variant="global", tier="int8"), "v", "e", 2
    ),
    "4e704c556acf": FeatureSpace(SpaceSettings((Tap("a", 1),), 64, prompt="Ein Haus – ü"), "w", "c", 7, 9),
}


@pytest.mark.parametrize("fingerprint", SPACES)
def test_fingerprints_are_those_of_the_first_version(fingerprint: str) -> None:
    space = SPACES[fingerprint]
    assert space.fingerprint == fingerprint
    assert FeatureSpace.from_record(json.loads(json.dumps(space.record()))) == space


def test_the_record_is_one_table() -> None:
    record = SPACES["cd2261fb820d"].record()
    assert json.dumps(record, sort_keys=True) == (
        '{"constants": "e", "decode_revision": 2, "dtype": "float16", "extractor_revision": 1, "fit": "crop 256", '
        '"noises": 0, "prompt": "", "seed": 0, "size": 224, "taps": [{"module": "layers.6", "timestep": 0, '
        '"weight": 1.0}], "tier": "fp16", "variant": "S", "weights": "v"}'
    )


@pytest.mark.parametrize("seed", [-(2**63), -1, 0, 2**64 - 1])
def test_every_seed_of_the_generator(seed: int) -> None:
    assert SpaceSettings((TAP,), 224, seed=seed).seed == seed


@pytest.mark.parametrize("size", [-64, 0, 8193, 1_000_000, "evil", [64]])
def test_sizes_that_no_network_takes(size: object) -> None:
    with pytest.raises(InvalidSpace, match=r"^Pictures of .* pixels cannot be read; choose 1 to 8192\.$"):
        SpaceSettings((TAP,), size)  # type: ignore[arg-type]


@pytest.mark.parametrize(("module", "timestep"), [(7, 101), ("a", "early"), ("a", 10**6)])
def test_taps_that_are_none(module: object, timestep: object) -> None:
    with pytest.raises(InvalidSpace):
        Tap(module, timestep)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 2**64}, r"seed 18446744073709551616 is out of range; .* 2\*\*64 - 1"),
        ({"seed": -(2**63) - 1}, "out of range"),
        ({"noises": -1}, "noise tensors -1 is negative; choose 0 or more"),
        ({"dtype": "float8"}, "precision float8 is unknown; choose one of float32, bfloat16, float16"),
        ({"tier": "int4"}, "storage tier int4 is unknown; choose one of fp32, fp16, int8"),
        ({"fit": "crop 200"}, "'crop 200' cannot be used at size 224"),
        ({"taps": ()}, "at least one tap"),
        ({"variant": "global"}, "at least one tap .*, a global one none"),
    ],
)
def test_what_is_outside_is_one_sentence(changes: dict, said: str) -> None:
    with pytest.raises(InvalidSpace, match=rf"^The .*{said}.*\.$|^A feature .*{said}.*\.$"):
        SpaceSettings(**{"taps": (TAP,), "size": 224, **changes})


def test_a_request_is_the_network_s_defaults_and_what_was_changed() -> None:
    (plain,) = requested_spaces("sd15", ["style"])
    preset = known_families().presets["sd15"]
    assert plain.settings == SpaceSettings(preset.profiles["style"], 512, prompt="High quality image")
    changes = {"size": 256, "prompt": "", "seed": 5, "noises": 3, "dtype": "bfloat16", "tier": "int8"}
    (changed,) = requested_spaces("sd15", ["style"], **changes)
    assert asdict(changed.settings) == asdict(plain.settings) | changes
    unchanged = requested_spaces("sd15", ["style"], **dict.fromkeys(changes))
    assert unchanged == [plain]
    assert requested_spaces() == requested_spaces("mini", ["look"])


def test_every_setting_can_be_changed_by_name() -> None:
    known = {field.name for field in fields(SpaceSettings)} - {"taps", "variant"}
    for name, value in {"fit": "crop 512", "size": 64, "prompt": "x", "seed": 1, "noises": 0}.items():
        (request,) = requested_spaces("sd15", **{name: value})
        assert getattr(request.settings, name) == value and name in known
    with pytest.raises(TypeError, match="colour"):
        requested_spaces("sd15", colour="red")
