"""One progress bar for everything that takes a while."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

VARIABLE = "DIFFSIM_PROGRESS"
OFF = "off"
"""With the environment variable set to this value, no bar is drawn, so that stderr holds only messages."""


@contextmanager
def progress(doing: str = "Extracting", what: str = "pictures") -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr with rate and time left; yields a function of (done, in all)."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.1f} {what}/s")

    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=os.environ.get(VARIABLE) == OFF) as bar:
        task = None

        def show(done: int, total: int) -> None:
            nonlocal task
            if task is None:
                task = bar.add_task("", total=total)
            bar.update(task, completed=done, total=total)

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

    console = Console(stderr=True)
    quiet = os.environ.get(VARIABLE) == OFF or not console.is_terminal
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=quiet) as bar:
        task = None

        def show(files: int, of_files: int, arrived: int, total: int) -> None:
            nonlocal task
            if task is None:  # what is there already does not count as speed
                task = bar.add_task("", total=total, completed=arrived)
            bar.update(task, description=f"{name}, {files} of {of_files} files", completed=arrived)

        yield show
