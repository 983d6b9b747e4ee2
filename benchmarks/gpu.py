"""What a GPU does here, measured in one go: each part stands alone, and one that fails does not stop the others.

    python benchmarks/gpu.py OUT.json                           an NVIDIA GPU with 24 GB or more, some two hours
    python benchmarks/gpu.py OUT.json --quick                   tiny sizes, a few minutes: does it run at all?
    python benchmarks/gpu.py OUT.json --quick --device cpu      the same without a GPU
    python benchmarks/gpu.py OUT.json --part training           only this part, see --help

Needs Linux, a driver for CUDA 12 or newer, Python 3.11 or newer, 32 GB of memory, 30 GB of disk for --scratch, no
network and no trained weights. From a checkout, pip install --editable . brings torch (its wheel on PyPI has CUDA in
it) and all else; faiss-gpu is put in the place of faiss-cpu (pip uninstall faiss-cpu, then pip install faiss-gpu).
Where it does not load, faiss-cpu does, and recall is measured on the CPU alone.

OUT.json has chip and versions, and of every part its rows, its seconds, and what it printed last if it failed. The
tables are printed as Markdown, for docs/speed.md. Ends with 1 if a part failed.
"""

import json
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
import torch
from gpu_networks import network_parts
from gpu_runs import RUN_PARTS
from gpu_setup import Part, Row, Setup
from gpu_stages import STAGE_PARTS

PACKAGES = ("torch", "diffusers", "transformers", "faiss-gpu", "faiss-cpu", "lmdb", "numpy", "pillow", "sqlalchemy")
LAST_LINES = 40


def machine(setup: Setup) -> Iterator[Row]:
    """Chip, memory and versions."""
    known: Row = {"device": "cpu", "processors": os.cpu_count(), "python": platform.python_version()}
    if setup.on_gpu:
        chip = torch.cuda.get_device_properties(setup.device)
        known |= {"device": chip.name, "GPU memory, GB": round(chip.total_memory / 1e9, 1)}
        known |= {"compute capability": f"{chip.major}.{chip.minor}", "CUDA": torch.version.cuda}
    for name in PACKAGES:
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            known[name] = None
    yield known


PARTS: dict[str, Part] = {**STAGE_PARTS, **network_parts(), **RUN_PARTS}


@click.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--device", default="cuda", show_default=True, metavar="cuda|cuda:N|cpu")
@click.option("--quick", is_flag=True, help="Tiny networks and few pictures.")
@click.option("--part", "names", multiple=True, type=click.Choice(list(PARTS)), help="Only this part; repeatable.")
@click.option("--scratch", type=click.Path(path_type=Path, file_okay=False), help="Is kept, for a later run.")
@click.option("--limit", default=3600.0, show_default=True, help="Seconds that a part may take.")
def main(out: Path, device: str, quick: bool, names: tuple[str, ...], scratch: Path | None, limit: float) -> None:
    """Measure what a GPU does, into OUT."""
    with tempfile.TemporaryDirectory() as temporary:
        setup = Setup(device, quick, (scratch or Path(temporary)).absolute())
        setup.scratch.mkdir(parents=True, exist_ok=True)
        parts: list[dict[str, Any]] = []
        for name in ("machine", *(names or PARTS)):
            parts.append(measured(setup, name, limit))
            out.write_text(json.dumps({"device": device, "quick": quick, "parts": parts}, indent=1) + "\n")
            click.echo(shown(parts[-1]))
            if parts[0]["problem"]:
                raise click.ClickException(f"The device {device} cannot be used; try --device cpu.")
    failed = [part["part"] for part in parts if part["problem"]]
    click.echo(f"\n{len(parts)} parts, {len(failed)} of them failed{': ' if failed else ''}{', '.join(failed)}")
    sys.exit(bool(failed))


def measured(setup: Setup, name: str, limit: float) -> dict[str, Any]:
    """A part in a process of its own, which may end in any way. It is forked, so that nothing is imported again; this
    process never touches the GPU, because a forked one could not use it then."""
    rows, log = setup.scratch / "rows.jsonl", setup.scratch / "log.txt"
    rows.unlink(missing_ok=True)
    started = time.monotonic()
    child = multiprocessing.get_context("fork").Process(target=_run, args=(setup, name, rows, log))
    child.start()
    try:
        child.join(limit)
    finally:
        stopped = child.is_alive()
        if stopped:
            os.killpg(child.pid, signal.SIGKILL)  # with what it started
            child.join()
    problem = f"stopped after {limit:g} s" if stopped else f"ended with {child.exitcode}" if child.exitcode else None
    if problem and log.exists():
        last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        problem = "\n".join([problem, *last])
    found = [json.loads(text) for text in rows.read_text(encoding="utf-8").splitlines()] if rows.exists() else []
    return {"part": name, "seconds": round(time.monotonic() - started, 1), "rows": found, "problem": problem}


def _run(setup: Setup, name: str, rows: Path, log: Path) -> None:
    os.setpgid(0, 0)
    with open(log, "w", encoding="utf-8") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        with open(rows, "w", encoding="utf-8") as file:
            for row in (machine if name == "machine" else PARTS[name])(setup):
                print(json.dumps(row), file=file, flush=True)


def shown(part: dict[str, Any]) -> str:
    """As Markdown: rows with the same columns are one table."""
    lines = ["", f"### {part['part']} ({part['seconds']} s)"]
    columns: list[str] = []
    for row in part["rows"]:
        if list(row) != columns:
            columns = list(row)
            lines += ["", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines.append(f"| {' | '.join(cell(row, column) for column in columns)} |")
    return "\n".join([*lines, *(["", part["problem"]] if part["problem"] else [])])


def cell(row: Row, column: str) -> str:
    value = row[column]
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
