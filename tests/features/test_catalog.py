"""The contract of every feature, and the order that the model's columns have."""

from pathlib import Path

import polars as pl
import pytest

from features import context, cross, engagement, exposure, item, recall, session, similarity, slate, user
from features.catalog import FACTS, FAMILIES, FEATURES, Feature, features_for, parts_of
from features.columns import CONTEXT, REQUEST_CONTEXT
from features.facts import WINDOWS
from features.indices import HALF_LIVES
from newsrec.recall import CHANNELS
from tests.factories import all_features, rich_log, small_log

ALL = all_features()
FACT_NAMES = {name for group in FACTS for name in group.names}
MODULES = {m.__name__.rsplit(".", 1)[1]: m for m in (context, cross, engagement, exposure, item, recall, session)} | {
    "similarity": similarity,
    "slate": slate,
    "user": user,
}
OPTIONAL = (
    *(f"articles.{name}" for name in ("words", "category", "created_at", "publisher", "embedding")),
    *(f"clicks.{name}" for name in (*CONTEXT, "dwell_seconds")),
    "impressions",
    *(f"impressions.{name}" for name in (*REQUEST_CONTEXT, "page_item_id")),
)
GOLDEN = Path(__file__).parents[1] / "golden" / "features.csv"


def named(feature: Feature) -> str:
    return feature.name


@pytest.mark.parametrize("feature", ALL, ids=named)
class TestEveryFeature:
    def test_says_what_it_means_and_in_which_range(self, feature: Feature) -> None:
        assert feature.meaning.endswith((".", ":")) or "." in feature.meaning
        assert len(feature.meaning) > 30
        assert "{" not in feature.meaning

    def test_reads_facts_and_recall_only(self, feature: Feature) -> None:
        recall_columns = {"recall_rank"} | {f"{name}_{what}" for name in CHANNELS for what in ("score", "rank")}
        assert feature.roots <= FACT_NAMES | recall_columns
        assert feature.expression.meta.root_names()

    def test_never_reads_the_label(self, feature: Feature) -> None:
        assert "label" not in feature.expression.meta.root_names()

    def test_looks_at_the_other_candidates_only_in_the_slate_family(self, feature: Feature) -> None:
        assert ("over" in str(feature.expression)) == feature.of_slate == (feature.family == "slate")


def test_names_are_unique() -> None:
    assert len({f.name for f in ALL}) == len(ALL)


def test_golden_rows_stand_in_the_order_of_the_catalog() -> None:
    """The order is part of every bundle: whoever changes it must mean to."""
    assert pl.read_csv(GOLDEN)["feature"].to_list() == [f.name for f in ALL]


def test_name_is_the_function_or_the_function_and_its_argument() -> None:
    for feature in ALL:
        functions = [name for name, value in vars(MODULES[feature.family]).items() if callable(value)]
        words = feature.name.split("_")
        starts = {"_".join(words[:n]) for n in range(1, len(words) + 1)}
        ends = {"_".join(words[n:]) for n in range(len(words))}
        of_family = starts | ends | {f"channel_{words[-1]}"}
        assert of_family & set(functions), feature.name
        if feature.name in functions:
            doc = getattr(MODULES[feature.family], feature.name).__doc__
            assert doc.startswith(feature.meaning)


def test_windows_in_names_are_windows_that_exist() -> None:
    timed = [f.name for f in FEATURES if f.name[-1] in "mh" and f.name[-2].isdigit()]
    decayed = {name for name in timed if "_decayed_" in name}
    assert {name.rsplit("_", 1)[1] for name in decayed} == set(HALF_LIVES)
    windows = {name.rsplit("_", 1)[1] for name in set(timed) - decayed}
    assert {"5m", "24h"} <= windows <= set(WINDOWS)


def test_only_context_columns_are_categorical() -> None:
    assert [f.name for f in ALL if f.categorical] == [
        *(f"last_{name}" for name in CONTEXT),
        *(f"now_{name}" for name in REQUEST_CONTEXT),
    ]


def test_parts_of_a_log_that_features_need_are_these() -> None:
    assert frozenset().union(*(f.requires for f in ALL)) == set(OPTIONAL)


