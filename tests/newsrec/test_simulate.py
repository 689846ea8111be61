"""The simulated log: repeatable, canonical, like the real ones in its figures, and with the truth that it promises."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from features.columns import CLICK_KEY, CONTEXT, TIME
from newsrec.errors import UsageError
from newsrec.simulate import Simulation, SimulationConfig, simulate, statistics, write_simulation
from newsrec.simulate.clicks import examination
from newsrec.simulate.exposure import MAX_PROPENSITY, draw_slates
from newsrec.simulate.frames import truth_frames
from newsrec.simulate.traffic import PAUSE, make_world

SMALL = SimulationConfig(users=600, days=2, seed=5)
MIDDLE = SimulationConfig(users=4000, days=3, seed=1)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def small() -> Simulation:
    return simulate(SMALL)


@pytest.fixture(scope="module")
def middle() -> Simulation:
    return simulate(MIDDLE)


@pytest.fixture(scope="module")
def shown(middle: Simulation) -> pl.DataFrame:
    """Impressions of the middle log beside their truth, row by row."""
    return impressions(middle).hstack(middle.truth.exposures.drop("request_id", "item_id", "propensity"))


def impressions(simulation: Simulation) -> pl.DataFrame:
    frame = simulation.log.impressions
    assert frame is not None
    return frame


def figure(simulation: Simulation, name: str) -> float:
    return float(statistics(simulation.log).filter(pl.col("statistic") == name)["simulated"].item())


# Repeatable


def test_same_config_gives_the_same_log_in_another_process_with_one_thread(small: Simulation) -> None:
    code = (
        "from newsrec.simulate import *; "
        f"print(simulate(SimulationConfig(users={SMALL.users}, days={SMALL.days}, seed={SMALL.seed})).log.fingerprint)"
    )
    surroundings = os.environ | {"PYTHONHASHSEED": "4321", "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=surroundings, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == small.log.fingerprint


def test_truth_is_repeated_too(small: Simulation) -> None:
    again = simulate(SMALL)
    for name, frame in truth_frames(small.truth).items():
        assert_frame_equal(frame, truth_frames(again.truth)[name], check_exact=True)


def test_another_seed_is_another_world(small: Simulation) -> None:
    other = simulate(SimulationConfig(users=SMALL.users, days=SMALL.days, seed=SMALL.seed + 1))
    assert other.log.fingerprint != small.log.fingerprint
    assert not other.log.clicks.equals(small.log.clicks)
    assert not other.log.articles.equals(small.log.articles)


def test_strengths_change_the_clicks_but_not_the_readers_visits() -> None:
    plain, loud = (make_world(SimulationConfig(users=200, days=1, interest_strength=s)) for s in (0.0, 9.0))
    np.testing.assert_array_equal(plain.traffic.time, loud.traffic.time)
    np.testing.assert_array_equal(plain.articles.created, loud.articles.created)


# Canonical


def test_frames_have_the_canonical_columns(small: Simulation) -> None:
    log = small.log
    context = dict.fromkeys(CONTEXT, pl.Int32)
    ids = {"user_id": pl.Int64, "item_id": pl.Int64}
    assert log.format == "simulated"
    assert dict(log.clicks.schema) == {**ids, "clicked_at": TIME, **context, "dwell_seconds": pl.Float32}
    assert dict(log.articles.schema) == {
        "item_id": pl.Int64,
        "category": pl.Int32,
        "created_at": TIME,
        "words": pl.Int32,
        "publisher": pl.Int32,
        "embedding": pl.Array(pl.Float32, 16),
    }
    assert dict(impressions(small).schema) == {
        "request_id": pl.Int64,
        "user_id": pl.Int64,
        "requested_at": TIME,
        "item_id": pl.Int64,
        "clicked": pl.Boolean,
        "position": pl.Int32,
        "propensity": pl.Float32,
        "shared": pl.Boolean,
        "dwell_seconds": pl.Float32,
    }
    assert len(log.fingerprint) == 64


def test_frames_are_sorted_and_without_repetition(small: Simulation) -> None:
    clicks, articles = small.log.clicks, small.log.articles
    assert_frame_equal(clicks, clicks.sort("clicked_at", "user_id", "item_id", maintain_order=True))
    assert not clicks.select(CLICK_KEY).is_duplicated().any()
    assert articles["item_id"].is_unique().all()
    assert articles["item_id"].is_sorted()
    frame = impressions(small)
    assert_frame_equal(frame, frame.sort("request_id", "position", maintain_order=True))
    assert not frame.select("request_id", "item_id").is_duplicated().any()
    assert frame["requested_at"].is_sorted()
    assert set(clicks["item_id"]) <= set(articles["item_id"])


def test_only_what_was_clicked_has_a_reading(small: Simulation) -> None:
    frame = impressions(small)
    assert frame.filter("clicked")["dwell_seconds"].null_count() == 0
    assert frame.filter("clicked")["dwell_seconds"].min() > 0  # type: ignore[operator]
    rest = frame.filter(~pl.col("clicked"))
    assert rest["dwell_seconds"].null_count() == rest.height
    assert not rest["shared"].any()


def test_each_click_follows_its_impression_by_seconds(middle: Simulation) -> None:
    frame = impressions(middle).filter("clicked")
    clicks = middle.log.clicks
    assert clicks.height == frame.height
    joined = clicks.join(frame, on=["user_id", "item_id"], how="inner")
    delay = joined.select((pl.col("clicked_at") - pl.col("requested_at")).dt.total_milliseconds()).to_series()
    assert joined.height == clicks.height
    assert delay.min() >= 2_000  # type: ignore[operator]
    assert delay.max() <= 12_000  # type: ignore[operator]


def test_nothing_is_shown_before_it_is_created(middle: Simulation) -> None:
    frame = impressions(middle).join(middle.log.articles, on="item_id", how="left")
    assert frame["created_at"].null_count() == 0
    assert frame.select((pl.col("created_at") < pl.col("requested_at")).all()).item()


def test_clicked_articles_are_not_shown_again(middle: Simulation) -> None:
    clicks = middle.log.clicks.select("user_id", "item_id", "clicked_at")
    again = impressions(middle).join(clicks, on=["user_id", "item_id"], how="inner")
    assert again.filter(pl.col("requested_at") > pl.col("clicked_at")).is_empty()


def test_log_stays_inside_its_days(small: Simulation) -> None:
    asked = impressions(small)["requested_at"]
    assert asked.min() >= SMALL.start  # type: ignore[operator]
    assert asked.max() < SMALL.start + timedelta(days=SMALL.days)  # type: ignore[operator]


# Like the real logs


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("clicks per user, median", 1.0),
        ("clicks per user, p90", 3.0),
        ("clicks per user, p99", 15.0),
        ("clicks on the top articles, scaled", 0.06),
        ("age at click, median hours", 1.5),
        ("slate size, mean", 0.6),
    ],
)
def test_figures_are_near_the_real_ones(middle: Simulation, name: str, tolerance: float) -> None:
    row = statistics(middle.log).filter(pl.col("statistic") == name).row(0, named=True)
    assert abs(row["simulated"] - row["real"]) <= tolerance


def test_click_rate_and_second_action_are_in_range(middle: Simulation) -> None:
    assert 0.06 < figure(middle, "click rate of what is shown") < 0.10
    assert 0.02 < figure(middle, "clicks that are passed on") < 0.12
    assert 2.0 < figure(middle, "clicks per session") < 3.0


def test_visits_follow_the_day(middle: Simulation) -> None:
    hours = impressions(middle)["requested_at"].dt.hour()
    night, evening = hours.is_between(3, 5).sum(), hours.is_between(18, 20).sum()
    assert evening > 4 * night


def test_pauses_inside_sessions_are_short_and_no_gap_is_frequent(middle: Simulation) -> None:
    asked = impressions(middle).unique("request_id").sort("user_id", "requested_at")
    gaps = np.diff(asked["requested_at"].dt.epoch("ms").to_numpy())
    gaps = gaps[np.diff(asked["user_id"].to_numpy()) == 0]
    short = gaps[gaps < PAUSE]
    assert short.min() >= 12_000
    _, counts = np.unique(short, return_counts=True)
    assert counts.max() <= 12  # about 20,000 gaps over a few hundred thousand possible values


def test_cutting_at_half_an_hour_finds_the_sessions_again() -> None:
    traffic = make_world(MIDDLE).traffic
    order = np.lexsort((traffic.time, traffic.user))
    time, goes_on = traffic.time[order], traffic.next_time[order] >= 0
    same = np.diff(traffic.user[order]) == 0
    gaps = np.diff(time)
    assert gaps[same & goes_on[:-1]].max() < PAUSE
    assert gaps[same & ~goes_on[:-1]].min() > PAUSE
    np.testing.assert_array_equal(traffic.next_time[order][goes_on], time[1:][goes_on[:-1]])


def test_a_reading_ends_before_the_next_page_is_asked_for(middle: Simulation) -> None:
    asked = impressions(middle).unique("request_id").select("user_id", "requested_at").sort("requested_at")
    clicks = middle.log.clicks.select("user_id", "clicked_at", "dwell_seconds")
    following = clicks.join_asof(
        asked, left_on="clicked_at", right_on="requested_at", by="user_id", strategy="forward", check_sortedness=False
    ).drop_nulls()
    end = pl.col("clicked_at") + pl.duration(milliseconds=(pl.col("dwell_seconds") * 1000).floor())
    assert following.height > 10_000
    assert following.select((end <= pl.col("requested_at")).mean()).item() > 0.9999


def test_statistics_of_a_log_without_impressions_are_null_where_nothing_is_known(small: Simulation) -> None:
    log = small.log
    bare = type(log)("bare", log.clicks, log.articles.select("item_id"))
    table = statistics(bare)
    assert table.columns == ["statistic", "simulated", "real", "note"]
    unknown = set(table.filter(pl.col("simulated").is_null())["statistic"])
    assert {"slate size, mean", "click rate of what is shown", "age at click, median hours"} <= unknown
    assert "clicks per user, median" not in unknown
    empty = statistics(type(log)("empty", log.clicks.clear(), log.articles))
    assert empty["simulated"].drop_nulls().sum() == 0


# The planted truth


def test_slates_are_drawn_with_the_probabilities_that_were_asked_for() -> None:
    rng = np.random.default_rng(0)
    wanted = np.minimum(rng.gamma(0.5, 0.3, 40), MAX_PROPENSITY)
    wanted[7] = 0.0
    row, column = draw_slates(rng, np.tile(wanted, (20_000, 1)))
    seen = np.bincount(column, minlength=40) / 20_000
    sizes = np.bincount(row)
    assert seen[7] == 0
    np.testing.assert_allclose(seen, wanted, atol=0.015)
    assert set(np.unique(sizes)) <= {int(wanted.sum()), int(wanted.sum()) + 1}


def test_slates_are_in_random_order() -> None:
    _, column = draw_slates(np.random.default_rng(0), np.full((6000, 10), 0.3))
    first = np.bincount(column[::3], minlength=10) / 6000  # three articles in each slate
    np.testing.assert_allclose(first, 0.1, atol=0.02)


def test_inverse_propensities_count_the_eligible_articles(middle: Simulation, shown: pl.DataFrame) -> None:
    weight = shown.group_by("request_id").agg((1 / pl.col("propensity")).sum().alias("estimate"))
    both = weight.join(middle.truth.requests, on="request_id", how="inner")
    assert both.height == impressions(middle)["request_id"].n_unique()
    assert both["estimate"].mean() == pytest.approx(both["eligible"].mean(), rel=0.03)


def test_inverse_propensities_give_the_mean_quality_of_what_could_be_shown(middle: Simulation) -> None:
    # The policy shows good articles more often; the weights undo exactly that.
    frame = impressions(middle).join(middle.truth.articles, on="item_id", how="left", maintain_order="left")
    weight = 1 / frame["propensity"].to_numpy().astype(np.float64)
    quality = frame["quality"].to_numpy()
    alive = middle.truth.articles["quality"].mean()
    assert quality.mean() > 0.3 + np.average(quality, weights=weight)
    assert np.average(quality, weights=weight) == pytest.approx(alive, abs=0.12)


def test_propensities_are_probabilities(shown: pl.DataFrame) -> None:
    assert shown["propensity"].min() > 0  # type: ignore[operator]
    assert shown["propensity"].max() <= np.float32(MAX_PROPENSITY)  # type: ignore[operator]


def test_clicks_come_at_their_true_probability(shown: pl.DataFrame) -> None:
    table = (
        shown.with_columns(tenth=pl.col("click_probability").rank("ordinal") * 10 // (pl.len() + 1))
        .group_by("tenth", maintain_order=True)
        .agg(pl.col("clicked").mean(), pl.col("click_probability").mean(), pl.len())
    )
    deviation = (table["clicked"] * (1 - table["clicked"]) / table["len"]).sqrt()
    assert table.height == 10
    assert ((table["clicked"] - table["click_probability"]).abs() <= 4 * deviation + 1e-4).all()


def test_position_bias_is_the_planted_one(shown: pl.DataFrame) -> None:
    rate = shown.group_by("position").agg(pl.col("clicked").mean()).sort("position")["clicked"]
    assert rate[0] > 1.3 * rate[2] > 1.3 * rate[8]
    assert examination(np.array([1]))[0] == 1.0
    worth = shown.group_by("position").agg(pl.col("utility").mean()).sort("position")["utility"].head(5)
    assert worth.max() - worth.min() < 0.1  # type: ignore[operator]


def test_clicked_articles_have_more_utility_and_longer_readings_more_still(shown: pl.DataFrame) -> None:
    chosen, passed = shown.filter("clicked"), shown.filter(~pl.col("clicked"))
    assert chosen["utility"].mean() > passed["utility"].mean() + 1  # type: ignore[operator]
    assert chosen.filter("shared")["utility"].mean() > chosen["utility"].mean()  # type: ignore[operator]


def test_readers_click_in_their_own_categories(middle: Simulation) -> None:
    log, users = middle.log, middle.truth.users
    clicks = log.clicks.join(log.articles, on="item_id", how="left", maintain_order="left")
    clicks = clicks.join(users, on="user_id", how="left", maintain_order="left")
    interests = clicks["interests"].to_numpy()
    own = interests[np.arange(clicks.height), clicks["category"].to_numpy()].mean()
    strangers = np.roll(interests, 1, axis=0)[np.arange(clicks.height), clicks["category"].to_numpy()].mean()
    assert own > 1.8 * strangers
    np.testing.assert_allclose(users["interests"].to_numpy().sum(axis=1), 1.0, rtol=1e-5)


def same_story(simulation: Simulation) -> float:
    """Share of clicks on the story of the reader's click before."""
    ordered = simulation.log.clicks.join(simulation.truth.articles, on="item_id", how="left").sort(
        "user_id", "clicked_at"
    )
    story, user = ordered["story"].to_numpy(), ordered["user_id"].to_numpy()
    return float(np.mean(story[1:][user[1:] == user[:-1]] == story[:-1][user[1:] == user[:-1]]))


