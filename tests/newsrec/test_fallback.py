"""Places that recall leaves empty get the most read of what may be given, as it stood at the last refresh."""

from collections.abc import Callable
from functools import cache

import numpy as np
import polars as pl
import pytest

from features.events import EventStore
from newsrec.fallback import fill
from newsrec.recall import RecallRequests
from newsrec.serve import Recommender
from newsrec.train import TrainResult
from tests.factories import articles_of, clicks_of, instant, ms, requests_of

STRANGER = -5
MONTHS_LATER = 300 * 24 * 60.0
HALF_HOUR = 30 * 60_000
EMPTY = pl.DataFrame(schema={"request_id": pl.Int64, "item_id": pl.Int64, "rank": pl.UInt32})
Row = tuple[int, int, float]


@pytest.fixture(scope="module")
def blank(trained: TrainResult) -> Callable[..., Recommender]:
    """The model over a log of one's own and nothing else: `blank(rows, items)`."""
    served = Recommender.load(trained.run)

    @cache
    def over(rows: tuple[Row, ...], items: int = 0, created: float = -60.0) -> Recommender:
        articles = articles_of(range(items), [created] * items) if items else articles_of([0]).clear()
        return Recommender(served.manifest, served.ranker, served.vocabulary, EventStore(clicks_of(rows), articles))

    return over


def answers(bundle: Recommender, user: int, minutes: float, k: int = 5) -> pl.DataFrame:
    """What a replay gives one user at any moment of the log."""
    return bundle.recommend_many(bundle.requests(pl.Series("user_id", [user]), ms(minutes)), k)


def test_places_that_recall_left_empty_get_the_most_read_by_then(blank: Callable[..., Recommender]) -> None:
    """Months after the log no channel proposes anything. By then 2 was read thrice and 1 twice; much later 3 often."""
    rows = [(1, 1, 0.0), (2, 1, 1.0), (1, 2, 2.0), (2, 2, 3.0), (3, 2, 4.0)]
    late = [(user, 3, 2 * MONTHS_LATER) for user in range(4, 10)]
    bundle = blank((*rows, *late), items=5)
    best = answers(bundle, STRANGER, MONTHS_LATER, k=9)
    assert best["item_id"].to_list() == [2, 1, 0, 3, 4]
    assert best["rank"].to_list() == [1, 2, 3, 4, 5]
    assert best["score"].to_list() == [None] * 5
    both = bundle.requests(pl.Series("user_id", [1, STRANGER]), ms(MONTHS_LATER))
    assert bundle.recommend_many(both, k=2)["item_id"].to_list() == [0, 3, 2, 1]


def test_reader_of_everything_gets_nothing_and_of_almost_everything_the_rest(blank: Callable[..., Recommender]) -> None:
    rows = [(1, item, float(item)) for item in range(700)] + [(2, item, float(item)) for item in range(698)]
    bundle = blank(tuple(rows), items=700)
    assert len(bundle.recommend(1, at=instant(MONTHS_LATER))) == 0
    assert sorted(bundle.recommend(2, at=instant(MONTHS_LATER))["item_id"]) == [698, 699]


def test_before_the_first_event_there_is_nothing_to_recommend(blank: Callable[..., Recommender]) -> None:
    bundle = blank(((1, 7, 0.0), (2, 8, 5.0)))
    assert answers(bundle, 1, 0).is_empty()
    assert answers(bundle, STRANGER, 3)["item_id"].to_list() == [7]


def test_article_that_comes_between_two_requests_fills_the_list_of_the_second_only(
    blank: Callable[..., Recommender],
) -> None:
    bundle = blank(((1, 7, 0.0), (2, 8, 5.0)))
    asked = bundle.requests(pl.Series("user_id", [STRANGER, STRANGER]), np.array([ms(3), ms(6)]))
    assert bundle.recommend_many(asked).select("request_id", "item_id").rows() == [(0, 7), (1, 7), (1, 8)]


def filled(
    rows: list[Row], minutes: float, k: int = 9, best: pl.DataFrame = EMPTY, banned: tuple[int, ...] = ()
) -> list[tuple[int, int]]:
    """(item, rank) of the rows that `fill` adds for a stranger."""
    store = EventStore(clicks_of(rows), articles_of([0]).clear())
    asked = requests_of([(STRANGER, minutes, minutes)])
    allowed = pl.Series([item not in banned for item in store.items])
    more = fill(best, asked, RecallRequests.of(asked, store), k, HALF_HOUR, allowed)
    assert set(more["request_id"]) <= {100}
    return list(more.select("item_id", "rank").rows())


READS = [(1, 7, 0.0), (2, 7, 1.0), (1, 8, 2.0), (3, 9, 29.0), (4, 9, 31.0), (5, 9, 32.0)]


def test_reads_are_counted_up_to_the_refresh() -> None:
    """Until 00:30, 7 was read twice and 9 once; at 00:59 that still stands, at 01:00 9 has three reads."""
    assert filled(READS, 59) == [(7, 1), (8, 2), (9, 3)]
    assert filled(READS, 60) == [(9, 1), (7, 2), (8, 3)]


def test_places_go_on_after_those_that_are_taken_and_nothing_comes_twice() -> None:
    best = pl.DataFrame({"request_id": [100], "item_id": [7], "rank": [1]}, schema=EMPTY.schema)
    assert filled(READS, 59, best=best) == [(8, 2), (9, 3)]
    assert filled(READS, 59, k=2, best=best) == [(8, 2)]
    assert filled(READS, 59, k=1, best=best) == []


def test_what_is_not_allowed_leaves_its_place_to_the_next() -> None:
    assert filled(READS, 59, k=2, banned=(7,)) == [(8, 1), (9, 2)]
    assert filled(READS, 59, banned=(7, 8, 9)) == []
