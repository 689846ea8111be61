"""The profile's figures by hand, and each trace on a log that has it and on one that has not."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from features.columns import HOUR, MINUTE, SECOND
from newsrec.artefacts import DETECTORS
from newsrec.data import Log, log_from_frames
from newsrec.inspect import Artefact, artefacts, inspect_log

START = 1_709_251_200_000  # 1 March 2024, 00:00 UTC
USERS = 400
GAPS = 4


def natural(seed: int = 0, *, step: int = 1) -> pl.DataFrame:
    """Five clicks of each of 400 users with gaps of a minute or so, at all hours of 40 days; some users click once."""
    rng = np.random.default_rng(seed)
    begin = rng.integers(0, 40 * 24 * HOUR, USERS)
    gaps = rng.exponential(MINUTE, (USERS, GAPS)).astype(np.int64) + 1
    times = np.cumsum(np.concatenate([begin[:, None], gaps], axis=1), axis=1) // step * step
    rows = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(USERS), GAPS + 1),
            "item_id": rng.integers(0, 50, USERS * (GAPS + 1)),
            "clicked_at": START + times.ravel(),
        }
    )
    once = (pl.col("user_id") % 10 != 0) | (pl.int_range(pl.len()).over("user_id") == 0)
    return rows.filter(once)


def dated(clicks: pl.DataFrame, age: np.ndarray) -> Log:
    """Each click on an article of its own, created `age` ms before."""
    clicks = clicks.with_columns(item_id=pl.int_range(pl.len()))
    articles = clicks.select("item_id", created_at=pl.col("clicked_at") - pl.Series(age.astype(np.int64)))
    return log_from_frames(clicks, articles)


def found(log: Log) -> dict[str, Artefact]:
    return {artefact.name: artefact for artefact in artefacts(log)}


def test_profile_by_hand() -> None:
    at = [START, START + 2 * HOUR, START + 24 * HOUR]
    clicks = pl.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["x", "y", "x"], "clicked_at": at})
    articles = pl.DataFrame({"item_id": ["x", "z"], "created_at": [START - HOUR, None]})
    profile = inspect_log(log_from_frames(clicks, articles))
    assert (profile.clicks, profile.users, profile.items, profile.articles) == (3, 2, 2, 2)
    assert (profile.days, profile.head_share) == (1.0, 1.0)
    assert (profile.first_click, profile.last_click) == ("2024-03-01 00:00:00 UTC", "2024-03-02 00:00:00 UTC")
    assert profile.clicks_per_user["0"] == 1.0
    assert profile.clicks_per_user["50"] == 1.5
    assert (profile.age_at_click_hours["0"], profile.age_at_click_hours["100"]) == (1.0, 25.0)
    assert (profile.rows_read, profile.impressions, profile.held_out_users) == (5, 0, 0)
    assert profile.notes == (
        "1 of 2 articles have no created_at; each exists from its first click",
        "1 of 2 clicked articles have no metadata",
    )
    (label,) = profile.labels
    assert (label.stage, label.positives, label.negatives) == ("candidates", 3, None)


def test_labels_count_what_was_shown() -> None:
    clicks = pl.DataFrame({"user_id": [1], "item_id": [1], "clicked_at": [START]})
    shown = pl.DataFrame(
        {
            "request_id": [1, 1, 1, 1],
            "user_id": [1] * 4,
            "requested_at": [START] * 4,
            "item_id": [1, 2, 3, 4],
            "clicked": [True, False, False, False],
            "liked": [True, None, None, False],
        }
    )
    profile = inspect_log(log_from_frames(clicks, impressions=shown))
    counts = {label.label: (label.stage, label.positives, label.negatives) for label in profile.labels}
    assert counts == {"clicked": ("shown", 1, 3), "liked": ("shown", 1, 1)}
    assert any("1 positives, 3 negatives shown, 1 to 3.0" in line for line in profile.lines())


def test_profile_is_json_and_lines_name_every_trace() -> None:
    profile = inspect_log(log_from_frames(natural()))
    assert json.loads(json.dumps(profile.as_dict()))["clicks"] == profile.clicks
    text = "\n".join(profile.lines())
    assert all(f"artefact {detect.__name__}" in text for detect in DETECTORS)
    assert "unknown: no creation times" in text


def test_nothing_is_found_in_a_natural_log() -> None:
    ages = np.random.default_rng(1).exponential(6 * HOUR, natural().height)
    assert [a.name for a in artefacts(dated(natural(), ages)) if a.found] == []


def test_tiny_logs_say_nothing() -> None:
    one = log_from_frames(pl.DataFrame({"user_id": [1], "item_id": [1], "clicked_at": [START]}))
    assert [a.name for a in artefacts(one)] == [detect.__name__ for detect in DETECTORS]
    assert not any(a.found for a in artefacts(one))
    assert inspect_log(one).days == 0.0


@pytest.mark.parametrize("step", [1, SECOND, MINUTE])
def test_coarse_clocks_are_no_constant_gap(step: int) -> None:
    assert not found(log_from_frames(natural(step=step)))["constant_gap"].found


@pytest.mark.parametrize("step", [1, SECOND])
def test_constant_gap_is_found_with_its_share_and_its_last_gaps(step: int) -> None:
    clicks = natural(step=step)
    last = clicks.group_by("user_id").agg(pl.col("clicked_at").max(), pl.len()).filter(pl.col("len") > 1)
    added = last.select("user_id", pl.lit(99, pl.Int64).alias("item_id"), pl.col("clicked_at") + 30 * SECOND).sort(
        "user_id"
    )
    log = log_from_frames(pl.concat([clicks, added.head(324).select(clicks.columns)]))
    gap = found(log)["constant_gap"]
    assert gap.found
    assert gap.share == pytest.approx(324 / (360 * GAPS + 324), abs=0.02)
    assert "exactly 30 s" in gap.explanation
    assert "last gap of 90" in gap.explanation


def test_clicks_before_creation_are_counted() -> None:
    clicks = natural()
    ages = np.random.default_rng(1).exponential(6 * HOUR, clicks.height) + 1
    assert found(dated(clicks, ages))["created_after_click"].share == 0.0
    ages[:16] = -2 * HOUR
    seen = found(dated(clicks, ages))["created_after_click"]
    assert seen.found
    assert seen.share == pytest.approx(16 / clicks.height)
    assert "by up to 2.0 h" in seen.explanation


@pytest.mark.parametrize("hours", [1, 3, 11])
def test_creation_times_of_another_zone_are_found(hours: int) -> None:
    clicks = natural()
    ages = np.random.default_rng(1).exponential(6 * HOUR, clicks.height) + hours * HOUR
    seen = found(dated(clicks, ages))["creation_offset"]
    assert seen.found
    assert f"{hours} h or so too early" in seen.explanation


def test_sessions_at_the_border_are_found_in_a_short_log_only() -> None:
    clicks = natural()
    squeezed = clicks.with_columns(clicked_at=START + (pl.col("clicked_at") - START) // 100)
    assert found(log_from_frames(squeezed))["sessions_cut"].found
    assert not found(log_from_frames(clicks))["sessions_cut"].found


def test_missing_single_clicks_are_found() -> None:
    clicks = natural()
    several = clicks.filter(pl.len().over("user_id") > 1)
    seen = found(log_from_frames(several))["single_clicks_missing"]
    assert (seen.found, seen.share) == (True, 1.0)
    partly = found(log_from_frames(clicks))["single_clicks_missing"]
    assert (partly.found, partly.share) == (False, 0.9)


def test_row_order_does_not_matter() -> None:
    clicks = natural()
    shuffled = clicks.sample(fraction=1.0, shuffle=True, seed=3)
    assert inspect_log(log_from_frames(clicks)).as_dict() == inspect_log(log_from_frames(shuffled)).as_dict()


def test_span_is_told_in_utc() -> None:
    at = datetime(2024, 3, 1, 1, tzinfo=UTC) + timedelta(milliseconds=7)
    log = log_from_frames(pl.DataFrame({"user_id": [1], "item_id": [1], "clicked_at": [at]}))
    assert inspect_log(log).first_click == "2024-03-01 01:00:00 UTC"
