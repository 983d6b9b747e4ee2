"""The commands behind the figures in docs/: each can be started, and the one for GPUs runs at tiny sizes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
BENCHMARKS = PROJECT / "benchmarks"


def run(*line: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    done = [sys.executable, *map(str, line)]
    return subprocess.run(done, env=environment, capture_output=True, text=True, timeout=500, check=False)


def test_every_benchmark_finds_what_it_imports() -> None:
    names = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
    assert len(names) > 20
    code = f"import importlib\nfor name in {names!r}: importlib.import_module(name)"
    done = run("-c", f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n{code}")
    assert done.returncode == 0, done.stderr


def test_the_benchmarks_in_the_docs_take_those_options() -> None:
    pages = [PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")]
    found = [
        match
        for page in pages
        for match in re.findall(r"python (benchmarks/\w+\.py)([^`\n]*)", page.read_text(encoding="utf-8"))
    ]
    assert len({script for script, _ in found}) > 10
    for script, arguments in found:
        text = (PROJECT / script).read_text(encoding="utf-8")
        for option in re.findall(r"--[a-z-]+", arguments):
            assert f'"{option}"' in text, f"{script} {option}"


def gpu(out: Path, *arguments: object) -> tuple[int, dict, str]:
    always = ("--quick", "--device", "cpu", "--scratch", out.parent / "scratch")
    done = run(BENCHMARKS / "gpu.py", out, *always, *arguments)
    return done.returncode, json.loads(out.read_text()) if out.exists() else {}, done.stdout + done.stderr


def test_the_gpu_benchmark_runs_without_a_gpu(tmp_path: Path) -> None:
    """Not its slow parts: SDXL, training and two processes, which other tests have."""
    names = (
        "same answers on the CPU and on the device",
        "rerank of full-size records",
        "recall by FAISS",
        "sd15 in bfloat16",
        "clip-vit-b32 in float16",
        "a pass that does not fit",
    )
    code, found, said = gpu(tmp_path / "out.json", *(word for name in names for word in ("--part", name)))
    assert code == 0, said
    assert [part["part"] for part in found["parts"]] == ["machine", *names]
    rows = {part["part"]: part["rows"] for part in found["parts"]}
    assert rows["machine"][0]["torch"]
    assert all(row["same hits in the same order"] for row in rows[names[0]]) and len(rows[names[0]]) == 8
    assert [row["candidates"] for row in rows[names[1]]] == [20, 100]
    assert rows[names[2]][0]["CPU, ms"] > 0
    first, stages, *batches, exact, _, _, many = rows[names[3]]
    assert first["pictures"] == 6 and list(stages)[:4] == ["decode", "transfer", "autoencoder", "network"]
    assert [row["batch"] for row in batches] == [1, 2] and exact["correlation"] > 0.9 and many["scored"] > 0
    (halved,) = rows[names[5]]
    assert halved["extracted"] == halved["of"] == 6 and halved["answered"] == "4 of 4"
    assert max(halved["sizes of the passes that fitted"]) == 2 < halved["batch"]
    assert "| batch | ms a picture |" in said and "0 of them failed" in said


@pytest.mark.parametrize("failing", ["stopped", "raises"])
def test_a_part_that_fails_does_not_stop_the_others(failing: str, tmp_path: Path) -> None:
    more: tuple[object, ...] = ("--part", "sd15 in float16", "--part", "recall by FAISS")
    if failing == "stopped":
        more += ("--limit", "3")  # too little for a network
    else:
        (tmp_path / "scratch" / "network-sd15").mkdir(parents=True)  # an empty folder is no network
    code, found, said = gpu(tmp_path / "out.json", *more)
    assert code == 1 and "1 of them failed: sd15 in float16" in said
    _, network, recall = found["parts"]
    assert network["problem"].startswith("stopped after 3 s" if failing == "stopped" else "ended with 1")
    assert failing == "stopped" or "Traceback" in network["problem"]
    assert recall["problem"] is None and len(recall["rows"]) == 1


def test_without_the_device_it_says_so(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = run(BENCHMARKS / "gpu.py", tmp_path / "out.json", "--quick", "--scratch", tmp_path)
    assert done.returncode == 1 and "The device cuda cannot be used; try --device cpu." in done.stderr
