"""How wide an embedding should be for a number of codes: rules of practitioners, by name."""

from collections.abc import Callable
from typing import Final

LEAST: Final = 4
"""Narrower embeddings tell too little, whatever the rule."""
GROUPS: Final = ((10, 4), (100, 8), (1_000, 16), (10_000, 32))
"""Codes below -> width; 64 from there on."""


def log2(codes: int) -> int:
    """Whole part of the binary logarithm.

    >>> log2(1_000)
    9
    """
    return max(LEAST, codes.bit_length() - 1)


def root4(codes: int) -> int:
    """Whole part of the fourth root (the rule of TensorFlow's feature columns).

    >>> root4(10_000)
    10
    """
    return max(LEAST, int(codes**0.25 + 1e-9))


def groups(codes: int) -> int:
    """By order of magnitude, see `GROUPS`.

    >>> [groups(n) for n in (5, 50, 5_000, 50_000)]
    [4, 8, 32, 64]
    """
    return next((width for below, width in GROUPS if codes < below), 64)


def small(codes: int) -> int:
    """32 for all where there are fewer than 1,000 codes, as practitioners report; by order of magnitude above.

    >>> [small(n) for n in (5, 999, 50_000)]
    [32, 32, 64]
    """
    return 32 if codes < 1_000 else groups(codes)


EMBEDDING_SIZES: Final[dict[str, Callable[[int], int]]] = {
    "log2": log2,
    "root4": root4,
    "groups": groups,
    "small": small,
}
"""Every rule by its name."""
