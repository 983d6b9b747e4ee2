"""Make every figure of README.md and docs/ that depends on the bundled network again.

    make figures DATA=folder                        (python benchmarks/figures.py DATA)
    python benchmarks/figures.py DATA --only why

DATA is described in open_pictures.py. A figure stands in its page between two comments; the first names its command:

    <!-- figure: python benchmarks/tiers.py agreement photos-fp32.idx -->
    (a table, or a picture)
    <!-- /figure -->

Commands run in a folder below --work that belongs to the present networks. What one prints takes the old figure's
place; where the figure is a picture, the command makes a file of its name. What commands read is made before (MADE);
`data` is DATA, `new` never exists yet. Whatever is there is not made again, so that a run can be stopped and goes on;
delete files from `printed` to measure again. When all figures of a page are there, what stands between
`<!-- measured -->` and `<!-- /measured -->` becomes the date, the machine and the networks.

The README quotes cells of those tables by cells of their row, perhaps with the first head, and the head of their
column, separated by `;`:

    <!-- from docs/tiers.md: mini/look; int8; same top 10 -->99.6 %<!-- /from -->

These are brought up to date at the end of every run; with --quotes this is all that is done.
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
from PIL import Image

PROJECT = Path(__file__).parent.parent

_PROFILES = "--by style --by instance --by look"
MADE: dict[str, tuple[str, ...]] = {
    "gallery": ("python -m diffsim.retrieval.drawings gallery",),
    "demo.idx": (f"diffsim index gallery --index demo.idx {_PROFILES}",),
    "questions": ("python benchmarks/questions.py data questions --gallery gallery",),
    "random0": ("python benchmarks/random_network.py mini random0 --seed 0",),
    "photos.idx": (f"diffsim index data/photos --index photos.idx {_PROFILES}",),
    "styles.idx": (f"diffsim index data/styles --index styles.idx {_PROFILES}",),
    "domains.idx": (f"diffsim index data/domains --index domains.idx {_PROFILES}",),
    "browse.idx": ("diffsim index data/photos data/domains --index browse.idx --by style",),
    **{
        f"{name}-fp32.idx": tuple(
            f"diffsim index data/{name} --index {name}-fp32.idx --by {profile} --tier fp32"
            for profile in ("style", "look")
        )
        for name in ("photos", "styles")
    },
    **{
        f"growth-{pictures}.idx": (f"python benchmarks/growth.py make growth-{pictures}.idx --pictures {pictures}",)
        for pictures in (100_000, 1_000_000)
    },
}
"""What the figures' commands read, by its name in the work folder, and the commands that make it."""

_END = "\n<!-- /figure -->"
FIGURE = re.compile(rf"(<!-- figure: (.*?) -->\n)(.*?)({_END})", re.DOTALL)
PICTURE = re.compile(r"!\[.*\]\((\S+\.png)\)")
MEASURED = re.compile(r"(<!-- measured -->\n)(.*?)(\n<!-- /measured -->)", re.DOTALL)
QUOTE = re.compile(r"(<!-- from (\S+): (.*?) -->)(.*?)(<!-- /from -->)")


@dataclass(frozen=True)
class Figure:
    """page: the file it stands in. command: as it stands there. body: the table or picture in Markdown."""

    page: Path
    command: str
    body: str


