"""Where do near copies end? Altered copies of indexed photographs against their nearest other pictures.

    python -m benchmarks.folding INDEX --space look --pictures 100

A distance is 1 - cosine of descriptors, in units of the picture's median distance to the chance sample: the same scale
in every feature space. Printed: quantiles over the pictures, for each alteration and for the nearest other picture.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

import diffsim
from db.filters import Filters
from retrieval.extractor import Extractor
from retrieval.images import fitted, open_picture
from retrieval.rerank import score_records


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


ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg quality 40": jpeg,
    "half the size": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "brighter by 10 %": lambda picture: ImageEnhance.Brightness(picture).enhance(1.1),
    "camera moved by 2 %": window(0.02, 0.0, 0.96),
    "camera moved by 5 %": window(0.05, 0.05, 0.90),
    "turned by 2 degrees": lambda picture: picture.rotate(2, Image.Resampling.BICUBIC, fillcolor="white"),
    "crop of 80 %": window(0.1, 0.1, 0.8),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("index")
    parser.add_argument("--space", default=None)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--folder", action="append", default=[])
    arguments = parser.parse_args()
    searcher = diffsim.open(arguments.index, "cpu")
    space = searcher.choose(arguments.space)
    gallery, kit = searcher.gallery(space), searcher.kit(space)
    ids, descriptors = gallery.all_descriptors()
    vectors = descriptors.astype(np.float32)
    chosen = ids
    if arguments.folder:
        chosen = np.array(searcher._catalog.matching(Filters(folders=arguments.folder))[0])
    asking = np.random.default_rng(0).permutation(chosen)[: arguments.pictures].tolist()
    extractor = Extractor.load(space.network, [kit], "cpu")
    found: dict[str, list[tuple[float, float]]] = {}
    files = searcher._catalog.files_of(asking)
    for content_id in asking:
        stored = gallery.record(content_id)
        assert stored is not None
        own = kit.read([stored[1]])
        one = stored[0].astype(np.float32)
        sample = gallery.sample(256, np.array([content_id]))
        unit = np.median(1 - vectors[np.searchsorted(ids, sample)] @ one)
        token_unit = np.median(1 - score_records(kit, own, gallery.tokens(sample))[1])
        order = ids[np.argsort(-(vectors @ one))]
        nearest = order[order != content_id][:1]
        token = 1 - score_records(kit, own, gallery.tokens(nearest))[1][0]
        distance = 1 - vectors[np.searchsorted(ids, nearest[0])] @ one
        found.setdefault("nearest other", []).append((distance / unit, token / token_unit))
        picture, _ = open_picture(Path(files[content_id][0].path.decode()).read_bytes())
        for name, alter in ALTERED.items():
            pixels = np.array(fitted(alter(picture), kit.space.size, kit.space.fit))
            ((features,),) = extractor.extract(pixels[None])
            token = 1 - score_records(kit, own, [(0, features.tokens)])[1][0]
            distance = 1 - features.descriptor.astype(np.float32) @ one
            found.setdefault(name, []).append((distance / unit, token / token_unit))
    print(f"{space.name}: {len(asking)} pictures; distance by descriptor | by tokens; 1, 5, 25, 50, 75, 95 and 99 %")
    for name, values in found.items():
        rows = np.quantile(np.array(values), (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99), axis=0).T
        print(f"{name:20}", " | ".join(" ".join(f"{value:.3f}" for value in row) for row in rows), flush=True)


if __name__ == "__main__":
    main()
