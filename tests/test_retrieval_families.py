"""Families of networks: those of this program, and those that other installed packages bring."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import DATA, TINY, random_picture
from indexing import Ran, diffsim, problem
from safetensors.torch import save_file

from diffsim.indexer.requests import requested_spaces
from diffsim.query.text import size_text
from diffsim.retrieval.errors import BadNetwork
from diffsim.retrieval.families import Family, Preset, find_model, known_families, load_network
from diffsim.retrieval.settings import InvalidSpace, Tap

PROJECT = Path(__file__).parent.parent
TOY = DATA / "toy-family"
CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy family's distribution, built and installed by pip."""
    source = Path(shutil.copytree(TOY, tmp_path_factory.mktemp("toy") / "source"))
    target = source.parent / "site"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    settled = ("install", "--no-deps", "--no-build-isolation", "--no-index", "--target", target, source)
    subprocess.run([*pip, *settled], check=True, capture_output=True, text=True)
    assert (target / "toy_family-1.0.dist-info" / "entry_points.txt").is_file()
    return target


@pytest.fixture
def network(tmp_path: Path) -> Path:
    folder = tmp_path / "network"
    folder.mkdir()
    qkv = torch.randn(3 * 16, 3 * 8 * 8, generator=torch.Generator().manual_seed(5)) / 8
    save_file({"qkv": qkv}, folder / "patches.safetensors")
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for number in range(5):
        random_picture(number).save(tmp_path / "pictures" / f"{number}.png")
    random_picture(9).save(tmp_path / "outside.png")
    return tmp_path / "pictures"


def real(*arguments: str | Path, site: Path | None = None) -> Ran:
    """The command in a process of its own, which finds what is installed in `site`."""
    path = os.pathsep.join(str(place) for place in (PROJECT, site) if place)
    command = [sys.executable, "-m", "diffsim.query.cli", *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=False)
    return Ran(done.returncode, done.stdout, done.stderr.decode())


def with_plugins(*sites: Path) -> Callable[[], None]:
    """For `diffsim(before=...)`: what is installed in these folders is found, in that process alone."""

    def use() -> None:
        sys.path[:0] = map(str, sites)
        known_families.cache_clear()

    return use


