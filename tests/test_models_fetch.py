"""`diffsim models fetch` against a hub on loopback: the real command, repositories in the real layout, and what goes
wrong with connections, files, disks and accounts."""

import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TINY, random_picture
from hubs import Hub, command, environment, fetched, files_of, serving
from indexing import Ran, diffsim, problem
from networks import ADAPTER, tiny_sdxl
from safetensors.torch import load_file, save_file

from diffsim.indexer.requests import requested_spaces
from diffsim.retrieval.families import known_families, load_network
from diffsim.retrieval.settings import SpaceSettings, Tap

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
PARTS = ("unet", "vae", "scheduler", "text_encoder", "tokenizer", "model_index.json")
AGAIN = r"run `diffsim models fetch sd15` again"
ELSEWHERE = r"or copy the files from elsewhere and give them with --model FOLDER\."


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Holds Stable Diffusion 1.5 with narrow layers, and files beside it that are not wanted."""
    with serving() as hub:
        others = dict.fromkeys(("README.md", "unet/model.py", "unet/model.bin"), TINY / "model_index.json")
        hub.publish(SD15, files_of(TINY) | others)
        yield hub


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def wanted() -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in files_of(TINY).items() if name.split("/")[0] in PARTS}


def contents(folder: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in files_of(folder).items()}


def in_place(ran: Ran, folder: Path) -> bool:
    """Whether the command ended well and quietly, with exactly the network's files, and nothing left beside them."""
    assert (ran.code, ran.out.decode().strip(), ran.err) == (0, str(folder), ""), ran
    assert not folder.with_name(f"{folder.name}.part").exists()
    return contents(folder) == wanted()


