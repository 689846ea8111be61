"""Figures of every stage, by hand: misses count as zero, and the denominator is all clicks or all requests."""

from datetime import UTC, datetime
from math import log, log2

import polars as pl
import pytest

from features.columns import TIME
from newsrec.evaluation.stages import StageFigures, evaluate_stages, overlap, recall_figures
from newsrec.metrics import METRICS

BOTH = ("itemcf", "popular")


def ranks(*rows: tuple[int | None, int | None, int | None]) -> pl.DataFrame:
    """One clicked article per row: where each channel and the merged list had it."""
    names = ["itemcf_rank", "popular_rank", "recall_rank"]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.UInt16), orient="row")
    return frame.with_columns(request_id=pl.int_range(pl.len()), item_id=pl.int_range(pl.len()) + 70)


FIVE_CLICKS = ranks((1, 51, 1), (5, None, 3), (100, 50, 101), (None, None, None), (50, 2, 5))


def test_recall_of_each_channel_and_what_it_alone_has() -> None:
    """The borders 5, 50 and 100 belong to the depth. Alone: itemcf the first two, popular the third, none the fifth."""
    assert recall_figures(FIVE_CLICKS, BOTH) == {
        "itemcf": {"hit@5": 2 / 5, "hit@50": 3 / 5, "hit@100": 4 / 5, "unique@50": 2 / 5},
        "popular": {"hit@5": 1 / 5, "hit@50": 2 / 5, "hit@100": 3 / 5, "unique@50": 1 / 5},
    }


def test_only_channel_has_everything_alone() -> None:
    figures = recall_figures(FIVE_CLICKS, ("popular",))["popular"]
    assert figures["unique@50"] == figures["hit@50"] == 2 / 5


def test_overlap_is_the_share_of_the_rows_channel_that_the_other_found_too() -> None:
    assert overlap(FIVE_CLICKS, BOTH) == {
        "itemcf": {"itemcf": 1.0, "popular": 1 / 3},
        "popular": {"itemcf": 1 / 2, "popular": 1.0},
    }


def test_channel_that_found_nothing_overlaps_with_nothing() -> None:
    table = overlap(ranks((1, None, 1), (2, 51, 2)), BOTH)
    assert table == {"itemcf": {"itemcf": 1.0, "popular": 0.0}, "popular": {"itemcf": 0.0, "popular": 0.0}}


def staged(reverse: bool = False, own_lists: bool = False) -> StageFigures:
    """Three requests: 10 has its click on top, 11 one click second and one missed, 12 was proposed nothing at all."""
    rows = pl.DataFrame(
        {
            "request_id": [10, 10, 10, 11, 11, 11],
            "item_id": ["x", "y", "z", "x", "y", "z"],
            "label": pl.Series([1, 0, 0, 0, 1, 0], dtype=pl.UInt8),
            "score": pl.Series([0.9, 0.5, 0.1, 0.9, 0.5, 0.1], dtype=pl.Float32),
            "worst": pl.Series([-0.9, -0.5, -0.1, -0.9, -0.5, -0.1], dtype=pl.Float32),
            "flat": pl.Series([0.0] * 6, dtype=pl.Float32),
        }
    )
    clicked = pl.DataFrame(
        {
            "request_id": [10, 11, 11, 12],
            "item_id": ["x", "y", "q", "r"],
            "itemcf_rank": [1, 2, None, None],
            "recall_rank": [1, 2, 200, None],
        }
    )
    requests = pl.DataFrame(
        {
            "request_id": [10, 11, 12],
            "user_id": [1, 2, 1],
            "requested_at": pl.Series([datetime(2024, 1, 1, hour, tzinfo=UTC) for hour in (7, 8, 7)]).cast(TIME),
            "positives": [1, 2, 1],
            "history_clicks": [1, 4, 1],
            "positive_age_hours": [0.5, 30.0, None],
        }
    )
    frames = [frame.reverse() if reverse else frame for frame in (rows, clicked)]
    return evaluate_stages(frames[0], None if own_lists else frames[1], requests, ("itemcf",), ("worst", "flat"))


