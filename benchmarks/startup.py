"""How long until the command answers, against Python alone and against importing torch?

    python benchmarks/startup.py INDEX PICTURE --rounds 7

PICTURE must be one of the index's files: asking with it loads no network. The commands take turns.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
from printing import table


@click.command()
@click.argument("index", type=click.Path(exists=True, path_type=Path))
@click.argument("picture", type=click.Path(exists=True, path_type=Path))
@click.option("--rounds", default=7, show_default=True)
def main(index: Path, picture: Path, rounds: int) -> None:
    """Median wall time of starting commands, each a new process, files in the page cache."""
    diffsim = str(Path(sys.executable).with_name("diffsim"))
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "python -c 'import torch'": [sys.executable, "-c", "import torch"],
        "diffsim --help": [diffsim, "--help"],
        "diffsim query --help": [diffsim, "query", "--help"],
        "diffsim status": [diffsim, "status", "--index", str(index)],
        "diffsim query PICTURE": [diffsim, "query", str(picture), "--index", str(index)],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if turn:  # the first round fills the page cache
                taken[name].append(time.perf_counter() - started)
    middle = {name: statistics.median(times) for name, times in taken.items()}
    bare, torch = list(middle.values())[:2]
    click.echo(f"{rounds} rounds, load {os.getloadavg()[0]:.1f}.")
    table(
        ("", "s", "x `python -c pass`", "x `import torch`"),
        (
            (
                f"`{name}`",
                f"{now:.2f} ({min(taken[name]):.2f}-{max(taken[name]):.2f})",
                f"{now / bare:.0f}",
                f"{now / torch:.2f}",
            )
            for name, now in middle.items()
        ),
    )


if __name__ == "__main__":
    main()
