"""The leak tests can fail: what would be a leak is found by the very functions that find none."""

from collections.abc import Callable
from datetime import timedelta

import polars as pl
import pytest

from features.build import build
from features.catalog import Feature
from features.columns import TIME
from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec.data import Log
from tests.factories import all_features, rich_log, small_log
from tests.futures import (
    FUTURES,
    Bestseller,
    View,
    appended,
    changed,
    deleted,
    each_request,
    known_before,
    published,
    read_on,
    recall_view,
    seen,
    unpublished,
)


class TestTheCheckItself:
    """What would be leaks are found by the very function that finds none in `test_leaks`."""

    @pytest.mark.parametrize("change", FUTURES)
    def test_changes_are_changes_and_leave_the_past_alone(self, change: Callable[[Log, pl.Expr], Log]) -> None:
        log = rich_log(0)
        at = pl.lit(log.clicks["clicked_at"][40]).cast(TIME)
        other = change(log, at)
        for name in ("clicks", "impressions"):
            before, after = (getattr(deleted(one, at), name) for one in (log, other))
            assert after.select(before.columns).equals(before)
        same = [getattr(other, name).equals(getattr(log, name)) for name in ("clicks", "impressions", "articles")]
        assert not all(same)
        assert same[1] == (change in (read_on, published, unpublished))

    def test_finds_a_feature_that_looks_at_later_lists(self) -> None:
        log = rich_log(0)

        def view_of(asked: pl.DataFrame, candidates: pl.DataFrame) -> View:
            def view(other: Log) -> pl.DataFrame:
                assert other.impressions is not None
                counted = other.impressions.group_by("item_id").agg(pl.len().alias("ever"))
                return candidates.join(counted, on="item_id", how="left", maintain_order="left").select("ever")

            return view

        found = [seen(view_of(asked, known_before(log, asked, at, 0)), log, at) for asked, at in each_request(log, 0)]
        assert {f"{change.__name__}: ever" for change in (deleted, appended, changed)} <= set().union(*found)

    @pytest.mark.parametrize("reach", [timedelta(0), timedelta(days=9)], ids=["the instant itself", "everything"])
    def test_finds_a_feature_that_looks_ahead(self, reach: timedelta) -> None:
        log = small_log(0)
        leaky = Feature("item_clicks_ever", "item", pl.col("ever"), "Clicks that the article gets, later ones too.")

        def view_of(asked: pl.DataFrame, candidates: pl.DataFrame) -> View:
            def view(other: Log) -> pl.DataFrame:
                known = other.clicks.filter(pl.col("clicked_at") <= asked["requested_at"][0] + reach)
                counted = known.group_by("item_id").agg(pl.len().alias("ever"))
                rows = candidates.join(counted, on="item_id", how="left", maintain_order="left")
                store = EventStore(other.clicks, other.articles)
                return build(rows, asked, store, Vocabulary.of(log.clicks), (*all_features(), leaky))

            return view

        found = [seen(view_of(asked, known_before(log, asked, at, 0)), log, at) for asked, at in each_request(log, 0)]
        assert {"appended: item_clicks_ever", "changed: item_clicks_ever"} <= set().union(*found)
        assert {line.split(": ")[1] for lines in found for line in lines} == {"item_clicks_ever"}

    def test_finds_a_channel_that_looks_ahead(self) -> None:
        log = small_log(0)
        found = [seen(recall_view({"bestseller": Bestseller}, asked), log, at) for asked, at in each_request(log, 0)]
        assert {f"{change.__name__}: bestseller" for change in (deleted, appended, changed)} <= set().union(*found)
