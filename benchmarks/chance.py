"""Does "by chance" keep its promise? Ask with pictures that have no relative in the gallery.

    python benchmarks/chance.py INDEX --space style [--queries 40]

Each folder of the index in turn asks the pictures of all other folders, so folders should hold unlike things. In a
well-kept promise at most one asking picture in twenty finds a hit that stands at 0.05 or less.
"""

from pathlib import Path

import click
import numpy as np
import torch

import diffsim
from retrieval.chance import NULL_SAMPLE, fit_tail
from retrieval.rerank import score_records
from retrieval.tiers import decode_tokens


@click.command()
@click.argument("index", type=click.Path(exists=True, path_type=Path))
@click.option("--space", help="Feature space by name or fingerprint.")
@click.option("--queries", default=40, show_default=True, help="Asking pictures per folder.")
@click.option("--pictures", default=2000, show_default=True, help="Pictures that each of them is compared with.")
def main(index: Path, space: str | None, queries: int, pictures: int) -> None:
    """Count false alarms, folder by folder."""
    searcher = diffsim.open(index)
    known = searcher.choose(space)
    gallery, kit = searcher.gallery(known), searcher.kit(known)
    with searcher.index.catalog(readonly=True) as catalog:
        files = catalog.files_of(gallery.ids.tolist())
    folders = np.array([Path(files[content_id][0].display).parent.name for content_id in gallery.ids.tolist()])
    generator = np.random.default_rng(0)
    click.echo(f"{known.name} ({known.fingerprint}), {len(gallery.ids)} pictures")
    click.echo(f"{'asking folder':16} queries  gallery  a hit <= 0.05  a hit <= 1  median of the best hit")
    for folder in sorted(set(folders)):
        asking = generator.permutation(gallery.ids[folders == folder])[:queries]
        others = generator.permutation(gallery.ids[folders != folder])[:pictures]
        best = []
        for content_id in asking.tolist():
            record = gallery.record(content_id)
            assert record is not None
            with torch.inference_mode():
                features = kit.attention(decode_tokens([record[1]], kit.shapes, kit.space.tier))
                _, scores = score_records(kit, features, gallery.tokens(others))
            tail = fit_tail(scores[:NULL_SAMPLE])
            assert tail is not None
            best.append(min(tail.expected(scores, len(scores))))
        found = np.array(best)
        alarms = f"{np.mean(found <= 0.05):13.1%}  {np.mean(found <= 1):10.1%}"
        click.echo(f"{folder:16} {len(found):7d}  {len(others):7d}  {alarms}  {np.median(found):.2g}")


if __name__ == "__main__":
    main()
