"""Tables as the pages in docs/ have them."""

from collections.abc import Iterable, Sequence

import click


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; its rows appear as they come."""
    click.echo(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        click.echo(f"| {' | '.join(map(str, row))} |")


def share(mean: float, low: float, high: float) -> str:
    """Per cent with its interval."""
    return f"{100 * mean:.1f} ({100 * low:.1f}-{100 * high:.1f})"
