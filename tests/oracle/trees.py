"""Trees walked node by node."""

import math
from collections.abc import Sequence

from newsrec.rankers.trees import NO_NODE, Trees


def forest(trees: Trees, row: Sequence[float]) -> float:
    """Sum of one leaf per tree for one row of values."""
    starts = [i for i, node in enumerate(trees.node) if node == 0]
    return sum(_leaf(trees, start, row) for start in starts)


def _leaf(trees: Trees, start: int, row: Sequence[float]) -> float:
    at = start
    while trees.yes[at] != NO_NODE:
        value, threshold = float(row[trees.feature[at]]), float(trees.threshold[at])
        if math.isnan(value):
            yes = trees.missing_yes[at]
        elif trees.equals[at]:
            yes = math.isfinite(value) and math.trunc(value) == threshold
        else:
            yes = value <= threshold
        at = start + (trees.yes[at] if yes else trees.no[at])
    return float(trees.value[at])
