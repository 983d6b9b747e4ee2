"""The command: results on stdout, everything else on stderr; 0 ok, 1 a named problem in one sentence, 2 wrong usage."""

import contextlib
import csv
import io
import json
import os
import pty
import pwd
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import TINY, random_picture
from indexing import NOBODY, build, copy_index, diffsim, draw, listing, problem
from PIL import Image

from diffsim.indexer.index_folder import IndexFolder
from diffsim.query.text import certainty

PROJECT = Path(__file__).parent.parent
TINY_OPTIONS = ("--model", str(TINY), "--size", "64", "--device", "cpu")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures, their index, and a picture outside it."""
    folder = tmp_path_factory.mktemp("cli")
    draw(folder / "pictures", range(30))
    build(folder / "index", folder / "pictures")
    random_picture(77).save(folder / "outside.png")
    return folder


# ------------------------------------------------------------------------------------------- the other commands


def test_index_tells_what_it_did(tmp_path):
    draw(tmp_path / "pictures", range(5))
    (tmp_path / "pictures" / "bad.jpg").write_text("no picture")
    (tmp_path / "pictures" / "notes.txt").write_text("no picture either")
    index = tmp_path / "index"
    ran = diffsim("index", tmp_path / "pictures", "--index", index, *TINY_OPTIONS)
    assert ran.code == 0, ran
    lines = ran.out.decode().splitlines()
    assert lines[0] == "on disk  7 = 5 new + 1 failed + 1 excluded"
    assert lines[1] == "known    5 = 5 indexed + 0 missing + 0 offline"
    assert lines[2] == "excluded 1 not a picture by its name"
    assert lines[3].startswith(f"failed   {tmp_path}/pictures/bad.jpg: ")
    again = diffsim("index", "--index", index, "--device", "cpu")
    assert again.out.decode().splitlines()[0] == "on disk  7 = 0 new + 5 unchanged + 1 failed + 1 excluded"
    status = diffsim("status", "--index", index)
    assert status.code == 0 and b"tiny-sd15/look" in status.out and b"bad.jpg" in status.out and not status.err
    (tmp_path / "pictures" / "03.png").unlink()
    assert b"1 missing" in diffsim("index", "--index", index, "--device", "cpu").out
    assert diffsim("prune", "--index", index).out == b"forgot 1 missing files and 1 pictures\n"
    assert diffsim("verify", "--index", index).out == b"tiny-sd15/look: 4 pictures, 0 damaged\nclean\n"


def test_a_dry_run_only_speaks(tmp_path):
    draw(tmp_path / "pictures", range(5))
    ran = diffsim("index", tmp_path / "pictures", "--index", tmp_path / "index", "--dry-run", *TINY_OPTIONS)
    assert ran.code == 0 and not (tmp_path / "index").exists()
    first, second = ran.out.decode().splitlines()
    assert first == "5 pictures on disk, 0 of them indexed."
    assert second.startswith("To do: 5, about ")
    assert "cannot be indexed" in problem(
        diffsim("index", tmp_path / "typo", "--index", tmp_path / "index", "--dry-run", *TINY_OPTIONS)
    )


def test_verify_reports_damage_with_exit_status_1(work, tmp_path):
    index = copy_index(work / "index", tmp_path / "index")
    (space,) = (index / "spaces").iterdir()
    shutil.rmtree(space / "shards")
    ran = diffsim("verify", "--index", index)
    assert (
        ran.code == 1 and ran.err.startswith("Error: 30 pictures have no sound features") and ran.err.count("\n") == 1
    )


# ------------------------------------------------------------------------------------------- query


def test_the_formats_agree(work):
    rows = {}
    for form in ("table", "json", "csv", "paths"):
        ran = diffsim("query", work / "pictures" / "07.png", "--index", work / "index", "-k", "5", "--format", form)
        assert ran.code == 0 and "tiny-sd15/look: 30 pictures" in ran.err, ran
        rows[form] = ran.out.decode()
    hits = [json.loads(line) for line in rows["json"].splitlines()]
    assert [list(hit)[:6] for hit in hits] == [["rank", "path", "score", "likeness", "recall_rank", "by_chance"]] * 5
    paths = [hit["path"] for hit in hits]
    assert rows["paths"].splitlines() == paths and str(work / "pictures" / "07.png") not in paths
    table = list(csv.DictReader(io.StringIO(rows["csv"])))
    assert [row["path"] for row in table] == paths
    assert [float(row["score"]) for row in table] == [hit["score"] for hit in hits]
    assert [float(row["likeness"]) for row in table] == [hit["likeness"] for hit in hits]
    head, *lines = [line for line in rows["table"].splitlines() if not line.startswith("--")]
    assert head.split() == ["rank", "likeness", "by", "chance", "picture"]
    assert [line.split()[-1] for line in lines] == paths
    assert [line.split()[1] for line in lines] == [f"{hit['likeness']:.1f}" for hit in hits]
    words = [line.split()[-2] for line in lines]
    assert words == [certainty(hit["by_chance"]) for hit in hits] and set(words) <= {"sure", "likely", "weak"}
    ran = diffsim("query", work / "pictures" / "07.png", "--index", work / "index", "-k", "5", "--no-rerank")
    assert ran.out.decode().split()[:5] == ["rank", "score", "by", "chance", "picture"]


def test_options_of_query(work):
    ask = ("query", work / "pictures" / "07.png", "--index", work / "index", "--format", "json", "-k", "30")

    def hits(*options: str) -> list[dict]:
        ran = diffsim(*ask, *options)
        assert ran.code == 0, ran
        return [json.loads(line) for line in ran.out.splitlines()]

    plain = hits()
    assert [hit["rank"] for hit in plain] == list(range(1, 30))
    assert hits("--exact") == plain
    assert hits("--by", "look") == hits("--space", "tiny-sd15/look") == plain
    assert hits("--include-self")[0]["score"] == pytest.approx(1, abs=1e-6)
    recalled = hits("--no-rerank")
    assert [hit["recall_rank"] for hit in recalled] == [hit["rank"] for hit in recalled]
    assert {hit["by_chance"] for hit in recalled} == {None}
    limit = plain[9]["by_chance"]
    assert hits("--max-by-chance", str(limit)) == [hit for hit in plain if hit["by_chance"] <= limit]
    assert len(hits("--candidates", "3", "-k", "3")) == 3


def test_a_sheet_is_drawn(work, tmp_path):
    sheet = tmp_path / "sheet.png"
    ran = diffsim("query", work / "pictures" / "07.png", "--index", work / "index", "--sheet", sheet, "-k", "3")
    assert ran.code == 0 and os.listdir(tmp_path) == ["sheet.png"]
    with Image.open(sheet) as drawn:
        assert drawn.format == "PNG" and drawn.width > drawn.height
    nowhere = tmp_path / "none" / "sheet.png"
    ran = diffsim("query", work / "pictures" / "07.png", "--index", work / "index", "--sheet", nowhere)
    assert "no folder" in problem(ran)


def test_an_outside_picture(work):
    ran = diffsim("query", work / "outside.png", "--index", work / "index", "--format", "paths", "--device", "cpu")
    assert ran.code == 0 and len(ran.out.splitlines()) == 10
    assert re.fullmatch(r"tiny-sd15/look: 30 pictures, 30 recalled, 30 scored by full attention\.\n", ran.err)


def test_loading_a_network_is_silent(tmp_path):
    """A text encoder is loaded too: transformers would draw bars for it."""
    draw(tmp_path / "pictures", range(2))
    ran = diffsim("index", tmp_path / "pictures", "--index", tmp_path / "index", *TINY_OPTIONS)
    assert ran.code == 0 and ran.err == ""


def test_the_index_is_the_option_else_the_variable_else_the_users_folder(work, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("DIFFSIM_INDEX", raising=False)
    default = tmp_path / "data" / "diffsim" / "index"
    assert f"There is no index in {default};" in problem(diffsim("status"))
    monkeypatch.setenv("DIFFSIM_INDEX", "")
    assert f"There is no index in {default};" in problem(diffsim("status"))
    monkeypatch.setenv("DIFFSIM_INDEX", str(tmp_path / "named"))
    assert f"There is no index in {tmp_path / 'named'};" in problem(diffsim("status"))
    assert diffsim("status", "--index", work / "index").code == 0


def test_a_store_that_is_gone_names_the_way_back(work, tmp_path):
    index = copy_index(work / "index", tmp_path / "index")
    (space,) = (index / "spaces").iterdir()
    shutil.rmtree(space / "shards")
    text = problem(diffsim("query", work / "pictures" / "07.png", "--index", index))
    assert str(space) in text and 0 < text.index("`diffsim verify`") < text.index("`diffsim index`")


# ------------------------------------------------------------------------------------------- named problems


def test_unreadable_query_pictures(work, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in (("none", "No such file"), (".", "not a file"), ("pipe.png", "gave nothing"), ("text.png", "")):
        text = problem(diffsim("query", tmp_path / name, "--index", work / "index"))
        assert str(tmp_path / name) in text and reason in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("query", "{work}/outside.png", "--index", "{tmp}/none"), "There is no index in {tmp}/none"),
        (("status", "--index", "{tmp}"), "There is no index in {tmp}"),
        (("verify", "--index", "{tmp}/none"), "There is no index in {tmp}/none"),
        (("prune", "--index", "{tmp}/none"), "There is no index in {tmp}/none"),
        (("query", "{work}/outside.png", "--index", "{work}/index", "--by", "style"), "tiny-sd15/look"),
        (("query", "{work}/outside.png", "--index", "{work}/index", "--space", "zz"), "tiny-sd15/look"),
        (("query", "{work}/outside.png", "--index", "{work}/index", "--device", "tpu"), "choose auto, cpu, cuda"),
        (("query", "{work}/outside.png", "--index", "{work}/index", "--device", "cuda:99"), "choose auto or cpu"),
        (("query", "{work}/outside.png", "--index", "{work}/index", "--exact", "--no-rerank"), "drop one"),
        (("index", "{work}/pictures", "--index", "{tmp}/new", "--model", "sd99"), "choose one of mini"),
        (("index", "{work}/pictures", "--index", "{tmp}/new", "--model", "{tmp}"), "unet/config.json"),
        (("index", "{work}/pictures", "--index", "{tmp}/new", "--model", "sd15"), "diffsim models fetch sd15"),
        (("index", "{work}/typo", "--index", "{tmp}/new"), "it does not exist"),
        (("index", "{work}/outside.png", "--index", "{tmp}/new"), "it is not a folder"),
        (("index", "{work}/pictures", "--index", "{work}/pictures"), "is not empty and holds no index"),
        (("index", "{work}/pictures", "--index", "{tmp}/new", "--model", str(TINY), "--size", "65"), "multiple of"),
        (("models", "path", "sd99"), "choose one of mini"),
        (("models", "fetch", "sd99"), "choose one of mini"),
    ],
)
def test_one_sentence(work, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.setenv("DIFFSIM_MODELS", str(tmp_path / "models"))
    places = {"work": work, "tmp": tmp_path}
    assert expected.format(**places) in problem(diffsim(*(text.format(**places) for text in arguments)))


def test_a_wrong_layer_lists_the_valid_ones(work, tmp_path):
    ran = diffsim("index", work / "pictures", "--index", tmp_path / "new", *TINY_OPTIONS, "--layer", "up_blocks.9")
    text = problem(ran)
    assert "up_blocks.9" in text and "up_blocks.1.attentions.2" in text and "down_blocks.0.attentions.0" in text


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("query",),
        ("query", "a.png", "--by", "nonsense"),
        ("query", "a.png", "-k", "0"),
        ("query", "a.png", "--format", "xml"),
        ("index", "--timestep", "1000"),
        ("index", "--memory", "lots", "."),
    ],
)
def test_wrong_usage_ends_with_2(arguments, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFSIM_INDEX", str(tmp_path / "index"))
    ran = diffsim(*arguments)
    assert ran.code == 2 and ran.out == b"" and "Traceback" not in ran.err
    assert not (tmp_path / "index").exists()


def test_index_without_folders_needs_an_index(tmp_path):
    ran = diffsim("index", "--index", tmp_path / "new")
    assert ran.code == 2 and "diffsim index FOLDER" in ran.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as another user")
def test_an_index_folder_that_may_not_be_written(work, tmp_path):
    for folder in (work, *work.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    for arguments in (("index", work / "pictures"), ("verify",), ("prune",)):
        text = problem(diffsim(*arguments, "--index", work / "index", uid=NOBODY))
        assert "Permission denied" in text and str(work / "index") in text
    assert "Permission denied" in problem(diffsim("index", work / "pictures", "--index", work / "new", uid=NOBODY))


def test_a_busy_index_names_its_writer(work):
    with IndexFolder.open(work / "index").writing():
        text = problem(diffsim("index", "--index", work / "index", "--device", "cpu"))
        assert f"process {os.getpid()} on " in text
        assert diffsim("query", work / "pictures" / "07.png", "--index", work / "index").code == 0


def test_newer_formats_are_refused(work, tmp_path):
    index = copy_index(work / "index", tmp_path / "index")
    settings = (index / "index.toml").read_text()
    (index / "index.toml").write_text(settings.replace("format = 1", "format = 99"))
    commands = (("query", work / "pictures" / "07.png"), ("status",), ("index",), ("verify",))
    for command in commands:
        assert "format 99" in problem(diffsim(*command, "--index", index))
    (index / "index.toml").write_text(settings)
    connection = sqlite3.connect(index / "catalog.sqlite")
    connection.execute("INSERT INTO schema_version VALUES (99, 'm099_of_the_future')")
    connection.commit()
    connection.close()
    before = listing(index)
    for command in commands[:2]:
        assert "schema version 99" in problem(diffsim(*command, "--index", index))
    assert listing(index) == before
    for command in commands[2:]:
        assert "schema version 99" in problem(diffsim(*command, "--index", index))


def test_a_broken_index_toml(work, tmp_path):
    (tmp_path / "index.toml").write_bytes(b"\xff\x00")
    for command in (("query", work / "outside.png"), ("status",), ("index", work / "pictures")):
        assert "cannot be understood" in problem(diffsim(*command, "--index", tmp_path))


def test_other_weights_in_the_networks_folder(work, tmp_path):
    from safetensors.torch import load_file, save_file

    network = Path(shutil.copytree(TINY, tmp_path / "network"))
    draw(tmp_path / "pictures", range(5))
    options = ("--model", network, "--size", "64", "--device", "cpu", "--index", tmp_path / "index")
    assert diffsim("index", tmp_path / "pictures", *options).code == 0
    weights = network / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_in.bias"] += 0.1
    save_file(tensors, weights)
    text = problem(diffsim("query", work / "outside.png", "--index", tmp_path / "index", "--device", "cpu"))
    assert "cannot be compared" in text
    assert diffsim("query", tmp_path / "pictures" / "03.png", "--index", tmp_path / "index").code == 0
    assert diffsim("index", tmp_path / "pictures", *options).code == 0  # a second space beside the first
    assert diffsim("status", "--index", tmp_path / "index").out.count(b"\nspace ") == 2


# ------------------------------------------------------------------------------------------- signals and pipes


def command(*arguments: str | Path, **more: object) -> subprocess.Popen:
    line = [sys.executable, "-m", "diffsim.query.cli", *map(str, arguments)]
    return subprocess.Popen(line, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


def test_ctrl_c_is_no_traceback_and_the_next_run_goes_on(tmp_path):
    draw(tmp_path / "pictures", range(60))
    arguments = ("index", tmp_path / "pictures", "--index", tmp_path / "index", *TINY_OPTIONS, "--batch-size", "1")
    process = command(*arguments, start_new_session=True)
    store = tmp_path / "index" / "spaces"
    while process.poll() is None and not list(store.glob("*/shards/0000/data.mdb")):
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert b"Traceback" not in err and out == b""
    assert err.decode().splitlines()[-1] == (
        "Error: Interrupted; what was done is kept: run the same command again to go on."
    )
    assert b"60 indexed" in diffsim(*arguments).out
    assert diffsim("verify", "--index", tmp_path / "index").out.endswith(b"clean\n")


def test_a_closed_pipe_is_no_traceback(work):
    arguments = ["query", str(work / "pictures" / "07.png"), "--index", str(work / "index"), "-k", "30"]
    line = [sys.executable, "-m", "diffsim.query.cli", *arguments]
    read_end, write_end = os.pipe()
    os.close(read_end)
    ran = subprocess.run(line, cwd=PROJECT, stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    assert b"Traceback" not in ran.stderr and b"Exception" not in ran.stderr
    for few in (["status", "--index", str(work / "index")], ["--help"], ["models", "list"]):
        read_end, write_end = os.pipe()
        os.close(read_end)
        ran = subprocess.run(
            [sys.executable, "-m", "diffsim.query.cli", *few], cwd=PROJECT, stdout=write_end, stderr=subprocess.PIPE
        )
        os.close(write_end)
        assert b"Traceback" not in ran.stderr and b"Exception" not in ran.stderr, few


# ------------------------------------------------------------------------------------------- odd names


def test_names_print_safely(tmp_path):
    """A line break, a terminal's escape code, right-to-left marks, quotes, HTML and bytes that are no UTF-8."""
    names = [
        b"line\nbreak.png",
        b"\x1b[31mred.png",
        "rtl\u202egnp.png".encode(),
        b'it\'s "so", <b>.png',
        b"\xe9\xff.png",
    ]
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, name in enumerate(names):
        random_picture(number).save(tmp_path / "x.png")
        (tmp_path / "x.png").rename(os.fsdecode(os.path.join(os.fsencode(folder), name)))
    assert diffsim("index", folder, "--index", tmp_path / "index", *TINY_OPTIONS).code == 0
    asked = os.path.join(os.fsencode(folder), names[0])
    wanted = {os.path.join(os.fsencode(folder), name) for name in names}
    outs = {}
    for form in ("table", "json", "csv", "paths"):
        ran = diffsim(
            "query",
            asked,
            "--index",
            tmp_path / "index",
            "--include-self",
            "--format",
            form,
            "--sheet",
            tmp_path / "s.png",
        )
        assert ran.code == 0, ran
        outs[form] = ran.out
        assert "\x1b" not in ran.err and ("line break" in ran.err) == (form == "paths")
    rows = [line for line in outs["table"].decode().splitlines()[1:] if not line.startswith("--")]
    assert len(rows) == 5 and b"\x1b" not in outs["table"] and "\u202e" not in outs["table"].decode()
    assert {os.fsencode(json.loads(line)["path"]) for line in outs["json"].splitlines()} == wanted
    text = io.StringIO(outs["csv"].decode("utf-8", "surrogateescape"), newline="")
    assert {os.fsencode(row["path"]) for row in csv.DictReader(text)} == wanted
    assert outs["paths"].count(b"\n") == 6 and all(path + b"\n" in outs["paths"] for path in wanted)
    status = diffsim("status", "--index", tmp_path / "index")
    assert status.code == 0 and b"\x1b" not in status.out


