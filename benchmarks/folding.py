"""Where do near copies end? Altered copies of indexed photographs against their nearest other pictures.

    python benchmarks/folding.py INDEX --space style --space look --pictures 100

Three distances, each 1 - cosine in units of the picture's median distance from a sample, which is the same scale in
every feature space: of the values place by place (what folds), of the descriptors, and of the score. Printed: quantiles
over the pictures, for each alteration and for the nearest of the ten others that are nearest by descriptor.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from printing import table

import diffsim
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.pictures.images import open_picture
from diffsim.retrieval.score import score
from diffsim.retrieval.shard.near_copies import NEAR, place_values, usual_distance
from diffsim.retrieval.shard.rerank import score_queries


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
@click.option(
    "--folder", "folders", multiple=True, type=click.Path(exists=True, path_type=Path), help="Only its files."
)
def main(index: Path, spaces: tuple[str, ...], pictures: int, folders: tuple[Path, ...]) -> None:
    """Print quantiles of the distances."""
    searcher = diffsim.open(index, "cpu")
    head = ("space", "copy", *(f"{kind}: 5, 50, 95 %" for kind in ("values in place", "descriptors", "score")))
    rows = (row for name in spaces for row in measured(searcher, name, pictures, [path.resolve() for path in folders]))
    table((*head, f"folded, at most {NEAR}"), rows)


def measured(searcher: diffsim.Searcher, name: str, pictures: int, folders: Sequence[Path]) -> Iterator[list[str]]:
    """A row for the nearest other pictures and one for each alteration."""
    space = searcher.choose(name)
    known = searcher.embeddings(space.fingerprint)
    paths = dict(zip(known.ids.tolist(), map(Path, known.paths), strict=True))
    kit, collection = searcher.collection.kit(space), searcher.collection
    chosen = [row for row, path in paths.items() if not folders or any(map(path.is_relative_to, folders))]
    asking = np.random.default_rng(0).permutation(chosen)[:pictures].tolist()

    def records(ids: np.ndarray) -> list[bytes]:
        return [bytes(record) for _, record in collection.tokens(space.fingerprint, ids)]

    sample = records(collection.null_sample([space.fingerprint], 64, np.empty(0, np.int64)))
    found: dict[str, list[list[float]]] = {}
    for content_id in asking:
        (part,) = searcher.encode(diffsim.Query(content_id, spaces=space.fingerprint)).parts
        near = collection.recall(part, 11)[0]
        others = records(near[near != content_id][:10])
        picture, _ = open_picture(paths[content_id].read_bytes())
        made = [searcher.extract(alter(picture), [space.fingerprint]) for alter in ALTERED.values()]
        altered = [each.features[space.fingerprint].tokens for each in made]
        units = np.median(distances(kit, part.tokens, sample), axis=1)
        units[0] = usual_distance(place_values(kit, [part.tokens])[0], place_values(kit, sample))
        found.setdefault("nearest other", []).append((distances(kit, part.tokens, others).T / units).min(0).tolist())
        for alteration, row in zip(ALTERED, distances(kit, part.tokens, altered).T / units, strict=True):
            found.setdefault(alteration, []).append(row.tolist())
    for copy, values in found.items():
        quantiles = np.quantile(np.array(values), (0.05, 0.5, 0.95), axis=0).T
        cells = [" ".join(f"{value:.3f}" for value in row) for row in quantiles]
        yield [space.name, copy, *cells, f"{np.mean(np.array(values)[:, 0] <= NEAR):.0%}"]


def distances(kit: SpaceKit, one: bytes, others: list[bytes]) -> np.ndarray:
    """By values in place, by descriptor and by score, [3, others]."""
    own = kit.read([one])
    return np.stack(
        [
            (1 - (place_values(kit, others)[:, 0] @ place_values(kit, [one])[0].T).amax(1)).numpy(),
            (1 - kit.descriptors(kit.read(others)) @ kit.descriptors(own)[0]).numpy(),
            1 - score_queries(kit, [(own, score)], list(enumerate(others)))[1][0],
        ]
    )


if __name__ == "__main__":
    main()
