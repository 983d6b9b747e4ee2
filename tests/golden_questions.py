"""The questions of test_query_golden.py as plain values; golden_answers.py makes the collection and asks them."""

SPACES = ("style", "instance", "look", "look in int8", "mini")
"""How questions name the spaces of the index, in the order in which they are made."""


def example(picture: str | int, weight: float = 1, region: tuple[float, float, float, float] | None = None) -> dict:
    return {"picture": picture, "weight": weight, "region": region}


def question(*examples: dict | str, spaces: str = "style", **settings: object) -> dict:
    """examples: a path below the collection's folder is a picture. spaces: names of SPACES with commas between; none
    is the index's first.

    settings: fields of Query and of Filters; and `by_id`, query with the picture's id; `extracted`, with the picture
    as it was extracted before; `few_numbers`, the collection is too large to score a region against every picture.
    """
    given = [example(one) if isinstance(one, str) else one for one in examples]
    return {"examples": given, "spaces": [name for name in spaces.split(", ") if name], **settings}


CAT, BOAT = "pictures/land/cat-neon.png", "pictures/sea/boat-ink.png"
HOUSE, CAR = "pictures/sea/house-poster.png", "pictures/land/car-dots.png"
FISH = "pictures/sea/fish-glass.png"
CAT_ELSEWHERE, BOAT_ELSEWHERE = "elsewhere/cat.png", "elsewhere/boat.png"
HEAD, MIDDLE = (0.3, 0.2, 0.4, 0.4), (0.25, 0.25, 0.5, 0.5)

