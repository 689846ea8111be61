"""Off-policy estimates: by hand, unbiased by enumeration, refused where little speaks, and true on the simulator."""

import itertools
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newsrec.errors import DataError, UsageError
from newsrec.evaluation.first_place import first_place
from newsrec.evaluation.offpolicy import ESTIMATORS, off_policy
from newsrec.metrics import effective_size
from newsrec.simulate import Simulation, SimulationConfig, simulate, true_click_rate
from newsrec.simulate.clicks import click_chances, examination

FOUR = pl.DataFrame(
    {
        "reward": [1.0, 0.0, 1.0, 0.0],
        "propensity": [0.5, 0.5, 0.25, 0.25],
        "target": [1.0, 0.0, 0.5, 1.0],
        "predicted": [0.5, 0.5, 0.25, 0.25],
        "predicted_target": [0.6, 0.2, 0.4, 0.4],
    }
)
"""Weights 2, 0, 2, 4."""


def test_each_estimator_by_hand() -> None:
    found = off_policy(FOUR, floor=1)
    assert found["ips"].value == pytest.approx((2 + 2) / 4)
    assert found["snips"].value == pytest.approx((2 + 2) / 8)
    assert found["dr"].value == pytest.approx((1.6 + (2 * 0.5 + 2 * 0.75 - 4 * 0.25)) / 4)
    assert {each.effective for each in found.values()} == {64 / 24}
    assert all(each.low < each.value < each.high for each in found.values())


def test_without_predictions_there_is_no_doubly_robust_estimate() -> None:
    assert list(off_policy(FOUR.select("reward", "propensity", "target"), floor=1)) == ["ips", "snips"]


def test_clipping_cuts_weights_and_says_how_many() -> None:
    found = off_policy(FOUR, floor=1, clip=2.0)
    assert found["ips"].clipped == 0.25
    assert found["snips"].value == pytest.approx(4 / 6)
    assert effective_size(np.array([2.0, 0, 2, 2])) == 3.0
    assert found["snips"].effective == 3.0


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_of_the_logging_policy_itself_give_what_was_logged(name: str) -> None:
    rng = np.random.default_rng(0)
    propensity, reward = rng.uniform(0.05, 1, 500), rng.random(500)
    predicted = rng.random(500)
    same = {"reward": reward, "propensity": propensity, "target": propensity}
    found = off_policy(pl.DataFrame({**same, "predicted": predicted, "predicted_target": predicted}))[name]
    assert found.value == pytest.approx(reward.mean())
    assert found.effective == pytest.approx(500)


@given(
    logging=st.lists(st.floats(0.1, 1), min_size=3, max_size=3),
    target=st.lists(st.floats(0.1, 1), min_size=3, max_size=3),
    reward=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    guess=st.lists(st.floats(0, 1), min_size=3, max_size=3),
)
@settings(max_examples=25, deadline=None)
def test_ips_and_dr_are_unbiased_whatever_the_prediction(
    logging: list[float], target: list[float], reward: list[float], guess: list[float]
) -> None:
    """Every log of two decisions among three actions, each weighed by how likely it is."""
    mu, pi = (np.array(p) / sum(p) for p in (logging, target))
    value = dict.fromkeys(("ips", "dr"), 0.0)
    for actions in itertools.product(range(3), repeat=2):
        at = list(actions)
        rows = {"reward": np.array(reward)[at], "propensity": mu[at], "target": pi[at]}
        model = {"predicted": np.array(guess)[at], "predicted_target": np.full(2, pi @ guess)}
        found = off_policy(pl.DataFrame({**rows, **model}), floor=0)
        for name in value:
            value[name] += float(mu[at].prod()) * found[name].value
    assert value == pytest.approx(dict.fromkeys(value, float(pi @ np.array(reward))))


def test_decisions_of_one_user_are_one_draw() -> None:
    """Every decision four times: the same estimate, twice as wide as four decisions would be, as wide as one."""
    rng = np.random.default_rng(0)
    rows = pl.DataFrame({"reward": rng.random(200), "propensity": 0.5, "target": rng.random(200)})
    four = pl.concat([rows.with_row_index("user_id")] * 4)
    once, alone, together = (off_policy(frame)["ips"] for frame in (rows, four.drop("user_id"), four))
    assert once.value == pytest.approx(together.value)
    assert together.high - together.low == pytest.approx(once.high - once.low)
    assert together.high - together.low == pytest.approx(2 * (alone.high - alone.low), rel=0.01)


