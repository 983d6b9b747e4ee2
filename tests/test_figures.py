"""The figures of README.md and docs/: every one names a command that could be run, and what the README quotes is so."""

import sys
from pathlib import Path

import click
import pytest

PROJECT = Path(__file__).parent.parent
sys.path.insert(0, str(PROJECT / "benchmarks"))

import figures  # noqa: E402

from diffsim.query.cli import cli as diffsim  # noqa: E402


def read(command: str) -> None:
    """Read a command line as its program would, but for whether files are there. Raises ClickException."""
    _, (program, *words) = figures.split(command)
    if program == "diffsim":
        reader: click.Command = diffsim
    else:
        assert program == "python"
        script, *words = words
        if script == "-m":
            assert words[0] == "diffsim.retrieval.drawings"
            return
        module = __import__(Path(script).stem)
        assert (PROJECT / script).is_file()
        if not isinstance(getattr(module, "main", None), click.Command):
            text = (PROJECT / script).read_text(encoding="utf-8")
            assert all(f'"{word}"' in text for word in words if word.startswith("--")), command
            return
        reader = module.main
    while isinstance(reader, click.Group):
        name, *words = words
        reader = reader.get_command(click.Context(reader), name) or pytest.fail(name)
    context = click.Context(reader)
    given, left, _ = reader.make_parser(context).parse_args(list(words))
    assert not left, command
    missing = [
        parameter.name for parameter in reader.params if parameter.required and given.get(parameter.name) is None
    ]
    assert not missing, command


def everything() -> list[figures.Figure]:
    return [figure for page in figures.pages() for figure in figures.figures_of(page)]


def test_every_figure_names_a_command_with_options_that_it_has() -> None:
    found = everything()
    assert len(found) > 20
    for figure in found:
        read(figure.command)
        assert figure.body.strip(), figure.command
        if picture := figures.PICTURE.search(figure.body):
            assert (figure.page.parent / picture[1]).is_file()
    for commands in figures.MADE.values():
        for command in commands:
            read(command)


def test_a_command_with_a_wrong_option_is_found() -> None:
    with pytest.raises(click.ClickException):
        read("python benchmarks/pooling.py photos.idx --spaces style")
    with pytest.raises(AssertionError):
        read("python benchmarks/pooling.py photos.idx")  # its --space is missing


def test_every_page_with_opened_figures_closes_them() -> None:
    for page in figures.pages():
        text = page.read_text(encoding="utf-8")
        assert text.count("<!-- figure: ") == text.count("<!-- /figure -->") == len(figures.figures_of(page)), page.name
        assert text.count("<!-- from ") == text.count("<!-- /from -->") == len(figures.QUOTE.findall(text)), page.name


def test_the_readme_quotes_what_the_pages_say() -> None:
    """If not: python benchmarks/figures.py --quotes"""
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    quotes = figures.QUOTE.findall(text)
    assert len(quotes) > 10
    for _, page, terms, now, _ in quotes:
        assert figures.quoted(PROJECT / page, terms) == now, terms


def test_a_page_gets_what_its_command_prints(tmp_path: Path) -> None:
    """The input is made once, the figure is measured once, and a failing command leaves its figure as it was."""
    page = tmp_path / "page.md"
    good, bad = "diffsim --version", "python benchmarks/pooling.py nowhere.idx --space style"
    page.write_text(
        f"<!-- measured -->\nlong ago\n<!-- /measured -->\n<!-- figure: {good} -->\nold\n<!-- /figure -->\n"
        f"<!-- figure: {bad} -->\nkept\n<!-- /figure -->\n"
    )
    work = figures.Work(tmp_path / "work", tmp_path)
    assert figures.renew(page, work, "style 0") == [bad]
    once = page.read_text()
    assert "old" not in once and "kept" in once and "long ago" in once
    page.write_text(once.replace(bad, good))
    (kept,) = (tmp_path / "work" / "printed").glob("*.md")
    kept.write_text("| a | b |\n|---|---|\n| row | 7 |\n")
    assert figures.renew(page, work, "style 0") == []
    assert page.read_text().count("| row | 7 |") == 2 and "long ago" not in page.read_text()
    assert "`mini`'s fingerprints: style 0" in page.read_text()
    assert figures.quoted(page, "row; b") == "7" and figures.quoted(page, "a; row; b") == "7"
    assert figures.quoted(page, "row; c") is None and figures.quoted(page, "line; b") is None