# ------------------------------------------------------------------------------------------- slips of the pen


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("qurey", "a.png"), "There is no command 'qurey' (did you mean query?)."),
        (("nonsense",), "There is no command 'nonsense'."),
        (
            ("query", "a.png", "--by", "styl"),
            "'styl' is not one of 'style', 'instance', 'look', 'colour' (did you mean style?).",
        ),
        (("query", "a.png", "--after", "yesterday"), "'yesterday' is not a day; write it as 2026-07-31, or with"),
        (("query", "a.png", "--before", "2026-02-30"), "'2026-02-30' is not a day; write it as 2026-07-31, or with"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(arguments, said):
    ran = diffsim(*arguments)
    assert ran.code == 2 and said in ran.err and "%Y" not in ran.err, ran


def test_a_name_that_an_index_or_this_program_does_not_know(work):
    ask = ("query", work / "outside.png", "--index", work / "index")
    assert "no feature space of this index (did you mean look?); choose" in problem(diffsim(*ask, "--space", "lok"))
    assert "(did you mean JPEG?); choose one of" in problem(diffsim(*ask, "--type", "jpgg"))
    text = problem(diffsim(*ask, "--folder", work, "--folder", work / "typo"))
    assert f"No file of the folder {work / 'typo'}" in text
    assert diffsim(*ask, "--folder", work).code == 0
    made = ("index", work / "pictures", "--index", work / "new")
    assert "unknown (did you mean mini?); choose one of" in problem(diffsim(*made, "--model", "minni"))
    assert not (work / "new").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("index", ""),
        ("index", ".", ""),
        ("query", ""),
        ("query", "a.png", "--folder", ""),
        ("query", "a.png", "--add", ""),
        ("query", "a.png", "--add", "2:"),
        ("query", "a.png", "--sheet", ""),
        ("score", "a.png", ""),
        ("compare", ""),
        ("status", "--index", ""),
        ("prune", "--folder", ""),
        ("evaluate", "sref", ""),
        ("evaluate", "sref", ".", "--cache", ""),
    ],
)
def test_an_empty_path_is_not_the_current_folder(work, arguments):
    at_work = ("--index", work / "new") if arguments[0] == "index" else ()
    ran = diffsim(*arguments, *at_work, before=lambda: os.chdir(work))
    assert ran.code == 2 and not (work / "new").exists(), ran
    assert "the path is empty" in ran.err


