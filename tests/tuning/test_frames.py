"""What trials learn from: in order of time, the same for all, and nothing of the test period."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from newsrec.data import Log
from newsrec.errors import DataError, UsageError
from newsrec.split import SplitConfig
from newsrec.train import TrainResult
from tests.tuning.planted import CONFIG, frames_of
from tuning.frames import Frames


def test_folds_are_prefixes_that_end_where_validation_begins(frames: Frames, log: Log) -> None:
    latest, earlier = frames.facts.folds
    assert latest.rows == len(frames.array("train")) == len(frames.array("label")) == len(frames.array("weight"))
    assert latest.requests == len(frames.array("group"))
    assert 0 < earlier.rows < latest.rows
    assert frames.array("group")[: earlier.requests].sum() == earlier.rows
    assert earlier.valid_until == latest.valid_from
    end = log.clicks["clicked_at"].max().replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    assert latest.valid_until == (end - timedelta(days=1)).isoformat()


def test_whole_lists_stand_together_and_hold_both_classes(frames: Frames) -> None:
    for fold, facts in enumerate(frames.facts.folds):
        rows, requests = frames.rows(fold), frames.requests(fold)
        assert frames.array(f"valid-{fold}").shape == (len(rows), len(frames.facts.features))
        assert rows["request_id"].rle().struct.field("value").is_unique().all()
        assert rows.group_by("request_id").agg(pl.col("label").n_unique())["label"].unique().to_list() == [2]
        assert len(requests) == facts.valid_requests
        assert rows["request_id"].is_in(requests["request_id"].implode()).all()


def test_columns_are_those_of_a_trained_ranker(frames: Frames, trained: TrainResult) -> None:
    names = pl.read_json(trained.run / "features.json")["name"].to_list()
    assert list(frames.facts.features) == names
    assert set(frames.facts.categorical) <= set(names)


def test_arrays_are_mapped_and_cannot_be_changed(frames: Frames) -> None:
    found = frames.array("train")
    assert isinstance(found, np.memmap)
    assert found.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1.0
    assert Frames.open(frames.folder).facts == frames.facts


def test_nothing_of_the_test_period_is_in_them(frames: Frames, log: Log, tmp_path: Path) -> None:
    border = pl.lit(frames.facts.folds[0].valid_until).str.to_datetime(time_unit="ms", time_zone="UTC")
    clicks, impressions = log.clicks, log.impressions
    assert impressions is not None
    last = int(clicks.select(pl.col("item_id").last()).item())
    poisoned = replace(
        log,
        clicks=clicks.with_columns(
            item_id=pl.when(pl.col("clicked_at") >= border).then(last).otherwise("item_id")
        ).unique(["user_id", "item_id", "clicked_at"], maintain_order=True),
        impressions=impressions.with_columns(
            clicked=pl.when(pl.col("requested_at") >= border).then(~pl.col("clicked")).otherwise("clicked")
        ),
    )
    assert not poisoned.clicks.equals(clicks)
    other = frames_of(poisoned, tmp_path / "poisoned")
    assert other.facts == frames.facts
    for name in ("train", "label", "weight", "group", "valid-0", "valid-1"):
        assert np.array_equal(frames.array(name), other.array(name), equal_nan=name in ("train", "valid-0", "valid-1"))


def test_clicks_alone_and_shown_lists_make_frames_too(log: Log, tmp_path: Path) -> None:
    clicks = frames_of(replace(log, impressions=None), tmp_path / "clicks")
    assert "item_exposures_log_1h" not in clicks.facts.features
    shown = frames_of(log, tmp_path / "shown", replace(CONFIG, candidates="slate"))
    assert "recall_rank" not in shown.facts.features
    assert set(np.unique(shown.array("weight"))) == {1.0}  # what was shown is never sampled


def test_statistics_of_a_gap_are_frozen_in_validation_only(frames: Frames, log: Log, tmp_path: Path) -> None:
    config = replace(CONFIG, split=replace(CONFIG.split, validation="gap", gap_hours=6.0))
    frozen = frames_of(log, tmp_path / "gap", config)
    assert np.array_equal(frozen.array("train"), frames.array("train"), equal_nan=True)
    assert not np.array_equal(frozen.array("valid-0"), frames.array("valid-0"), equal_nan=True)


def test_impossible_folds_are_refused(log: Log, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Ask for fewer folds or shorter --valid-days"):
        frames_of(log, tmp_path, folds=9)
    with pytest.raises(UsageError, match="--validation last-click: expected a"):
        frames_of(log, tmp_path, replace(CONFIG, split=SplitConfig(validation="last-click")))


def test_full_disk_is_one_line(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tuning.frames._write_array", full)
    with pytest.raises(UsageError, match="expected room beside it for the described rows, found: No space left"):
        frames_of(log, tmp_path)
