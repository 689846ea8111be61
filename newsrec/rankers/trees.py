"""The trees of a LightGBM model as arrays, read from its text file: what other formats are made from.

The text (`version=v4`) keeps every number as LightGBM computes with it; JSON and data frames of its dumps do not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from newsrec.errors import BundleError

VERSION: Final = "v4"
NO_NODE: Final = -1
_CATEGORICAL, _DEFAULT_LEFT, _MISSING_SHIFT = 1, 2, 2
_MISSING_NONE, _MISSING_ZERO, _MISSING_NAN = 0, 1, 2
_BITS: Final = 32

Whole = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Trees:
    """All nodes of all trees of one model, in the order of the trees, each tree's root first.

    An inner node asks `value <= threshold`, or `value == threshold` where `equals`, its fraction cut off; a split by a
    set of categories is a chain of such nodes with the same `yes`. A value that is missing goes where `missing_yes`
    says. The model's raw score is the sum of one leaf's `value` per tree.
    """

    tree: Whole
    """Shape (n_nodes,); all below too."""
    node: Whole
    """Number inside the tree, from 0."""
    feature: Whole
    """Place of the feature, 0 in a leaf."""
    equals: npt.NDArray[np.bool_]
    threshold: npt.NDArray[np.float64]
    """0 in a leaf."""
    missing_yes: npt.NDArray[np.bool_]
    yes: Whole
    """Number of the node where the answer is yes, `NO_NODE` in a leaf."""
    no: Whole
    value: npt.NDArray[np.float64]
    """0 but in a leaf."""

    @property
    def leaf(self) -> npt.NDArray[np.bool_]:
        """Which nodes are leaves."""
        leaf: npt.NDArray[np.bool_] = self.yes == NO_NODE
        return leaf

    @classmethod
    def concat(cls, parts: "list[Trees]") -> "Trees":
        """One after the other."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


def read_trees(text: str) -> Trees:
    """Read what `Booster.model_to_string` wrote.

    Raises:
        BundleError: Another version of the format, no tree, or trees of a kind that `newsrec` does not train: linear
            leaves, zero as missing.
    """
    head, *blocks = text.partition("end of trees")[0].split("\nTree=")
    version = _entries(head).get("version")
    if version != VERSION or not blocks:
        raise BundleError(f"ranker: expected trees in LightGBM's format {VERSION}, found {version} with {len(blocks)}.")
    return Trees.concat([_tree(number, _entries(block)) for number, block in enumerate(blocks)])


def _entries(block: str) -> dict[str, str]:
    return {name: value for name, found, value in (line.partition("=") for line in block.splitlines()) if found}


def _tree(number: int, entries: dict[str, str]) -> Trees:
    leaves = _numbers(entries, "leaf_value", np.float64)
    kind = _numbers(entries, "decision_type", np.int64)
    categorical, missing = (kind & _CATEGORICAL) != 0, (kind >> _MISSING_SHIFT) & 3
    if entries.get("is_linear", "0") != "0" or (~categorical & (missing == _MISSING_ZERO)).any():
        raise BundleError(
            "ranker: expected constant leaves and NaN as missing, found linear leaves or zero as missing."
        )
    asked, threshold = _thresholds(entries, categorical)
    # Questions of a split stand together; leaves follow all of them.
    first = np.cumsum(asked) - asked
    row = np.repeat(np.arange(len(kind)), asked)
    last = np.arange(len(row)) == (first + asked - 1)[row]

    def place(child: str) -> Whole:
        to = _numbers(entries, child, np.int64)
        return np.where(to < 0, len(row) - 1 - to, first[np.maximum(to, 0)])

    # Without NaN in training LightGBM takes a missing value as 0; a missing category is in no set.
    default = np.where(missing == _MISSING_NAN, (kind & _DEFAULT_LEFT) != 0, _numbers(entries, "threshold") >= 0)
    none, no_leaf = np.zeros(len(leaves)), np.zeros(len(row))
    ends = np.full(len(leaves), NO_NODE)
    return Trees(
        np.full(len(row) + len(leaves), number),
        np.arange(len(row) + len(leaves)),
        np.concatenate([_numbers(entries, "split_feature", np.int64)[row], none.astype(np.int64)]),
        np.concatenate([categorical[row], none != 0]),
        np.concatenate([threshold, none]),
        np.concatenate([(default & ~categorical)[row], none != 0]),
        np.concatenate([place("left_child")[row], ends]),
        np.concatenate([np.where(last, place("right_child")[row], np.arange(len(row)) + 1), ends]),
        np.concatenate([no_leaf, leaves]),
    )


def _thresholds(entries: dict[str, str], categorical: npt.NDArray[np.bool_]) -> tuple[Whole, npt.NDArray[np.float64]]:
    """Questions per split, shape (n_splits,), and the threshold of each, laid end to end."""
    threshold = _numbers(entries, "threshold")
    sets = _categories(entries)
    found = [next(sets) if is_set else np.array([value]) for is_set, value in zip(categorical, threshold, strict=True)]
    return np.array([len(each) for each in found], np.int64), np.concatenate([np.zeros(0), *found])


def _categories(entries: dict[str, str]) -> Iterator[npt.NDArray[np.float64]]:
    """The set of each split by category, in the order of the splits: bits of 32-bit words."""
    borders, words = (_numbers(entries, name, np.int64) for name in ("cat_boundaries", "cat_threshold"))
    for start, end in pairwise(borders):
        bits = (words[start:end, None] >> np.arange(_BITS)) & 1
        yield np.flatnonzero(bits.ravel()).astype(np.float64)


def _numbers(entries: dict[str, str], name: str, dtype: Any = np.float64) -> npt.NDArray[Any]:
    return np.array(entries.get(name, "").split(), dtype)
