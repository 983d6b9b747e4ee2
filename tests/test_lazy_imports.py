"""What starts at once must not load what starts slowly."""

import importlib
import json
import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from conftest import random_picture
from indexing import build

import diffsim

PROJECT = Path(__file__).parent.parent
SLOW = {"torch", "faiss", "diffusers", "transformers"}

# What was loaded when the command ended, after whatever it printed.
LOADED = """
import json, sys
sys.argv = ["diffsim", *json.loads({arguments!r})]
from diffsim.query.cli import main
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
    assert "diffsim.db.catalog" in loaded and not loaded & SLOW


def test_a_query_with_an_indexed_picture_loads_no_network(index):
    loaded = loaded_by("query", str(index.parent / "pictures" / "1.png"), "--index", str(index))
    assert {"torch", "faiss"} <= loaded
    assert not loaded & {"diffusers", "transformers", "diffsim.retrieval.networks", "diffsim.retrieval.extractor"}


@pytest.mark.parametrize(
    "module",
    [
        "diffsim",
        "diffsim.indexer.walk",
        "diffsim.indexer.scan",
        "diffsim.indexer.account",
        "diffsim.retrieval.pictures.decode_worker",
        "diffsim.retrieval.shard.store",
        "diffsim.query.cli",
    ],
)
def test_light_modules(module):
    code = f"import sys, {module}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert not {name.partition(".")[0] for name in ran.stdout.split()} & SLOW


def test_nothing_is_installed_under_a_common_name():
    """A user's own query.py or db/ must not stand in our way, nor ours in theirs."""
    root = Path(diffsim.__file__).parent
    for name in ("db", "indexer", "query", "retrieval"):
        module = importlib.import_module(f"diffsim.{name}")
        assert Path(module.__file__).parent.parent == root
    tops = {top for top, names in packages_distributions().items() if "diffsim-search" in names}
    assert tops <= {"diffsim"}  # an editable install lists none


def test_a_user_s_own_modules_of_the_same_names_do_no_harm(tmp_path):
    (tmp_path / "db").mkdir()
    for name in ("query.py", "retrieval.py", "indexer.py", "db/__init__.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')")
    code = "import diffsim; print(diffsim.Query, diffsim.index, diffsim.Filters)"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
