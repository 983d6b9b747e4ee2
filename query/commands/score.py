"""`diffsim score`: one pair of pictures."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffsim.retrieval.names import METRICS, PROFILES, PROTOCOLS

from ..text import printable
from .options import Choice, FilePath, device_option, space_options

if TYPE_CHECKING:
    from ..score_pictures import ScoredPair


@click.command()
@click.argument("a", type=FilePath())
@click.argument("b", type=FilePath())
@click.option("--by", "profile", type=Choice(PROFILES), help="What similar means.  [default: look]")
@space_options(without=("tier",))
@click.option(
    "--protocol",
    type=Choice(PROTOCOLS),
    default="engine",
    show_default=True,
    help="engine: symmetric, as in an index. paper: as in DiffSim's released code, noise by role, both branches.",
)
@click.option(
    "--metric",
    type=Choice(METRICS),
    default="cosine",
    show_default=True,
    help="cosine: larger is more similar. mse: mean squared error of the attention maps, smaller is more similar.",
)
@device_option
@click.option(
    "--heatmap",
    type=FilePath(dir_okay=False),
    help="Also draw, into this PNG, which parts of each picture are found in the other (docs/why.md).",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def score(
    a: Path,
    b: Path,
    profile: str | None,
    asked: dict[str, Any],
    protocol: str,
    metric: str,
    device: str,
    heatmap: Path | None,
    as_json: bool,
) -> None:
    """Score picture A against picture B."""
    from diffsim.indexer.requests import requested_spaces

    from ..score_pictures import score_pictures

    (request,) = requested_spaces(profiles=[profile] if profile else [], tier="fp32", **asked)
    found = score_pictures(a, b, request, protocol=protocol, metric=metric, device=device)
    if heatmap:
        _draw(a, b, found, f"{printable(a.name)} and {printable(b.name)}, {request.name}", heatmap)
    if as_json:
        record = {
            "a": str(a),
            "b": str(b),
            "score": found.score.score,
            "forward": found.score.forward,
            "backward": found.score.backward,
            "metric": metric,
            "protocol": protocol,
            "space": request.name,
            "fingerprint": found.fingerprint,
        }
        click.echo(json.dumps(record))
        return
    click.echo(f"{found.score.score:.4f}  {metric} by {request.name}, {protocol} protocol ({found.fingerprint})")
    click.echo(f"{found.score.forward:.4f}  {printable(a.name)} rebuilt from {printable(b.name)}")
    click.echo(f"{found.score.backward:.4f}  {printable(b.name)} rebuilt from {printable(a.name)}")


def _draw(a: Path, b: Path, found: "ScoredPair", title: str, heatmap: Path) -> None:
    from diffsim.retrieval.pictures.images import seen

    from ..figures.heatmap import draw_agreement
    from ..figures.sheet import save_png
    from ..figures.thumbnails import thumbnail

    settings = found.request.settings
    first, second = (seen(thumbnail(path), settings.size, settings.fit) for path in (a, b))
    save_png(draw_agreement(first, second, found.why(), title), heatmap)