def test_a_fetched_network_is_the_pinned_one_and_indexes(
    hub: Hub, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account's token goes to the hub and not to the host where it keeps large files."""
    assert in_place(fetched("sd15", hub, models, HF_TOKEN="secret"), models / "sd15")
    assert hub.tokens == {"127.0.0.1": {"Bearer secret"}, "localhost": {None}}
    asked = len(hub.asked)
    assert in_place(fetched("sd15", hub, models), models / "sd15") and len(hub.asked) == asked
    monkeypatch.setenv("DIFFSIM_MODELS", str(models))
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        random_picture(number).save(tmp_path / "pictures" / f"{number}.png")
    index = ("--index", tmp_path / "index", "--device", "cpu")
    ran = diffsim("index", tmp_path / "pictures", *index, "--model", "sd15", "--by", "style", "--size", "64")
    assert ran.code == 0 and b"3 pictures extracted" in ran.out, ran
    found = diffsim("query", tmp_path / "pictures" / "0.png", *index, "--format", "paths")
    assert sorted(Path(line).name for line in found.out.decode().splitlines()) == ["1.png", "2.png"]


@pytest.mark.parametrize("rudely", [False, True], ids=["ended", "reset"])
def test_a_connection_cut_in_the_middle_of_a_file_is_taken_up_there(hub: Hub, models: Path, rudely: bool) -> None:
    hub.cut, hub.rudely = {UNET: [700_000, 200_000], VAE: [90_000]}, rudely
    assert in_place(fetched("sd15", hub, models), models / "sd15")
    assert len([path for path, _ in hub.asked if path == UNET]) == 3
    if not rudely:  # a reset also loses what was under way
        assert (UNET, 700_000) in hub.asked and (UNET, 900_000) in hub.asked and (VAE, 90_000) in hub.asked


def test_a_download_that_breaks_off_goes_on_in_another_run(hub: Hub, models: Path) -> None:
    hub.cut = {UNET: [700_000, 0, 0]}
    said = problem(fetched("sd15", hub, models))
    assert re.fullmatch(rf"{SD15} could not .* \(\w+ .*\); check the network and {AGAIN}, .* {ELSEWHERE}", said), said
    assert not (models / "sd15").exists()
    assert (models / "sd15.part" / f"{UNET}.incomplete").stat().st_size == 700_000
    hub.asked.clear()
    assert in_place(fetched("sd15", hub, models), models / "sd15")
    assert {path for path, _ in hub.asked if path in wanted()} == {UNET, *(path for path in wanted() if path > UNET)}
    assert (UNET, 700_000) in hub.asked


def test_a_server_that_sends_the_whole_instead_of_the_rest(hub: Hub, models: Path) -> None:
    hub.cut, hub.ranges = {UNET: [700_000]}, False
    assert in_place(fetched("sd15", hub, models), models / "sd15")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_download_that_is_ended_goes_on_in_another_run(hub: Hub, models: Path, how: signal.Signals) -> None:
    ended = threading.Event()
    hub.before = lambda path: path == UNET and ended.wait(60)
    partial = models / "sd15.part" / f"{UNET}.incomplete"
    with subprocess.Popen(command("sd15"), env=environment(hub, models), stderr=subprocess.PIPE, text=True) as running:
        while not partial.exists() or partial.stat().st_size < 100_000:
            assert running.poll() is None
        running.send_signal(how)
        _, said = running.communicate()
        ended.set()
    assert said == (
        ""
        if how == signal.SIGKILL
        else "Error: Interrupted; what arrived is kept: run the same command again to go on.\n"
    )
    hub.asked.clear()
    assert in_place(fetched("sd15", hub, models), models / "sd15")
    assert [first for path, first in hub.asked if path == UNET and first >= 100_000]


def test_of_two_fetches_at_once_one_waits_for_the_other(hub: Hub, models: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()
    hub.before = lambda path: path == UNET and (begun.set(), go_on.wait(60))
    with subprocess.Popen(
        command("sd15"), env=environment(hub, models), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as first:
        assert begun.wait(60)
        said = problem(fetched("sd15", hub, models))
        go_on.set()
        out, err = first.communicate()
    assert said == "The network sd15 is being fetched by another process; wait until it is done."
    assert in_place(Ran(first.returncode, out, err.decode()), models / "sd15")


@pytest.mark.parametrize("path", [UNET, "scheduler/scheduler_config.json"], ids=["large", "small"])
def test_a_file_with_other_bytes_than_declared_is_refused(hub: Hub, models: Path, path: str) -> None:
    """By its SHA-256 if it is large, by git's hash if it is small."""
    true = hub.repositories[SD15][path]
    hub.instead = {path: true[:-1] + bytes([true[-1] ^ 1])}
    said = problem(fetched("sd15", hub, models))
    reason = rf"{path} arrived without the checksum [0-9a-f]{{12}}\.\.\. that the hub declares"
    step = f"it was thrown away: {AGAIN}, {ELSEWHERE}"
    assert re.fullmatch(rf"{SD15} could not be downloaded from {hub.address} \({reason}\); {step}", said), said
    assert not (models / "sd15").exists()
    assert not [name for name in files_of(models / "sd15.part") if name.startswith(path)]
    hub.instead = {}
    assert in_place(fetched("sd15", hub, models), models / "sd15")


def test_what_lies_there_is_checked_again(hub: Hub, models: Path) -> None:
    """A damaged file, files of another version, and half a file that is longer than the whole."""
    hub.cut = {VAE: [0, 0, 0]}
    problem(fetched("sd15", hub, models))
    part = models / "sd15.part"
    (part / UNET).write_bytes(b"damaged")
    (part / f"{VAE}.incomplete").write_bytes(bytes(10))
    (part / "unet" / "old.safetensors").write_bytes(b"old")
    said = problem(fetched("sd15", hub, models))
    assert f"{VAE} arrived without the checksum" in said
    assert in_place(fetched("sd15", hub, models), models / "sd15")


FULL = """
mount -t tmpfs -o size=4m none {models}
(while [ ! -e {begun} ]; do sleep 0.02; done; head -c 4m /dev/zero > {models}/filler; touch {filled}) 2> /dev/null &
{fetch}
echo "exit $?"; ls {models}; rm {models}/filler
{fetch}
echo "exit $?"; cp -r {models}/sd15 {copy}
"""


def test_a_disk_that_fills_up_meanwhile_is_one_sentence(hub: Hub, models: Path, tmp_path: Path) -> None:
    """On a small disk of its own, which only these processes see."""
    can = subprocess.run(["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
    if can.returncode:
        pytest.skip("this machine lets nobody mount a disk of their own")
    models.mkdir()
    begun, filled, copy = tmp_path / "begun", tmp_path / "filled", tmp_path / "copy"

    def fill(path: str) -> None:
        if path == UNET:
            begun.touch()
            while not filled.exists():
                time.sleep(0.01)

    hub.before = fill
    places = {"models": models, "begun": begun, "filled": filled, "copy": copy}
    quoted = {name: shlex.quote(str(place)) for name, place in places.items()}
    disk = ["unshare", "-Urm", "sh", "-c", FULL.format(fetch=shlex.join(command("sd15")), **quoted)]
    ran = subprocess.run(disk, env=environment(hub, models), capture_output=True, text=True)
    there = ["filler", "sd15.lock", "sd15.part"]
    assert ran.stdout.splitlines() == ["exit 1", *there, str(models / "sd15"), "exit 0"], ran
    assert ran.stderr == (
        f"Error: There is no room for sd15 in {models} (No space left on device); make some, or set DIFFSIM_MODELS to "
        "another folder, and run `diffsim models fetch sd15` again.\n"
    )
    assert contents(copy) == wanted()


def test_a_network_that_has_no_room_is_not_begun(hub: Hub, models: Path) -> None:
    hub.sizes = {UNET: 10**15}
    said = problem(fetched("sd15", hub, models))
    assert re.fullmatch(
        rf"There is no room for sd15 in {models} \(1000000\.00 GB are missing and [\d.]+ GB are free\); make some, .* "
        rf"{AGAIN}\.",
        said,
    ), said
    assert hub.asked == []


def test_a_folder_that_cannot_be_written_is_one_sentence(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = problem(fetched("sd15", hub, tmp_path / "file" / "models"))
    assert said == (
        f"sd15 cannot be written to {tmp_path}/file/models (Not a directory); set DIFFSIM_MODELS to a folder that you "
        "may write, and run `diffsim models fetch sd15` again."
    )


@pytest.mark.parametrize(
    ("where", "status", "said"),
    [
        ("listing", 401, r"it answers 401: not to everybody\); log in with `hf auth login` and {again}"),
        ("listing", 404, r"it answers 404: nothing at revision 451f4fe16113\); update diffsim-search, which .*"),
        ("listing", 500, r"it answers 500\); run `diffsim models fetch sd15` later, which goes on where it stopped"),
        (UNET, 404, r"it answers 404: nothing at revision 451f4fe16113\); update diffsim-search, which .*"),
        (UNET, 503, r"it answers 503\); run `diffsim models fetch sd15` later, which goes on where it stopped"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(hub: Hub, models: Path, where: str, status: int, said: str) -> None:
    hub.status = {where: [status] * 3}
    sentence = problem(fetched("sd15", hub, models))
    said = said.replace("{again}", AGAIN)
    assert re.fullmatch(rf"{SD15} could not be downloaded from {hub.address} \({said}, {ELSEWHERE}", sentence), sentence
    assert not (models / "sd15").exists()


def test_a_busy_hub_is_asked_again(hub: Hub, models: Path) -> None:
    hub.status = {UNET: [503], "model_index.json": [429]}
    assert in_place(fetched("sd15", hub, models), models / "sd15")


def test_without_a_network_it_is_one_sentence(models: Path) -> None:
    said = problem(fetched("sd15", "http://127.0.0.1:9", models))
    assert re.fullmatch(
        rf"{SD15} could not be downloaded from http://127\.0\.0\.1:9 \(ConnectError .*refused\); check the network and "
        rf"{AGAIN}, which goes on where it stopped, {ELSEWHERE}",
        said,
    ), said
    said = problem(fetched("sd15", "http://127.0.0.1:9", models, HF_HUB_OFFLINE="1"))
    assert re.search(rf"\(HF_HUB_OFFLINE forbids it\); unset that variable and {AGAIN}, {ELSEWHERE}$", said), said


def test_half_a_network_is_not_put_in_place_without_a_connection(models: Path) -> None:
    """The hub's own client takes any folder that is not empty for the whole repository when there is no connection."""
    shutil.copytree(TINY / "unet", models / "sd15.part" / "unet")
    problem(fetched("sd15", "http://127.0.0.1:9", models))
    assert not (models / "sd15").exists()


def test_a_repository_without_a_file_or_with_a_hostile_one_is_refused(hub: Hub, models: Path, tmp_path: Path) -> None:
    hub.repositories[SD15]["unet/../../../evil.json"] = b"{}"
    assert "it has a file named 'unet/../../../evil.json'" in problem(fetched("sd15", hub, models))
    assert not list(tmp_path.rglob("evil*"))
    hub.repositories[SD15] = {"unet/config.json": b"{}"}
    assert "(it has no model_index.json); update diffsim-search" in problem(fetched("sd15", hub, models))
    assert not (models / "sd15").exists()


def test_a_clean_network_is_put_together_from_two_repositories(hub: Hub, models: Path, tmp_path: Path) -> None:
    """The student's U-Net in the place of the base network's, in the plain layout. Without the second repository there
    is no network."""
    said = problem(fetched("cleandift-sd15", hub, models))
    assert re.match(r"CompVis/cleandift could not .* 401", said) and not (models / "cleandift-sd15").exists()
    student = Path(shutil.copytree(TINY, tmp_path / "student"))
    tensors = load_file(student / UNET)
    tensors["conv_in.weight"].mul_(2)
    save_file(tensors, student / UNET, metadata={"format": "pt"})
    hub.publish("CompVis/cleandift", {"cleandift_sd15_unet.safetensors": student / UNET, "README.md": student / UNET})
    assert fetched("cleandift-sd15", hub, models).code == 0
    place = models / "cleandift-sd15"
    assert contents(place) == wanted() | {UNET: (student / UNET).read_bytes()}
    assert load_network(place, "float32", "cpu").weights == load_network(student, "float32", "cpu").weights
    (request,) = requested_spaces("cleandift-sd15", ["style"])
    settings = request.settings
    assert (settings.noises, settings.taps, settings.prompt) == (0, (Tap("up_blocks.2.attentions.2", 261),), "")


def test_an_adapter_is_fetched_with_its_image_encoder(hub: Hub, models: Path) -> None:
    """Its files lie elsewhere than in the repository; what arrived before an interruption counts there too."""
    file, encoder = "models/ip-adapter-plus_sd15.safetensors", files_of(TINY / "image_encoder")
    published = {f"models/image_encoder/{name}": path for name, path in encoder.items()} | {
        file: ADAPTER / "ip-adapter-plus_sd15.safetensors",
        "models/ip-adapter_sd15.bin": TINY / "model_index.json",
        "sdxl_models/image_encoder/config.json": TINY / "model_index.json",
    }
    hub.publish("h94/IP-Adapter", published)
    hub.status = {file: [500] * 3}
    assert problem(fetched("ip-adapter-plus-sd15", hub, models)).endswith("give them with --ip-adapter FOLDER.")
    hub.asked.clear()
    assert fetched("ip-adapter-plus-sd15", hub, models).code == 0
    assert [path for path, _ in hub.asked] == [file]
    place = models / "ip-adapter-plus-sd15"
    assert set(files_of(place)) == {
        "ip-adapter-plus_sd15.safetensors",
        "image_encoder/config.json",
        "image_encoder/model.safetensors",
    }
    assert load_network(TINY, "float32", "cpu", str(place)).variants == ("C",)
    (request,) = requested_spaces(str(TINY), variant="C")
    assert request.adapter == "ip-adapter-plus-sd15"


def test_sdxl_is_fetched_in_half_precision(hub: Hub, models: Path, tmp_path: Path) -> None:
    sdxl = tiny_sdxl(tmp_path / "sdxl")
    half = {name.replace("model.safetensors", "model.fp16.safetensors"): path for name, path in files_of(sdxl).items()}
    hub.publish("stabilityai/stable-diffusion-xl-base-1.0", files_of(sdxl) | half)
    assert fetched("sdxl", hub, models).code == 0
    assert set(files_of(models / "sdxl")) == set(half)
    network = load_network(models / "sdxl", "float32", "cpu")
    settings = SpaceSettings((Tap("mid_block", 101),), 64, noises=0)
    assert set(network.constants(settings)) == {"conditioning", "pooled", "time_ids"}


def test_a_terminal_sees_how_far_it_is(hub: Hub, models: Path) -> None:
    terminal, stderr = pty.openpty()
    with subprocess.Popen(
        command("sd15"), env=environment(hub, models, TERM="xterm"), stdout=subprocess.PIPE, stderr=stderr
    ):
        os.close(stderr)
        shown = b""
        while more := _read(terminal):
            shown += more
    os.close(terminal)
    assert "sd15, asking for its files" in shown.decode()
    assert f"sd15, {len(wanted())} of {len(wanted())} files" in shown.decode() and "1.4/1.4 MB" in shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the other end is closed
        return b""


def test_the_list_says_what_for_how_large_and_where(hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSIM_MODELS", str(models))
    lines = diffsim("models", "list").out.decode().splitlines()
    known = known_families()
    assert [line.split()[0] for line in lines] == [*known.presets, *known.adapters]
    for line in lines:
        preset = known.presets.get(line.split()[0]) or known.adapters[line.split()[0]]
        assert f"  {preset.about} (" in line
        if preset.sources:
            assert re.search(rf" \d[\d.]* [MG]B  .* \(not here; diffsim models fetch {preset.name}\)$", line), line
        if preset.name in known.presets:
            assert re.search(r" ~[\d.]+/s  ", line), line
    assert f"{'sd15':20}  512 px   4.0 GB  " in "\n".join(lines)
    assert in_place(fetched("sd15", hub, models), models / "sd15")
    lines = diffsim("models", "list").out.decode().splitlines()
    (here,) = (line for line in lines if line.startswith(f"{'sd15':20}  512 px   1.4 MB "))
    assert here.endswith(f"/s  {known.presets['sd15'].about} (here: {models}/sd15)")
