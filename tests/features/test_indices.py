"""Which indices there are: each by hand where its key or its moment is not obvious."""

import numpy as np
import polars as pl
import pytest

from features.build import build
from features.columns import HOUR
from features.events import EventStore
from features.indices import CHANCE_UNIT, HALF_LIVES, INDICES, TASTE_HALF_LIFE
from features.vocabulary import Vocabulary
from tests.factories import (
    all_features,
    articles_of,
    candidates_for,
    clicks_of,
    impressions_of,
    ms,
    requests_for,
    rich_log,
    store_of,
)


def made() -> EventStore:
    clicks = clicks_of(
        [(1, 7, 0.0), (1, 7, 1.0), (1, 8, 2.0), (1, 9, 3.0), (2, 8, 2.0)], dwell_seconds=[30.0, None, 0.0, 90.0, 5.0]
    )
    articles = articles_of([7, 8, 9], category=["x", "y", None], words=[10, None, 30], publisher=["p", "p", "q"])
    return EventStore(clicks, articles, impressions_of([(1, 0.0, [7, 8, 9]), (3, 4.0, [7])], page_item_id=[None, 9]))


def known(store: EventStore, index: str, key: np.ndarray | int, minutes: float) -> int:
    keys = np.atleast_1d(np.asarray(key, dtype=np.int64))
    return int(store.index(index).counts(keys, np.array([ms(minutes)]), (None,))[0][0])


def item(store: EventStore, of: int) -> np.ndarray:
    return store.item_codes(pl.Series([of]))


def user(store: EventStore, of: int) -> np.ndarray:
    return store.user_codes(pl.Series([of]))


@pytest.mark.parametrize("name", INDICES)
def test_every_index_can_be_made_of_a_log_with_everything_and_of_an_empty_one(name: str) -> None:
    store = made()
    assert len(store.index(name)) > 0
    assert store.index(name) is store.index(name)
    assert len(EventStore(store.clicks.clear(), store.articles.clear()).index(name)) == 0


def test_every_index_serves_a_feature() -> None:
    log = rich_log()
    asked, store = requests_for(log, 5), store_of(log)
    build(candidates_for(log, asked), asked, store, Vocabulary.of(log.clicks), all_features())
    assert set(store._indices) == set(INDICES)


def test_moves_go_to_another_article() -> None:
    store = made()
    seven, eight, nine = (item(store, i) for i in (7, 8, 9))
    assert known(store, "transition", store.pair_key(seven, eight), 9) == 1
    assert known(store, "transition", store.pair_key(seven, seven), 9) == 0
    assert known(store, "departure", seven, 9) == 1
    assert known(store, "departure", eight, 9) == 1
    assert known(store, "departure", nine, 9) == 0


def test_moves_of_categories_leave_the_unknown_out() -> None:
    store = made()
    x, y = store.category[item(store, 7)], store.category[item(store, 8)]
    assert known(store, "category_transition", store.pair_key(x, y), 9) == 1
    assert known(store, "category_departure", x, 9) == 1
    assert known(store, "category_departure", y, 9) == 0


def test_reading_is_known_when_it_ends() -> None:
    store = made()
    seven, eight, nine = (item(store, i) for i in (7, 8, 9))
    assert [known(store, "reading", seven, m) for m in (0.1, 0.5, 0.51, 9.0)] == [0, 0, 1, 1]
    assert [known(store, "reading", eight, m) for m in (2.0, 2.01, 2.1)] == [0, 1, 2]
    assert [known(store, "reading", nine, m) for m in (4.5, 4.51)] == [0, 1]
    assert known(store, "user_reading", user(store, 1), 9) == 3


def test_exposure_tells_the_chance_of_a_click() -> None:
    store = made()
    chance = store.index("exposure").sums("chance", item(store, 7), np.array([ms(9)]), (None,))[0]
    assert chance.tolist() == [CHANCE_UNIT // 3 + CHANCE_UNIT]


def test_exposures_and_visits_are_of_lists() -> None:
    store = made()
    assert known(store, "user_exposure", store.pair_key(user(store, 1), item(store, 8)), 1) == 1
    assert known(store, "user_exposure", store.pair_key(user(store, 1), item(store, 8)), 0) == 0
    assert known(store, "request", user(store, 3), 4.1) == 1
    assert [known(store, "visit", item(store, 9), m) for m in (4.0, 4.1)] == [0, 1]
    assert known(store, "visit", item(store, 7), 9) == 0


@pytest.mark.parametrize(("name", "span"), HALF_LIVES.items())
def test_half_lives_are_as_long_as_their_names(name: str, span: int) -> None:
    assert span == {"m": HOUR // 60, "h": HOUR}[name[-1]] * int(name[:-1])
    found = made().index("item_decay").decayed({name: span}, item(made(), 9), np.array([ms(3) + span]))[name]
    assert found.tolist() == pytest.approx([0.5], rel=1e-4)


def test_taste_halves_in_a_week() -> None:
    store = made()
    key = store.pair_key(user(store, 2), store.category[item(store, 8)])
    found = store.index("user_category").decayed({"taste": TASTE_HALF_LIFE}, key, np.array([ms(2) + 7 * 24 * HOUR]))
    assert found["taste"].tolist() == pytest.approx([0.5], rel=1e-4)
