"""The log as arrays: ids looked up, histories that end strictly before the moment, sequences whatever the row order."""

import numpy as np
import polars as pl
import pytest

from features.events import EventStore, codes_of, history, milliseconds, take
from features.windows import NO_KEY, NO_TIME
from tests.factories import IDS, UNKNOWN_USER, articles_of, clicks_of, contexts, ms, requests_for, small_log
from tests.oracle import Truth, requests

ROWS = [(2, 10, 5.0), (1, 11, 5.0), (1, 10, 5.0), (1, 12, 1.0), (2, 99, 8.0)]


def made() -> EventStore:
    articles = articles_of([10, 11, 12, 50], [0.0, None, 3.0, 20.0], words=[100, None, 300, 400], category=[1, 2, 1, 9])
    return EventStore(clicks_of(ROWS, device=["a", "b", "c", "d", "e"]), articles)


def test_codes_are_places_among_the_known() -> None:
    known = pl.Series(["a", "c", "d"])
    assert codes_of(pl.Series(["d", "x", None, "a"]), known).tolist() == [2, -1, -1, 0]


@pytest.mark.parametrize("asked", [[0], [7], [99], [100], [-5], [None], [7, None]])
def test_few_ids_among_many_get_the_same_codes(asked: list[int | None]) -> None:
    """Few ids are searched one by one; the answer must be that of the join."""
    known = pl.Series("id", range(1, 100), dtype=pl.Int64)
    ids = pl.Series(asked, dtype=pl.Int64)
    sorted_known = known.sort()
    assert sorted_known.flags["SORTED_ASC"]
    expected = [i - 1 if i is not None and 1 <= i < 100 else -1 for i in asked]
    assert codes_of(ids, sorted_known).tolist() == expected
    assert codes_of(pl.concat([ids] * 30), sorted_known).tolist() == expected * 30


def test_ids_of_another_type_are_compared_by_value() -> None:
    assert codes_of(pl.Series([3, 4], dtype=pl.Int32), pl.Series([4], dtype=pl.Int64)).tolist() == [-1, 0]
    assert codes_of(pl.Series(["7", "x"]), pl.Series([7], dtype=pl.Int64)).tolist() == [0, -1]


def test_no_ids_known_and_none_asked() -> None:
    assert codes_of(pl.Series(["a"]), pl.Series([], dtype=pl.String)).tolist() == [-1]
    assert codes_of(pl.Series([], dtype=pl.String), pl.Series(["a"])).tolist() == []


def test_milliseconds_keep_the_shape_and_mark_the_unknown() -> None:
    created = articles_of([1, 2], [1.5, None])["created_at"]
    assert milliseconds(created).tolist() == [ms(1.5), NO_TIME]


def test_take_gives_the_missing_value_at_negative_places() -> None:
    assert take(np.array([5, 6]), np.array([1, -1, 0]), -9).tolist() == [6, -9, 5]
    assert take(np.array([], dtype=np.int64), np.array([0, -1]), -9).tolist() == [-9, -9]


def test_store_knows_clicked_and_unclicked_articles() -> None:
    store = made()
    assert store.items.to_list() == [10, 11, 12, 50, 99]
    assert store.n_items == 5
    assert store.users.to_list() == [1, 2]
    assert store.words.tolist() == [100, -1, 300, 400, -1]
    assert store.created.tolist() == [ms(0), NO_TIME, ms(3), ms(20), NO_TIME]
    assert store.category.tolist() == [0, 1, 0, 2, NO_KEY]


def test_article_exists_from_its_creation_else_from_its_first_click() -> None:
    store = made()
    assert store.exists_from[[0, 1, 2, 3, 4]].tolist() == [ms(0), ms(5), ms(3), ms(20), ms(8)]
    unclicked = EventStore(clicks_of([(1, 1, 0.0)]), articles_of([1, 2], [None, None]))
    assert unclicked.exists_from[1] == np.iinfo(np.int64).max


def test_columns_that_the_log_lacks_are_unknown_everywhere() -> None:
    store = EventStore(clicks_of(ROWS), articles_of([10]))
    assert set(store.created.tolist()) == {NO_TIME}
    assert set(store.words.tolist()) == set(store.category.tolist()) == {-1}
    assert "device" not in store.context_ids
    assert len(store.index("category")) == len(store.index("category_transition")) == len(store.index("exposure")) == 0


def test_sequences_are_by_time_and_then_item() -> None:
    store = made()
    s = store.sequences
    assert [(u, store.items[i]) for u, i in zip(s.user.tolist(), s.item.tolist(), strict=True)] == [
        (0, 12),
        (0, 10),
        (0, 11),
        (1, 10),
        (1, 99),
    ]
    assert s.time.tolist() == [ms(1), ms(5), ms(5), ms(5), ms(8)]


def test_context_is_that_of_the_click_at_the_place() -> None:
    assert contexts(made(), "device", np.array([0, -1, 4, 2])) == ["d", None, "e", "b"]
    assert "item_id" not in made().context_ids


def test_transition_is_a_move_to_another_article() -> None:
    store = EventStore(clicks_of([(1, 7, 0.0), (1, 7, 1.0), (1, 8, 2.0), (2, 8, 2.0)]), articles_of([7]))
    seven, eight = np.array([0]), np.array([1])
    after = np.array([ms(2) + 1])
    assert store.index("transition").counts(store.pair_key(seven, eight), after, (None,))[0].tolist() == [1]
    assert store.index("transition").counts(store.pair_key(seven, seven), after, (None,))[0].tolist() == [0]
    assert store.index("departure").counts(seven, after, (None,))[0].tolist() == [1]
    assert store.index("departure").counts(seven, after - 1, (None,))[0].tolist() == [0]


def test_pair_key_is_unique_and_unknown_with_either_half() -> None:
    store = made()
    first, second = (a.ravel() for a in np.meshgrid(np.arange(6), np.arange(5)))
    assert len(np.unique(store.pair_key(first, second))) == len(first)
    assert store.pair_key(np.array([-1, 2, -1]), np.array([2, -1, -1])).tolist() == [NO_KEY] * 3


@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("last", [None, 1, 3])
def test_history_equals_a_loop(ids: str, last: int | None) -> None:
    log = small_log(1, ids)
    store, truth = EventStore(log.clicks, log.articles), Truth(log)
    asked = requests_for(log)
    row, place, age = history(store, codes_of(asked["user_id"], store.users), milliseconds(asked["requested_at"]), last)
    found = [
        (r, store.items[int(store.tables["clicks"]["item"][p])], a)
        for r, p, a in zip(row.tolist(), place.tolist(), age.tolist(), strict=True)
    ]
    expected = [
        (number, click.item, back)
        for number, request in enumerate(requests(asked))
        for back, click in enumerate(truth.history(request.user, request.at)[::-1][:last])
    ]
    assert found == expected


def test_stranger_has_no_history() -> None:
    store = made()
    user = codes_of(pl.Series([UNKNOWN_USER]), store.users)
    row, place, age = history(store, user, np.array([ms(100)]))
    assert len(row) == len(place) == len(age) == 0