def test_the_last_click_pulls_to_its_story() -> None:
    with_pull, without = (
        same_story(simulate(SimulationConfig(users=800, days=2, sequence_strength=s))) for s in (2.5, 0.0)
    )
    assert with_pull > 1.8 * without


def hits(simulation: Simulation, score: Callable[..., np.ndarray]) -> float:
    """hit@5 over a third of the last day's clicks; slow and plain, on what happened before each click."""
    clicks = simulation.log.clicks
    at = clicks["clicked_at"].dt.epoch("ms").to_numpy()
    user, item = clicks["user_id"].to_numpy(), clicks["item_id"].to_numpy()
    articles = simulation.log.articles
    n = int(articles["item_id"].max()) + 1  # type: ignore[arg-type]
    created = np.concatenate([[2**62], articles["created_at"].dt.epoch("ms").to_numpy()])
    last: dict[int, int] = {}
    seen: dict[int, list[int]] = {}
    follow = np.zeros((n, n), dtype=np.float32)
    found = []
    for row, (reader, article, now) in enumerate(zip(user.tolist(), item.tolist(), at.tolist(), strict=True)):
        if now > at[-1] - 86_400_000 and reader in last and row % 3 == 0:
            recent = item[np.searchsorted(at, now - 3_600_000) : row]
            value = score(np.bincount(recent, minlength=n), follow[last[reader]], (created < now).astype(float))
            value[seen[reader]] = -1
            value[created >= now] = -1
            found.append(article in np.argsort(-value, kind="stable")[:5])
        if reader in last:
            follow[last[reader], article] += 1
            follow[article, last[reader]] += 0.7
        last[reader] = article
        seen.setdefault(reader, []).append(article)
    assert len(found) > 500
    return float(np.mean(found))


