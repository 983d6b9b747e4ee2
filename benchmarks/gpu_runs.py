"""Parts of gpu.py about whole runs: training, passes that do not fit the memory, two processes on one card."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from gpu_networks import network_folder
from gpu_setup import Part, Row, Setup, ms

import diffsim
from diffsim.retrieval.drawings.gallery import draw
from diffsim.retrieval.extractor import Extractor, make_space
from diffsim.retrieval.families import load_network
from diffsim.retrieval.training.recipe import Recipe
from diffsim.retrieval.training.run import train


def training(setup: Setup) -> Iterator[Row]:
    """Steps of the trainer of the bundled network; the first one also on the CPU, from the same seed."""
    photos, drawings = setup.jpegs("photos", 16, seed=3), setup.scratch / "drawings"
    if not drawings.exists():
        for style in ("neon", "pencil", "glass", "ink"):
            (drawings / style).mkdir(parents=True)
            for subject in ("boat", "car", "cat", "clock", "fish", "mug", "tree"):
                draw(subject, style, size=160).save(drawings / style / f"{subject}.png")
    small = {"block_out_channels": (32, 32, 32), "denoised": 2, "motifs": (2, 2), "painted": (2, 2)}
    recipe = Recipe(steps=1000, **(small if setup.quick else {}))
    first = {}
    for device in dict.fromkeys(("cpu", setup.device)):
        out = setup.fresh(f"trained-{device.replace(':', '-')}") / "model"
        trainer, begun = setup.timed(
            lambda out=out, device=device: train([photos, drawings], out, recipe, until=0, device=device)
        )
        losses, spent = setup.timed(trainer.train_step)
        first[device] = [float(loss.detach()) for loss in (losses.denoising, losses.subject, losses.style)]
        row: Row = {"on": device, "begun, s": round(begun, 1), "first step, s": round(spent, 2)}
        row |= dict(zip(("denoising", "subject", "style"), (round(loss, 5) for loss in first[device]), strict=True))
        if device == setup.device:
            times = 1 if setup.quick else 20
            row["further steps, ms"] = ms(setup.seconds(trainer.train_step, times))
            row["GPU memory, GB"] = setup.peak_gb(trainer.train_step)
        yield row


def memory(setup: Setup) -> Iterator[Row]:
    """A pass that does not fit the GPU is halved. The memory is limited to some three pictures; on a CPU, where there
    is no such error, it is made up."""
    pictures, batch = setup.jpegs("pictures", 6 if setup.quick else 512), 4 if setup.quick else 64
    network = network_folder(setup, "sd15")
    space = diffsim.Space(network, by="style", size=64 if setup.quick else 512)
    passes: list[int] = []
    with _little_memory(setup, space, passes):
        report = diffsim.index(
            setup.fresh("memory.idx"),
            pictures,
            spaces=space,
            options=diffsim.IndexOptions(device=setup.device, batch_size=batch, workers=setup.workers),
        )
        with diffsim.open(setup.scratch / "memory.idx", setup.device) as searcher:
            outside = sorted(setup.jpegs("outside", 4 if setup.quick else 32, seed=1).iterdir())
            answers = searcher.search_many(outside)
    yield {
        "error": "the GPU's" if setup.on_gpu else "made up",
        "batch": batch,
        "extracted": report.extracted,
        "of": len(list(pictures.iterdir())),
        "answered": f"{len(answers)} of {len(outside)}",
        "sizes of the passes that fitted": sorted(set(passes), reverse=True),
    }


@contextmanager
def _little_memory(setup: Setup, space: diffsim.Space, passes: list[int]) -> Iterator[None]:
    """passes: is given the size of every pass that went well."""
    extract = Extractor.extract
    request = space.request()

    def counted(self: Extractor, pixels: np.ndarray) -> list:
        if not setup.on_gpu and len(pixels) > 2:
            raise torch.cuda.OutOfMemoryError("made up")
        found = extract(self, pixels)
        passes.append(len(pixels))
        return found

    if setup.on_gpu:
        network = load_network(Path(request.network), request.settings.dtype, setup.device)
        extractor = Extractor(network, [make_space(network, request.settings)])
        blank = np.zeros((2, extractor.size, extractor.size, 3), np.uint8)
        one, two = (setup.peak_gb(partial(extractor.extract, blank[:count])) or 0 for count in (1, 2))
        total = torch.cuda.get_device_properties(setup.device).total_memory / 1e9
        del network, extractor
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, 1.1 * (one + 2 * (two - one)) / total), setup.number)
    Extractor.extract = counted  # type: ignore[method-assign]
    try:
        yield
    finally:
        Extractor.extract = extract  # type: ignore[method-assign]
        if setup.on_gpu:
            torch.cuda.set_per_process_memory_fraction(1.0, setup.number)


def two_processes(setup: Setup) -> Iterator[Row]:
    """Two runs of the command at the same time on one device, against one alone."""
    pictures, network = setup.jpegs("pictures", 6 if setup.quick else 512), network_folder(setup, "sd15")
    alone = _runs(setup, pictures, network, 1)
    together = _runs(setup, pictures, network, 2)
    yield {"processes": 1, "pictures/s each": alone, "in all": sum(alone)}
    yield {"processes": 2, "pictures/s each": together, "in all": round(sum(together), 1)}


def _runs(setup: Setup, pictures: Path, network: Path, count: int) -> list[float]:
    """The rates that the commands print, loading included."""
    line = [sys.executable, "-m", "diffsim.query.cli", "index", pictures, "--model", network, "--by", "style"]
    line += ["--size", "64" if setup.quick else "512", "--dtype", "bfloat16", "--device", setup.device]
    processes = [
        subprocess.Popen(
            [*map(str, line), "--index", str(setup.fresh(f"process-{number}.idx"))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    said = [process.communicate() for process in processes]
    for process, (_, problem) in zip(processes, said, strict=True):
        if process.returncode:
            raise RuntimeError(f"diffsim index ended with {process.returncode}: {problem}")
    return [float(re.findall(r"([0-9.]+) pictures/s", out)[-1]) for out, _ in said]


RUN_PARTS: dict[str, Part] = {
    "training": training,
    "a pass that does not fit": memory,
    "two processes": two_processes,
}
