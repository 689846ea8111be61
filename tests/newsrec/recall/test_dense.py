"""Blocks of scores: what may not be shown is struck out, and the best are kept with all ties of the last."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.sparse import csr_matrix

from newsrec.recall import RecallRequests
from newsrec.recall.dense import best_of, best_stored, largest, product, read_matrix
from tests.factories import articles_of, clicks_of, log_of, requests_of, store_of


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.float64, st.tuples(st.integers(0, 5), st.integers(0, 7)), elements=st.integers(0, 3)),
    st.integers(1, 9),
)
def test_largest_are_those_of_a_sort_with_ties(scores: np.ndarray, count: int) -> None:
    row, column = largest(scores, count)
    found = set(zip(row.tolist(), column.tolist(), strict=True))
    expected = set()
    for place, values in enumerate(scores.tolist()):
        border = sorted(values, reverse=True)[:count][-1:] or [0]
        expected |= {(place, i) for i, value in enumerate(values) if value >= border[0]}
    assert found == expected
    assert len(row) == len(found)


def test_read_articles_those_not_out_and_those_without_a_score_are_struck_out() -> None:
    clicks = clicks_of([(1, 10, 0.0), (2, 11, 30.0), (1, 12, 90.0)])
    store = store_of(log_of(clicks, articles_of([10, 11, 12, 13, 14], [0.0, 0.0, 0.0, 60.0, 0.0])))
    asked = requests_of([(2, 60.0, 60.0), (1, 61.0, 61.0), (7, 61.0, 61.0)])
    requests = RecallRequests.of(asked, store)
    items = store.item_codes(clicks["item_id"].append(articles_of([13, 14])["item_id"]))
    scores = np.tile([1.0, 2.0, 3.0, 4.0, 0.0], (3, 1))
    found = best_of(scores, np.arange(3), items, requests, read_matrix(requests), 2)
    names = store.items.gather(found["item"]).to_list()
    assert list(zip(found["row"].to_list(), names, found["rank"].to_list(), strict=True)) == [
        (0, 12, 1),  # 13 is out after minute 60 only, and reader 2 has read 11
        (0, 10, 2),
        (1, 13, 1),  # reader 1 has read 10, and 12 not yet
        (1, 12, 2),
        (2, 13, 1),
        (2, 12, 2),
    ]


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float64, (3, 5), elements=st.integers(-1, 3)), st.integers(1, 5))
def test_stored_scores_give_the_lists_of_whole_ones(scores: np.ndarray, depth: int) -> None:
    clicks = clicks_of([(1, 10, 0.0), (2, 11, 30.0), (1, 12, 90.0)])
    store = store_of(log_of(clicks, articles_of([10, 11, 12, 13, 14], [0.0, 0.0, 0.0, 60.0, 0.0])))
    requests = RecallRequests.of(requests_of([(2, 60.0, 60.0), (1, 61.0, 61.0), (7, 61.0, 61.0)]), store)
    rows = np.array([2, 0, 1])
    whole = best_of(scores.copy(), rows, np.arange(5), requests, read_matrix(requests), depth)
    assert best_stored(csr_matrix(scores), rows, requests, depth).equals(whole)


@pytest.mark.parametrize("shape", [(1, 3, 2), (700, 32, 300), (300, 700, 32), (5, 0, 3), (0, 4, 3), (2, 900, 900)])
def test_product_in_pieces_is_the_product(shape: tuple[int, int, int]) -> None:
    rows, inner, columns = shape
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(inner, rows)).astype(np.float32).T, rng.normal(size=(inner, columns)).astype(np.float32)
    np.testing.assert_allclose(product(a, b), a.astype(np.float64) @ b, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 3, 2), (250, 33, 1800), (2, 33, 5000), (300, 700, 32), (5, 0, 3), (0, 4, 3)])
def test_product_of_whole_numbers_is_exact(shape: tuple[int, int, int]) -> None:
    rows, inner, columns = shape
    rng = np.random.default_rng(0)
    a, b = rng.integers(-4096, 4096, (rows, inner)), rng.integers(-4096, 4096, (columns, inner)).T
    assert (product(a.astype(np.float64), b.astype(np.float64)) == a @ b).all()


def test_rows_may_be_any_of_the_requests() -> None:
    store = store_of(log_of(clicks_of([(1, 10, 0.0), (2, 11, 1.0)])))
    requests = RecallRequests.of(requests_of([(1, 60.0, 60.0), (2, 60.0, 60.0), (3, 60.0, 60.0)]), store)
    found = best_of(np.ones((2, 2)), np.array([2, 0]), np.array([0, 1]), requests, read_matrix(requests), 5)
    assert found.select("row", "item").rows() == [(0, 1), (2, 0), (2, 1)]
