"""What the choice of noise does to rankings, to accuracy, and to pictures on blank grounds.

    python benchmarks/protocols.py rankings TRIPLETS.csv --space mini/style --space mini/look --cache DIR
    python benchmarks/protocols.py grounds STYLES PHOTOS --space mini/style --space mini/look

`rankings` takes a seeded sample of the triplets' pictures, lets some of them ask, and compares the rankings of two
protocols query by query: Kendall's tau over all pictures, and the share of the top 10 that both have. Then the accuracy
on a seeded sample of the triplets. `grounds` cuts drawings out of their white ground and puts unrelated ones on other
grounds: how high do they score? Intervals are 95 %, by bootstrap over queries, over the triplets' units, or over pairs.
"""

import colorsys
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from PIL import Image
from printing import table

from diffsim import IndexOptions
from diffsim.indexer.requests import SpaceRequest
from diffsim.indexer.spaces import Networks, make_kit
from diffsim.query.evaluation.benchmark import Triplets
from diffsim.query.evaluation.contenders import Contender, open_paper_scorers, open_scorers, parse_spec
from diffsim.retrieval.evaluation.bootstrap import Figure, mean_figure
from diffsim.retrieval.extractor import Extractor
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.score import AttentionFeatures, score

SEED = 2334
CPU = IndexOptions(device="cpu")

ENGINE = {
    "engine": {},
    "engine, seed 1": {"seed": 1},
    "engine, seed 2": {"seed": 2},
    "engine, mean of 4 noises": {"noises": 4},
    "engine, no noise": {"noises": 0},
}
PAPER = {"paper": {}, "paper, seed 1": {"seed": 1}}
COMPARED = [*(("engine", name) for name in [*ENGINE, "paper"][1:]), ("paper", "paper, seed 1")]


@click.group()
def main() -> None:
    """What the choice of noise does."""


