"""Every request falls into exactly one class of each slice."""

from datetime import UTC, datetime, timedelta

import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from newsrec.errors import DataError
from newsrec.evaluation import SLICES, slices


def scored(hits: list[float | None]) -> pl.DataFrame:
    ids = list(range(len(hits)))
    return pl.DataFrame({"request_id": ids, "hit@5": hits, "mrr@5": hits, "ndcg@10": hits}, schema_overrides={})


def classes(column: str, values: list[float | None]) -> list[tuple[str, int]]:
    requests = pl.DataFrame({"request_id": range(len(values)), column: values})
    table = slices(scored([1.0] * len(values)), requests)
    return list(table.select("value", "requests").rows())


def test_history_borders() -> None:
    found = classes("history_clicks", [0, 1, 2, 3, 5, 6, 20, 21, 500])
    assert found == [("0", 1), ("1", 1), ("2", 1), ("3-5", 2), ("6-20", 2), ("21+", 2)]


def test_age_borders_are_half_open_and_null_is_unknown() -> None:
    found = classes("positive_age_hours", [-0.5, 0.999, 1.0, 3.0, 6.0, 12.0, 23.9, 24.0, None, float("nan")])
    assert found == [("<1", 2), ("1-3", 1), ("3-6", 1), ("6-12", 1), ("12-24", 2), ("24+", 1), ("unknown", 2)]


def test_hours_are_utc_and_in_order() -> None:
    start = datetime(2024, 1, 1, 23, 59, 59, tzinfo=UTC)
    requests = pl.DataFrame(
        {"request_id": [0, 1, 2], "requested_at": [start + timedelta(seconds=s) for s in (0, 1, 2)]}
    )
    assert slices(scored([1.0] * 3), requests).select("value", "requests").rows() == [("00", 2), ("23", 1)]


def test_means_are_those_of_the_class_and_uncounted_requests_stay_out() -> None:
    requests = pd.DataFrame({"request_id": [3, 2, 1, 0], "history_clicks": [0, 9, 0, 0]})
    table = slices(scored([1.0, 0.0, 0.5, None]), requests)
    expected = {
        "slice": ["history clicks"] * 2,
        "value": ["0", "6-20"],
        "requests": [2, 1],
        "hit@5": [0.5, 0.5],
        "mrr@5": [0.5, 0.5],
        "ndcg@10": [0.5, 0.5],
    }
    assert_frame_equal(table, pl.DataFrame(expected))


def test_every_request_is_in_one_class_of_each_slice() -> None:
    n = 500
    requests = pl.DataFrame(
        {
            "request_id": range(n),
            "history_clicks": [i % 40 for i in range(n)],
            "positive_age_hours": [None if i % 7 == 0 else i / 10 for i in range(n)],
            "requested_at": [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=17 * i) for i in range(n)],
        }
    )
    table = slices(scored([i % 3 / 2 for i in range(n)]), requests)
    assert table["slice"].unique(maintain_order=True).to_list() == list(SLICES)
    assert table.group_by("slice").agg(pl.col("requests").sum())["requests"].to_list() == [n] * 3
    whole = table.group_by("slice").agg((pl.col("hit@5") * pl.col("requests")).sum() / n)
    assert whole["hit@5"].to_list() == pytest.approx([sum(i % 3 / 2 for i in range(n)) / n] * 3)


def test_absent_columns_leave_a_slice_out() -> None:
    table = slices(scored([1.0]), pl.DataFrame({"request_id": [0]}))
    assert len(table) == 0
    assert table.columns == ["slice", "value", "requests", "hit@5", "mrr@5", "ndcg@10"]


@pytest.mark.parametrize(("ids", "message"), [([0], r"1 absent \[1\]"), ([0, 1, 1], "1 repeated")])
def test_requests_must_describe_each_scored_one_once(ids: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        slices(scored([1.0, 1.0]), pl.DataFrame({"request_id": ids}))
