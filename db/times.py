"""Moments as the catalog stores them: nanoseconds since 1970 in 64 bits, the years 1678 to 2262."""


def storable(ns: int) -> int:
    """The nearest moment that can be stored. File systems know earlier and later ones."""
    return min(max(ns, -(2**63)), 2**63 - 1)
