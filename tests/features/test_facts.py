"""Facts: computed once per request or per candidate, only those that are wanted, each by hand where a border lies."""

import numpy as np
import polars as pl
import pytest

from features.catalog import FACTS
from features.columns import DAY, HOUR, MINUTE
from features.events import EventStore
from features.facts import WINDOWS, Rows, attach_facts
from features.vocabulary import Vocabulary
from tests.factories import articles_of, candidates_for, clicks_of, ms, requests_for, requests_of, small_log


def facts(
    clicks: pl.DataFrame,
    asked: list[tuple[int, float, float]],
    item: int,
    names: set[str],
    articles: pl.DataFrame | None = None,
) -> dict[str, list[float | None]]:
    """The named facts of one article at each (user, minutes, minutes of the statistics)."""
    requests = requests_of(asked)
    store = EventStore(clicks, articles_of([item]) if articles is None else articles)
    candidates = requests.select("request_id", pl.lit(item, pl.Int64).alias("item_id"))
    rows = Rows.of(candidates, requests, store, Vocabulary.of(clicks, min_clicks=1))
    return attach_facts(FACTS, rows, names).to_dict(as_series=False)


@pytest.mark.parametrize("window", ["5m", "15m", "1h", "3h", "6h", "12h", "24h", "48h"])
def test_click_counts_from_just_after_it_until_its_window_is_over(window: str) -> None:
    length = WINDOWS[window] / MINUTE
    moment = [0.0, 1 / 60_000, length, length + 1 / 60_000]
    found = facts(clicks_of([(1, 7, 0.0)]), [(2, m, m) for m in moment], 7, {f"item_clicks_{window}"})
    assert found == {f"item_clicks_{window}": [0, 1, 1, 0]}


def test_windows_are_as_long_as_their_names() -> None:
    unit = {"m": MINUTE, "h": HOUR}
    expected = {name: None if name == "all" else int(name[:-1]) * unit[name[-1]] for name in WINDOWS}
    assert expected == WINDOWS


def test_statistics_stop_at_their_own_border_and_the_own_clicks_do_not() -> None:
    clicks = clicks_of([(1, 7, 0.0), (2, 7, 10.0), (1, 8, 10.0)])
    names = {"item_clicks_1h", "all_clicks_3h", "user_clicks", "item_clicked_ms", "user_last_ms"}
    found = facts(clicks, [(1, 20.0, 10.0), (1, 20.0, 20.0)], 7, names)
    assert found == {
        "item_clicks_1h": [1, 2],
        "all_clicks_3h": [1, 3],
        "user_clicks": [2, 2],
        "item_clicked_ms": [ms(0), ms(10)],
        "user_last_ms": [ms(10), ms(10)],
    }


def test_transition_is_known_when_the_second_click_is() -> None:
    clicks = clicks_of([(1, 7, 0.0), (1, 8, 10.0), (2, 7, 5.0)])
    names = {"transitions_3h", "departures_3h", "back_transitions_36h"}
    found = facts(clicks, [(2, m, m) for m in (10.0, 10.1, 190.0, 190.1)], 8, names)
    assert found["transitions_3h"] == found["departures_3h"] == [0, 1, 1, 0]
    back = facts(clicks_of([(1, 8, 0.0), (1, 7, 1.0), (2, 7, 2.0)]), [(2, 3.0, 3.0)], 8, names)
    assert back == {"transitions_3h": [0], "departures_3h": [0], "back_transitions_36h": [1]}


def test_ties_in_a_history_are_in_order_of_the_items() -> None:
    clicks = clicks_of([(1, 9, 0.0), (1, 7, 0.0)])
    articles = articles_of([7, 9], words=[70, 90])
    assert facts(clicks, [(1, 1.0, 1.0)], 7, {"last_words"}, articles) == {"last_words": [90]}


