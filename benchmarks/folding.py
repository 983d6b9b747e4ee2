"""Which altered copies of indexed photographs fold, and how many of their nearest other pictures do.

    python benchmarks/folding.py INDEX --space style --space look --pictures 100

The comparison is the same in every feature space; a space only says which other pictures are near.
"""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from printing import table

import diffsim
from diffsim.query.sketches import Sketches
from diffsim.retrieval.copies.compare import Match, Seen, compare
from diffsim.retrieval.copies.sketch import DECODED, Sketch
from diffsim.retrieval.pictures.images import fitted, open_picture
from diffsim.retrieval.shard.messages import SpaceQuery

OTHERS = 10


def jpeg(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=40)
    return Image.open(file).convert("RGB")


def window(left: float, top: float, share: float) -> Callable[[Image.Image], Image.Image]:
    def cut(picture: Image.Image) -> Image.Image:
        width, height = picture.size
        box = (left * width, top * height, (left + share) * width, (top + share) * height)
        return picture.crop(tuple(map(round, box)))  # type: ignore[arg-type]

    return cut


def _with_caption(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    taller = Image.new("RGB", (width, round(1.12 * height)), "black")
    taller.paste(picture)
    return taller


ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg quality 40": jpeg,
    "half the size": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "brighter by 10 %": lambda picture: ImageEnhance.Brightness(picture).enhance(1.1),
    "camera moved by 2 %": window(0.02, 0.0, 0.96),
    "camera moved by 5 %": window(0.05, 0.05, 0.90),
    "crop of 80 %, a corner": window(0.2, 0.0, 0.8),
    "turned by 2 degrees": lambda picture: picture.rotate(2, Image.Resampling.BICUBIC, fillcolor="white"),
    "crop of 80 %": window(0.1, 0.1, 0.8),
    "mirrored": ImageOps.mirror,
    "paler and brighter": lambda picture: ImageEnhance.Color(ImageEnhance.Brightness(picture).enhance(1.2)).enhance(
        0.6
    ),
    "caption strip below": _with_caption,
}


@click.command()
@click.argument("index", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--space", "spaces", multiple=True, required=True)
@click.option("--pictures", default=100, show_default=True)
def main(index: Path, spaces: tuple[str, ...], pictures: int) -> None:
    """Print the shares that fold, and the CPU time of a pair."""
    searcher = diffsim.open(index, "cpu")
    table(("space", "pairs", "detail: 5, 50, 95 %", "folded", "ms of CPU a pair"), rows(searcher, spaces, pictures))


def rows(searcher: diffsim.Searcher, spaces: Sequence[str], pictures: int) -> Iterator[list[str]]:
    known = searcher.embeddings(spaces[0])
    chosen = np.random.default_rng(0).permutation(len(known.ids))[:pictures]
    asking = known.ids[chosen].tolist()
    with Sketches(searcher.index, searcher.catalog) as sketches:
        for name, alter in ALTERED.items():
            pairs = []
            for content_id, place in zip(asking, chosen.tolist(), strict=True):
                picture, _ = open_picture(Path(known.paths[place]).read_bytes())
                pairs.append((sketches.of([content_id])[content_id], _seen(alter(picture))))
            yield ["any", name, *_figures(pairs)]
        for space in map(searcher.choose, spaces):
            searcher.collection.refresh([space])
            pairs = []
            for content_id, descriptor in zip(
                *searcher.collection.descriptors(space.fingerprint, np.array(asking)), strict=True
            ):
                near, _ = searcher.collection.recall(SpaceQuery(space.fingerprint, descriptor, b""), OTHERS + 1)
                seen = sketches.of([int(content_id), *near.tolist()])
                pairs += [(seen[int(content_id)], each) for row, each in seen.items() if row != content_id]
            yield [space.name, f"the {OTHERS} nearest others", *_figures(pairs)]


def _seen(picture: Image.Image) -> Seen:
    return Seen(Sketch.of(np.array(fitted(picture, DECODED, "squash")), *picture.size))


def _figures(pairs: Sequence[tuple[Seen, Seen]]) -> list[str]:
    begun = time.process_time()
    found: list[Match | None] = [
        match for start in range(0, len(pairs), 64) for match in compare(pairs[start : start + 64])
    ]
    spent = 1000 * (time.process_time() - begun) / len(pairs)
    detail = np.quantile([-1.0 if match is None else match.detail for match in found], (0.05, 0.5, 0.95))
    folded = np.mean([match is not None and match.is_copy for match in found])
    return [" ".join(f"{value:.3f}" for value in detail), f"{folded:.1%}", f"{spent:.1f}"]


if __name__ == "__main__":
    main()
