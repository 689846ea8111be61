"""Trees read from text: by hand, against LightGBM, and what is refused."""

import numpy as np
import pytest

from newsrec.errors import BundleError
from newsrec.rankers.trees import NO_NODE, read_trees
from tests.oracle.trees import forest

TEXT = """tree
version=v4
num_class=1

Tree=0
num_leaves=3
num_cat=1
split_feature=1 0
threshold=0 0.5
decision_type=1 8
left_child=-1 -2
right_child=1 -3
leaf_value=10 20 30
cat_boundaries=0 2
cat_threshold=5 2
is_linear=0

Tree=1
num_leaves=1
leaf_value=0.25

Tree=2
num_leaves=2
num_cat=0
split_feature=0
threshold=-0.5
decision_type=0
left_child=-1
right_child=-2
leaf_value=1 2
is_linear=0

end of trees
"""
"""Categories 0, 2 and 33 go left; else the first column decides, NaN to the right. Then a lone leaf, then a split
without NaN in training, which takes NaN as 0."""


def test_nodes_by_hand() -> None:
    found = read_trees(TEXT)
    assert found.tree.tolist() == [0] * 7 + [1] + [2] * 3
    assert found.node.tolist() == [*range(7), 0, 0, 1, 2]
    assert found.threshold[:4].tolist() == [0, 2, 33, 0.5]
    assert found.equals.tolist() == [True] * 3 + [False] * 8
    assert found.yes[:4].tolist() == [4, 4, 4, 5]
    assert found.no[:4].tolist() == [1, 2, 3, 6]
    assert found.value[found.leaf].tolist() == [10, 20, 30, 0.25, 1, 2]
    assert found.missing_yes.tolist() == [False] * 11
    assert (found.yes[found.leaf] == NO_NODE).all()


@pytest.mark.parametrize(
    ("row", "score"),
    [
        ((0.0, 2.0), 12.25),
        ((-1.0, 33.9), 11.25),
        ((0.5, 1.0), 22.25),
        ((np.nextafter(0.5, 1), 34.0), 32.25),
        ((np.nan, np.nan), 32.25),
        ((-0.5, -0.5), 11.25),
        ((9.0, -1.0), 32.25),
    ],
    ids=str,
)
def test_scores_by_hand(row: tuple[float, float], score: float) -> None:
    assert forest(read_trees(TEXT), row) == score


@pytest.mark.parametrize("kind", [6, 4])
def test_zero_as_missing_is_refused(kind: int) -> None:
    with pytest.raises(BundleError, match="found linear leaves or zero as missing"):
        read_trees(TEXT.replace("decision_type=1 8", f"decision_type=1 {kind}"))


def test_default_direction_of_missing_values_is_kept() -> None:
    for kind, yes in ((10, True), (8, False), (0, False), (2, False)):
        found = read_trees(TEXT.replace("decision_type=1 8", f"decision_type=1 {kind}"))
        assert bool(found.missing_yes[3]) is (yes or kind in (0, 2))  # without NaN in training: 0 <= 0.5


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (TEXT.replace("version=v4", "version=v5"), "found v5 with 3"),
        ("", "found None with 0"),
        (TEXT.replace("is_linear=0", "is_linear=1"), "linear"),
    ],
)
def test_other_formats_are_refused(wrong: str, told: str) -> None:
    with pytest.raises(BundleError, match=told):
        read_trees(wrong)