def test_bootstrap_and_normal_intervals_agree() -> None:
    rng = np.random.default_rng(0)
    rows = pl.DataFrame({"reward": rng.random(3_000) < 0.3, "propensity": 0.5, "target": rng.random(3_000)})
    normal, drawn = (off_policy(rows, interval=kind) for kind in ("normal", "bootstrap"))
    for name in normal:
        assert (normal[name].low, normal[name].high) == pytest.approx((drawn[name].low, drawn[name].high), abs=0.004)


def test_too_few_effective_decisions_are_refused_with_their_number() -> None:
    rows = pl.DataFrame({"reward": 1.0, "propensity": 0.5, "target": [1.0] * 99 + [0.0] * 901})
    with pytest.raises(DataError, match=r"at least 100 effective decisions, found 99\.0 of 1,000"):
        off_policy(rows)
    assert off_policy(rows, floor=99)["snips"].value == 1.0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"propensity": 0.0}, "'propensity' not above 0"),
        ({"propensity": 1.5}, "'propensity' not above 0"),
        ({"target": -0.1}, "'target' outside"),
        ({"reward": float("nan")}, "'reward' null or not finite"),
        ({"predicted": None}, "'predicted' null"),
    ],
)
def test_values_out_of_range_are_refused(change: dict[str, float | None], told: str) -> None:
    with pytest.raises(DataError, match=told):
        off_policy(FOUR.with_columns(**{name: pl.lit(value) for name, value in change.items()}), floor=0)


@pytest.mark.parametrize("gone", ["target", "predicted"])
def test_missing_columns_are_named(gone: str) -> None:
    with pytest.raises(DataError, match=f"Add .'{gone}'"):
        off_policy(FOUR.drop(gone))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="clip=0"):
        off_policy(FOUR, clip=0)
    with pytest.raises(UsageError, match="between 0 and 1, found 1"):
        off_policy(FOUR, level=1)


LISTS = pl.DataFrame(
    {
        "request_id": [1, 1, 2, 2, 2, 3, 3],
        "user_id": ["a", "a", "b", "b", "b", "a", "a"],
        "item_id": [10, 11, 10, 11, 12, 10, 11],
        "position": [2, 1, 1, 2, 3, 1, 2],
        "clicked": [True, False, False, False, False, False, True],
    }
)


def test_first_place_reads_who_stood_on_top_and_what_the_list_earned() -> None:
    scores = LISTS.select("request_id", "item_id", score=pl.Series([0.1, 0.9, 0.5, 0.5, 0.1, 0.1, 0.2]))
    found = first_place(LISTS, scores)
    assert found["request_id"].to_list() == [1, 2, 3]
    assert found["reward"].to_list() == [1.0, 0.0, 1.0]
    assert found["propensity"].to_list() == pytest.approx([1 / 2, 1 / 3, 1 / 2])
    assert found["target"].to_list() == [1.0, 0.5, 0.0]
    assert found.select("predicted", "predicted_target").null_count().sum_horizontal().item() == 0


def test_prediction_of_a_list_comes_from_users_of_the_other_half() -> None:
    """The clicks of one user are taken away; no prediction of that user's own lists moves."""
    many = pl.concat([LISTS.with_columns(pl.col("user_id") + str(i), pl.col("request_id") + 3 * i) for i in range(40)])
    scores = many.select("request_id", "item_id", score=pl.col("item_id").cast(pl.Float64))
    mine = pl.col("user_id") == "a7"
    turned = many.with_columns(pl.when(mine).then(False).otherwise("clicked").alias("clicked"))
    before, after = (first_place(frame, scores) for frame in (many, turned))
    columns = ["predicted", "predicted_target"]
    assert before.filter(mine).select(columns).equals(after.filter(mine).select(columns))
    assert not before.select(columns).equals(after.select(columns))


def test_first_place_names_what_lacks() -> None:
    with pytest.raises(DataError, match="position"):
        first_place(LISTS.drop("position"), LISTS.select("request_id", "item_id", score=1.0))
    with pytest.raises(DataError, match="no article in both"):
        first_place(LISTS, LISTS.select(pl.col("request_id") + 100, "item_id", score=1.0))


@pytest.fixture(scope="module")
def world() -> Simulation:
    return simulate(SimulationConfig(users=500, days=3, seed=5))


