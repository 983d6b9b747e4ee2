"""What starts at once must not load what starts slowly."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import random_picture
from indexing import build

PROJECT = Path(__file__).parent.parent
SLOW = {"torch", "faiss", "diffusers", "transformers"}

# What was loaded when the command ended, after whatever it printed.
LOADED = """
import json, sys
sys.argv = ["diffsim", *json.loads({arguments!r})]
from query.cli import main
try:
    main()
finally:
    sys.stdout.flush()
    print()
    print(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lazy")
    (folder / "pictures").mkdir()
    for number in range(3):
        random_picture(number).save(folder / "pictures" / f"{number}.png")
    build(folder / "index", folder / "pictures")
    return folder / "index"


def loaded_by(*arguments: str) -> set[str]:
    code = LOADED.format(arguments=json.dumps(arguments))
    ran = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    return set(json.loads(ran.stdout.splitlines()[-1]))


COMMANDS = (
    "index",
    "query",
    "score",
    "compare",
    "browse",
    "audit",
    "evaluate",
    "sweep",
    "status",
    "verify",
    "prune",
    "models",
)


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_loads_nothing_but_click(command):
    loaded = loaded_by(*command, "--help")
    assert "click" in loaded and not loaded & (SLOW | {"numpy", "PIL", "sqlalchemy", "lmdb"})


def test_models_list_loads_nothing_slow():
    assert not loaded_by("models", "list") & SLOW


def test_status_loads_nothing_slow(index):
    loaded = loaded_by("status", "--index", str(index))
    assert "db.catalog" in loaded and not loaded & SLOW


def test_a_query_with_an_indexed_picture_loads_no_network(index):
    loaded = loaded_by("query", str(index.parent / "pictures" / "1.png"), "--index", str(index))
    assert {"torch", "faiss"} <= loaded
    assert not loaded & {"diffusers", "transformers", "retrieval.networks", "retrieval.extractor"}


@pytest.mark.parametrize(
    "module",
    ["indexer.walk", "indexer.scan", "indexer.account", "indexer.decode_worker", "retrieval.store", "query.cli"],
)
def test_light_modules(module):
    code = f"import sys, {module}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert not {name.partition(".")[0] for name in ran.stdout.split()} & SLOW


def test_the_four_packages_share_one_folder():
    folders = {Path(importlib.import_module(name).__file__).parent.parent for name in ("db", "indexer", "query")}
    assert folders == {Path(importlib.import_module("retrieval").__file__).parent.parent}