def test_rank_counts_every_request_and_missed_clicks_as_zero() -> None:
    rank = staged().figures["rank"]
    second = (1 / log2(3)) / (1 + 1 / log2(3))
    assert rank["mrr@5"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert rank["hit@5"] == pytest.approx(2 / 3)
    assert rank["ndcg@5"] == rank["ndcg@10"] == pytest.approx((1 + second + 0) / 3)
    assert rank["recall@50"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert rank["auc"] == rank["gauc"] == pytest.approx((1 + 1 / 2) / 2)
    assert rank["auc_share"] == pytest.approx(2 / 3)


def test_baselines_are_measured_on_the_same_rows_with_ties_by_item() -> None:
    baselines = staged().figures["baselines"]
    assert list(baselines) == ["worst", "flat"]
    assert baselines["worst"]["mrr@5"] == pytest.approx((1 / 3 + 1 / 2) / 3)
    assert baselines["worst"]["auc"] == pytest.approx((0 + 1 / 2) / 2)
    assert baselines["flat"]["mrr@5"] == pytest.approx((1 + 1 / 2) / 3)
    assert baselines["flat"]["auc"] == pytest.approx(1 / 2)
    assert set(baselines["flat"]) == set(METRICS)


def test_merged_recall_tells_its_ceiling_and_the_length_of_lists() -> None:
    """Of four clicks two are candidates; the one at rank 200 was cut. The list of request 12 is empty."""
    assert staged().figures["recall"]["merged"] == {
        "hit@5": 2 / 4,
        "hit@50": 2 / 4,
        "hit@100": 2 / 4,
        "ceiling": 2 / 4,
        "candidates_per_request": 6 / 3,
    }


def test_slices_divide_the_requests_of_the_ranker() -> None:
    by = {(row["slice"], row["value"]): row for row in staged().figures["slices"]}
    assert {key: row["requests"] for key, row in by.items()} == {
        ("history clicks", "1"): 2,
        ("history clicks", "3-5"): 1,
        ("article age, hours", "<1"): 1,
        ("article age, hours", "24+"): 1,
        ("article age, hours", "unknown"): 1,
        ("hour of day, UTC", "07"): 2,
        ("hour of day, UTC", "08"): 1,
    }
    assert by["hour of day, UTC", "07"]["mrr@5"] == pytest.approx((1 + 0) / 2)


def test_intervals_hold_the_figures() -> None:
    figures = staged().figures
    assert set(figures["intervals"]) == set(figures["rank"])
    for name, (low, high) in figures["intervals"].items():
        assert low <= round(figures["rank"][name], 5) <= high
    low, high = figures["intervals"]["hit@5"]
    assert low < high


def test_figures_per_request_stand_behind_the_means() -> None:
    per_request = staged().per_request
    assert per_request["request_id"].to_list() == [10, 11, 12]
    assert per_request["n_candidates"].to_list() == [3, 3, 0]
    assert per_request["mrr@5"].to_list() == [1.0, 0.5, 0.0]
    assert per_request["auc"].to_list() == [1.0, 0.5, None]


def test_requests_that_bring_their_lists_have_no_figures_of_recall() -> None:
    figures = staged(own_lists=True).figures
    assert (figures["recall"], figures["recall_overlap"]) == ({}, {})
    others = {name: value for name, value in staged().figures.items() if not name.startswith("recall")}
    assert {name: value for name, value in figures.items() if not name.startswith("recall")} == others


def test_order_of_the_rows_does_not_matter() -> None:
    assert staged(reverse=True).figures == staged().figures


def test_probabilities_get_a_logloss_over_all_rows() -> None:
    rows = pl.DataFrame({"request_id": [1, 1], "item_id": [5, 6], "label": [1, 0], "score": [0.8, 0.3]})
    requests = pl.DataFrame({"request_id": [1], "user_id": [1], "positives": [1]}).with_columns(
        requested_at=pl.lit(datetime(2024, 1, 1, tzinfo=UTC)).cast(TIME), history_clicks=1, positive_age_hours=0.5
    )
    found = evaluate_stages(rows, None, requests, (), (), probabilities=True)
    assert found.figures["rank"].pop("logloss") == pytest.approx(-(log(0.8) + log(0.7)) / 2)
    assert found.figures == evaluate_stages(rows, None, requests, (), ()).figures
    none = evaluate_stages(rows.clear(), None, requests, (), (), probabilities=True)
    assert "logloss" not in none.figures["rank"]
