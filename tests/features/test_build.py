"""Candidates and a log in, the model's input out: against slow loops, against a page of values, and shape by shape."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from features.build import build
from features.catalog import FEATURES, features_for, parts_of
from features.columns import REQUEST_CONTEXT, TIME
from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec.data.log import Log
from newsrec.recall import CHANNELS
from tests.factories import (
    IDS,
    UNKNOWN_ITEM,
    all_features,
    articles_of,
    bits,
    candidates_for,
    clicks_of,
    described,
    impressions_of,
    log_of,
    requests_for,
    requests_of,
    rich_log,
)
from tests.oracle import Truth, requests

GOLDEN = Path(__file__).parents[1] / "golden"
STALE = [0, 95.5]


def world(seed: int, ids: str = "integer", stale: float = 0) -> tuple[Log, pl.DataFrame, pl.DataFrame]:
    log = rich_log(seed, ids)
    asked = requests_for(log, 20, seed, stale)
    candidates = candidates_for(log, asked, seed=seed)
    return log, asked, candidates.filter((pl.col("request_id") % 3 > 0) | (pl.col("recall_rank") < 7))


@pytest.mark.parametrize("stale", STALE)
@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_feature_equals_a_loop(seed: int, ids: str, stale: float) -> None:
    log, asked, candidates = world(seed, ids, stale)
    vocabulary = Vocabulary.of(log.clicks, 2, log.impressions)
    truth = Truth(log, vocabulary)
    expected = [
        row
        for request in requests(asked)
        for row in truth.features(request, candidates.filter(pl.col("request_id") == request.id)["item_id"].to_list())
    ]
    found = described(log, candidates, asked, vocabulary).to_dicts()
    names = [f.name for f in FEATURES if f.family != "recall"]
    assert len(found) == len(expected)
    for place, (one, other) in enumerate(zip(found, expected, strict=True)):
        wrong = {n: (one[n], other[n]) for n in names if not same(n, one[n], other[n])}
        assert not wrong, f"row {place}: found, expected {wrong}"


ROUGH = {
    "decayed": {"rel": 2e-4, "abs": 1e-4},  # weights of events are whole numbers, and the very old ones are left out
    "taste": {"rel": 2e-4, "abs": 1e-4},
    "cosine": {"rel": 0, "abs": 2e-3},  # embeddings are whole numbers
    "lift_share": {"rel": 5e-3, "abs": 0},  # of whole thousandths
}
"""Tolerance of the features with such a word in their name; the others are exact to Float32."""


def same(name: str, found: float | None, expected: float | None) -> bool:
    tolerance = next((t for word, t in ROUGH.items() if word in name), {"rel": 2e-6, "abs": 1e-9})
    return found == (None if expected is None else pytest.approx(expected, **tolerance))


def test_small_logs_reach_every_feature() -> None:
    """Else the comparison above would compare nothing but zeros and nulls."""
    log, asked, candidates = world(0)
    found = described(log, candidates, asked)
    varied = {c.name for c in found if c.n_unique() > 2 or (c.n_unique() == 2 and c.null_count() == 0)}
    absent = {f"last_{name}" for name in ("environment", "os", "country", "region")}
    absent |= {f"now_{name}" for name in REQUEST_CONTEXT if name not in ("device", "is_subscriber")}
    answers = {"same_category_as_last", "same_category_as_second", "same_category_as_page", "is_page"}
    assert set(found.columns) - varied <= absent | answers
    for name in answers:
        assert set(found[name]) == {None, 0.0, 1.0}, name


@pytest.mark.parametrize("seed", range(4))
def test_values_are_float32_and_finite_or_null(seed: int) -> None:
    log, asked, candidates = world(seed, stale=STALE[seed % 2])
    found = described(log, candidates, asked).drop("request_id", "item_id")
    assert found.columns == [f.name for f in all_features()]
    assert set(found.dtypes) == {pl.Float32}
    assert not [c.name for c in found if not c.is_finite().fill_null(True).all()]


def test_night_without_a_click_leaves_nothing_infinite() -> None:
    """Four quiet hours: no traffic at all in 3 hours, while transitions of the last 36 are known."""
    clicks = clicks_of([(1, 7, 0.0), (1, 8, 5.0), (2, 7, 10.0)])
    asked = requests_of([(2, 300.0, 300.0)])
    candidates = candidates_for(log_of(clicks), asked, per_request=3)
    found = described(log_of(clicks), candidates, asked)
    lift = found["transition_lift_36h"]
    assert lift.null_count() == 3
    assert found["item_traffic_share_3h"].null_count() == 3
    assert found.filter(pl.col("item_id") == 8)["transition_share_36h"].to_list() == [1.0]


def golden(name: str, *times: str) -> pl.DataFrame:
    frame = pl.read_csv(GOLDEN / f"{name}.csv")
    return frame.with_columns(pl.col(t).str.to_datetime("%Y-%m-%dT%H:%M", time_zone="UTC").cast(TIME) for t in times)


def golden_page() -> pl.DataFrame:
    vector = pl.col("embedding").str.split(" ").cast(pl.List(pl.Float32)).list.to_array(2)
    articles = golden("articles", "created_at").with_columns(vector)
    log = log_of(golden("clicks", "clicked_at"), articles, impressions=golden("impressions", "requested_at"))
    rows = golden("candidates", "requested_at")
    context = ("user_id", "requested_at", "device", "page_item_id")
    asked = rows.select("request_id", *context, statistics_at="requested_at").unique("request_id")
    found = described(log, rows, asked, Vocabulary.of(log.clicks, 1, log.impressions)).drop("request_id", "item_id")
    return found.transpose(include_header=True, header_name="feature", column_names=rows["column"])


def test_golden_page() -> None:
    """Twelve clicks, five lists, four candidates, every feature: a value that changes here changes every model."""
    page = golden_page()
    expected = pl.read_csv(GOLDEN / "features.csv", schema_overrides=page.schema)
    assert page.columns == expected.columns
    assert page["feature"].to_list() == expected["feature"].to_list()
    nulls = pl.all().is_null()
    assert page.select(nulls).equals(expected.select(nulls))
    # By NumPy: Polars' own comparison has renamed its tolerance, and the oldest version knows only the former name.
    values, told = (frame.drop("feature").to_numpy() for frame in (page, expected))
    np.testing.assert_allclose(values, told, rtol=1e-5, atol=0)


def test_row_order_of_candidates_is_kept_and_changes_no_value() -> None:
    log, asked, candidates = world(2)
    order = np.random.default_rng(0).permutation(len(candidates))
    assert bits(described(log, candidates[order], asked)) == bits(described(log, candidates, asked)[order])


def test_single_request_gets_the_bits_of_the_batch() -> None:
    log, asked, candidates = world(3, stale=30)
    vocabulary = Vocabulary.of(log.clicks, 2)
    batch = described(log, candidates, asked, vocabulary)
    for request in asked["request_id"]:
        own = candidates.filter(pl.col("request_id") == request)
        alone = described(log, own, asked.filter(pl.col("request_id") == request), vocabulary)
        assert bits(alone) == bits(batch.filter(pl.col("request_id") == request))


def test_requests_that_nobody_asks_about_are_ignored() -> None:
    log, asked, candidates = world(3)
    few = candidates.filter(pl.col("request_id").is_in(asked["request_id"][3:5].to_list()))
    assert bits(described(log, few, asked)) == bits(described(log, few, asked[3:5]))


def test_left_out_negatives_still_count_inside_their_request() -> None:
    log, asked, candidates = world(4)
    keep = pl.Series("kept", np.random.default_rng(0).random(len(candidates)) < 0.3)
    kept = described(log, candidates.with_columns(keep), asked)
    assert bits(kept) == bits(described(log, candidates, asked).filter(keep))


def test_none_kept_and_none_asked_give_empty_frames() -> None:
    log, asked, candidates = world(4)
    names = ["request_id", "item_id", *(f.name for f in all_features())]
    for few in (candidates.with_columns(kept=False), candidates.clear()):
        found = described(log, few, asked)
        assert found.columns == names
        assert found.height == 0
    assert described(log, candidates.clear(), asked.clear()).height == 0


def test_empty_log_still_describes() -> None:
    log, asked, candidates = world(5)
    bare = log_of(log.clicks.clear(), log.articles)
    found = described(bare, candidates, asked, Vocabulary.of(log.clicks))
    assert found.height == len(candidates)
    assert found["user_clicks"].sum() == found["item_clicks_48h"].sum() == 0
    assert found["item_age_hours"].null_count() < len(found)


def test_log_without_options_gets_the_features_it_can_have() -> None:
    log, asked, candidates = world(6)
    clicks, articles = log.clicks.select("user_id", "item_id", "clicked_at"), log.articles.select("item_id")
    features = features_for(CHANNELS, parts_of(clicks, articles))
    bare = build(candidates, asked, EventStore(clicks, articles), Vocabulary.of(clicks), features)
    whole = described(log_of(log.clicks, log.articles), candidates, asked)
    assert_frame_equal(bare, whole.select(bare.columns))
    assert 30 <= bare.width < whole.width - 100


def test_only_wanted_features_in_the_wanted_order() -> None:
    log, asked, candidates = world(6)
    by_name = {f.name: f for f in all_features()}
    chosen = [by_name[n] for n in ("slate_freshness_rank", "hour", "item_clicks_1h_slate_rank", "item_words")]
    store, vocabulary = EventStore(log.clicks, log.articles), Vocabulary.of(log.clicks)
    found = build(candidates, asked, store, vocabulary, chosen)
    assert found.columns == [f.name for f in chosen]
    assert_frame_equal(found, described(log, candidates, asked, vocabulary).select(found.columns))


def test_hour_is_utc_with_fractions() -> None:
    log = log_of(clicks_of([(1, 7, 0.0)]), articles_of([7]))
    asked = requests_of([(1, 90.0, 90.0), (1, 26 * 60.0, 0.0)])
    found = described(log, candidates_for(log, asked, per_request=1), asked)
    assert found["hour"].to_list() == [1.5, 2.0]
    assert asked["requested_at"][0] == datetime(2024, 1, 8, 1, 30, tzinfo=UTC)


def test_articles_shown_to_thousands_and_never_clicked_leave_nothing_infinite() -> None:
    log = rich_log()
    crowd = impressions_of([(user, 1.0, [1]) for user in range(2_500)])
    asked = requests_of([(1, 5.0, 5.0)])
    crowded = log_of(clicks_of([(1, 9, 0.0)]), log.articles, impressions=crowd)
    candidates = candidates_for(crowded, asked, per_request=23).filter(pl.col("item_id") == 1)
    found = described(crowded, candidates, asked)
    assert len(found) == 1
    assert found["slate_lift_share"].to_list() == [None]


@pytest.mark.parametrize("seconds", [0.4, 0.6])
def test_reading_counts_from_its_end_on_and_not_before(seconds: float) -> None:
    log = log_of(clicks_of([(1, 7, 0.0)], dwell_seconds=[seconds]), articles_of([7]))
    asked = requests_of([(2, m / 60, m / 60) for m in (seconds - 0.001, seconds, seconds + 0.001)])
    candidates = candidates_for(log, asked, 2).filter(pl.col("item_id") == 7)
    found = described(log, candidates, asked)["item_seconds_per_reading_all"].to_list()
    assert found == [None, None, pytest.approx(seconds)]


def test_article_that_nobody_knows_yet_is_still_a_page_and_still_the_candidate() -> None:
    """A store that learned of the article later says the same."""
    shown = impressions_of([(1, 0.0, [7])], page_item_id=[8])
    log = log_of(clicks_of([(1, 7, 0.0)]), articles_of([7]), impressions=shown)
    asked = requests_of([(1, 5.0, 5.0)]).with_columns(page_item_id=pl.lit(UNKNOWN_ITEM, pl.Int64))
    candidates = candidates_for(log, asked, 3)
    for known in (log, log_of(log.clicks, articles_of([7, UNKNOWN_ITEM]), impressions=shown)):
        found = described(known, candidates, asked)
        assert found["on_page"].to_list() == [1.0] * 3
        assert found["is_page"].to_list() == (found["item_id"] == UNKNOWN_ITEM).cast(pl.Float32).to_list()