@main.command()
@click.argument("triplets", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--space", "spaces", multiple=True, required=True, help="As `diffsim evaluate` takes it.")
@click.option("--cache", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--pictures", default=200, show_default=True, help="That are ranked.")
@click.option("--queries", default=40, show_default=True, help="Of them that ask.")
@click.option("--limit", default=500, show_default=True, help="Triplets for the accuracy.")
def rankings(triplets: Path, spaces: tuple[str, ...], cache: Path, pictures: int, queries: int, limit: int) -> None:
    """Rankings and accuracy of the engine's and the paper protocol, and of other noise."""
    found = {space: ranked_by(triplets, space, cache, pictures, queries, limit) for space in spaces}
    compared = [" / ".join(pair) for pair in COMPARED]
    table(("Kendall's tau", *compared), ([space, *taus] for space, (taus, _, _) in found.items()))
    table(("same top 10, %", *compared), ([space, *tops] for space, (_, tops, _) in found.items()))
    head = ("accuracy, %; then more than the engine", *ENGINE, *PAPER)
    table(head, ([space, *accuracies] for space, (_, _, accuracies) in found.items()))


def ranked_by(
    triplets: Path, space: str, cache: Path, pictures: int, queries: int, limit: int
) -> tuple[list[str], list[str], list[str]]:
    """Kendall's taus and the same top tens of COMPARED, and accuracies, of one space."""
    question = Triplets("triplets", triplets, limit, SEED, click.echo)
    ranked = np.array(sorted(random.Random(SEED).sample(range(len(question.pictures)), pictures)))
    asking = np.arange(0, pictures, pictures // queries)[:queries]
    pairs = np.repeat(ranked[asking], pictures), np.tile(ranked, queries)
    request = parse_spec(space).request
    assert request is not None
    contenders = [
        Contender(name, replace(request, settings=replace(request.settings, tier="fp32", **other)))
        for name, other in {**ENGINE, **PAPER}.items()
    ]
    scores, answers = {}, []
    with ExitStack() as opened:
        engine = contenders[: len(ENGINE)]
        opened_scorers = open_scorers(
            engine, triplets.parent, question.pictures, cache, CPU, opened, on_progress=nothing
        )
        measured = [*zip(engine, opened_scorers, strict=True)]
        papers = open_paper_scorers(contenders[len(ENGINE) :], question.pictures, CPU)
        for contender, scorer in (*measured, *papers):
            scores[contender.spec] = scorer.pairs(*pairs, nothing).reshape(queries, pictures)
            answers.append(question.ask(scorer, nothing))
    agreements = [agreement(scores[first], scores[second], asking) for first, second in COMPARED]
    first, *others = question.figures(contenders, answers)
    return (
        [text(taus) for taus, _ in agreements],
        [text(100 * tops, 1) for _, tops in agreements],
        [shown(Figure(**first["accuracy"]), 100), *(shown(Figure(**row["gain"]), 100, sign="+") for row in others)],
    )


def agreement(first: np.ndarray, second: np.ndarray, asking: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kendall's tau and the share of the same top 10 for each query, [queries]; nobody finds itself."""
    taus, shares = [], []
    for row, itself in enumerate(asking):
        one, other = (np.delete(scores[row], itself) for scores in (first, second))
        pairs = np.triu_indices(len(one), 1)
        orders = [np.sign(scores[:, None] - scores[None, :])[pairs] for scores in (one, other)]
        taus.append(float((orders[0] * orders[1]).mean()))
        tops = [set(np.argsort(-scores, kind="stable")[:10]) for scores in (one, other)]
        shares.append(len(tops[0] & tops[1]) / 10)
    return np.array(taus), np.array(shares)


Pair = tuple[Image.Image, Image.Image]
SIDE = 256


@main.command()
@click.argument("styles", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("photos", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--space", "spaces", multiple=True, required=True, help="As `diffsim evaluate` takes it.")
@click.option("--pairs", default=200, show_default=True)
@click.option("--sheet", type=click.Path(dir_okay=False, path_type=Path), help="Also draw the first pairs.")
def grounds(styles: Path, photos: Path, spaces: tuple[str, ...], pairs: int, sheet: Path | None) -> None:
    """Scores of unrelated drawings on white and on other grounds, for one noise, none, and another one per role."""
    drawn = list(unrelated(styles, pairs))
    behind = random.Random(SEED).sample(sorted(photos.rglob("*.webp")), 2 * pairs)
    settings = {name: [ground(*pair, number, behind) for number, pair in enumerate(drawn)] for name, ground in GROUNDS}
    if sheet:
        draw_sheet(settings, sheet)
    for space in spaces:
        request = parse_spec(space).request
        assert request is not None
        found = {name: noise_scores(request, shown_pairs) for name, shown_pairs in settings.items()}
        added = {name: scores["one noise"] - scores["another noise per role"] for name, scores in found.items()}
        table(
            (space, *NOISES, "one noise adds"),
            ([name, *map(text, scores.values()), text(added[name], sign="+")] for name, scores in found.items()),
        )
        same, opposite = (added[f"white, half size, {where}"] for where in ("same corner", "opposite corners"))
        spread = ", ".join(f"{found['white'][noise].std():.3f} ({noise})" for noise in NOISES)
        click.echo(f"\nAdded in the same corner less in opposite ones: {text(same - opposite, sign='+')}.")
        click.echo(f"Standard deviation over the pairs on white: {spread}.")


def unrelated(styles: Path, pairs: int) -> Iterator[Pair]:
    """Two drawings of unlike subjects in two styles, every drawing once; without game-icons, which stand on black."""
    files = [path for path in sorted(styles.rglob("*.webp")) if path.parent.name != "gameicons"]
    left = random.Random(SEED).sample(files, len(files))
    for _ in range(pairs):
        a = left.pop()
        b = next(path for path in left if path.stem != a.stem and path.parent != a.parent)
        left.remove(b)
        yield Image.open(a).convert("RGB"), Image.open(b).convert("RGB")


def cut_out(drawing: Image.Image) -> Image.Image:
    """White where the drawing is, black on the near-white ground that reaches the border."""
    open_ground = np.asarray(drawing).min(axis=2) >= 245
    ground = np.zeros_like(open_ground)
    ground[[0, -1], :] = ground[:, [0, -1]] = True
    ground &= open_ground
    while True:
        grown = ground.copy()
        grown[1:] |= ground[:-1]
        grown[:-1] |= ground[1:]
        grown[:, 1:] |= ground[:, :-1]
        grown[:, :-1] |= ground[:, 1:]
        grown &= open_ground
        if (grown == ground).all():
            return Image.fromarray(np.where(ground, 0, 255).astype(np.uint8))
        ground = grown


def on(drawing: Image.Image, ground: Image.Image) -> Image.Image:
    return Image.composite(drawing, ground, cut_out(drawing))


def colour(number: int, turn: float = 0) -> Image.Image:
    """A plain ground; the hue goes around with the number."""
    red, green, blue = colorsys.hsv_to_rgb((number * 0.618 + turn) % 1, 0.55, 0.85)
    return Image.new("RGB", (SIDE, SIDE), (round(255 * red), round(255 * green), round(255 * blue)))


def photo(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def moved(drawing: Image.Image, far: bool) -> Image.Image:
    """At half size in the upper left or lower right corner, on white."""
    sheet = Image.new("RGB", (SIDE, SIDE), "white")
    half = SIDE // 2
    sheet.paste(drawing.resize((half, half), Image.Resampling.LANCZOS), (half, half) if far else (0, 0))
    return sheet


Ground = Callable[[Image.Image, Image.Image, int, Sequence[Path]], Pair]
GROUNDS: tuple[tuple[str, Ground], ...] = (
    ("white", lambda a, b, n, photos: (a, b)),
    ("one colour", lambda a, b, n, photos: (on(a, colour(n)), on(b, colour(n)))),
    ("two colours", lambda a, b, n, photos: (on(a, colour(n)), on(b, colour(n, 0.5)))),
    ("white and a colour", lambda a, b, n, photos: (a, on(b, colour(n)))),
    ("one photograph", lambda a, b, n, photos: (on(a, photo(photos[2 * n])), on(b, photo(photos[2 * n])))),
    ("two photographs", lambda a, b, n, photos: (on(a, photo(photos[2 * n])), on(b, photo(photos[2 * n + 1])))),
    ("white, half size, same corner", lambda a, b, n, photos: (moved(a, False), moved(b, False))),
    ("white, half size, opposite corners", lambda a, b, n, photos: (moved(a, False), moved(b, True))),
)

NOISES = {"one noise": ({}, {}), "another noise per role": ({}, {"seed": 1}), "no noise": ({"noises": 0},) * 2}
"""What is changed in the space for A and for B."""


def noise_scores(request: SpaceRequest, pairs: Sequence[Pair]) -> dict[str, np.ndarray]:
    """Scores of the pairs, [pairs], for each choice of noise."""
    networks = Networks("cpu")
    network = networks.get(request.network, request.settings.dtype, request.adapter)
    kits = {
        (noise, role): make_kit(replace(request, settings=replace(request.settings, tier="fp32", **changed)), networks)
        for noise, both in NOISES.items()
        for role, changed in enumerate(both)
    }
    extractor = Extractor(network, list(kits.values()))
    found: dict[str, list[float]] = {noise: [] for noise in NOISES}
    for start in range(0, len(pairs), 16):
        some = pairs[start : start + 16]
        records = [extractor.extract(pixels([pair[role] for pair in some], extractor.size)) for role in (0, 1)]
        for noise in NOISES:
            a, b = (
                attention(kits[noise, role], [one.tokens for one in records[role][list(kits).index((noise, role))]])
                for role in (0, 1)
            )
            found[noise] += score(a, b, kits[noise, 0].weights).tolist()
    return {noise: np.array(scores) for noise, scores in found.items()}


def pixels(pictures: Sequence[Image.Image], size: int) -> np.ndarray:
    return np.stack([np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS)) for picture in pictures])


def attention(kit: SpaceKit, records: Sequence[bytes]) -> tuple[AttentionFeatures, ...]:
    return kit.read(records)


def draw_sheet(settings: dict[str, list[Pair]], path: Path) -> None:
    """The first four pairs of every ground, a row each."""
    sheet = Image.new("RGB", (8 * 100, len(settings) * 100), "grey")
    for row, pairs in enumerate(settings.values()):
        for column, picture in enumerate(picture for pair in pairs[:4] for picture in pair):
            sheet.paste(picture.resize((96, 96)), (column * 100 + 2, row * 100 + 2))
    sheet.save(path)


def text(values: np.ndarray, digits: int = 3, sign: str = "") -> str:
    """Mean and interval of independent values."""
    return shown(mean_figure(values, [str(number) for number in range(len(values))], SEED), 1, digits, sign)


def shown(figure: Figure, factor: float, digits: int = 1, sign: str = "") -> str:
    value, low, high = (f"{factor * (end or 0):{sign}.{digits}f}" for end in (figure.value, figure.low, figure.high))
    return f"{value} ({low} to {high})"


def nothing(done: int, total: int) -> None:
    pass


if __name__ == "__main__":
    main()