QUESTIONS = {
    # One picture, one space.
    **{f"an indexed picture by {space}": question(CAT, spaces=space) for space in SPACES},
    **{f"a picture from elsewhere by {space}": question(CAT_ELSEWHERE, spaces=space) for space in SPACES},
    "by the first space": question(CAT_ELSEWHERE, spaces="", k=4),
    "by its id": question(BOAT, by_id=True),
    "extracted before": question(CAT_ELSEWHERE, extracted=True),
    "the nearest": question(CAR, k=1),
    "many": question(HOUSE, spaces="instance", k=20),
    "few candidates": question(CAT, candidates=4, k=4),
    "few candidates from elsewhere": question(BOAT_ELSEWHERE, spaces="instance", candidates=6, k=3),
    "more neighbours than candidates": question(CAT, spaces="look", candidates=3, k=6),
    "exact": question(CAT_ELSEWHERE, exact=True, k=12),
    "exact by int8": question(BOAT, spaces="look in int8", exact=True),
    "exact by mini": question(CAR, spaces="mini", exact=True),
    "the first stage": question(CAT, rerank=False),
    "the first stage from elsewhere": question(BOAT_ELSEWHERE, spaces="look in int8", rerank=False),
    "the first stage by mini": question(HOUSE, spaces="mini", rerank=False),
    "itself too": question(CAT, include_self=True, k=5),
    "itself too by mini": question(HOUSE, spaces="mini", include_self=True, k=5),
    "at most one by chance": question(CAT, spaces="look", max_by_chance=1.0, k=30),
    "at most two by chance": question(CAT_ELSEWHERE, spaces="mini", max_by_chance=2.6, k=30),
    "nothing by chance": question(CAR, max_by_chance=1e-9),
    # Regions.
    "a region": question(example(CAT, region=HEAD)),
    "a region from elsewhere": question(example(BOAT_ELSEWHERE, region=(0, 0, 1, 0.5)), spaces="instance"),
    "a region by mini": question(example(CAT, region=MIDDLE), spaces="mini"),
    "a region by int8": question(example(HOUSE, region=MIDDLE), spaces="look in int8", include_self=True),
    "a region of candidates": question(example(CAT, region=HEAD), candidates=3, k=6, few_numbers=True),
    "a region of candidates from elsewhere": question(
        example(BOAT_ELSEWHERE, region=MIDDLE), spaces="mini", candidates=4, k=8, few_numbers=True
    ),
    "a region, exact": question(example(CAT, region=HEAD), exact=True, few_numbers=True),
    "a region at most so many by chance": question(example(CAR, region=MIDDLE), max_by_chance=2.0, k=30),
    # Several examples.
    "two examples": question(CAT, BOAT),
    "a lighter example": question(CAT, example(HOUSE, 0.3), spaces="instance"),
    "an example of less": question(CAT, example("pictures/land/car-neon.png", -0.7)),
    "an example of much less": question(CAT_ELSEWHERE, example(BOAT, -3), spaces="look", exact=True),
    "three examples": question(BOAT_ELSEWHERE, example(CAT, 2), example(CAR, -0.7), spaces="look in int8"),
    "examples by mini": question(CAT, example(CAT_ELSEWHERE, 0.5), example(HOUSE, -0.6), spaces="mini"),
    "examples and few candidates": question(CAT, example(CAR, 1.5), example(HOUSE, -1), candidates=4, k=4),
    "examples with regions": question(
        example(CAT, region=HEAD), example(BOAT, 0.8, MIDDLE), example(CAR, -0.5), spaces="instance"
    ),
    "examples with regions of candidates": question(
        example(CAT, region=HEAD), example(BOAT, 0.8), candidates=3, k=6, few_numbers=True
    ),
    "examples and themselves": question(CAT, BOAT, include_self=True, k=6),
    "one picture twice": question(CAT, example(CAT, 0.5)),
    # Several spaces.
    "two spaces": question(CAT, spaces="style, instance", k=4),
    "spaces of two networks": question(CAT, spaces="look, mini"),
    "two tiers": question(CAT_ELSEWHERE, spaces="look, look in int8"),
    "five spaces from elsewhere": question(CAT_ELSEWHERE, spaces="style, instance, look, look in int8, mini"),
    "two spaces and few candidates": question(HOUSE, spaces="instance, mini", candidates=5, k=5),
    "two spaces, exact": question(BOAT, spaces="style, look", exact=True, k=15),
    "a region in two spaces": question(example(CAT, region=HEAD), spaces="style, mini"),
    "examples in two spaces": question(CAT, example(BOAT_ELSEWHERE, -0.5), spaces="style, mini"),
    "examples in three spaces": question(CAT, example(BOAT, 0.5), example(CAR, -1), spaces="style, instance, look"),
    "examples with regions in two spaces": question(
        example(BOAT_ELSEWHERE, region=MIDDLE), example(CAT, 0.5), spaces="look, instance", candidates=4, k=8
    ),
    # Filters.
    "one folder": question(CAT, folders=["pictures/sea"]),
    "two folders": question(BOAT_ELSEWHERE, spaces="mini", folders=["pictures/sea", "pictures/copies"], exact=True),
    "large pictures": question(FISH, min_side=96),
    "small pictures": question(CAT, max_side=95, k=5),
    "JPEGs": question(CAT, formats=["JPEG"]),
    "after a day": question(CAT, after="2015-01-01", spaces="look in int8"),
    "before a day": question(CAT_ELSEWHERE, before="2015-01-01", spaces="instance"),
    "nothing passes": question(CAT, formats=["GIF"]),
    "a folder and few candidates": question(CAT, folders=["pictures/sea"], candidates=3, k=3),
    "a folder and examples": question(CAT, example(BOAT, -0.5), folders=["pictures/land"]),
    "a folder and two spaces": question(CAR, spaces="style, mini", folders=["pictures/land"], min_side=90),
    "a folder and a region": question(example(CAT, region=HEAD), folders=["pictures/sea"]),
    "a folder and at most so many by chance": question(CAT, folders=["pictures/land"], max_by_chance=2.3, k=30),
    # Near copies.
    "folded": question(CAT, fold=True, k=8),
    "folded from elsewhere": question(BOAT_ELSEWHERE, spaces="mini", fold=True, k=9),
    "folded by int8": question(FISH, spaces="look in int8", fold=True, k=8),
    "folded in two spaces": question(BOAT, spaces="instance, mini", fold=True, k=8),
    "folded, of a folder": question(FISH, folders=["pictures/copies"], fold=True),
    "folded, of examples": question(FISH, example(CAT, 0.8), fold=True, include_self=True, k=8),
    "everything together": question(
        example(CAT, region=HEAD),
        example(BOAT_ELSEWHERE, -0.5),
        example(FISH, 0.7),
        spaces="style, mini",
        folders=["pictures"],
        min_side=80,
        before="2021-01-01",
        max_by_chance=5.4,
        fold=True,
        include_self=True,
        k=12,
    ),
}


def in_null_spreads(question: dict) -> bool:
    """Whether scores of the question are weighed sums in units of null spreads."""
    return len(question["examples"]) > 1 or len(question["spaces"]) > 1
