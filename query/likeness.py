"""How likeness against chance is put into words, wherever it is shown."""


def chance_text(by_chance: float) -> str:
    """At most two significant digits, and a bound for tiny figures: the sample behind it supports no more."""
    if by_chance < 0.001:
        return "< 0.001"
    by_chance = float(f"{by_chance:.1e}")
    if by_chance < 10:
        return f"{by_chance:#.2g}" if by_chance < 1 else f"{by_chance:.1f}"
    return f"{by_chance:,.0f}" if by_chance < 1e6 else f"{by_chance:.0e}"


def likeness_ended(by_chance: float | None) -> bool:
    """Whether chance alone explains a hit: more than one picture would be expected to score as high."""
    return by_chance is not None and by_chance > 1
