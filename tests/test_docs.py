"""The README's commands and Python are run as printed."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import random_picture
from indexing import diffsim

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a dozen pictures in ~/Pictures and a cat.jpg."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "Pictures").mkdir()
    for number in range(12):
        random_picture(number).save(folder / "Pictures" / f"{number}.png")
    random_picture(99).save(folder / "cat.jpg")
    random_picture(98).save(folder / "boat.jpg")
    return folder


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(home), "DIFFSIM_INDEX": str(home / "index"), "PYTHONPATH": str(PROJECT)}


def test_every_shell_line_works(home: Path) -> None:
    def at_home() -> None:
        os.chdir(home)
        os.environ.update(environment(home))

    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    assert len(lines) >= 8
    for line in lines:
        program, *arguments = shlex.split(line.replace("~", str(home)))
        assert program == "diffsim"
        done = diffsim(*arguments, before=at_home)
        assert done.code == 0, f"{line}: {done.err}"


def test_the_python_example_works(home: Path) -> None:
    (example,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=home, env=environment(home), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6  # five neighbours and the score of a pair


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (PROJECT / target).exists(), target


def test_make_targets_exist() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
