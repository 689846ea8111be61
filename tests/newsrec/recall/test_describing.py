"""Channels that know readers and articles by what describes them: against loops, and their weights by hand."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from features.columns import TIME
from features.events import EventStore
from newsrec.data.log import Log
from newsrec.recall import Channel, RecallRequests, RecallSettings, vectors
from newsrec.recall.content import Content, ContentParams
from newsrec.recall.fresh import Fresh, FreshParams
from newsrec.recall.segment import Segment, SegmentParams
from newsrec.recall.vectors import nearest
from tests.factories import (
    IDS,
    SHALLOW,
    articles_of,
    clicks_of,
    equipped,
    log_of,
    ms,
    requests_for,
    requests_of,
    rich_log,
    small_log,
    store_of,
)
from tests.oracle import Truth, requests

CASES: list[tuple[str, Callable[[Any], Channel], Any]] = [
    ("segment", Segment, SegmentParams(columns=("device", "referrer"))),
    ("segment", Segment, SegmentParams(columns=("referrer",), windows_hours=(3.0,), weights=(1,))),
    ("content", Content, ContentParams()),
    ("content", Content, ContentParams(max_age_hours=9, history=2, history_decay=0.3)),
    ("fresh", Fresh, FreshParams(columns=("device", "referrer"), max_clicks=9)),
    ("fresh", Fresh, FreshParams(columns=(), max_age_hours=50, history=2, prior_clicks=0.5, half_life_hours=2)),
]
IDS_OF_CASES = [f"{name}-{place % 2}" for place, (name, _, _) in enumerate(CASES)]
LOGS = {"bare": small_log, "rich": rich_log}


@pytest.mark.parametrize("stale", [0, 200])
@pytest.mark.parametrize(("ids", "kind"), [("integer", "rich"), ("string", "bare")])
@pytest.mark.parametrize(("name", "make", "params"), CASES, ids=IDS_OF_CASES)
def test_lists_equal_a_loop(
    name: str, make: Callable[[Any], Channel], params: Any, ids: str, kind: str, stale: float
) -> None:
    log = LOGS[kind](1, ids)
    log = equipped(log) if name == "content" else log
    asked = requests_for(log, 20, stale_minutes=stale)
    store, truth = store_of(log), Truth(log)
    found = make(params).fit(store, SHALLOW).recall(RecallRequests.of(asked, store))
    lengths = []
    for row, request in enumerate(requests(asked)):
        own = found.filter(pl.col("row") == row)
        expected = getattr(truth, name)(request, SHALLOW, params)
        assert store.items.gather(own["item"]).to_list() == [item for item, _ in expected]
        assert own["score"].to_list() == pytest.approx([score for _, score in expected], rel=1e-6, abs=1e-8)
        lengths.append(len(expected))
    assert max(lengths) >= 3


def scores(channel: Channel, log: Log, user: int = 9, at: float = 60.0) -> dict[int, float]:
    """What a user is proposed at that minute, with its score."""
    store = store_of(log)
    found = channel.fit(store, SHALLOW).recall(RecallRequests.of(requests_of([(user, at, at)]), store))
    return dict(zip(store.items.gather(found["item"]).to_list(), found["score"].to_list(), strict=True))


class TestSegment:
    ROWS = ((1, 7, 5.0), (2, 8, 6.0), (3, 8, 7.0), (9, 5, 8.0))

    def test_reader_gets_what_is_read_on_the_same_device_by_its_share(self) -> None:
        log = log_of(clicks_of(self.ROWS, device=["phone", "desktop", "phone", "phone"]))
        assert scores(Segment(), log) == {7: pytest.approx(1 / 3), 8: pytest.approx(1 / 3)}

    def test_columns_add_up(self) -> None:
        told = {"device": ["phone", "desktop", "phone", "phone"], "region": [1, 2, 1, 2]}
        found = scores(Segment(), log_of(clicks_of(self.ROWS, **told)))
        assert found == {8: pytest.approx(1 / 3 + 1 / 2), 7: pytest.approx(1 / 3)}

    def test_newest_clicks_count_most(self) -> None:
        log = log_of(clicks_of([(1, 7, 5.0), (2, 8, 35.0), (9, 5, 36.0)], device=["phone"] * 3))
        assert scores(Segment(), log)[8] == pytest.approx(1_101 / (2 * 1_101 + 101))

    def test_reader_without_a_segment_gets_nothing(self) -> None:
        log = log_of(clicks_of(self.ROWS, device=["phone", "desktop", "phone", None]))
        assert scores(Segment(), log) == {} == scores(Segment(), log, user=77)

    def test_lacks_context_where_there_is_none(self) -> None:
        assert Segment().lacks(store_of(log_of(clicks_of(self.ROWS)))) == (
            "clicks with any of ['region', 'device', 'referrer']"
        )
        assert Segment().lacks(store_of(log_of(clicks_of(self.ROWS, referrer=[1] * 4)))) is None

    def test_table_names_columns_and_values(self) -> None:
        log = log_of(clicks_of(self.ROWS, device=["phone", "desktop", "phone", "phone"], region=[1, 2, 1, 2]))
        table = Segment().fit(store_of(log), SHALLOW).table(ms(31))
        assert table.select("column", "value").unique().sort("column", "value").rows() == [
            ("device", "desktop"),
            ("device", "phone"),
            ("region", "1"),
            ("region", "2"),
        ]


def with_vectors(rows: Sequence[tuple[int, int, float]], vectors: dict[int, list[float] | None]) -> Log:
    """Articles that are created half an hour before the start."""
    column = pl.Series(list(vectors.values()), dtype=pl.Array(pl.Float32, 2))
    return log_of(clicks_of(rows), articles_of(list(vectors), [-30.0] * len(vectors), embedding=column))


VECTORS: dict[int, list[float] | None] = {5: [1.0, 0.0], 6: [0.0, 2.0], 7: [3.0, 3.0], 8: [-1.0, 0.0], 9: None}


class TestContent:
    def test_closest_of_the_young_comes_first_clicked_or_not(self) -> None:
        found = scores(Content(), with_vectors([(9, 5, 1.0)], VECTORS))
        assert found == {7: pytest.approx(0.5**0.5, abs=1e-3)}

    def test_clicks_further_back_weigh_less(self) -> None:
        found = scores(Content(ContentParams(history_decay=0.5)), with_vectors([(9, 5, 1.0), (9, 8, 2.0)], VECTORS))
        assert found == {}  # (-1, 0) + (0.5, 0): away from 7, and at right angles to 6
        found = scores(Content(ContentParams(history_decay=0.5)), with_vectors([(9, 5, 1.0), (9, 6, 2.0)], VECTORS))
        assert found == {7: pytest.approx(0.5**0.5, abs=1e-3)}

    def test_old_article_is_not_proposed(self) -> None:
        log = with_vectors([(9, 5, 1.0)], VECTORS)
        assert set(scores(Content(ContentParams(max_age_hours=2)), log, at=60.0)) == {7}
        assert scores(Content(ContentParams(max_age_hours=2)), log, at=95.0) == {}

    def test_lacks_embeddings_where_there_are_none(self) -> None:
        assert Content().lacks(store_of(small_log())) == "articles with embeddings"
        assert Content().lacks(store_of(rich_log())) is None

    def test_index_of_many_articles_finds_what_comparing_all_finds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("usearch")
        log = equipped(small_log(3))
        store, settings = store_of(log), RecallSettings(depth=5)
        asked = RecallRequests.of(requests_for(log), store)
        whole = Content().fit(store, settings).recall(asked)
        monkeypatch.setattr(vectors, "EXACT", 2)
        assert Content().fit(store, settings).recall(asked).equals(whole)
        monkeypatch.setattr(vectors, "_index", lambda rows, order: None)  # as where the package is not installed
        assert Content().fit(store, settings).recall(asked).equals(whole)


def test_nearest_keeps_ties_with_the_last_place() -> None:
    queries, vectors = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[2.0, 1.0], [2.0, 5.0], [1.0, 4.0]])
    query, vector, product = nearest(queries, vectors, 1)
    assert list(zip(query.tolist(), vector.tolist(), product.tolist(), strict=True)) == [
        (0, 0, 2),
        (0, 1, 2),
        (1, 1, 5),
    ]
    assert len(nearest(queries, vectors, 9)[0]) == 6
    assert len(nearest(queries[:0], vectors, 9)[0]) == 0 == len(nearest(queries, vectors[:0], 9)[0])


class TestFresh:
    ARTICLES = articles_of([5, 6, 7, 8], [-600.0, 0.0, 0.0, -300.0], category=["a", "a", "b", "a"])

    def test_new_articles_of_the_categories_that_are_read_come_first(self) -> None:
        """Of two clicks before minute 60, one on a and one on b; the user read a. Age at the end of the step."""
        log = log_of(clicks_of([(1, 5, 1.0), (2, 7, 2.0), (9, 5, 3.0)]), self.ARTICLES)
        found = scores(Fresh(FreshParams(half_life_hours=1.5)), log)
        prior = 2 / 3
        assert found[6] == pytest.approx((1 + 2 * prior) / 3 / 2)
        assert found[7] == pytest.approx((0 + 2 * (1 - prior)) / 3 / 2)
        assert found[8] == pytest.approx((1 + 2 * prior) / 3 * 2 ** (-390 / 90))

    def test_stranger_gets_what_everybody_reads(self) -> None:
        log = log_of(clicks_of([(1, 5, 1.0), (2, 7, 2.0), (9, 5, 3.0)]), self.ARTICLES)
        found = scores(Fresh(FreshParams(half_life_hours=1.5)), log, user=77)
        assert found[6] == pytest.approx(2 / 3 / 2)

    def test_segment_of_the_last_click_tells_the_prior(self) -> None:
        rows, devices = [(1, 7, 1.0), (2, 5, 2.0), (9, 5, 3.0)], ["phone", "desktop", "phone"]
        found = scores(Fresh(FreshParams(half_life_hours=1.5)), log_of(clicks_of(rows, device=devices), self.ARTICLES))
        assert found[7] == pytest.approx(2 * (1 / 2) / 3 / 2)

    def test_article_that_many_read_is_not_new(self) -> None:
        rows = [(user, 6, 1.0) for user in (1, 2, 3)] + [(9, 5, 3.0)]
        assert 6 in scores(Fresh(FreshParams(max_clicks=3)), log_of(clicks_of(rows), self.ARTICLES))
        assert 6 not in scores(Fresh(FreshParams(max_clicks=2)), log_of(clicks_of(rows), self.ARTICLES))

    def test_embedding_close_to_the_last_clicks_adds_up(self) -> None:
        vectors = pl.Series([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], None], dtype=pl.Array(pl.Float32, 2))
        rows = clicks_of([(1, 5, 1.0), (9, 5, 3.0)])
        plain = scores(Fresh(), log_of(rows, self.ARTICLES))
        found = scores(Fresh(), log_of(rows, self.ARTICLES.with_columns(embedding=vectors)))
        newness = 2 ** (-90 / 360)
        assert found[6] == pytest.approx(plain[6] + newness, rel=1e-3)
        assert found[8] == plain[8]

    def test_article_told_to_a_running_store_is_proposed(self) -> None:
        """The channel was fitted before; what is created is known at once."""
        store = store_of(log_of(clicks_of([(1, 5, 1.0), (9, 5, 3.0)]), self.ARTICLES))
        channel = Fresh().fit(store, SHALLOW)
        grown = store.extended(articles=articles_of([40], [50.0], category=["a"]))
        found = channel.recall(RecallRequests.of(requests_of([(9, 60.0, 60.0)]), grown))
        assert 40 in grown.items.gather(found["item"]).to_list()


@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("name", ["content", "fresh", "segment"])
def test_pieces_do_not_change_a_bit(name: str, ids: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log = equipped(small_log(4, ids))
    asked = requests_for(log)
    asked = pl.concat([asked, asked.with_columns(requested_at=pl.lit(asked["requested_at"].max(), TIME))])
    store = EventStore(log.clicks, log.articles)
    make = {"content": Content, "fresh": Fresh, "segment": Segment}[name]
    whole = make().fit(store, SHALLOW).recall(RecallRequests.of(asked, store))
    monkeypatch.setattr("newsrec.recall.dense.CELLS", 3)
    assert make().fit(store, replace(SHALLOW)).recall(RecallRequests.of(asked, store)).equals(whole)
