"""Options and formats that several commands share."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import platformdirs

from diffsim.retrieval.names import DTYPES, VARIANTS

Command = TypeVar("Command", bound=Callable[..., Any])


def index_option(command: Command) -> Command:
    """--index DIR, else $DIFFSIM_INDEX, else the platform's user data folder."""
    return click.option(
        "--index",
        "index_path",
        type=click.Path(path_type=Path, file_okay=False),
        default=lambda: platformdirs.user_data_path("diffsim") / "index",
        envvar="DIFFSIM_INDEX",
        show_envvar=True,
        help="Folder of the index.  [default: the platform's user data folder]",
    )(command)


def device_option(command: Command) -> Command:
    return click.option(
        "--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where the network runs."
    )(command)


def space_options(command: Command) -> Command:
    """What makes a feature space of a network, from --variant to --dtype."""
    for option in reversed(
        (
            click.option(
                "--variant",
                type=click.Choice(VARIANTS),
                help="S reads self-attention, C cross-attention (with an IP-Adapter), global one embedding.  "
                "[default: S]",
            ),
            click.option("--ip-adapter", help="For variant C: the IP-Adapter's folder or safetensors file."),
            click.option(
                "--layer",
                "layers",
                multiple=True,
                metavar="LAYER[@TIMESTEP][*WEIGHT]",
                help="Attention to read instead of the profile's, e.g. up_blocks.1.attentions.2@101; the score is the "
                "mean over several.",
            ),
            click.option(
                "--timestep",
                type=click.IntRange(0, 999),
                help="DDPM timestep instead of the profile's; larger is noisier.",
            ),
            click.option(
                "--noises",
                type=click.IntRange(min=0),
                help="Noises that the features are the mean over; 0 reads the picture clean.  [default: the network's]",
            ),
            click.option(
                "--size", type=click.IntRange(min=8), help="Side of the square that pictures are resized to, pixels."
            ),
            click.option("--dtype", type=click.Choice(DTYPES), help="Precision of the network.  [default: float32]"),
        )
    ):
        command = option(command)
    return command


def memory_option(command: Command) -> Command:
    return click.option(
        "--memory",
        type=ByteSize(),
        default="1G",
        show_default=True,
        help="Memory that candidate recall may take when asked.",
    )(command)


DATE = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])


class Region(click.ParamType):
    """X,Y,W,H; whether they make a box in a picture is checked by the query."""

    name = "region"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != 4:
            self.fail(f"{value!r} is no region; write X,Y,W,H in fractions, for example 0.25,0,0.5,1.", param, ctx)
        return numbers


class WeighedPicture(click.ParamType):
    """A picture with a weight before a colon, as rclip has it; a name that begins so is written ./2:cat.png."""

    name = "picture"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, Path]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"([0-9]*\.?[0-9]+):(.+)", value, re.DOTALL)
        weight, path = (float(found[1]), found[2]) if found else (1.0, value)
        if not weight:
            self.fail(f"{value!r} has weight 0 and would change nothing; leave it out.", param, ctx)
        return weight, Path(path)


REGION = Region()
WEIGHED_PICTURE = WeighedPicture()


class ByteSize(click.ParamType):
    """A number of bytes in plain units: 500M, 2G."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
        text = str(value).strip().upper().removesuffix("B")
        factor = units.get(text[-1:], 1)
        try:
            size = int(float(text.rstrip("KMGT")) * factor)
        except (ValueError, OverflowError):
            size = 0
        if size < 1:
            self.fail(f"{value!r} is not an amount of memory; write for example 500M or 2G.", param, ctx)
        return size