def plug_in(site: Path, name: str, code: str = "", family: str = "FAMILY") -> Path:
    """A distribution NAME 1.0, laid out as pip does: a module and its metadata. code: after the toy family's own."""
    module = name.replace("-", "_")
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (site / f"{module}.py").write_text((TOY / "toy_family.py").read_text() + "\n\n" + code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[diffsim.families]\n{name} = {module}:{family}\n")
    return site


def changed(**changes: str) -> str:
    """Code after which the module's family has other values."""
    values = ", ".join(f"{name}={value}" for name, value in changes.items())
    return f"from dataclasses import replace\nFAMILY = replace(FAMILY, {values})\n"


def hits(ran: Ran) -> list[dict]:
    assert ran.code == 0, ran
    return [json.loads(line) for line in ran.out.splitlines()]


def test_an_installed_family_is_indexed_and_queried(site: Path, network: Path, pictures: Path, tmp_path: Path) -> None:
    index = ("--index", tmp_path / "index", *CPU)
    ask = ("query", tmp_path / "outside.png", *index, "--format", "json")
    ran = real("index", pictures, *index, "--model", network, site=site)
    assert ran.code == 0 and b"5 pictures extracted" in ran.out, ran
    found = hits(real(*ask, site=site))
    assert len(found) == 5 and found[0]["score"] < 0.9999

    here = with_plugins(site)
    compared = ("score", tmp_path / "outside.png", found[0]["path"], "--model", network, "--json", *CPU)
    scored = json.loads(diffsim(*compared, before=here).out)
    assert scored["score"] == pytest.approx(found[0]["score"], abs=1e-3)
    ran = diffsim("index", pictures, *index, "--model", network, "--variant", "global", before=here)
    assert ran.code == 0 and b"5 pictures extracted" in ran.out, ran
    assert len(hits(diffsim(*ask, "--space", "network/global", before=here))) == 5
    spaces = [json.loads(file.read_text())["space"] for file in (tmp_path / "index" / "spaces").glob("*/space.json")]
    assert {space["variant"] for space in spaces} == {"S", "global"}
    assert all(re.fullmatch("patches:1:[0-9a-f]{64}", space["weights"]) for space in spaces)

    # Without the package: indexed pictures can still be queried with, and all else is one sentence.
    inside = hits(diffsim("query", pictures / "3.png", *ask[2:], "--space", "network/look", "--include-self"))
    assert inside[0]["path"].endswith("3.png") and inside[0]["score"] == pytest.approx(1, abs=1e-3)
    missing = problem(diffsim(*ask, "--space", "network/look"))
    assert "made with the network family patches, which no installed package provides; install" in missing
    random_picture(7).save(pictures / "7.png")
    for more in (("--dry-run",), ()):
        skipped = diffsim("index", *index, *more)
        assert skipped.code == 0 and skipped.out.count(b"no installed package provides the network family patches") == 2
    again = diffsim("index", *index, before=here)
    assert again.code == 0 and b"1 pictures extracted" in again.out and b"skipped" not in again.out


def test_another_revision_of_a_family_is_another_space(network: Path, pictures: Path, tmp_path: Path) -> None:
    first = with_plugins(plug_in(tmp_path / "first", "toy-family"))
    second = with_plugins(plug_in(tmp_path / "second", "toy-family", changed(revision="2")))
    index = ("index", pictures, "--index", tmp_path / "index", "--model", network, *CPU)
    assert diffsim(*index, before=first).code == 0
    ask = ("query", tmp_path / "outside.png", "--index", tmp_path / "index", *CPU)
    assert diffsim(*ask, before=first).code == 0
    said = problem(diffsim(*ask, before=second))
    assert "was made by another version of the network family patches" in said
    assert b"5 pictures extracted" in diffsim(*index, before=second).out
    assert len(list((tmp_path / "index" / "spaces").iterdir())) == 2


def test_a_broken_package_is_one_sentence_and_stands_in_nobody_s_way(pictures: Path, tmp_path: Path) -> None:
    broken = with_plugins(plug_in(tmp_path / "site", "broken-family", "import no_such_module"))
    listed = diffsim("models", "list", before=broken)
    assert listed.code == 0 and b"sd15 " in listed.out
    assert listed.err == (
        "The package broken-family 1.0 provides a network family that cannot be used (ModuleNotFoundError: No module "
        "named 'no_such_module'); update or uninstall it.\n"
    )
    ran = diffsim("score", pictures / "1.png", pictures / "2.png", "--model", TINY, "--size", "64", *CPU, before=broken)
    assert ran.code == 0 and ran.err == "", ran
    said = problem(diffsim("models", "path", "broken", before=broken))
    assert said.startswith("The network 'broken' is unknown (The package broken-family 1.0 provides ")
    said = problem(diffsim("models", "path", tmp_path, before=broken))
    assert said.startswith(f"The folder {tmp_path} has no ") and "(The package broken-family 1.0 provides " in said


PRESET = "Preset(64, {}, name='sd15')"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("FAMILY = 5", r"TypeError: \S+:FAMILY is not a Family"),
        (changed(name="'Patches:1'"), "ValueError: 'Patches:1' is not a valid family name; use lower-case letters"),
        (changed(variants="()"), "ValueError: the family patches has no variants"),
        (changed(name="'dit'"), "ValueError: there is a family dit already"),
        (changed(presets=f"({PRESET},)"), "ValueError: there is a network sd15 already"),
        ("del FAMILY", "AttributeError: .* has no attribute 'FAMILY'"),
    ],
)
def test_what_is_not_a_family_is_put_aside(tmp_path: Path, code: str, said: str) -> None:
    listed = diffsim("models", "list", before=with_plugins(plug_in(tmp_path, "odd-family", code)))
    assert listed.code == 0
    assert re.fullmatch(rf"The package odd-family 1\.0 .*\({said}.*\); update or uninstall it\.\n", listed.err)


def test_of_two_families_of_one_name_the_first_is_kept(tmp_path: Path) -> None:
    site = plug_in(plug_in(tmp_path, "a-family"), "b-family")
    listed = diffsim("models", "list", before=with_plugins(site))
    assert "b-family 1.0" in listed.err and "there is a family patches already" in listed.err
    assert "a-family" not in listed.err


FAILING = "def fail(*_):\n    raise KeyError('size')\n"


