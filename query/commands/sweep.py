"""`diffsim sweep`: one benchmark over layers, timesteps and picture sizes."""

import json
from pathlib import Path
from typing import Any

import click

from .evaluate import aligned, evaluation_cache, kept_when_interrupted, note, on_a_benchmark, percent
from .files import output_option
from .options import space_options
from .progress import progress


@click.command()
@space_options(only=("model", "variant", "adapter", "prompt"))
@click.option("--layer", "layers", multiple=True, help="An attention of the network, repeatable.  [default: all]")
@click.option(
    "--timestep",
    "timesteps",
    type=click.IntRange(0, 999),
    multiple=True,
    help="DDPM timestep, repeatable; larger is noisier.  [default: 1 51 101 251 501 751]",
)
@click.option(
    "--size",
    "sizes",
    type=click.IntRange(min=8),
    multiple=True,
    help="Side of the pictures in pixels, repeatable.  [default: the network's]",
)
@output_option("--plot", "Draw the curves into a .png or .svg.")
@on_a_benchmark
def sweep(
    bench: str,
    root: Path,
    asked: dict[str, Any],
    layers: tuple[str, ...],
    timesteps: tuple[int, ...],
    sizes: tuple[int, ...],
    limit: int | None,
    seed: int,
    cache: Path | None,
    plot: Path | None,
    force: bool,
    as_json: bool,
    device: str,
) -> None:
    """Measure every combination of layers, timesteps and picture sizes on BENCH, with the pictures in ROOT.

    BENCH and ROOT are as for `evaluate`. The figure is the accuracy on triplets, or the mean average precision (mAP)
    for `retrieval`. A setting chosen by its figure should be reported on other triplets.
    """
    if plot:
        from ..evaluation.curves import check_plot

        check_plot(plot, force=force)
    from diffsim.indexer.build import IndexOptions
    from diffsim.indexer.requests import DEFAULT_MODEL

    from ..evaluation.benchmark import measure, read
    from ..evaluation.sweep import settings

    points = settings(layers=layers, timesteps=timesteps, sizes=sizes, device=device, **asked)
    benchmark = read(bench, root, limit, seed, note)
    counts = [len({getattr(point, name) for point in points}) for name in ("layer", "timestep", "size")]
    click.echo(
        f"{len(points)} settings ({counts[0]} layers x {counts[1]} timesteps x {counts[2]} sizes) on "
        f"{len(benchmark.pictures)} pictures: {counts[1] * counts[2]} passes a picture, less what is kept from before.",
        err=True,
    )
    with kept_when_interrupted():
        contenders = [point.contender for point in points]
        options = IndexOptions(device=device)
        rows = measure(benchmark, contenders, root, cache or evaluation_cache(), options, progress)
    name = "mAP" if bench == "retrieval" else "accuracy"
    if plot:
        from ..evaluation.curves import draw_curves

        model = asked.get("model", DEFAULT_MODEL)
        draw_curves(plot, points, [row[name] for row in rows], name, f"{model} on {root.name or bench}")
    if as_json:
        for point, row in zip(points, rows, strict=True):
            place = {"layer": point.layer, "timestep": point.timestep, "size": point.size}
            click.echo(json.dumps({"benchmark": bench, "seed": seed, **place, **row}))
        return
    lines = [
        [point.layer, str(point.timestep), str(point.size), percent(row[name])]
        for point, row in zip(points, rows, strict=True)
    ]
    click.echo("\n".join(aligned(["layer", "timestep", "size", f"{name} % (95 %)"], lines)))
