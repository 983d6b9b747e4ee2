"""`diffsim score`: one pair of pictures."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffsim.retrieval.names import LIKENESSES, METRICS, PROTOCOLS

from ..text import printable, telling
from .files import GivenPicture, Picture, output_option
from .options import Choice, device_option, space_options

if TYPE_CHECKING:
    from ..score_pictures import ScoredPair


@click.command()
@click.argument("a", type=Picture())
@click.argument("b", type=Picture())
@click.option("--by", "profile", type=Choice(LIKENESSES), help="What similar means.  [default: look]")
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
@output_option(
    "--heatmap",
    "Also draw, into this .png or .jpg, which parts of each picture are found in the other (docs/why.md).",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def score(
    a: GivenPicture,
    b: GivenPicture,
    profile: str | None,
    asked: dict[str, Any],
    protocol: str,
    metric: str,
    device: str,
    heatmap: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Score picture A against picture B; one of them may be -, standard input."""
    from diffsim.indexer.requests import requested_spaces

    from ..outputs import check_output
    from ..score_pictures import score_pictures

    if heatmap:
        check_output(heatmap, force=force)
    (request,) = requested_spaces(profiles=[profile] if profile else [], tier="fp32", **asked)
    found = score_pictures(a.subject, b.subject, request, protocol=protocol, metric=metric, device=device)
    first, second = (printable(name) for name in telling([a.path, b.path]))
    if as_json:
        record = {
            "a": a.path,
            "b": b.path,
            "score": found.score.score,
            "forward": found.score.forward,
            "backward": found.score.backward,
            "metric": metric,
            "protocol": protocol,
            "space": request.name,
            "fingerprint": found.fingerprint,
        }
        click.echo(json.dumps(record))
    else:
        click.echo(
            f"{found.score.score:.4f}  {metric} by {request.name}, {protocol} protocol, fp32 ({found.fingerprint})"
        )
        click.echo(f"{found.score.forward:.4f}  {first} rebuilt from {second}")
        click.echo(f"{found.score.backward:.4f}  {second} rebuilt from {first}")
    if heatmap:
        _draw(a, b, found, f"{first} and {second}, {request.name}", heatmap)


def _draw(a: GivenPicture, b: GivenPicture, found: "ScoredPair", title: str, heatmap: Path) -> None:
    from diffsim.retrieval.pictures.images import seen

    from ..figures.heatmap import draw_agreement
    from ..figures.thumbnails import thumbnails
    from ..outputs import save_picture

    settings = found.request.settings
    first, second = (seen(each, settings.size, settings.fit) for each in thumbnails([a.subject, b.subject]))
    save_picture(draw_agreement(first, second, found.why(), title), heatmap)