@pytest.mark.parametrize("part", ["defaults", "load"])
def test_a_package_that_fails_is_named(network: Path, pictures: Path, tmp_path: Path, part: str) -> None:
    broken = with_plugins(plug_in(tmp_path / "site", "toy-family", FAILING + changed(**{part: "fail"})))
    said = problem(diffsim("score", pictures / "1.png", pictures / "2.png", "--model", network, *CPU, before=broken))
    assert said == (
        f"The network family patches of the package toy-family 1.0 failed on {network} (KeyError: 'size'); update or "
        "uninstall that package."
    )


def test_a_package_that_cannot_tell_folders_apart_stands_in_nobody_s_way(pictures: Path, tmp_path: Path) -> None:
    broken = with_plugins(plug_in(tmp_path / "site", "toy-family", FAILING + changed(matches="fail")))
    ask = ("score", pictures / "1.png", pictures / "2.png", *CPU)
    assert diffsim(*ask, "--model", TINY, "--size", "64", before=broken).code == 0
    assert "toy-family 1.0 failed on" in problem(diffsim(*ask, "--model", tmp_path, before=broken))


def test_weights_without_the_family_s_stamp_are_refused(network: Path, pictures: Path, tmp_path: Path) -> None:
    """Else two families, or two revisions of one, could share a fingerprint."""
    code = "def bare(*given):\n    return replace(load(*given), weights='0a1b')\n" + changed(load="bare")
    plugin = with_plugins(plug_in(tmp_path / "site", "toy-family", code))
    said = problem(diffsim("score", pictures / "1.png", pictures / "2.png", "--model", network, *CPU, before=plugin))
    assert "ValueError: weights '0a1b' without the stamp 'patches:1:'" in said


def test_two_families_that_claim_one_folder(network: Path, pictures: Path, tmp_path: Path) -> None:
    """Neither is preferred: it would change every number. What one of them has indexed stays its own."""
    alone = plug_in(tmp_path / "alone", "b-family")
    both = with_plugins(alone, plug_in(tmp_path / "other", "a-family", changed(name="'pixels'")))
    index = ("index", pictures, "--index", tmp_path / "index", *CPU)
    assert diffsim(*index, "--model", network, before=with_plugins(alone)).code == 0
    said = problem(diffsim(*index, "--model", network, before=both))
    assert said == (
        f"The network in {network} is claimed by the families pixels (package a-family 1.0) and patches (package "
        "b-family 1.0); uninstall all but one of these packages."
    )
    random_picture(7).save(pictures / "7.png")
    again = diffsim(*index, before=both)
    assert again.code == 0 and b"1 pictures extracted" in again.out, again
    assert diffsim("query", tmp_path / "outside.png", *index[2:], before=both).code == 0


def test_a_package_s_family_goes_before_those_of_this_program(pictures: Path, tmp_path: Path) -> None:
    """They match widely: any unet/ is Stable Diffusion's. What they have indexed stays theirs, and so do presets."""
    copy = Path(shutil.copytree(TINY, tmp_path / "network"))
    save_file({"qkv": torch.ones(48, 192)}, copy / "patches.safetensors")
    plugin = with_plugins(plug_in(tmp_path / "site", "toy-family"))
    index = ("index", pictures, "--index", tmp_path / "index", *CPU)
    assert diffsim(*index, "--model", copy, "--size", "64").code == 0
    random_picture(7).save(pictures / "7.png")
    assert b"1 pictures extracted" in diffsim(*index, before=plugin).out
    ran = diffsim(*index, "--model", copy, "--size", "64", before=plugin)
    assert b"6 pictures extracted" in ran.out, ran
    weights = {
        json.loads(file.read_text())["space"]["weights"].split(":")[0]
        for file in (tmp_path / "index" / "spaces").glob("*/space.json")
    }
    assert weights == {"patches", load_network(TINY, "float32", "cpu").weights}


