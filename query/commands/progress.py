"""Bars on a terminal for everything that takes a while; nothing elsewhere, so that stderr holds only messages."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from ..text import printable


@contextmanager
def stages() -> Iterator[Callable[[str, int, int | None], None]]:
    """A line for each thing that is done, with counts, rate and time left; yields a function of (what is done, how much
    of it, how much in all or None)."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Count(ProgressColumn):
        def render(self, task: Task) -> Text:
            total = "" if task.total is None else f"/{task.total:,.0f}"
            rate = "" if task.speed is None else f"  {task.speed:,.1f}/s"
            return Text(f"{task.completed:,.0f}{total}{rate}")

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), Count(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:

        def show(doing: str, done: int, total: int | None) -> None:
            if doing not in tasks:
                tasks[doing] = bar.add_task(printable(doing), total=total)
            bar.update(tasks[doing], completed=done, total=total)

        yield show


@contextmanager
def downloading(name: str) -> Iterator[Callable[[int, int, int, int], None]]:
    """A bar on stderr for a download, on a terminal only; yields a function of (complete files, files in all, bytes on
    disk, bytes in all)."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counts = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    columns = (*counts, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        asking = bar.add_task(f"{name}, asking for its files", total=None)
        task = None

        def show(files: int, of_files: int, arrived: int, total: int) -> None:
            nonlocal task
            if task is None:  # what is there already does not count as speed
                bar.remove_task(asking)
                task = bar.add_task("", total=total, completed=arrived)
            bar.update(task, description=f"{name}, {files} of {of_files} files", completed=arrived)

        yield show


@contextmanager
def progress(doing: str, what: str) -> Iterator[Callable[[int, int], None]]:
    """One such line; yields a function of (done, in all)."""
    with stages() as show:
        yield partial(show, f"{doing} ({what})")