@pytest.mark.parametrize("arguments", [("nosuch",), ("pictures", "--model", "sd15"), ("pictures", "--device", "moon")])
@pytest.mark.parametrize("folder", ["absent", "empty"])
def test_a_run_that_could_not_begin_leaves_no_index(work, tmp_path, arguments, folder):
    (tmp_path / "empty").mkdir()
    fetched = {"DIFFSIM_MODELS": str(tmp_path / "models")}
    ran = diffsim(
        "index", *arguments, "--index", tmp_path / folder, before=lambda: (os.chdir(work), os.environ.update(fetched))
    )
    problem(ran)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_run_that_could_not_begin_leaves_an_index_as_it_was(work, tmp_path):
    index = copy_index(work / "index", tmp_path / "index")
    before = {path.name for path in index.iterdir()} | {"writer.json", "writer.lock"}
    problem(diffsim("index", work / "nosuch", "--index", index))
    assert before == {path.name for path in index.iterdir()} | {"writer.json", "writer.lock"}
    assert diffsim("query", work / "outside.png", "--index", index).code == 0


def without_home() -> None:
    """As under a user id without an entry, in a container without HOME."""
    os.environ.pop("HOME", None)
    for name in [name for name in os.environ if name.startswith("XDG_") or name.startswith("DIFFSIM_")]:
        del os.environ[name]

    def no_entry(uid: int) -> None:
        raise KeyError(uid)

    pwd.getpwuid = no_entry  # type: ignore[assignment]


