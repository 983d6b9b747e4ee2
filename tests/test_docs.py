"""The commands of the README, and the Python of README and docs/, are run as printed."""

import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import random_picture
from indexing import diffsim

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


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


def run_python(code: str, home: Path) -> list[str]:
    """The lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=home,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_python_example_works(home: Path) -> None:
    (example,) = blocks("python")
    assert len(run_python(example, home)) == 6  # five neighbours and the score of a pair


def test_the_page_about_python_is_one_program(home: Path) -> None:
    written = blocks("python", (PROJECT / "docs" / "python.md").read_text(encoding="utf-8"))
    assert len(written) >= 12
    printed = run_python("\n".join(written), home)
    text = "\n".join(printed)
    assert printed[0] == version("diffsim-search")
    assert "12 pictures, 0 could not be read" in text and "(12,)" in text
    assert "not answered: The picture gone.jpg cannot be read" in text
    *_, space, gone, few, nowhere = printed
    assert "'stile'" in space and "gone.jpg" in gone and "at least 1" in few and "nowhere.idx" in nowhere


def test_the_python_of_other_pages_works(home: Path) -> None:
    """Each page alone, beside the demo gallery; docs/families.md holds files of a package with a test of its own."""
    (home / "demo" / "gallery").mkdir(parents=True)
    for number, name in enumerate(("cat-glass.png", "boat-glass.png")):
        random_picture(number).save(home / "demo" / "gallery" / name)
    pages = [page for page in sorted((PROJECT / "docs").glob("*.md")) if page.name not in ("python.md", "families.md")]
    written = {page.name: code for page in pages if (code := blocks("python", page.read_text(encoding="utf-8")))}
    assert "why.md" in written
    for code in written.values():
        run_python("\n".join(code), home)
    assert (home / "heatmap.png").stat().st_size > 1000


def test_links_lead_somewhere() -> None:
    for page in (PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_make_targets_exist() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
