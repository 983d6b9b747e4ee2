"""One torture run over everything that must not lose, mix up or hide anything: docs/reliability.md.

    python benchmarks/torture.py --flips 1000 --cuts 200 --kills 1000 --disks 20 --files 10000 --questions 100000
    python benchmarks/torture.py --flips 0 --cuts 0 --kills 50 --disks 0 --files 0 --questions 0

Each part has the number of its trials, 0 leaves it out. It works in a temporary folder on pictures that it draws, asks
nothing of the network, and prints what went wrong as it is met, then one table: lost (something was there and is not,
after all was mended), shifted (a picture under another one's score), silent (less than there is without a word, or a
wait without an answer), tracebacks (or crashes). The exit status says whether there was any.
"""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # work is forked, and a forked child has no other threads

import click
import torture_clients
import torture_disks
import torture_flips
import torture_kills
import torture_pictures
import torture_soak
from torture_ground import Count, Ground


def table(counts: Sequence[Count]) -> Iterator[str]:
    """One line a part."""
    yield "| part | tried | lost | shifted | silent | tracebacks | |"
    yield "|---|---|---|---|---|---|---|"
    for each in counts:
        numbers = (each.tried, each.lost, each.shifted, each.silent, each.tracebacks)
        yield f"| {each.part} | {' | '.join(f'{number:,}' for number in numbers)} | {each.facts} |"


@click.command(help=__doc__.replace("\n\n", "\n\n\b\n", 1))
@click.option("--flips", default=100, show_default=True, help="Bits to flip in the files of an index.")
@click.option("--cuts", default=20, show_default=True, help="Files of an index to cut short.")
@click.option("--kills", default=50, show_default=True, help="SIGKILLs, over seven kinds of work.")
@click.option("--disks", default=6, show_default=True, help="Disks that become full.")
@click.option("--files", default=400, show_default=True, help="Mutated picture files.")
@click.option("--questions", default=1000, show_default=True, help="Questions to one searcher.")
@click.option("--clients", multiple=True, type=int, default=(50,), show_default=True, help="Clients of the page.")
@click.option("--seconds", default=20.0, show_default=True, help="How long the clients ask.")
@click.option("--pictures", default=24, show_default=True, help="Pictures of the index.")
@click.option("--model", default="mini", show_default=True, help="A preset or a network's folder.")
@click.option("--seed", default=0, show_default=True)
@click.option("--only", default="", help="Flip and cut only files with this in their name.")
def main(
    flips: int,
    cuts: int,
    kills: int,
    disks: int,
    files: int,
    questions: int,
    clients: Sequence[int],
    seconds: float,
    pictures: int,
    model: str,
    seed: int,
    only: str,
) -> None:
    counts = []
    outcomes: list[torture_flips.Trial] = []
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        work = Path(name)
        ground = Ground.lay(work, model, pictures)

        def harmed(flipped: int, cut: int, what: str) -> Count:
            chosen = torture_flips.harms(ground.index, flipped, cut, seed, only)
            count, trials = torture_flips.part(ground, work, chosen, what)
            outcomes.extend(trials)
            return count

        parts: list[tuple[int, Callable[[], Count]]] = [
            (flips, lambda: harmed(flips, 0, "bit flips")),
            (cuts, lambda: harmed(0, cuts, "cut files")),
            (kills, lambda: torture_kills.part(work / "kills", model, pictures, kills, seed)),
            (disks, lambda: torture_disks.part(work / "disks", model, pictures, disks)),
            (files, lambda: torture_pictures.part(work / "pictures", ground, files, seed)),
            (questions, lambda: torture_soak.part(work, ground, questions, seed)),
            *((some, lambda some=some: torture_clients.part(work, ground, some, seconds)) for some in clients),
        ]
        for wanted, part in parts:
            if wanted:
                started = time.monotonic()
                counts.append(part())
                took = time.monotonic() - started
                click.echo("\n".join([f"{counts[-1].part}: {counts[-1].tried:,} in {took:.0f} s", *counts[-1].wrong]))
    if outcomes:
        click.echo("\n".join(["", *torture_flips.table(outcomes)]))
    click.echo("\n".join(["", f"{platform.machine()}, {platform.system()}, seed {seed}, {pictures} pictures", ""]))
    click.echo("\n".join(table(counts)))
    sys.exit(any(count.wrong for count in counts))


if __name__ == "__main__":
    main()
