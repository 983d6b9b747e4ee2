"""Names that a user may give, separate from their meaning, because `--help` must load neither NumPy nor Pillow."""

PROFILES = ("style", "instance", "look")
COLOUR = "colour"
LIKENESSES = (*PROFILES, COLOUR)
VARIANTS = ("S", "C", "global")
DTYPES = ("float32", "bfloat16", "float16")
DEFAULT_DTYPE = "float32"
TIERS = ("fp32", "fp16", "int8")
DEFAULT_TIER = "fp16"
DEFAULT_SEED = 2334
METRICS = ("cosine", "mse")
PROTOCOLS = ("engine", "paper")
BENCHMARKS = ("sref", "ip", "nights", "cute", "tid2013", "instantstyle", "dreambench", "triplets", "retrieval")
COPY_KINDS = ("exact", "resized", "recoloured", "cropped", "captioned", "mirrored", "burst")
"""Kinds of copies, see copies/kinds.py."""
