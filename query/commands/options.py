"""Options and formats that several commands share."""

from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from diffsim.errors import did_you_mean
from diffsim.retrieval.names import DEFAULT_DTYPE, DEFAULT_SEED, DEFAULT_TIER, DTYPES, TIERS, VARIANTS
from diffsim.retrieval.user_folders import user_data

Command = TypeVar("Command", bound=Callable[..., Any])


class FilePath(click.Path):
    """A pathlib.Path. An empty text, which pathlib takes for the current folder, is wrong usage."""

    def __init__(self, **checks: bool) -> None:
        super().__init__(path_type=Path, **checks)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if value == "":
            self.fail("the path is empty; name a file or folder, or . for the current folder.", param, ctx)
        return cast(Path, super().convert(value, param, ctx))


class Choice(click.Choice):
    """One of a few words; a mistyped one is answered with the nearest."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as problem:
            self.fail(f"{problem.message.removesuffix('.')}{did_you_mean(str(value), self.choices)}.", param, ctx)


class WeighedChoice(Choice):
    """The same with a weight behind a colon if it has one: `style:0.7`. The query checks the weight."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        name, colon, weight = str(value).partition(":")
        return f"{super().convert(name, param, ctx)}{colon}{weight}"


class Date(click.DateTime):
    """A day, or a moment of one, in local time."""

    def __init__(self) -> None:
        super().__init__(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            wanted = "write it as 2026-07-31, or with the time as 2026-07-31T18:05"
            self.fail(f"{value!r} is not a day; {wanted}.", param, ctx)


def index_option(command: Command) -> Command:
    """--index DIR, else $DIFFSIM_INDEX, else the platform's user data folder."""
    return click.option(
        "--index",
        "index_path",
        type=FilePath(file_okay=False),
        default=lambda: user_data() / "index",
        envvar="DIFFSIM_INDEX",
        show_envvar=True,
        help="Folder of the index.  [default: the platform's user data folder]",
    )(command)


def device_option(command: Command) -> Command:
    return click.option(
        "--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where the network runs."
    )(command)


_SPACE_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "model": click.option(
        "--model",
        help="A network: mini (bundled), sd15, clip-vit-b32, dinov2-small, ..., as `diffsim models list` names them, "
        "or a network's folder.  [default: mini]",
    ),
    "variant": click.option(
        "--variant",
        metavar="|".join(VARIANTS),
        help="S reads self-attention, C cross-attention (with an IP-Adapter), global one embedding; not every network "
        "has all of them.  [default: S]",
    ),
    "adapter": click.option(
        "--ip-adapter", "adapter", help="For variant C: the IP-Adapter's folder or safetensors file."
    ),
    "layers": click.option(
        "--layer",
        "layers",
        multiple=True,
        metavar="LAYER[@TIMESTEP][*WEIGHT]",
        help="Attention to read instead of the profile's, e.g. up_blocks.1.attentions.2@101; the score is the mean "
        "over several.",
    ),
    "timestep": click.option(
        "--timestep", type=click.IntRange(0, 999), help="DDPM timestep instead of the profile's; larger is noisier."
    ),
    "noises": click.option(
        "--noises",
        type=click.IntRange(min=0),
        help="Number of noise tensors to average features over; 0 adds no noise.  [default: the network's]",
    ),
    "size": click.option(
        "--size",
        type=click.IntRange(min=8),
        help="Side of the square that pictures are resized to, pixels.  [default: the network's]",
    ),
    "prompt": click.option("--prompt", help="Prompt that conditions the network.  [default: the network's]"),
    "seed": click.option("--seed", type=int, help=f"Seed of the noise.  [default: {DEFAULT_SEED}]"),
    "dtype": click.option(
        "--dtype", type=Choice(DTYPES), help=f"Precision of the network.  [default: {DEFAULT_DTYPE}]"
    ),
    "tier": click.option(
        "--tier",
        type=Choice(TIERS),
        help=f"Precision of the stored tokens.  [default: int8 for mini and lite, else {DEFAULT_TIER}]",
    ),
}
"""The settings of a network's feature space, named as the parameters of `indexer.requests.requested_spaces`."""


def space_options(only: Collection[str] = (), without: Collection[str] = ()) -> Callable[[Command], Command]:
    """The options of a feature space, all of them or `only` some, passed to the command as one dictionary `asked` of
    those that were given, for `requested_spaces(**asked)`."""
    names = [name for name in _SPACE_OPTIONS if name in (only or _SPACE_OPTIONS) and name not in without]

    def decorate(command: Command) -> Command:
        @wraps(command)
        def gathered(**values: Any) -> None:
            asked = {name: values.pop(name) for name in names}
            command(**values, asked={name: value for name, value in asked.items() if value not in (None, ())})

        for name in reversed(names):
            _SPACE_OPTIONS[name](gathered)
        return cast(Command, gathered)

    return decorate


def memory_option(command: Command) -> Command:
    return click.option(
        "--memory",
        type=ByteSize(),
        default="1G",
        show_default=True,
        help="Memory that candidate recall may use in a query.",
    )(command)


class Region(click.ParamType):
    """X,Y,W,H; the query checks whether they are a box in a picture."""

    name = "region"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != 4:
            self.fail(f"{value!r} is not a region; write X,Y,W,H in fractions, for example 0.25,0,0.5,1.", param, ctx)
        return numbers


REGION = Region()


class Near(click.ParamType):
    """LATITUDE,LONGITUDE,KM; the filter checks whether they are a place and a distance."""

    name = "place"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float, float]:
        if isinstance(value, tuple):
            return value
        try:
            latitude, longitude, km = (float(part) for part in str(value).split(","))
        except ValueError:
            wanted = "write latitude, longitude and kilometres, for example 48.2,16.4,25"
            self.fail(f"{value!r} is not a place; {wanted}.", param, ctx)
        return latitude, longitude, km


NEAR = Near()


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
