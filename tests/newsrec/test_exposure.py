"""Lists weigh one by the chance that their click was shown: given or estimated, clipped, with a mean of one."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from features.events import EventStore
from newsrec.assembly import Assembly, training_data
from newsrec.candidates import SamplingConfig
from newsrec.data import Log
from newsrec.errors import DataError, UsageError
from newsrec.exposure import PROPENSITIES, estimated, exposure_weights, given, places
from newsrec.rankers import RankingData
from newsrec.rankers.lgbm import LgbmParams, LgbmRanker
from newsrec.recall import RecallSettings
from newsrec.slates import SPLITS
from newsrec.split import SplitConfig
from newsrec.train_config import TrainConfig
from tests.factories import articles_of, clicks_of, impressions_of, requests_of

SHOWN = impressions_of([(1, 60.0, [10, 11, 12]), (2, 70.0, [10, 13])]).with_columns(
    propensity=pl.Series([0.5, 0.25, 1.0, 0.01, 0.2]), position=pl.Series([2, 1, 3, 1, 2], dtype=pl.Int32)
)
STORE = EventStore(clicks_of([(1, 11, 61.0), (2, 10, 71.0)]), articles_of([10, 11, 12, 13, 14]), SHOWN)
REQUESTS = requests_of([(1, 60.0, 60.0), (2, 70.0, 70.0)]).with_columns(impression_id=pl.Series([1_000, 1_001]))
ROWS = pl.DataFrame(
    {
        "request_id": [100, 100, 100, 101, 101, 101],
        "item_id": [10, 11, 14, 10, 13, 12],
        "label": [0, 1, 0, 1, 0, 0],
    }
)


def test_given_is_the_column_of_the_list_and_unknown_where_it_was_not_shown() -> None:
    np.testing.assert_allclose(given(ROWS, REQUESTS, STORE), [0.5, 0.25, np.nan, 0.01, 0.2, np.nan])


def test_place_is_that_in_the_list_and_0_outside() -> None:
    assert places(ROWS, REQUESTS, STORE).tolist() == [2, 1, 0, 1, 2, 0]


def test_weight_is_one_by_the_clicks_propensity_clipped_for_the_whole_list() -> None:
    found = exposure_weights(ROWS, REQUESTS, STORE, "given", 20.0)
    assert found.tolist() == [4, 4, 4, 20, 20, 20]
    assert exposure_weights(ROWS, REQUESTS, STORE, "none", 20.0).tolist() == [1] * 6
    unknown = ROWS.with_columns(label=pl.Series([0, 0, 1, 1, 1, 0]))
    assert exposure_weights(unknown, REQUESTS, STORE, "given", 20.0).tolist() == [1, 1, 1, 12.5, 12.5, 12.5]


def test_estimate_by_hand_and_only_of_lists_before_the_request() -> None:
    """At minute 70 one list of the hour and the day is known; it held 10, 11 and 12."""
    found = estimated(ROWS, REQUESTS, STORE)
    first, second = (0 + 1) / (0 + 50), (1 + 1) / (1 + 50)
    unseen = (0 + 1) / (1 + 50)
    assert found[:3] == pytest.approx([50 * first / 50] * 3)
    assert found[3:] == pytest.approx([(1 + 50 * second) / 51, 50 * unseen / 51, (1 + 50 * second) / 51])
    hours = pl.duration(hours=5)
    later = pl.concat([SHOWN, SHOWN.with_columns(pl.col("request_id") + 50, pl.col("requested_at") + hours)])
    grown = EventStore(STORE.clicks, STORE.articles, later)
    np.testing.assert_array_equal(estimated(ROWS, REQUESTS, grown), found)


def test_estimate_orders_articles_as_the_true_propensities_do(log: Log) -> None:
    """The truth is each reader's own, the estimate one for all: the order of the articles' means agrees."""
    store = EventStore(log.clicks, log.articles, log.impressions)
    split = SPLITS["slate"](log, store, SplitConfig())
    requests = split.part("valid")
    assert split.slates is not None
    rows = split.slates.join(requests.select("request_id"), on="request_id", how="semi", maintain_order="left")
    told = rows.with_columns(
        true=pl.Series(given(rows, requests, store)), guess=pl.Series(estimated(rows, requests, store))
    )
    means = told.group_by("item_id").agg(pl.len(), pl.col("true", "guess").mean()).filter(pl.col("len") >= 10)
    assert len(means) > 30
    assert means.select(pl.corr("true", "guess", method="spearman")).item() > 0.6
    assert told["guess"].is_between(0, 1).all()


def slates() -> tuple[Assembly, pl.DataFrame]:
    lists = SHOWN.join(REQUESTS.select("request_id", "impression_id"), left_on="request_id", right_on="impression_id")
    own = lists.select(pl.col("request_id_right").alias("request_id"), "item_id")
    return Assembly.of(STORE, (), RecallSettings(), slates=own), ROWS.filter(pl.col("label") == 1)


@pytest.mark.parametrize("source", PROPENSITIES)
def test_training_rows_weigh_one_on_average_over_the_clicks(source: str) -> None:
    assembly, positives = slates()
    config = SamplingConfig(exposure=source, exposure_clip=8.0, places=True)
    data = training_data(assembly, REQUESTS, positives, config)
    assert data.weight[data.label == 1].mean() == pytest.approx(1)
    if source == "given":
        assert data.weight.tolist() == pytest.approx([4 / 6] * 3 + [8 / 6] * 2)
    assert data.place is not None
    assert data.place.tolist() == [2, 1, 3, 1, 2]
    assert training_data(assembly, REQUESTS, positives, replace(config, places=False)).place is None


@pytest.mark.parametrize(("source", "store"), [("given", STORE.clicks), ("estimated", STORE.clicks)])
def test_log_without_impressions_is_refused(source: str, store: pl.DataFrame) -> None:
    bare = EventStore(store, STORE.articles)
    with pytest.raises(UsageError, match="impressions"):
        exposure_weights(ROWS, REQUESTS, bare, source, 10.0)


@pytest.mark.parametrize("changes", [{"exposure": "guessed"}, {"exposure": "given", "exposure_clip": 0.5}])
def test_unknown_source_and_clip_below_1_are_refused(changes: dict[str, object]) -> None:
    config = TrainConfig(sampling=SamplingConfig(**changes))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--exposure: expected one of"):
        config.refuse_contradictions()


def placed(n: int = 600, length: int = 8) -> RankingData:
    """Lists whose clicks come from the place and from `worth`; `loud` decides the place and nothing else."""
    rng = np.random.default_rng(0)
    loud, worth = rng.random((2, n, length))
    place = 1 + np.argsort(np.argsort(-(loud + 0.3 * rng.random((n, length))), axis=1), axis=1)
    chance = np.exp(3 * worth) / place**1.5
    chosen = np.argmax(np.log(chance) + rng.gumbel(size=(n, length)), axis=1)
    label = (np.arange(length) == chosen[:, None]).astype(np.uint8)
    features = pl.DataFrame({"loud": loud.ravel(), "worth": worth.ravel()}).cast(pl.Float32)
    ones = np.ones(n * length)
    return RankingData(features, label.ravel(), np.repeat(np.arange(n), length), ones, place.ravel())


def test_position_bias_takes_what_the_place_did_out_of_the_scores() -> None:
    data, follows = placed(), {}
    for biased in (False, True):
        params = LgbmParams(trees=20, num_leaves=7, min_data_in_leaf=20, models=1, threads=1, position_bias=biased)
        scores = LgbmRanker(replace(params, feature_fraction=1.0)).fit(data, None).score(data.features)
        follows[biased] = [np.corrcoef(scores, data.features[name])[0, 1] for name in ("worth", "loud")]
    assert follows[True][0] > 0.7 > follows[False][0] + 0.1
    assert follows[True][1] + 0.1 < 0.7 < follows[False][1]


def test_position_bias_without_places_or_for_another_objective_is_refused() -> None:
    with pytest.raises(DataError, match="expected the place at which each row was shown"):
        LgbmRanker(LgbmParams(position_bias=True)).fit(replace(placed(20), place=None), None)
    with pytest.raises(UsageError, match="position_bias: the objective lambdarank, found 'binary'"):
        LgbmParams(position_bias=True, objective="binary")