def test_a_user_without_a_home(work, tmp_path):
    asked = ("--index", work / "index")
    assert b"networks none can be fetched: this user has no home" in diffsim("status", *asked, before=without_home).out
    assert diffsim("query", work / "outside.png", *asked, before=without_home).code == 0
    made = ("index", work / "pictures", "--index", tmp_path / "index", *TINY_OPTIONS)
    assert diffsim(*made, before=without_home).code == 0
    assert b"sd15" in diffsim("models", "list", before=without_home).out
    for arguments in (("status",), ("query", work / "outside.png"), ("models", "fetch", "sd15")):
        assert "This user has no home folder; name the index with --index" in problem(
            diffsim(*arguments, before=without_home)
        )
    assert "'~/networks' is unknown" in problem(
        diffsim("index", work / "pictures", *asked, "--model", "~/networks", before=without_home)
    )


def test_what_was_excluded_stays_so_and_is_shown(tmp_path):
    draw(tmp_path / "pictures" / "private", range(2))
    draw(tmp_path / "pictures" / "trips", range(2, 6))
    index = tmp_path / "index"
    excluded = (
        "--exclude-dir",
        "private/",
        "--exclude",
        "nothing",
        "--exclude",
        tmp_path / "pictures" / "trips" / "03.png",
    )
    dry = diffsim("index", tmp_path / "pictures", "--index", index, *TINY_OPTIONS, *excluded, "--dry-run")
    assert dry.out.startswith(b"3 pictures on disk") and b"excluded nothing by nothing: " in dry.out
    ran = diffsim("index", tmp_path / "pictures", "--index", index, *TINY_OPTIONS, *excluded)
    assert b"on disk  5 = 3 new + 2 excluded" in ran.out and ran.out.count(b"excluded nothing by") == 1, ran
    again = diffsim("index", "--index", index, "--device", "cpu")
    assert b"on disk  5 = 0 new + 3 unchanged + 2 excluded" in again.out, again
    assert b"leaves out private/, nothing, /trips/03.png" in diffsim("status", "--index", index).out
    assert "The pattern '' is empty" in problem(diffsim("index", "--index", index, "--exclude", ""))
    back = diffsim("index", "--index", index, "--device", "cpu", "--exclude", "!private/", "--include-hidden")
    assert b"on disk  6 = 2 new + 3 unchanged + 1 excluded" in back.out, back
    assert b"takes in hidden files" in diffsim("status", "--index", index).out


