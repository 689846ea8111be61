"""Recall compared: every figure against the channels asked directly, and what can be merged."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from newsrec.candidates import MergeConfig, propose
from newsrec.data import ReadOptions
from newsrec.errors import UsageError
from newsrec.experiment import channels
from newsrec.experiment.channels import CEILING, DEPTHS, RecallMaterial
from newsrec.experiment.config import ExperimentConfig
from newsrec.experiment.run import ExperimentResult, run_experiment
from newsrec.progress import Silent
from newsrec.recall import CHANNELS, RecallSettings, working

FEW = ("itemcf", "popular", "segment", "content")
"""Channels that are quick, and one whose data the log may lack."""


def config(tables: Path, out: Path, **changes: Any) -> ExperimentConfig:
    return ExperimentConfig("recall", tables, out=out, read=ReadOptions(integer_ids=True), test_requests=300, **changes)


@pytest.fixture(scope="module")
def done(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ExperimentResult, RecallMaterial]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channels, "working", lambda store, tell: tuple(n for n in working(store, tell) if n in FEW))
        asked = config(tables, tmp_path_factory.mktemp("experiment") / "recall")
        return run_experiment(asked), RecallMaterial.of(asked, Silent())


def row(table: pl.DataFrame, channels: str, quota: int | None = None) -> dict[str, Any]:
    chosen = table.filter(pl.col("channels") == channels, pl.col("quota").eq_missing(quota))
    return chosen.row(0, named=True)


def test_hits_of_one_channel_are_those_of_its_own_list(done: tuple[ExperimentResult, RecallMaterial]) -> None:
    """Counted with a join, apart from merge and metrics."""
    result, material = done
    requests = material.requests
    channel = CHANNELS["itemcf"]().fit(requests.store, RecallSettings(depth=DEPTHS[-1]))
    clicked = material.split.positives.join(requests.frame.select("request_id").with_row_index("row"), on="request_id")
    clicked = clicked.with_columns(pl.Series("item", requests.store.item_codes(clicked["item_id"])))
    rank = clicked.join(channel.recall(requests), on=["row", "item"], how="left")["rank"]
    told = row(result.table, "itemcf")
    for k in DEPTHS:
        assert told[f"hit@{k}"] == pytest.approx((rank <= k).sum() / len(requests.frame)), k
    assert 0 < told["hit@50"] < 1
    assert told[CEILING] == told["hit@200"]


def test_ceiling_is_that_of_the_union_and_alone_what_a_channel_adds_to_it(
    done: tuple[ExperimentResult, RecallMaterial],
) -> None:
    table = done[0].table
    every = row(table, "all")
    assert every[CEILING] >= max(row(table, name)[CEILING] for name in ("itemcf", "popular", "segment"))
    for name in ("itemcf", "popular", "segment"):
        without = row(table, f"all but {name}")
        assert row(table, name)["alone@200"] == pytest.approx(every[CEILING] - without[CEILING]), name
        assert without["fit_seconds"] < every["fit_seconds"]


def test_quotas_keep_the_best_of_each_channel(done: tuple[ExperimentResult, RecallMaterial]) -> None:
    result, material = done
    found = {name: each.found.filter(pl.col("rank") <= 10) for name, each in material.proposed.items()}
    distinct = pl.concat(found.values()).select("row", "item").n_unique()
    assert row(result.table, "all", 10)["articles"] == pytest.approx(distinct / len(material.requests.at))
    quotas = MergeConfig(quotas=dict.fromkeys(material.proposed, 10))
    store = material.requests.store
    assert len(propose(material.proposed, material.requests, store.items, quotas)) == distinct  # type: ignore[arg-type]


def test_default_is_compared_with_itself_and_is_the_pair(done: tuple[ExperimentResult, RecallMaterial]) -> None:
    table = done[0].table
    first = table.row(0, named=True)
    assert first["channels"] == "default"
    assert [first[f"hit@50{end}"] for end in ("_gain", "_low", "_high")] == [0, 0, 0]
    assert (table["hit@50_low"] <= table["hit@50_gain"]).all()
    assert (table["hit@50_gain"] <= table["hit@50_high"]).all()
    assert first["alone@50"] is None


def test_channels_without_their_data_are_left_out(done: tuple[ExperimentResult, RecallMaterial]) -> None:
    result, material = done
    told = set(result.table["channels"])
    for name in FEW:
        assert (name in told) == (f"all but {name}" in told) == (name in material.proposed)


def test_requests_are_merged_in_chunks_as_in_one(
    done: tuple[ExperimentResult, RecallMaterial], tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("newsrec.experiment.channels.CHUNK", 7)
    monkeypatch.setattr(RecallMaterial, "of", lambda *_: done[1])
    again = run_experiment(config(tables, tmp_path / "chunks"))
    timed = ["fit_seconds", "recall_seconds"]
    known = again.table.drop(timed)
    usual = done[0].table.filter(pl.col("channels").is_in(known["channels"].implode())).drop(timed)
    assert np.array_equal(known["articles"], usual["articles"])
    assert known.equals(usual)


def test_further_seeds_are_refused(tables: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--seeds: expected 1 for recall"):
        run_experiment(config(tables, tmp_path / "new", seeds=2))