def test_co_visitation_beats_popularity_and_popularity_beats_chance(middle: Simulation) -> None:
    rng = np.random.default_rng(0)
    chance = hits(middle, lambda popular, follow, alive: alive * rng.random(len(alive)))
    popularity = hits(middle, lambda popular, follow, alive: popular.astype(float))
    both = hits(middle, lambda popular, follow, alive: follow + 0.03 * popular)
    assert chance < 0.05
    assert 0.15 < popularity < 0.35
    assert popularity + 0.04 < both < 0.6


# Misuse and files


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"users": 0}, "'users' >= 1, got 0"),
        ({"days": -1}, "'days' >= 1, got -1"),
        ({"days": 1.5}, "a whole number for 'days', got 1.5"),
        ({"seed": -3}, "'seed' >= 0, got -3"),
        ({"users": True}, "a number for 'users', got True"),
        ({"slate_size": 5}, "'slate_size' > 5, got 5"),
        ({"slate_size": float("nan")}, "a number for 'slate_size', got nan"),
        ({"exploration": 1.2}, "'exploration' <= 1, got 1.2"),
        ({"start": datetime(2025, 1, 1)}, "'start' with a time zone"),
    ],
)
def test_a_config_that_cannot_be_is_refused_in_one_line(change: dict[str, float], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        SimulationConfig(**change)  # type: ignore[arg-type]
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(UsageError, match=r"'days' >= 1.*'users' >= 1"):
        SimulationConfig(users=0, days=0)


@pytest.mark.parametrize(
    "config",
    [
        SimulationConfig(users=1, days=1),
        SimulationConfig(users=40, days=1, articles_per_day=20, categories=2, embedding_dim=2, exploration=1.0),
        SimulationConfig(users=40, days=1, start=datetime(2024, 2, 29, 12, tzinfo=UTC), slate_size=30.0),
    ],
)
def test_the_smallest_and_oddest_worlds_work(config: SimulationConfig) -> None:
    simulation = simulate(config)
    assert impressions(simulation).height > 0
    assert statistics(simulation.log).height > 10


@pytest.mark.skipif(importlib.util.find_spec("newsrec.data.write") is None, reason="writing logs is not here yet")
def test_written_simulation_has_its_truth_beside_it(tmp_path: Path, small: Simulation) -> None:
    written = write_simulation(tmp_path / "log", config=SMALL)
    assert written.log.fingerprint == small.log.fingerprint
    for name, frame in truth_frames(small.truth).items():
        assert_frame_equal(pl.read_parquet(tmp_path / "log" / "truth" / f"{name}.parquet"), frame)