def fresh(simulation: Simulation) -> pl.DataFrame:
    """The policy that puts the freshest article on top."""
    made = simulation.log.articles.select("item_id", score=pl.col("created_at").to_physical().cast(pl.Float64))
    return simulation.truth.exposures.select("request_id", "item_id").join(made, on="item_id", maintain_order="left")


def test_true_rate_of_the_first_article_as_logged_is_the_logged_rate(world: Simulation) -> None:
    """The order was random, so its own first article on top changes nothing on average."""
    shown = world.log.impressions
    assert shown is not None
    first = shown.filter(pl.col("position") == 1).select("request_id", "item_id")
    truth = true_click_rate(world, first)["click_probability"].mean()
    by_list = world.truth.exposures.group_by("request_id").agg(pl.col("click_probability").sum())
    assert truth == pytest.approx(by_list["click_probability"].mean(), abs=0.003)


def test_true_rate_refuses_an_article_of_another_list(world: Simulation) -> None:
    stranger = world.truth.exposures.head(1).select("request_id", item_id=pl.lit(-1, pl.Int64))
    with pytest.raises(DataError, match="1 of 1 that were not in it"):
        true_click_rate(world, stranger)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_interval_covers_the_true_value_in_90_of_100_logs(world: Simulation, name: str) -> None:
    """The same lists, their order and clicks drawn anew a hundred times by the readers' own chances."""
    policy, exposures = fresh(world), world.truth.exposures
    best = policy.sort("score", "item_id", descending=True).unique("request_id", keep="first", maintain_order=True)
    truth = float(true_click_rate(world, best.select("request_id", "item_id"))["click_probability"].mean())  # type: ignore[arg-type]
    request = exposures["request_id"].rle_id().to_numpy()
    starts = np.flatnonzero(np.diff(request, prepend=-1))
    worth = np.exp(exposures["utility"].to_numpy().astype(float))
    position = 1 + np.arange(len(request)) - starts[request]
    user = world.log.impressions["user_id"].to_numpy()[starts]  # type: ignore[index]
    is_best = policy.join(best.select("request_id", "item_id", on_top=1.0), on=["request_id", "item_id"], how="left")
    on_top = is_best["on_top"].fill_null(0.0).to_numpy()
    inside = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        order = np.lexsort((rng.random(len(request)), request))
        chance = click_chances(np.add.reduceat(examination(position) * worth[order], starts))
        first = on_top[order][starts]
        rows = {"user_id": user, "reward": rng.random(len(starts)) < chance, "target": first}
        propensity = 1 / np.diff(starts, append=len(request))
        model = {"predicted": 0.5 + 0.1 * first, "predicted_target": 0.6}
        found = off_policy(pl.DataFrame({**rows, "propensity": propensity, **model}))[name]
        inside += found.low <= truth <= found.high
    assert inside >= 90


REAL = os.environ.get("NEWSREC_TEST_DATA")


def open_bandit(campaign: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Decisions of Bernoulli Thompson sampling with the random policy as the target, and those of the random policy."""
    names = {"click": "reward", "propensity_score": "propensity"}
    logs = (pl.read_parquet(Path(str(REAL)) / "obd" / f"{policy}_{campaign}.parquet") for policy in ("bts", "random"))
    bts, random = (log.rename(names) for log in logs)
    return bts.with_columns(target=random["propensity"].max()), random.with_columns(target=pl.col("propensity"))


@pytest.mark.skipif(not REAL, reason="NEWSREC_TEST_DATA names no folder")
@pytest.mark.parametrize(("campaign", "clip"), [("men", None), ("men", 10), ("women", 10)])
def test_random_policy_is_estimated_from_another_ones_log(campaign: str, clip: float | None) -> None:
    """Where both policies ran, each estimate meets what the random one earned."""
    other, own = open_bandit(campaign)
    earned = off_policy(own)["ips"]
    assert (earned.value, earned.effective) == (own["reward"].mean(), pytest.approx(10_000))
    for each in off_policy(other, clip=clip).values():
        assert each.low <= earned.high
        assert earned.low <= each.high
        assert 600 < each.effective < 2_000


@pytest.mark.skipif(not REAL, reason="NEWSREC_TEST_DATA names no folder")
def test_a_log_that_hardly_ever_did_the_same_is_refused() -> None:
    """One decision with a propensity of a millionth outweighs the other 9,999."""
    with pytest.raises(DataError, match=r"found 2\.1 of 10,000"):
        off_policy(open_bandit("women")[0])
