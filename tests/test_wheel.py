"""What is installed: the wheel and the source distribution, built from a copy of this tree."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from conftest import random_picture
from packaging.requirements import Requirement

PROJECT = Path(__file__).parent.parent
ROOMS = ("db", "indexer", "query", "retrieval")
"""Folders of the repository that are linked into the package."""


def python(*arguments: object, cwd: Path, path: Path | None = None) -> str:
    """What a Python prints that finds nothing of this tree by itself. path: where it looks for modules."""
    environment = {**os.environ, "PYTHONPATH": str(path or ""), "PIP_NO_INDEX": "1"}
    line = [sys.executable, *map(str, arguments)]
    ran = subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def wheel_of(source: Path, to: Path) -> Path:
    python("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", to, source, cwd=to)
    (wheel,) = to.glob("*.whl")
    return wheel


def files_of(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(name for name in archive.namelist() if not name.partition("/")[0].endswith(".dist-info"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree without what an earlier build or run may have left in it."""
    folder = tmp_path_factory.mktemp("source") / "tree"
    folder.mkdir()
    for name in ("diffsim", *ROOMS):
        shutil.copytree(PROJECT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "CHANGELOG.md", "constraints.txt", "LICENSE"):
        shutil.copy(PROJECT / name, folder)
    (folder / "docs").mkdir()
    shutil.copy(PROJECT / "docs" / "package.md", folder / "docs")
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_of(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(source: Path, wheel: Path) -> None:
    own = [path for path in (source / "diffsim").iterdir() if path.is_file()]
    rooms = [path for room in ROOMS for path in (source / room).rglob("*") if path.is_file()]
    expected = [f"diffsim/{path.name}" for path in own] + [f"diffsim/{path.relative_to(source)}" for path in rooms]
    assert files_of(wheel) == sorted(expected)
    for needed in ("py.typed", "retrieval/models/mini/model_index.json", "query/web/templates/page.html"):
        assert f"diffsim/{needed}" in expected
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert len(tops) == 2 and "diffsim" in tops


def test_the_source_distribution_holds_files_and_makes_the_same_wheel(
    source: Path, wheel: Path, tmp_path: Path
) -> None:
    code = f"from setuptools import build_meta; print(build_meta.build_sdist({str(tmp_path)!r}))"
    name = python("-c", code, cwd=source).splitlines()[-1]
    with tarfile.open(tmp_path / name) as archive:
        assert all(member.isfile() or member.isdir() for member in archive.getmembers())
        archive.extractall(tmp_path, filter="data")
    assert files_of(wheel_of(tmp_path / name.removesuffix(".tar.gz"), tmp_path)) == files_of(wheel)


def test_it_works_beside_a_user_s_own_modules_of_common_names(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    for name in ("query.py", "retrieval.py", "indexer.py", "db/__init__.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')")
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        random_picture(number).save(tmp_path / "pictures" / f"{number}.png")
    found = python("-c", "import diffsim; print(diffsim.__file__)", cwd=tmp_path, path=installed)
    assert Path(found.strip()) == installed / "diffsim" / "__init__.py"
    command = ("-m", "diffsim.query.cli")
    assert "Find pictures" in python(*command, "--help", cwd=tmp_path, path=installed)
    python(*command, "index", "pictures", "--index", "index", cwd=tmp_path, path=installed)
    asked = ("query", "pictures/1.png", "--index", "index", "--format", "paths")
    assert len(python(*command, *asked, cwd=tmp_path, path=installed).splitlines()) == 2


# ------------------------------------------------------------------------------------------- what it says of itself

BY_EXTRA = {
    "ray": "cluster",
    "pillow_heif": "heif",
    "pylibjxl": "jxl",
    "rawpy": "raw",
    "resvg_py": "svg",
    "matplotlib": "plot",
    "fastapi": "web",
    "jinja2": "web",
    "pydantic": "web",
    "starlette": "web",
    "uvicorn": "web",
}
"""Modules that only an extra brings."""
ASKED_FOR = {"pandas", "pyarrow"}
"""Modules that docs/python.md tells to install, for tables."""


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode("utf-8"))


def documented() -> list[Requirement]:
    """What the documentation tells to give to `pip install`, of this project, each once."""
    pages = [PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    found = {shlex.split(line)[0] for line in re.findall(r"pip install ('?diffsim-search[^`\n;]*)", text)}
    return [Requirement(line) for line in sorted(found)]


def imported(folder: Path) -> set[str]:
    """The top-level modules that the files below a folder import, save those of the standard library and its own."""
    found = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"diffsim"}


def plain(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def test_everything_that_is_imported_is_declared(installed: Path, metadata: Message) -> None:
    required: dict[str, set[str]] = {}
    for line in metadata.get_all("Requires-Dist") or []:
        requirement = Requirement(line)
        extra = next((e for e in metadata.get_all("Provides-Extra") or [] if f'extra == "{e}"' in line), "")
        required.setdefault(extra, set()).add(plain(requirement.name))
    providers = packages_distributions()
    modules = imported(installed / "diffsim") - ASKED_FOR
    assert {"faiss", "huggingface_hub", "torch", "PIL", "fastapi"} <= modules
    for module in modules:
        names = {plain(name) for name in providers.get(module, [module])}
        assert names & required[BY_EXTRA.get(module, "")], f"{module} comes from {names}, which nothing requires"


def test_every_documented_pip_line_names_what_there_is(metadata: Message) -> None:
    lines = documented()
    assert {(line.name, *line.extras) for line in lines} >= {("diffsim-search",), ("diffsim-search", "web")}
    for line in lines:
        assert plain(line.name) == plain(metadata["Name"])
        assert line.extras <= set(metadata.get_all("Provides-Extra") or []), line


def test_the_metadata_stands_alone(metadata: Message) -> None:
    assert metadata["Author"] and metadata["Summary"] and metadata["Project-URL"]
    assert metadata["License-File"] and metadata["Keywords"]
    assert "Typing :: Typed" in (metadata.get_all("Classifier") or [])
    text = metadata.get_payload()
    assert isinstance(text, str) and "pip install diffsim-search" in text
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links and all(link.startswith("https://") for link in links)


def test_the_version_is_that_of_the_wheel(installed: Path, metadata: Message, tmp_path: Path) -> None:
    found = python("-c", "import diffsim; print(diffsim.__version__)", cwd=tmp_path, path=installed)
    assert found.strip() == metadata["Version"]


@pytest.mark.skipif(
    not os.environ.get("DIFFSIM_FRESH_INSTALL"),
    reason="installs all that is required, for minutes each; set DIFFSIM_FRESH_INSTALL=1 to run it",
)
@pytest.mark.parametrize("line", documented(), ids=str)
def test_a_documented_pip_line_in_a_fresh_environment(line: Requirement, wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    bin_folder = tmp_path / "venv" / "bin"
    extras = f"[{','.join(sorted(line.extras))}]" if line.extras else ""

    def run(program: str, *arguments: object) -> str:
        command = [str(bin_folder / program), *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("python", "-m", "pip", "install", "--quiet", "-c", PROJECT / "constraints.txt", f"{wheel}{extras}")
    (tmp_path / "pictures").mkdir()
    for number in range(4):
        random_picture(number).save(tmp_path / "pictures" / f"{number}.png")
    run("diffsim", "index", "pictures", "--index", "index")
    asked = run("diffsim", "query", "pictures/1.png", "--index", "index", "--format", "paths")
    assert len(asked.splitlines()) == 3
    assert run("python", "-c", "import diffsim; print(len(diffsim.open('index').search('pictures/1.png')))") == "3\n"
    for module in (module for module, extra in BY_EXTRA.items() if extra in line.extras):
        run("python", "-c", f"import {module}")
    if "web" in line.extras:
        page = [str(bin_folder / "diffsim"), "browse", "--index", "index", "--port", "0", "--no-open"]
        with subprocess.Popen(page, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
            assert server.stdout is not None
            address = next(found[0] for text in server.stdout if (found := re.search(r"http://\S+", text.decode())))
            assert page_of(address)
            server.terminate()


def page_of(address: str) -> bytes:
    """The page, which may be served a moment after its address is printed."""
    for _ in range(100):
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                return bytes(answer.read())
        except urllib.error.URLError as problem:
            if not isinstance(problem.reason, ConnectionRefusedError):
                raise
            time.sleep(0.1)
    raise TimeoutError(address)
