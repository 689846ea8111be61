"""Labels beside the click: from shown lists, from the time spent reading, and what is refused."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from newsrec.data import Log
from newsrec.errors import DataError, UsageError
from newsrec.tasks import refuse_unknown_tasks, task_labels, tasks_in

START = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = pl.Series([START + timedelta(hours=i) for i in range(4)]).dt.cast_time_unit("ms")
CLICKS = pl.DataFrame(
    {"user_id": [1, 1, 2, 2], "item_id": [7, 8, 7, 9], "clicked_at": TIMES, "dwell_seconds": [40.0, 10.0, None, 30.0]}
)
SHOWN = pl.DataFrame(
    {
        "request_id": [10, 10, 20, 20],
        "user_id": [1, 1, 2, 2],
        "requested_at": TIMES.gather([0, 0, 2, 2]),
        "item_id": [7, 5, 7, 9],
        "clicked": [True, False, True, False],
        "shared": [True, False, None, False],
        "rating": [3, 0, 1, 0],
        "never": [False, False, False, False],
    }
)
LOG = Log("table", CLICKS, pl.DataFrame({"item_id": [5, 7, 8, 9]}), SHOWN)
REQUESTS = pl.DataFrame(
    {"request_id": [0, 1], "impression_id": [10, 20], "user_id": [1, 2], "requested_at": TIMES.gather([0, 2])}
)
POSITIVES = pl.DataFrame({"request_id": [0, 1], "item_id": [7, 7]})


def test_labels_follow_the_shown_list_and_stay_unknown_where_they_are() -> None:
    assert tasks_in(LOG) == ("shared", "never")
    found = task_labels(LOG, REQUESTS, POSITIVES, ("shared",))
    assert found.rows() == [(0, 7, 1.0), (1, 7, None)]
    assert task_labels(LOG, REQUESTS[:1], POSITIVES, ("shared",))["request_id"].to_list() == [0]


def test_reading_long_enough_is_a_task_where_clicks_have_dwell() -> None:
    log = replace(LOG, impressions=None)
    requests = REQUESTS.drop("impression_id")
    assert task_labels(log, requests, POSITIVES, ("dwell:40", "dwell:41"))["dwell:40"].to_list() == [1, None]
    assert task_labels(log, requests, POSITIVES, ("dwell:41",))["dwell:41"].to_list() == [0, None]
    assert tasks_in(log) == ()


def test_exposed_is_what_the_requests_list_showed() -> None:
    found = task_labels(LOG, REQUESTS[:1], POSITIVES, ("shared", "exposed")).sort("item_id")
    assert found.columns == ["request_id", "item_id", "shared", "exposed"]
    assert found.rows() == [(0, 5, None, 1.0), (0, 7, 1.0, 1.0)]
    refuse_unknown_tasks(LOG, ("exposed",), exposable=True)


@pytest.mark.parametrize(("impressions", "exposable"), [(None, True), (SHOWN, False)])
def test_exposed_needs_lists_beside_recall(impressions: pl.DataFrame | None, exposable: bool) -> None:
    with pytest.raises(UsageError, match="--task exposed: expected candidates of recall and lists"):
        refuse_unknown_tasks(replace(LOG, impressions=impressions), ("exposed",), exposable)


def test_a_column_with_the_name_of_a_task_that_comes_before_the_click_is_none() -> None:
    assert tasks_in(replace(LOG, impressions=SHOWN.with_columns(exposed=pl.lit(True)))) == ("shared", "never")


def test_a_request_a_moment_before_its_click_finds_it() -> None:
    """In last-click a request stands after the click before it."""
    log = replace(LOG, impressions=None)
    at = TIMES.gather([2]) + timedelta(milliseconds=1)
    requests = pl.DataFrame({"request_id": [0], "user_id": [2], "requested_at": at})
    positives = pl.DataFrame({"request_id": [0], "item_id": [9]})
    assert task_labels(log, requests, positives, ("dwell:30",)).rows() == [(0, 9, 1.0)]


@pytest.mark.parametrize(
    ("task", "kind", "told"),
    [
        ("liked", UsageError, r"--task: expected one of \['shared', 'never', 'dwell:SECONDS'\], found 'liked'"),
        ("clicked", UsageError, "found 'clicked'"),
        ("rating", DataError, r"--task rating: expected a column of 0 and 1 .*, found \['3'\]"),
        ("never", DataError, "--task never: expected a column of 0 and 1 with some of both, found only 0"),
    ],
)
def test_labels_that_say_nothing_are_refused(task: str, kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told):
        refuse_unknown_tasks(LOG, (task,), exposable=False)


def test_a_label_that_nobody_has_is_refused() -> None:
    empty = replace(LOG, impressions=SHOWN.with_columns(shared=pl.lit(None, pl.Boolean)))
    with pytest.raises(DataError, match="found nothing"):
        refuse_unknown_tasks(empty, ("shared",), exposable=True)
    refuse_unknown_tasks(LOG, ("shared", "dwell:5"), exposable=True)
    with pytest.raises(UsageError, match="found 'dwell:5'"):
        refuse_unknown_tasks(replace(LOG, clicks=CLICKS.drop("dwell_seconds")), ("dwell:5",), exposable=True)
