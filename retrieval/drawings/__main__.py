"""The command: python -m diffsim.retrieval.drawings FOLDER"""

from pathlib import Path

import click

from .gallery import STYLES, SUBJECTS, draw


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Draw the demonstration gallery into FOLDER: every subject in every style."""
    folder.mkdir(parents=True, exist_ok=True)
    for subject in SUBJECTS:
        for style in STYLES:
            draw(subject, style).save(folder / f"{subject}-{style}.png", compress_level=2)
    click.echo(f"{len(SUBJECTS) * len(STYLES)} pictures in {folder}", err=True)


if __name__ == "__main__":
    main()
