"""The command `diffsim`: results on stdout, everything else on stderr; exit 0 ok, 1 a named problem, 2 wrong usage.

Each command is imported when it is called and imports torch and FAISS only when it needs them, so that `--help` and
`status` start at once.
"""

import errno
import importlib
import os
import sys
from typing import Any

import click

from diffsim.errors import Error, did_you_mean

_COMMANDS = {
    "index": "diffsim.query.commands.index",
    "query": "diffsim.query.commands.query",
    "score": "diffsim.query.commands.score",
    "compare": "diffsim.query.commands.compare",
    "duplicates": "diffsim.query.commands.duplicates",
    "browse": "diffsim.query.commands.browse",
    "export": "diffsim.query.commands.export",
    "audit": "diffsim.query.commands.audit",
    "evaluate": "diffsim.query.commands.evaluate",
    "sweep": "diffsim.query.commands.sweep",
    "status": "diffsim.query.commands.status",
    "verify": "diffsim.query.commands.maintain",
    "prune": "diffsim.query.commands.maintain",
    "models": "diffsim.query.commands.models",
}


class _Group(click.Group):
    """Finds commands by name and reports known errors as one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[name]), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-"):
            ctx.fail(f"There is no command {name!r}{did_you_mean(name, _COMMANDS)}.")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Error as problem:
            raise click.ClickException(str(problem)) from problem
        except BrokenPipeError:
            raise
        except OSError as problem:
            raise click.ClickException(_sentence(problem)) from problem


def _sentence(problem: OSError) -> str:
    where = f" ({os.fsdecode(problem.filename)})" if problem.filename else ""
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full{where}; what was committed is intact: make room and run the same command again."
    if problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"Permission denied{where}; name a folder that you may write with --index DIR, or change its rights."
    return f"{problem.strerror or problem}{where}; check the path and try again."


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="diffsim-search", prog_name="diffsim")
def cli() -> None:
    """Find pictures that look like a picture: by style, by instance, by overall look.

    \b
      diffsim index ~/Pictures              build or update the index
      diffsim query cat.jpg --by style      ranked neighbours
      diffsim browse                        the same as a page in the browser
    """


def main() -> None:
    """Entry point of the console script."""
    # torch's threads would busy-wait and take the cores from the decoding processes: on a busy machine with two cores
    # indexing was several times slower. Must be set before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # File names need not be UTF-8; printing one must not fail.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    cli()


if __name__ == "__main__":
    main()