def test_user_facts_of_a_stranger_are_zero_or_null() -> None:
    names = {"user_clicks", "user_sessions", "user_last_ms", "user_first_ms", "session_clicks", "last_device_code"}
    found = facts(clicks_of([(1, 7, 0.0)], device=["x"]), [(5, 9.0, 9.0)], 7, names)
    assert found == {
        "user_clicks": [0],
        "user_sessions": [0],
        "session_clicks": [0],
        "user_first_ms": [None],
        "user_last_ms": [None],
        "last_device_code": [0],
    }


def test_day_of_the_user_is_half_open() -> None:
    day = DAY / MINUTE
    found = facts(clicks_of([(1, 7, 0.0)]), [(1, m, m) for m in (0.0, 0.1, day, day + 0.1)], 7, {"user_clicks_24h"})
    assert found == {"user_clicks_24h": [0, 1, 1, 0]}


def test_last_context_is_coded_and_the_unseen_value_is_zero() -> None:
    clicks = clicks_of([(1, 7, 0.0), (1, 7, 5.0), (1, 8, 9.0)], device=["b", "a", None])
    found = facts(clicks, [(1, m, m) for m in (1.0, 6.0, 10.0)], 7, {"last_device_code"})
    assert found == {"last_device_code": [2, 1, 0]}


def test_only_wanted_facts_are_computed() -> None:
    clicks = clicks_of([(1, 7, 0.0)])
    assert set(facts(clicks, [(1, 9.0, 9.0)], 7, {"words", "item_clicks_3h"})) == {"words", "item_clicks_3h"}
    assert facts(clicks, [(1, 9.0, 9.0)], 7, set()) == {}


def test_each_fact_is_the_same_alone_and_among_all() -> None:
    log = small_log(3)
    requests = requests_for(log, 15)
    candidates = candidates_for(log, requests)
    store = EventStore(log.clicks, log.articles)
    rows = Rows.of(candidates, requests, store, Vocabulary.of(log.clicks, 2))
    names = [name for group in FACTS for name in group.names]
    together = attach_facts(FACTS, rows, set(names))
    assert together.columns == names
    assert together.height == len(candidates)
    for name in names:
        assert attach_facts(FACTS, rows, {name})[name].equals(together[name], null_equal=True), name


def test_rows_find_their_request_whatever_its_place() -> None:
    log = small_log(3)
    requests = requests_for(log, 15)
    candidates = candidates_for(log, requests).sample(fraction=1.0, shuffle=True, seed=1)
    store = EventStore(log.clicks, log.articles)
    vocabulary = Vocabulary.of(log.clicks)
    names = {name for group in FACTS for name in group.names}
    one = attach_facts(FACTS, Rows.of(candidates, requests, store, vocabulary), names)
    other = attach_facts(FACTS, Rows.of(candidates, requests.reverse(), store, vocabulary), names)
    assert one.equals(other, null_equal=True)


def test_kept_rows_are_the_chosen_ones() -> None:
    log = small_log(3)
    requests = requests_for(log, 10)
    candidates = candidates_for(log, requests)
    rows = Rows.of(candidates, requests, EventStore(log.clicks, log.articles), Vocabulary.of(log.clicks))
    chosen = np.array([5, 1, 30])
    names = {"item_clicks_48h", "user_clicks", "words"}
    assert attach_facts(FACTS, rows.kept(chosen), names).equals(
        attach_facts(FACTS, rows, names)[chosen], null_equal=True
    )


def test_vocabulary_is_in_order_of_the_values_and_leaves_out_the_rare() -> None:
    clicks = clicks_of([(1, 1, float(i)) for i in range(5)], device=["b", "b", "a", "a", "c"], os=[3, 3, None, 1, 1])
    vocabulary = Vocabulary.of(clicks, min_clicks=2)
    assert vocabulary.columns == ("device", "os")
    assert vocabulary.codes(pl.Series("device", ["a", "b", "c", None, "z"])).tolist() == [1, 2, 0, 0, 0]
    assert vocabulary.codes(pl.Series("os", [3, 1, None, 7])).tolist() == [2, 1, 0, 0]
    assert Vocabulary.of(clicks.select("user_id")).columns == ()