@pytest.mark.parametrize("absent", OPTIONAL)
def test_column_that_the_log_lacks_takes_its_features_with_it(absent: str) -> None:
    has = frozenset(OPTIONAL) - {absent}
    kept = features_for(CHANNELS, has)
    gone = {f.name for f in ALL} - {f.name for f in kept}
    assert gone == {f.name for f in ALL if absent in f.requires}
    assert gone
    assert [f.name for f in kept] == [f.name for f in ALL if f.name not in gone]


def test_needs_are_what_the_name_says() -> None:
    needs = {f.name: f.requires for f in ALL}
    assert needs["item_words"] == {"articles.words"}
    assert needs["item_age_hours"] == needs["slate_hours_behind_newest"] == {"articles.created_at"}
    assert needs["last_referrer"] == {"clicks.referrer"}
    assert needs["item_share_of_category_1h"] == {"articles.category"}
    assert needs["item_clicks_1h"] == needs["popular_score"] == needs["user_clicks"] == frozenset()
    assert needs["item_lift_1h"] == needs["repeated_5"] == needs["slate_length"] == {"impressions"}
    assert needs["item_clicks_24h_slate_rank"] == {"impressions"}
    assert needs["user_category_click_rate"] == {"impressions", "articles.category"}
    assert needs["item_seconds_per_exposure_24h"] == {"impressions", "clicks.dwell_seconds"}
    assert needs["same_category_as_page"] == {"impressions.page_item_id", "articles.category"}
    assert needs["user_publisher_taste"] == {"articles.publisher"}
    assert needs["cosine_max"] == {"articles.embedding"}
    assert needs["now_age"] == {"impressions.age"}


def test_log_without_options_still_has_most_features() -> None:
    assert len(features_for(CHANNELS, frozenset())) >= 30


def test_parts_of_a_log_are_spelled_as_needs() -> None:
    log = small_log()
    assert parts_of(log.clicks, log.articles) >= {"clicks.device", "clicks.referrer", "articles.words"}
    names = {f.name for f in features_for(CHANNELS, parts_of(log.clicks, log.articles))}
    assert "last_device" in names
    assert not {"last_region", "repeated_5", "now_device", "cosine_last"} & names


def test_parts_of_a_log_with_impressions() -> None:
    log = rich_log()
    has = parts_of(log.clicks, log.articles, log.impressions)
    assert has >= {"impressions", "impressions.page_item_id", "clicks.dwell_seconds", "articles.embedding"}
    names = {f.name for f in features_for(CHANNELS, has)}
    assert {"repeated_5", "now_device", "now_is_subscriber", "on_page", "cosine_last", "slate_length"} <= names
    assert "now_gender" not in names


def test_column_without_a_value_is_not_had() -> None:
    log = small_log()
    empty = log.articles.with_columns(pl.lit(None, pl.Int32).alias("words"))
    assert "articles.words" not in parts_of(log.clicks, empty)
    assert "impressions" not in parts_of(log.clicks, empty)


def test_channels_bring_their_score_and_rank_in_their_order() -> None:
    assert [f.name for f in features_for(["b", "a"], frozenset())][-4:] == ["b_score", "a_score", "b_rank", "a_rank"]


def test_without_a_channel_there_is_no_family_recall() -> None:
    assert features_for([]) == tuple(f for f in FEATURES if f.family != "recall")


def test_names_and_families_can_be_left_out() -> None:
    kept = features_for(CHANNELS, without=["item", "hour", "popular_rank"])
    gone = {f.name for f in ALL} - {f.name for f in kept}
    assert gone == {f.name for f in ALL if f.family == "item"} | {"hour", "popular_rank"}


def test_unknown_name_to_leave_out_is_refused() -> None:
    with pytest.raises(KeyError, match="item_klicks"):
        features_for(CHANNELS, without=["item", "item_klicks"])
    assert set(FAMILIES) == {f.family for f in ALL} == set(MODULES)


def test_every_fact_serves_a_feature() -> None:
    assert frozenset().union(*(f.roots for f in ALL)) >= FACT_NAMES
