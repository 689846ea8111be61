"""How often intervals of off-policy estimates hold the true click rate of another policy: a hundred simulated logs."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from newsrec.evaluation import first_place, off_policy
from newsrec.simulate import Simulation, SimulationConfig, simulate, true_click_rate

SEEDS = 100
ESTIMATE = ("value", "low", "high", "effective", "decisions")


def run(data: Path | None) -> Iterator[str]:
    """Another article on top, against the random order of the log; `data` is not looked at: it has no truth."""
    del data
    rows = [_one(simulate(SimulationConfig(users=1_000, days=3, seed=seed))) for seed in range(SEEDS)]
    table = (
        pl.concat(rows)
        .group_by("policy", "estimator", maintain_order=True)
        .agg(
            pl.col("truth").is_between("low", "high").sum().alias("covered"),
            (pl.col("value") - pl.col("truth")).mean().alias("bias"),
            (pl.col("high") - pl.col("low")).mean().alias("width"),
            pl.col("truth", "logged", "effective", "decisions").mean(),
        )
    )
    for row in table.iter_rows(named=True):
        yield (
            f"{row['policy']} on top, {row['estimator']}: the interval holds the true value in {row['covered']} of "
            f"{SEEDS} logs; true {row['truth']:.4f}, as logged {row['logged']:.4f}, error {row['bias']:+.4f}, mean "
            f"width {row['width']:.4f}, {row['effective']:.0f} effective of {row['decisions']:.0f} decisions"
        )


def _one(simulation: Simulation) -> pl.DataFrame:
    """Both policies on one log: the freshest article, and the one that is worth most to the reader."""
    made = simulation.log.articles.select("item_id", freshest=pl.col("created_at").to_physical().cast(pl.Float64))
    lists = simulation.truth.exposures.select("request_id", "item_id", best=pl.col("utility").cast(pl.Float64))
    lists = lists.join(made, on="item_id", maintain_order="left")
    rows = []
    for policy in ("freshest", "best"):
        scores = lists.select("request_id", "item_id", score=policy)
        top = scores.sort("score", descending=True).unique("request_id", keep="first", maintain_order=True)
        truth = true_click_rate(simulation, top)["click_probability"].mean()
        decisions = first_place(simulation.log.impressions, scores)
        usual = {"policy": policy, "truth": truth, "logged": decisions["reward"].mean()}
        rows += [
            usual | {"estimator": name, **{field: getattr(e, field) for field in ESTIMATE}}
            for name, e in off_policy(decisions).items()
        ]
    return pl.DataFrame(rows)
