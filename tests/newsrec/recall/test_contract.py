"""What every channel promises, for every channel there is."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from features.columns import DAY, HOUR, MINUTE
from features.events import EventStore
from newsrec.data.log import Log
from newsrec.errors import UsageError
from newsrec.recall import CHANNELS, RecallRequests, RecallSettings, refuse_lacking, settings_of, working
from tests.factories import (
    IDS,
    SHALLOW,
    articles_of,
    bits,
    clicks_of,
    equipped,
    ms,
    proposed,
    recalled,
    requests_for,
    requests_of,
)
from tests.factories import log_of as bare_log_of
from tests.factories import small_log as bare_small_log
from tests.oracle import Truth, requests


def small_log(seed: int = 0, ids: str = "integer") -> Log:
    return equipped(bare_small_log(seed, ids))


def log_of(clicks: pl.DataFrame, articles: pl.DataFrame) -> Log:
    return equipped(bare_log_of(clicks, articles))


SCHEMA = {"row": pl.UInt32, "item": pl.Int64, "score": pl.Float32, "rank": pl.UInt16}
TRAINED_OFTEN = replace(SHALLOW, training_ms=SHALLOW.refresh_ms)
"""Models are as new as everything else."""
SETTINGS = [SHALLOW, RecallSettings(depth=1), RecallSettings(refresh_ms=7 * MINUTE, depth=40)]


@pytest.mark.parametrize("name", CHANNELS)
class TestEveryChannel:
    @pytest.mark.parametrize("settings", SETTINGS, ids=["shallow", "one", "fine"])
    @pytest.mark.parametrize("stale", [0, 200])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_keeps_the_promises_of_the_protocol(
        self, name: str, seed: int, stale: float, settings: RecallSettings
    ) -> None:
        log = small_log(seed)
        asked = requests_for(log, seed=seed, stale_minutes=stale)
        truth = Truth(log)
        found = recalled(log, name, asked, settings)
        assert len(found) > 0
        assert found["score"].is_finite().all()
        for request in requests(asked):
            own = found.filter(pl.col("request_id") == request.id)
            items, scores = own["item_id"].to_list(), own["score"].to_list()
            assert own["rank"].to_list() == list(range(1, len(own) + 1))
            assert len(own) <= settings.depth
            assert len(set(items)) == len(items)
            assert not set(items) & {c.item for c in truth.history(request.user, request.at)}
            assert all(truth.exists_before(item, request.at) for item in items)
            assert scores == sorted(scores, reverse=True)

    def test_schema_is_the_one_promised(self, name: str) -> None:
        log = small_log()
        asked = requests_for(log)
        store = EventStore(log.clicks, log.articles)
        channel = CHANNELS[name]().fit(store, SHALLOW)
        assert channel.recall(RecallRequests.of(asked, store)).schema == SCHEMA
        assert channel.recall(RecallRequests.of(asked.clear(), store)).schema == SCHEMA
        strangers = asked.with_columns(user_id=pl.lit(-5, pl.Int64))
        assert channel.recall(RecallRequests.of(strangers, store)).schema == SCHEMA

    @pytest.mark.parametrize("ids", IDS)
    def test_single_request_gets_the_bits_of_the_batch(self, name: str, ids: str) -> None:
        log = small_log(2, ids)
        asked = requests_for(log, 25, stale_minutes=20)
        batch = recalled(log, name, asked)
        for place in range(len(asked)):
            alone = recalled(log, name, asked[place])
            assert bits(alone) == bits(batch.filter(pl.col("request_id") == asked["request_id"][place]))

    def test_order_of_the_log_and_of_the_requests_does_not_matter(self, name: str) -> None:
        log = small_log(3)
        asked = requests_for(log)
        rng = np.random.default_rng(0)
        shuffled = EventStore(
            log.clicks[rng.permutation(len(log.clicks))], log.articles[rng.permutation(len(log.articles))]
        )
        turned = asked[rng.permutation(len(asked))]
        found = CHANNELS[name]().fit(shuffled, SHALLOW).recall(RecallRequests.of(turned, shuffled))
        named = found.select(
            turned["request_id"].gather(found["row"]).alias("request_id"),
            shuffled.items.gather(found["item"]).alias("item_id"),
            "score",
            "rank",
        ).sort("request_id", "rank")
        assert bits(named) == bits(recalled(log, name, asked))

    @pytest.mark.parametrize("ids", IDS)
    def test_store_that_grew_gives_the_bits_of_one_made_at_once(self, name: str, ids: str) -> None:
        """Users and articles that came later have later codes, whatever their ids."""
        log = small_log(1, ids)
        asked, ordered = requests_for(log, 25), log.clicks.sort("clicked_at", "item_id")
        met = ordered["item_id"].head(100).unique().implode()
        grown = EventStore(ordered.head(100), log.articles.filter(pl.col("item_id").is_in(met)))
        for start in range(100, len(ordered), 40):
            piece = ordered[start : start + 40]
            grown = grown.extended(piece, log.articles.filter(pl.col("item_id").is_in(piece["item_id"].implode())))
        grown = grown.extended(articles=log.articles)
        assert grown.items.to_list() != grown.items.sort().to_list()
        found = CHANNELS[name]().fit(grown, SHALLOW).recall(RecallRequests.of(asked, grown))
        named = found.select(
            asked["request_id"].gather(found["row"]).alias("request_id"),
            grown.items.gather(found["item"]).alias("item_id"),
            "score",
            "rank",
        ).sort("request_id", "rank")
        assert bits(named) == bits(recalled(log, name, asked))

    def test_clicks_too_old_for_any_request_need_not_be_prepared(self, name: str) -> None:
        log = small_log(4)
        asked = requests_for(log).filter(pl.col("requested_at") >= log.clicks["clicked_at"].quantile(0.8))
        since = RecallSettings(depth=8, since=int(asked["statistics_at"].to_physical().min()))
        assert bits(recalled(log, name, asked, since)) == bits(recalled(log, name, asked))

    def test_empty_log_proposes_nothing(self, name: str) -> None:
        log = small_log()
        bare = log_of(log.clicks.clear(), log.articles)
        found = recalled(bare, name, requests_for(log))
        assert found.is_empty()

    def test_first_request_of_the_log_proposes_nothing(self, name: str) -> None:
        log = small_log()
        first = float((log.clicks["clicked_at"].min() - log.clicks["clicked_at"].dt.truncate("1d").min()).seconds / 60)
        assert recalled(log, name, requests_of([(1, first, first), (1, -9e4, -9e4)])).is_empty()

    def test_event_in_the_running_refresh_is_not_known_yet(self, name: str) -> None:
        """Clicks at 10:00 to 10:05 are known from the refresh at 10:30 on, not one millisecond earlier."""
        both = [(user, item, at) for user in (1, 4, 5) for item, at in ((7, 600.0), (8, 605.0))]
        clicks = clicks_of([*both, (2, 7, 540.0), (3, 6, 0.0)])
        just_before, refresh = 630.0 - 1 / 60_000, 630.0
        asked = requests_of([(2, just_before, just_before), (2, refresh, refresh)])
        found = recalled(log_of(clicks, articles_of([6, 7, 8])), name, asked, TRAINED_OFTEN)
        assert found.filter(pl.col("item_id") == 8)["request_id"].to_list() == [101]

    def test_article_that_is_not_out_yet_is_not_proposed(self, name: str) -> None:
        """Some logs have clicks before `created_at`: the article waits for its own date, exclusive."""
        both = [(user, item, at) for user in (1, 4, 5) for item, at in ((7, 0.0), (8, 5.0))]
        clicks = clicks_of([*both, (2, 7, 10.0)])
        articles = articles_of([7, 8], created=[-10.0, 100.0])
        asked = requests_of([(2, m, m) for m in (99.0, 100.0, 101.0)])
        found = recalled(log_of(clicks, articles), name, asked, TRAINED_OFTEN)
        assert found.filter(pl.col("item_id") == 8)["request_id"].to_list() == [102]

    def test_table_is_what_the_last_refresh_knows(self, name: str) -> None:
        """The table for services is in raw ids, and what comes later does not change it."""
        log = small_log(5, "string")
        at = ms(2_000) + 11 * MINUTE
        past = log_of(log.clicks.filter(pl.col("clicked_at").to_physical() < at), log.articles)
        tables = [CHANNELS[name]().fit(EventStore(one.clicks, one.articles), SHALLOW).table(at) for one in (log, past)]
        assert tables[0].height > 0
        assert set(tables[0]["item_id"]) <= {*log.clicks["item_id"], *log.articles["item_id"]}
        assert bits(tables[0]) == bits(tables[1])


@pytest.mark.parametrize("ids", IDS)
def test_stranger_gets_a_list(ids: str) -> None:
    log = small_log(0, ids)
    stranger = requests_of([("nobody" if ids == "string" else 12_345, 2_000.0, 2_000.0)])
    found = proposed(log, stranger, RecallSettings(depth=5))
    assert found["popular_rank"].drop_nulls().sort().to_list() == [1, 2, 3, 4, 5]


def test_channels_whose_data_is_absent_are_refused_by_name_and_told_otherwise() -> None:
    log = bare_small_log()
    bare = EventStore(log.clicks.drop("device", "referrer"), log.articles)
    told: list[str] = []
    kept = working(bare, told.append)
    assert set(CHANNELS) - set(kept) == {"content", "segment"}
    assert told == [
        "recall segment is left out: it needs clicks with any of ['region', 'device', 'referrer']",
        "recall content is left out: it needs articles with embeddings",
    ]
    whole = equipped(log)
    assert working(EventStore(whole.clicks, whole.articles)) == tuple(CHANNELS)
    refuse_lacking(kept, bare)
    line = r"--recall content: expected articles with embeddings, found none\. Leave content out"
    with pytest.raises(UsageError, match=line):
        refuse_lacking(("popular", "content"), bare)
    with pytest.raises(UsageError, match=r"--recall: expected channels of .*, found \['astrology'\]"):
        refuse_lacking(("popular", "astrology"), bare)


def test_settings_from_what_a_person_says() -> None:
    assert settings_of(30, 100) == RecallSettings()
    assert settings_of(0.5, 0) == RecallSettings(refresh_ms=30_000, depth=1)
    for wrong in (0, -1, float("nan")):
        with pytest.raises(UsageError, match="--recall-refresh: expected minutes above zero"):
            settings_of(wrong, 10)


def test_requests_are_coded_in_their_own_order() -> None:
    log = small_log()
    store = EventStore(log.clicks, log.articles)
    asked = requests_of([(99_999, 10.0, 5.0), (2, 20.0, 20.0)])
    coded = RecallRequests.of(asked, store)
    assert coded.user.tolist() == [-1, store.users.to_list().index(2)]
    assert coded.at.tolist() == [ms(10), ms(20)]
    assert coded.statistics_at.tolist() == [ms(5), ms(20)]
    turned = coded.rows(np.array([1, 0]))
    assert turned.frame["request_id"].to_list() == [101, 100]
    assert turned.at.tolist() == [ms(20), ms(10)]


def test_first_bucket_reaches_a_whole_window_back() -> None:
    settings = RecallSettings(refresh_ms=HOUR, since=10 * DAY + 5)
    assert settings.first_bucket(24) == 9 * 24
    assert RecallSettings().first_bucket(24) < -(10**15)
