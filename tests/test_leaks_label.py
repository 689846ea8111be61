"""No value knows the label, and shuffled labels teach nothing."""

from typing import Final

import numpy as np
import polars as pl
import pytest

from features.catalog import Feature
from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec.assembly import Assembly, score_lists, training_data
from newsrec.candidates import SamplingConfig
from newsrec.data import Log
from newsrec.metrics import METRICS, per_request, summarise
from newsrec.rankers import RANKERS
from newsrec.recall import DEFAULT_CHANNELS, RecallSettings
from newsrec.split import SplitConfig, split_log
from newsrec.train import TrainResult
from tests.conftest import FEW_TREES
from tests.factories import all_features, bits, candidates_for, requests_for, small_log
from tests.futures import feature_view

FORBIDDEN: Final = frozenset({"label", "clicked", "kept", "sampling_probability", "positives", "split"})
"""Columns that only the outcome, or the way the rows were chosen, could fill."""


class TestTheLabel:
    @pytest.mark.parametrize("feature", all_features(), ids=lambda feature: feature.name)
    def test_is_read_by_no_feature(self, feature: Feature) -> None:
        assert not FORBIDDEN & set(feature.expression.meta.root_names())

    def test_beside_the_candidates_changes_nothing(self) -> None:
        log = small_log(6)
        asked = requests_for(log)
        candidates = candidates_for(log, asked)
        view = [
            feature_view(asked, frame, Vocabulary.of(log.clicks))(log)
            for frame in (
                candidates,
                candidates.with_columns(pl.int_range(pl.len()).alias(n) for n in ("label", "clicked")),
            )
        ]
        assert bits(view[0]) == bits(view[1])

    def test_shuffled_teaches_nothing(self, log: Log, trained: TrainResult) -> None:
        """Clicks drawn at random from each list: the same path then ranks them no better than chance."""
        store = EventStore(log.clicks, log.articles)
        split = split_log(log, store, SplitConfig())
        assembly = Assembly.of(store, DEFAULT_CHANNELS, RecallSettings())
        lists = assembly.cut(assembly.lists(split.requests)[0])
        drawn = (
            lists.sample(fraction=1, shuffle=True, seed=1)
            .group_by("request_id")
            .first()
            .select("request_id", "item_id")
        )
        rows = training_data(assembly, split.part("train"), drawn, SamplingConfig())
        ranker = RANKERS["lgbm"].of(FEW_TREES).fit(rows, None)
        test = split.part("test")
        found = summarise(
            per_request(score_lists(assembly, assembly.described(test, drawn), ranker.score).rows, test, METRICS)
        )
        assert trained.metrics["rank"]["auc"] > 0.8
        assert found["auc"] == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / len(test)))  # a rank drawn evenly from 0..1
