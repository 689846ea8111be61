"""No value knows the future: whatever happens at or after a request changes nothing, for every feature and channel."""

from dataclasses import replace

import polars as pl
import pytest

from features.columns import TIME
from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec.assembly import Assembly, training_data
from newsrec.candidates import SamplingConfig
from newsrec.data import Log
from newsrec.recall import CHANNELS, working
from newsrec.split import SplitConfig, split_log
from tests.factories import IDS, SHALLOW, bits, candidates_for, proposed, requests_for, rich_log, small_log
from tests.futures import changed, each_request, feature_view, known_before, lists_where, recall_view, seen


@pytest.mark.parametrize(("seed", "ids", "stale"), [(0, IDS[0], 0), (1, IDS[1], 0), (2, IDS[0], 150)])
class TestTheFuture:
    def test_changes_no_feature(self, seed: int, ids: str, stale: float) -> None:
        log = rich_log(seed, ids)
        vocabulary = Vocabulary.of(log.clicks, 2, log.impressions)
        for asked, at in each_request(log, seed, stale, n=4):
            assert not seen(feature_view(asked, known_before(log, asked, at, seed), vocabulary), log, at)

    def test_changes_no_recall(self, seed: int, ids: str, stale: float) -> None:
        log = rich_log(seed, ids)
        for asked, at in each_request(log, seed, stale, n=4):
            assert not seen(recall_view(CHANNELS, asked), log, at)

    def test_changes_no_merged_list_nor_its_description(self, seed: int, ids: str, stale: float) -> None:
        log = rich_log(seed, ids)
        vocabulary = Vocabulary.of(log.clicks, 2, log.impressions)
        for asked, at in each_request(log, seed, stale, n=3):

            def view(other: Log, asked: pl.DataFrame = asked) -> pl.DataFrame:
                lists = proposed(other, asked, names=("itemcf", "popular", "usercf"))
                return lists.hstack(feature_view(asked, lists, vocabulary)(other).select(pl.all().name.prefix("f_")))

            assert not seen(view, log, at)


def test_statistics_that_are_frozen_see_no_other_reader_after_their_border() -> None:
    """Between `statistics_at` and the request, only what the reader clicked and was shown is known."""
    log = rich_log(3)
    vocabulary = Vocabulary.of(log.clicks, 2, log.impressions)
    for asked, _ in each_request(log, 3, stale=600):
        reader = pl.col("user_id") == asked["user_id"][0]
        border = pl.lit(asked["statistics_at"][0]).cast(TIME)
        less = replace(
            log,
            clicks=log.clicks.filter(reader | (pl.col("clicked_at") < border)),
            impressions=lists_where(log, reader | (pl.col("requested_at") < border)),
        )
        views = [feature_view(asked, candidates_for(log, asked), vocabulary)]
        views.append(recall_view(CHANNELS, asked))
        for view in views:
            assert bits(view(less)) == bits(view(log))


@pytest.mark.parametrize("ids", IDS)
def test_order_of_rows_and_of_ties_changes_nothing(ids: str) -> None:
    log = rich_log(4, ids)
    asked = requests_for(log)
    candidates = candidates_for(log, asked)
    vocabulary = Vocabulary.of(log.clicks, 2, log.impressions)
    assert log.impressions is not None
    assert log.clicks.select("user_id", "clicked_at").is_duplicated().any()
    for view in (
        feature_view(asked, candidates, vocabulary),
        recall_view(CHANNELS, asked),
    ):
        expected = bits(view(log))
        for seed in range(3):
            frames = {"clicks": log.clicks, "articles": log.articles, "impressions": log.impressions}
            shuffled = {name: f.sample(fraction=1, shuffle=True, seed=seed) for name, f in frames.items()}
            assert bits(view(replace(log, **shuffled))) == expected


def test_test_period_changes_no_row_that_is_trained_on() -> None:
    """The whole way to the ranker: what happens in the test period, all of it mixed up, is not in the training rows."""
    log = small_log(5)
    config = SplitConfig(test_days=0.5, valid_days=0.5, warmup_hours=2)

    def taught(other: Log) -> list[object]:
        store = EventStore(other.clicks, other.articles)
        split = split_log(other, store, config)
        assembly = Assembly.of(store, working(store), SHALLOW, Vocabulary.of(log.clicks.head(150), 2))
        rows = [training_data(assembly, split.part(p), split.positives, SamplingConfig()) for p in ("train", "valid")]
        return [split.known_until, *(item for r in rows for item in (bits(r.features), r.label.tolist()))]

    border = split_log(log, EventStore(log.clicks, log.articles), config).known_until
    end = log.clicks["clicked_at"].max()
    mixed = changed(log, pl.lit(border).cast(TIME)).clicks.with_columns(pl.col("clicked_at").clip(upper_bound=end))
    assert set(mixed.rows()) != set(log.clicks.rows())
    assert taught(replace(log, clicks=mixed)) == taught(log)