def test_long_work_shows_how_far_it_is_on_a_terminal_and_nothing_elsewhere(tmp_path):
    draw(tmp_path / "pictures", range(5))
    made = ("index", tmp_path / "pictures", "--index", tmp_path / "index", *TINY_OPTIONS)
    quiet = diffsim(*made, "--dry-run")
    assert quiet.code == 0 and quiet.err == ""
    for command, shown in (
        ((*made, "--dry-run"), ["Looking through", "Reading files"]),
        (made, ["Looking through", "Reading files", "Extracting pictures", "Building the FAISS file of"]),
        (("verify", "--index", tmp_path / "index"), ["Checking the catalog", "Checking tiny-sd15/look"]),
        (("audit", "--index", tmp_path / "index"), ["Querying tiny-sd15/look"]),
        (("prune", "--index", tmp_path / "index"), ["Cleaning tiny-sd15/look"]),
    ):
        master, slave = pty.openpty()
        written: list[bytes] = []

        def read(master: int = master, written: list[bytes] = written) -> None:
            with contextlib.suppress(OSError):  # the terminal is gone
                while some := os.read(master, 4096):
                    written.append(some)

        reader = threading.Thread(target=read)
        reader.start()

        def on_a_terminal(slave: int = slave) -> None:
            os.dup2(slave, 2)
            sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # the old one has a position

        ran = diffsim(*command, before=on_a_terminal)
        os.close(slave)
        reader.join()
        os.close(master)
        assert ran.code == 0
        assert [text for text in shown if text.encode() not in b"".join(written)] == []
    for command in ("verify", "audit", "prune"):
        assert diffsim(command, "--index", tmp_path / "index").err == ""


def test_the_first_run_with_the_bundled_network_points_to_larger_ones_once(pictures: Path, tmp_path: Path) -> None:
    small = ("index", pictures, "--size", "64", "--device", "cpu", "--index")
    first, second = (diffsim(*small, tmp_path / "index") for _ in range(2))
    hint = "`diffsim models list` shows each"
    assert first.err.count(hint) == 1 and hint not in second.err and hint.encode() not in first.out
    assert hint not in diffsim(*small, tmp_path / "other", "--model", TINY, "--by", "style").err
    assert hint not in diffsim(*small, tmp_path / "none", "--dry-run").err
