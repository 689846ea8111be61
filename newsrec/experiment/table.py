"""One table of all cells, each beside the baseline with paired intervals over the same requests."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import polars as pl

from newsrec.evaluation.comparison import paired_comparison
from newsrec.experiment.cells import first_reaching
from newsrec.experiment.config import Cell
from newsrec.experiment.kept import Kept
from newsrec.metrics import METRICS

COMPARED: Final = ("auc", "gauc", "mrr@5")


def table_of(cells: Sequence[Cell], seeds: Iterable[int], baseline: Cell, kept: Kept) -> pl.DataFrame:
    """Lay the cells out.

    Returns:
        One row per cell, means over the seeds. What is trained on: `negatives, ratio, weighted, params,
        negatives_per_click`. For `auc`, `gauc` and `mrr@5` the value, its `_gain` over the baseline and the ends
        `_low`, `_high` of the paired 95 % interval (users drawn; a request's value is its mean over the seeds).
        `auc_hard, auc_easy`; `auc_sampled, mrr@5_sampled`: what sampled test lists would have said; `ece_before,
        ece_after` (by the click rate),
        `normalised_entropy` after, `true_ece_*` where the truth is known, `closed_form`; `seconds, trees`;
        `seconds_to_baseline`: until validation is as good as the baseline's best, null if never; `gap`: training curve
        minus validation curve where validation is best; `gain_in_common`: share of the feature importance that both
        models put on the same features.
    """
    seeds = list(seeds)
    first = _per_request(baseline, seeds, kept)
    usual = [kept.figures(baseline.with_seed(seed).key) for seed in seeds]
    rows = []
    for cell in cells:
        told = [kept.figures(cell.with_seed(seed).key) for seed in seeds]
        differences = paired_comparison(first, _per_request(cell, seeds, kept), {}, {})
        row: dict[str, Any] = {**cell.facts(), "negatives_per_click": mean([_per_click(t) for t in told])}
        for name in COMPARED:
            if (d := differences.get(name)) is not None:
                row |= {name: d.second, f"{name}_gain": d.difference, f"{name}_low": d.low, f"{name}_high": d.high}
        rows.append(row | _further(told, usual))
    return pl.DataFrame(rows, infer_schema_length=None)


def _further(told: list[dict[str, Any]], usual: list[dict[str, Any]]) -> dict[str, Any]:
    after = [t["calibration"]["after"] for t in told]
    before = [t["calibration"]["before"] for t in told]
    closed = [t["calibration"].get("closed_form", {}).get("ece_share") for t in told]
    common = [_in_common(t["importance"], u["importance"]) for t, u in zip(told, usual, strict=True)]
    return {
        "auc_hard": mean([t["auc_hard"] for t in told]),
        "auc_easy": mean([t["auc_easy"] for t in told]),
        "auc_sampled": mean([t["on_sampled_lists"].get("auc") for t in told]),
        "mrr@5_sampled": mean([t["on_sampled_lists"].get("mrr@5") for t in told]),
        "ece_before": mean([each["ece_share"] for each in before]),
        "ece_after": mean([each["ece_share"] for each in after]),
        "true_ece_before": mean([each.get("true_ece_share") for each in before]),
        "true_ece_after": mean([each.get("true_ece_share") for each in after]),
        "closed_form": mean(closed),
        "normalised_entropy": mean([each["normalised_entropy"] for each in after]),
        "seconds": mean([t["seconds"] for t in told]),
        "trees": mean([t["best_iteration"] for t in told]),
        "seconds_to_baseline": mean([_to_reach(t, u) for t, u in zip(told, usual, strict=True)]),
        "gap": mean([_gap(t) for t in told]),
        "gain_in_common": mean(common),
    }


def _per_request(cell: Cell, seeds: list[int], kept: Kept) -> pl.DataFrame:
    """Each request's values, averaged over the seeds."""
    frames = pl.concat([kept.per_request(cell.with_seed(seed).key) for seed in seeds])
    means = [pl.col(name).mean() for name in METRICS]
    return frames.group_by("request_id", maintain_order=True).agg(pl.col("user_id", "n_candidates").first(), *means)


def _per_click(told: dict[str, Any]) -> float:
    return float(told["rows"]["others"] / max(told["rows"]["clicked"], 1))


def _to_reach(told: dict[str, Any], usual: dict[str, Any]) -> float | None:
    place = first_reaching(told["curves"]["valid"], max(usual["curves"]["valid"], default=float("inf")))
    return None if place is None else told["seconds"] * place / max(told["iterations"], 1)


def _gap(told: dict[str, Any]) -> float | None:
    curves, best = told["curves"], told["best_iteration"]
    if not curves["train"] or not curves["valid"]:
        return None
    return float(curves["train"][best - 1] - curves["valid"][best - 1])


def _in_common(one: dict[str, float], two: dict[str, float]) -> float:
    # Shares that sum to one do so up to rounding.
    return min(1.0, sum(min(gain, two.get(name, 0.0)) for name, gain in one.items()))


def mean(values: list[Any]) -> float | None:
    """Of the values that are there."""
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None