def test_a_package_s_own_networks_are_listed_and_found_by_name(network: Path, pictures: Path, tmp_path: Path) -> None:
    code = (
        "look = {'look': (Tap('patches', 0),)}\n"
        f"tiles = Preset(64, look, noises=0, name='tiles', about='Tiles', bundled=Path({str(network)!r}))\n"
        "far = Preset(32, look, name='far', about='Far', local_only='it is secret; ask for it')\n"
    )
    plugin = with_plugins(plug_in(tmp_path / "site", "toy-family", code + changed(presets="(tiles, far)")))
    listed = diffsim("models", "list", before=plugin).out.decode()
    size = size_text(sum(path.stat().st_size for path in network.rglob("*")))
    assert f"tiles                  64 px {size:>8}             Tiles (toy-family 1.0; here: {network})\n" in listed
    assert (
        "far                    32 px                      Far (toy-family 1.0; not here; only a local copy works)\n"
        in listed
    )
    for command in ("path", "fetch"):
        assert diffsim("models", command, "tiles", before=plugin).out.decode().strip() == str(network)
    ran = diffsim("score", pictures / "1.png", pictures / "1.png", "--model", "tiles", "--json", *CPU, before=plugin)
    assert json.loads(ran.out)["space"] == "tiles/look" and json.loads(ran.out)["score"] == pytest.approx(1)
    assert "it is secret" in problem(diffsim("models", "fetch", "far", before=plugin))


def test_profiles_and_variants_are_those_of_the_family(network: Path, pictures: Path, tmp_path: Path) -> None:
    plugin = with_plugins(plug_in(tmp_path / "site", "toy-family", changed(variants="('S', 'keys')")))
    ask = ("score", pictures / "1.png", pictures / "2.png", "--model", network, *CPU)
    assert "'style' is unknown; choose one of look." in problem(diffsim(*ask, "--by", "style", before=plugin))
    said = problem(diffsim(*ask, "--variant", "C", before=plugin))
    assert said == f"The network {network} has no variant C; choose S or keys."
    keys = "PatchNetwork.variants = ('S', 'keys')\n" + changed(variants="('S', 'keys')")
    plugin = with_plugins(plug_in(tmp_path / "more", "toy-family", keys))
    ran = diffsim(*ask, "--variant", "keys", "--json", before=plugin)
    assert ran.code == 0 and json.loads(ran.out)["space"] == "network/look-keys", ran


@pytest.mark.parametrize(
    ("model", "choices"), [("dit-xl-2-256", "S"), ("dinov2-small", "S or global"), ("mini", "S or C")]
)
def test_the_variants_of_this_program_s_families(model: str, choices: str) -> None:
    with pytest.raises(InvalidSpace, match=rf"^The network {model} has no variant K; choose {choices}\.$"):
        requested_spaces(model, variant="K")


def test_the_families_of_this_program_need_no_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffsim.retrieval.families.registry.entry_points", lambda **_: ())
    found = known_families.__wrapped__()
    assert [member.family.name for member in found.members] == [
        "stable-diffusion",
        "feature-maps",
        "dit",
        "vision-transformer",
        "colour",
    ]
    assert {member.package for member in found.members} == {""} and not found.broken
    assert next(iter(found.presets)) == "mini" and "dinov2-small" in found.presets


def test_a_folder_of_no_family_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        BadNetwork,
        match=r"^The folder \S+ has no unet/config.json, nor a config.json of an encoder, nor a transformer/config",
    ):
        load_network(tmp_path, "float32", "cpu")


def test_a_network_trained_here_is_read_like_the_bundled_one(tmp_path: Path) -> None:
    shutil.copytree(find_model("mini"), tmp_path / "trained")
    ours, bundled = (requested_spaces(str(model), ["style"])[0] for model in (tmp_path / "trained", "mini"))
    assert ours.name == "trained/style" and ours.settings == bundled.settings


def test_a_family_is_checked_when_it_is_made() -> None:
    parts = (lambda folder: True, lambda folder: Preset(8, {"look": (Tap("a", 0),)}), lambda *_: None)
    assert Family("a-1", "x", *parts).stamped("0f") == "a-1:1:0f"  # type: ignore[arg-type]
    for name in ("", "A", "a b", "a:b"):
        with pytest.raises(ValueError, match="is not a valid family name"):
            Family(name, "x", *parts)  # type: ignore[arg-type]


def test_the_page_shows_the_family_that_is_tested() -> None:
    page = (PROJECT / "docs" / "families.md").read_text(encoding="utf-8")
    for language, file in (("python", "toy_family.py"), ("toml", "pyproject.toml")):
        (block,) = re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        assert block == (TOY / file).read_text(encoding="utf-8")
