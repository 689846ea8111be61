"""Lists as arrays: laid out, grouped, padded."""

import numpy as np
import polars as pl
import pytest

from features.events import EventStore
from newsrec.neural.vocabulary import IdVocabulary
from newsrec.tensors import (
    AGE,
    DWELL,
    NO_INTEGER,
    NO_STRING,
    Fields,
    batches,
    concatenated,
    lists_of,
    padded,
    raw,
)
from tests.factories import articles_of, clicks_of, requests_of, rich_log, small_log
from tests.networks import KINDS, random_lists, vocabulary_of

STORE = EventStore(
    clicks_of([(1, 10, 0), (1, 11, 60), (2, 12, 30)]),
    articles_of([10, 11, 12, 13], category=["a", None, "b", "b"]),
)
REQUESTS = requests_of([(1, 90, 90), (9, 95, 95), (2, 99, 99)])
CANDIDATES = pl.DataFrame(
    {"request_id": [100, 100, 101], "item_id": [13, 11, 77], "score": [2.0, 1.0, 0.5], "label": [0, 1, 0]}
)
DESCRIBED = pl.DataFrame({"x": [1.0, None, 3.0]}, schema={"x": pl.Float32})


def test_lists_by_hand() -> None:
    fields = Fields.of(STORE, ("x",))
    assert (fields.dense, dict(fields.ids), fields.numbers) == (
        ("x", "ranker_score"),
        {"item_id": "int64", "category": "string"},
        (AGE,),
    )
    lists = lists_of(DESCRIBED, CANDIDATES, REQUESTS, STORE, fields, 50)
    assert (lists.request_id.tolist(), lists.length.tolist()) == ([100, 101], [2, 1])
    np.testing.assert_array_equal(lists.dense, np.array([[1, 2], [np.nan, 1], [3, 0.5]], np.float32))
    assert lists.ids["item_id"].tolist() == [13, 11, 77]
    assert lists.ids["category"].tolist() == ["b", NO_STRING, NO_STRING]
    assert lists.history_length.tolist() == [2, 0]
    assert lists.history_ids["item_id"].tolist() == [11, 10]
    assert lists.history_ids["category"].tolist() == [NO_STRING, "a"]
    assert lists.history_numbers[AGE].tolist() == [0.5, 1.5]
    assert lists.label.tolist() == [0, 1, 0]


def test_batch_by_hand() -> None:
    lists = lists_of(DESCRIBED, CANDIDATES, REQUESTS, STORE, Fields.of(STORE, ("x",)), 50)
    both = concatenated([lists.chosen(np.array([1])), lists.chosen(np.array([1, 0]))])
    batch = padded(both, np.array([0, 1]))
    assert batch.mask.shape == (2, 0)
    longer = concatenated(
        [lists, lists_of(DESCRIBED[:1], CANDIDATES[:1], REQUESTS, STORE, Fields.of(STORE, ("x",)), 1)]
    )
    batch = padded(longer, np.array([2, 1]))
    assert batch.ids["item_id"].tolist() == [[13], [77]]
    assert batch.history_ids["item_id"].tolist() == [[11], [NO_INTEGER]]
    assert batch.history_ids["category"].tolist() == [[NO_STRING], [NO_STRING]]
    assert batch.mask.tolist() == [[1.0], [0.0]]
    assert np.isnan(batch.history_numbers[AGE]).tolist() == [[False], [True]]
    assert batch.rows.tolist() == [[3], [2]]


def test_fields_are_those_that_the_log_has() -> None:
    log = rich_log(1, "string")
    store = EventStore(log.clicks, log.articles, log.impressions)
    assert Fields.of(store, ()) == Fields(("ranker_score",), {"item_id": "string", "category": "string"}, (AGE, DWELL))
    bare = small_log(1)
    store = EventStore(bare.clicks, bare.articles.select("item_id"))
    assert Fields.of(store, ()) == Fields(("ranker_score",), {"item_id": "int64"}, (AGE,))


@pytest.mark.parametrize("shuffled", [False, True])
def test_groups_hold_each_list_once_and_equally_long_ones(shuffled: bool) -> None:
    lists = random_lists(3_000)
    groups = batches(lists, 16, np.random.default_rng(0) if shuffled else None)
    assert sorted(np.concatenate(groups).tolist()) == list(range(3_000))
    assert max(map(len, groups)) == 16
    assert all(len(set(lists.length[group])) == 1 for group in groups)
    wasted = sum(int((padded(lists, group).mask == 0).sum()) for group in groups)
    assert wasted < 0.1 * lists.history_length.sum()


def test_lists_without_candidates_are_in_no_group() -> None:
    lists = random_lists(20)
    lists.length[3] = 0
    assert 3 not in np.concatenate(batches(lists, 4))


def test_choosing_keeps_what_belongs_to_a_request() -> None:
    lists = random_lists(30)
    order = np.random.default_rng(1).permutation(30)
    for place, request in enumerate(order[:10]):
        one, other = padded(lists.chosen(order), np.array([place])), padded(lists, np.array([request]))
        np.testing.assert_equal(
            {name: values.tolist() for name, values in one.named().items()},
            {name: values.tolist() for name, values in other.named().items()},
        )
        assert lists.chosen(order).label[one.rows].tolist() == lists.label[other.rows].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_places_among_known_ids_and_zero_is_everything_else(kind: str) -> None:
    vocabulary, lists = vocabulary_of(kind), random_lists(kind=kind)
    known = vocabulary.known["item_id"]
    strange = [NO_INTEGER, -1, 10**15] if kind == "int64" else [NO_STRING, "n1", "x"]
    assert vocabulary.codes("item_id", np.array([known[0], *strange, known[-1]], known.dtype)).tolist() == [
        1,
        0,
        0,
        0,
        12,
    ]
    assert vocabulary.sizes == (13, 5)
    learned = IdVocabulary.of(lists, min_count=1)
    np.testing.assert_array_equal(learned.known["item_id"], known)
    coded = learned.coded(lists)
    np.testing.assert_array_equal(known[coded.ids["item_id"] - 1], lists.ids["item_id"])
    assert padded(coded, np.flatnonzero(lists.length == 2)).history_ids["item_id"].min() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_rare_ids_and_the_mark_of_a_missing_one_are_not_learned(kind: str) -> None:
    lists = random_lists(kind=kind)
    seen = np.concatenate([lists.ids["item_id"], lists.history_ids["item_id"]])
    values, counts = np.unique(seen, return_counts=True)
    limit = int(np.median(counts))
    assert IdVocabulary.of(lists, limit).known["item_id"].tolist() == values[counts >= limit].tolist()
    lists.ids["item_id"][:] = NO_INTEGER if kind == "int64" else NO_STRING
    assert not {NO_INTEGER, NO_STRING} & set(IdVocabulary.of(lists, 1).known["item_id"].tolist())


def test_raw_ids_keep_their_values_and_nulls_are_marked() -> None:
    assert raw(pl.Series([3, None], dtype=pl.Int32)).tolist() == [3, NO_INTEGER]
    assert raw(pl.Series(["a", None])).tolist() == ["a", NO_STRING]