def pages() -> list[Path]:
    return [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


def figures_of(page: Path) -> list[Figure]:
    return [Figure(page, command, body) for _, command, body, _ in FIGURE.findall(page.read_text(encoding="utf-8"))]


def split(command: str) -> tuple[dict[str, str], list[str]]:
    """The variables that a command sets, and its words."""
    words = shlex.split(command)
    count = next(place for place, word in enumerate(words) if not re.match("[A-Z_]+=", word))
    return dict(word.split("=", 1) for word in words[:count]), words[count:]


class Work:
    """The folder in which the commands run."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        (folder / "printed").mkdir(parents=True, exist_ok=True)
        link = folder / "data"
        link.unlink(missing_ok=True)
        link.symlink_to(data.resolve())

    def printed(self, command: str) -> str:
        """What the command prints; run only if this is not known. Raises CalledProcessError."""
        kept = self.folder / "printed" / f"{hashlib.sha256(command.encode()).hexdigest()[:16]}.md"
        if not kept.exists():
            self._make_inputs(command)
            text = self._run(command)
            kept.with_suffix(".part").write_text(text, encoding="utf-8")
            kept.with_suffix(".part").replace(kept)
        return kept.read_text(encoding="utf-8").strip()

    def _make_inputs(self, command: str, making: frozenset[str] = frozenset()) -> None:
        """Make what the command reads, but for what it is to make itself."""
        for name in ({word.split("/")[0] for word in split(command)[1]} & MADE.keys()) - making:
            mark = self.folder / f"{name}.made"
            if not mark.exists():
                for each in MADE[name]:
                    self._make_inputs(each, making | {name})
                    self._run(each)
                mark.touch()

    def _run(self, command: str) -> str:
        variables, words = split(command)
        program = {"python": sys.executable, "diffsim": str(Path(sys.executable).with_name("diffsim"))}[words[0]]
        rest = [str(PROJECT / word) if word.startswith("benchmarks/") else word for word in words[1:]]
        shutil.rmtree(self.folder / "new", ignore_errors=True)
        click.echo(f"{datetime.now():%H:%M} {command}", err=True)
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), **variables}
        done = subprocess.run(
            [program, *rest], cwd=self.folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout


def networks() -> str:
    """The networks that figures depend on, as the fingerprints of the bundled profiles: these know all that changes a
    number."""
    from diffsim.indexer.requests import requested_spaces
    from diffsim.indexer.spaces import Networks, make_kit

    loaded = Networks("cpu")
    requests = {profile: requested_spaces("mini", [profile])[0] for profile in ("style", "instance", "look")}
    return ", ".join(f"{profile} {make_kit(each, loaded).space.fingerprint}" for profile, each in requests.items())


def measured(known: str) -> str:
    """One line: when, on what, with which networks."""
    import torch

    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    found = re.search(r"model name\s*: (.*)", text)
    processor = found[1].strip() if found else "an unknown processor"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"*Measured on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores of {processor}, {gpu}, PyTorch "
        f"{torch.__version__}; `mini`'s fingerprints: {known}.*"
    )


def renew(page: Path, work: Work, known: str) -> list[str]:
    """Put the page's figures in place, each as soon as it is there. The commands that failed."""
    failed = []
    for figure in figures_of(page):
        try:
            text = work.printed(figure.command)
            if picture := PICTURE.search(figure.body):
                place_picture(work.folder / Path(picture[1]).name, page.parent / picture[1])
            elif text:
                replace(
                    page, re.compile(rf"(<!-- figure: {re.escape(figure.command)} -->\n).*?({_END})", re.DOTALL), text
                )
            else:
                raise ValueError("it printed nothing")
        except (subprocess.CalledProcessError, OSError, ValueError) as error:
            click.echo(f"{figure.command}: {error}", err=True)
            failed.append(figure.command)
    if not failed:
        replace(page, MEASURED, measured(known))
    return failed


def replace(page: Path, pattern: re.Pattern[str], text: str) -> None:
    """Exchange what stands between the first and the last group of the pattern."""
    before = page.read_text(encoding="utf-8")
    after = pattern.sub(lambda match: match[1] + text + match[pattern.groups], before)
    if after != before:
        page.write_text(after, encoding="utf-8")


def place_picture(made: Path, to: Path) -> None:
    """As a small PNG of 256 colours, at most 1,280 pixels wide."""
    with Image.open(made) as picture:
        small = picture.convert("RGB")
        small.thumbnail((1280, 1280), Image.Resampling.LANCZOS)
        colours = small.quantize(256, kmeans=2)
        small.quantize(palette=colours, dither=Image.Dither.FLOYDSTEINBERG).save(to, optimize=True)


def quoted(page: Path, terms: str) -> str | None:
    """The first cell of the page's tables in a row that holds all terms but the last (one may be the first head of the
    table instead), below the head that is the last."""
    *row, column = (term.strip() for term in terms.split(";"))
    head: list[str] | None = None
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line[1:-1].split("|")] if line.startswith("|") else None
        if head is None or cells is None:
            head = cells
        elif column in head and set(row) <= {*cells, head[0]}:
            return cells[head.index(column)]
    return None


def renew_quotes(page: Path) -> list[str]:
    """Bring the page's quotes up to date. Those whose cell is not there."""
    missing = []

    def now(match: re.Match[str]) -> str:
        cell = quoted(PROJECT / match[2], match[3])
        if cell is None:
            missing.append(f"{match[2]}: {match[3]}")
        return match[1] + (match[4] if cell is None else cell) + match[5]

    text = page.read_text(encoding="utf-8")
    if (after := QUOTE.sub(now, text)) != text:
        page.write_text(after, encoding="utf-8")
    return missing


@click.command()
@click.argument("data", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), default="figures", show_default=True)
@click.option("--only", multiple=True, metavar="PAGE", help="This page alone, as README or pooling; repeatable.")
@click.option("--list", "listed", is_flag=True, help="Print the commands by page and run nothing.")
@click.option("--quotes", is_flag=True, help="Only bring up to date what the README quotes from docs/.")
def main(data: Path | None, work: Path, only: tuple[str, ...], listed: bool, quotes: bool) -> None:
    """Make the figures of README.md and docs/ again; hours for all of them."""
    chosen = [page for page in pages() if not only or page.stem in only]
    if unknown := set(only) - {page.stem for page in chosen}:
        raise click.UsageError(f"There is no page {', '.join(sorted(unknown))}; --list shows those with figures.")
    if listed:
        for figure in (figure for page in chosen for figure in figures_of(page)):
            click.echo(f"{figure.page.stem:12} {figure.command}")
        return
    failed: list[str] = []
    if not quotes:
        if data is None:
            raise click.UsageError("Name the folder of the unpacked collections: make figures DATA=folder.")
        known = networks()
        folder = work.absolute() / hashlib.sha256(known.encode()).hexdigest()[:12]
        at = Work(folder, data)
        failed = [command for page in chosen for command in renew(page, at, known)]
    missing = [quote for page in pages() for quote in renew_quotes(page)]
    for command in failed:
        click.echo(f"failed: {command}", err=True)
    for quote in missing:
        click.echo(f"quoted, but not there: {quote}", err=True)
    if failed or missing:
        raise click.ClickException("Some figures are as they were; run the same again when that is mended.")
    click.echo("Read the text around figures that changed: `git diff`.", err=True)


if __name__ == "__main__":
    main()
