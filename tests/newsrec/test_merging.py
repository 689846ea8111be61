"""Learned merge weights: counted by hand, never worse than equal ones, and kept in the bundle."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsrec.bundle import read_manifest
from newsrec.candidates import FUSION_OFFSET, MergeConfig
from newsrec.data import ReadOptions
from newsrec.earlier import config_of_run
from newsrec.errors import UsageError
from newsrec.merging import Votes, climbed
from newsrec.split import SplitConfig
from newsrec.train import train
from newsrec.train_config import TrainConfig
from tests.conftest import FEW_TREES
from tests.factories import Heard


def proposed(*rows: tuple[int, int | None, int | None, int]) -> pl.DataFrame:
    schema = {"request_id": pl.Int64, "a_rank": pl.UInt16, "b_rank": pl.UInt16, "label": pl.UInt8}
    return pl.DataFrame(rows, schema=schema, orient="row")


BY_HAND = proposed(
    # request 7: the click is b's first, and a's first two stand before it as soon as a counts more.
    (7, 1, None, 0), (7, 2, None, 0), (7, None, 1, 1),
    # request 8 was missed; request 9: both know the click.
    (8, 1, 1, 0),
    (9, 2, 2, 1), (9, 1, None, 0), (9, None, 1, 0),
)  # fmt: skip


def test_hit_rate_by_hand() -> None:
    votes = Votes.of(BY_HAND, ["a", "b"], 4)
    assert votes.parts[0].tolist() == [1 / (FUSION_OFFSET + 1), 0]
    assert votes.request.tolist() == [0, 0, 0, 1, 1, 1]
    # Equal: request 7's click ties with a's first, which counts against it: place 2; 2/12 beats 1/11: place 1.
    assert votes.hit_rate(np.array([1.0, 1.0]), 1) == 1 / 4
    assert votes.hit_rate(np.array([1.0, 1.0]), 2) == 2 / 4
    assert votes.hit_rate(np.array([1.0, 2.0]), 1) == 2 / 4  # 3/12 still beats 2/11
    assert votes.hit_rate(np.array([2.0, 1.0]), 2) == 1 / 4


def test_weights_climb_to_the_channel_that_knows() -> None:
    weights, hits = climbed(Votes.of(BY_HAND, ["a", "b"], 4), 1)
    assert hits == 2 / 4
    assert weights[1] > weights[0]


def test_what_gains_nothing_stays_one() -> None:
    votes = Votes.of(proposed((1, 1, 1, 1), (1, 2, 2, 0)), ["a", "b"], 1)
    assert climbed(votes, 1)[0].tolist() == [1, 1]
    nothing = Votes.of(proposed((1, 1, 1, 0)), ["a", "b"], 1)
    assert climbed(nothing, 1) == (pytest.approx(np.ones(2)), 0.0)


ROW = st.tuples(
    st.integers(0, 4), st.none() | st.integers(1, 9), st.none() | st.integers(1, 9), st.sampled_from([0, 0, 0, 1])
)


@given(st.lists(ROW, min_size=1, max_size=40), st.integers(1, 5))
def test_learned_is_never_worse_than_equal(rows: list[Any], depth: int) -> None:
    votes = Votes.of(proposed(*sorted(rows, key=lambda row: row[0])), ["a", "b"], 5)
    weights, hits = climbed(votes, depth)
    assert hits >= votes.hit_rate(np.ones(2), depth)
    assert hits == votes.hit_rate(weights, depth)
    assert (weights > 0).all()


def test_training_learns_tells_and_keeps_them(tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that is added later sees the same lists."""
    monkeypatch.setattr("newsrec.merging.climbed", lambda votes, depth: (np.array([1.0, 4.0]), 0.5))
    config = TrainConfig(
        data=tables,
        out=tmp_path / "run",
        read=ReadOptions(integer_ids=True),
        params=FEW_TREES,
        merge=MergeConfig({"popular": 40}),
        merge_by="learned",
        split=SplitConfig(train_requests=300, valid_requests=200, test_requests=200),
        refit=False,
    )
    told = Heard()
    run = train(config, told).run
    assert any("0.5000 of itemcf 1, popular 4" in line for line in told.lines)
    assert read_manifest(run)["recall"]["merge"] == {"quotas": {"popular": 40}, "weights": {"popular": 4.0}}
    later, _ = config_of_run(run, TrainConfig(reranker="pooling"))
    assert later.merge == MergeConfig({"popular": 40}, {"popular": 4.0})
    with pytest.raises(UsageError, match=r"others for \['merge_by'\]"):
        config_of_run(run, TrainConfig(reranker="pooling", merge_by="learned"))


def test_contradictions_are_refused() -> None:
    with pytest.raises(UsageError, match="--merge: expected one of"):
        TrainConfig(merge_by="luck").refuse_contradictions()
    with pytest.raises(UsageError, match=r"--merge: .* and weights \{'popular': 2.0\}"):
        TrainConfig(merge_by="learned", merge=MergeConfig(weights={"popular": 2.0})).refuse_contradictions()
