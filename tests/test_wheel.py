"""What is installed: the wheel and the source distribution, built from a copy of this tree."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import random_picture

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
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, folder)
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
