"""Stage 8: figures of every stage over the same requests: what recall found, what ranking made of it, baselines."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from newsrec.calibration import Calibrator, calibration_figures, facts_of, sigmoid
from newsrec.evaluation.comparison import paired_comparison
from newsrec.evaluation.intervals import metric_intervals
from newsrec.evaluation.slices import slices
from newsrec.metrics import METRICS, Floats, logloss, per_request, summarise

RECALL_DEPTHS = (5, 50, 100)
UNIQUE_DEPTH = 50
"""A click is a channel's own if no other channel has it among so many."""


@dataclass(frozen=True)
class StageFigures:
    """Everything about one set of requests that goes into `metrics.json`, and the rows behind it."""

    figures: dict[str, Any]
    per_request: pl.DataFrame


def evaluate_stages(
    rows: pl.DataFrame,
    positive_ranks: pl.DataFrame | None,
    requests: pl.DataFrame,
    channels: Sequence[str],
    baselines: Sequence[str],
    seed: int = 0,
    probabilities: bool = False,
    reranks: bool = True,
    calibrator: Calibrator | None = None,
) -> StageFigures:
    """Compute the figures.

    Args:
        rows: Whole lists: `request_id, item_id, label, score` and one column per baseline, higher is better; `rerank`
            and `rerank_alone` where there is a network.
        positive_ranks: `request_id, item_id`, `<channel>_rank` and `recall_rank` of each clicked article, null where
            missed; None where requests bring their own lists.
        requests: `request_id, user_id, positives` and the columns that slices need.
        channels: Names of the recall channels.
        baselines: Names of the baseline columns.
        seed: Of the bootstrap.
        probabilities: Whether scores are click probabilities; `rank` then has their `logloss` over all rows.
        reranks: Whether the order of `rerank` is served where it is there; else the ranker's.
        calibrator: Gives the probability of a click for a score of the order that is served; there is then also the key
            `calibration`, with figures before (the score itself where it is a probability, else its sigmoid) and after.

    Returns:
        The keys `recall, recall_overlap, rank, baselines, intervals, slices` of `metrics.json` (the first two are empty
        where requests bring their own lists), with a network also `rerank, rerank_alone, rerank_gain`. Intervals,
        slices and the figures per request are of the order that is served.
    """
    ranked = served = _by_request(rows, "score", requests)
    of_network: dict[str, Any] = {}
    if "rerank" in rows.columns:
        blended = _by_request(rows, "rerank", requests)
        served = blended if reranks else ranked
        of_network = {
            "rerank": summarise(served),
            "rerank_alone": summarise(_by_request(rows, "rerank_alone", requests)),
            "rerank_gain": {m: asdict(d) for m, d in paired_comparison(ranked, blended, {}, {}, seed=seed).items()},
        }
    figures: dict[str, Any] = {
        **_of_recall(rows, positive_ranks, requests, channels),
        "rank": summarise(ranked) | (_of_probabilities(rows) if probabilities and len(rows) else {}),
        **of_network,
        "baselines": {name: summarise(_by_request(rows, name, requests)) for name in baselines},
        "intervals": {
            name: [round(i.low, 5), round(i.high, 5)] for name, i in metric_intervals(served, seed=seed).items()
        },
        "slices": slices(served, requests).to_dicts(),
    }
    if calibrator is not None and len(rows):
        of_network_too = "rerank" in rows.columns and reranks
        score = rows["rerank" if of_network_too else "score"].to_numpy()
        plain = score if probabilities and not of_network_too else sigmoid(score)
        figures["calibration"] = _of_calibration(calibrator, score, plain, rows["label"].to_numpy())
    return StageFigures(figures, served)


def _of_probabilities(rows: pl.DataFrame) -> dict[str, float]:
    return {"logloss": logloss(rows["score"].to_numpy(), rows["label"].to_numpy())}


def _of_calibration(calibrator: Calibrator, score: Floats, plain: Floats, label: Floats) -> dict[str, Any]:
    return {
        "method": facts_of(calibrator)["method"],
        "before": calibration_figures(plain, label),
        "after": calibration_figures(calibrator.probabilities(score), label),
    }


def _of_recall(
    rows: pl.DataFrame, positive_ranks: pl.DataFrame | None, requests: pl.DataFrame, channels: Sequence[str]
) -> dict[str, Any]:
    if positive_ranks is None:
        return {"recall": {}, "recall_overlap": {}}
    merged = _merged(rows, positive_ranks, requests)
    return {
        "recall": recall_figures(positive_ranks, channels) | {"merged": merged},
        "recall_overlap": overlap(positive_ranks, channels),
    }


def recall_figures(positive_ranks: pl.DataFrame, channels: Sequence[str]) -> dict[str, dict[str, float]]:
    """hit@k of each channel over all clicked articles, and the share that it alone has among its first 50.

    Returns:
        Channel -> `hit@5, hit@50, hit@100, unique@50`, each 0..1.
    """
    figures = {}
    for name in channels:
        others = [_within(other, UNIQUE_DEPTH) for other in channels if other != name]
        alone = _within(name, UNIQUE_DEPTH) & ~(pl.any_horizontal(others) if others else pl.lit(False))
        row = positive_ranks.select(
            *(_within(name, depth).mean().alias(f"hit@{depth}") for depth in RECALL_DEPTHS),
            alone.mean().alias(f"unique@{UNIQUE_DEPTH}"),
        )
        figures[name] = row.row(0, named=True)
    return figures


def overlap(positive_ranks: pl.DataFrame, channels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Share of what the row's channel found among its first 50 that the column's channel found there too, 0..1."""
    table: dict[str, dict[str, float]] = {}
    for name in channels:
        found = positive_ranks.filter(_within(name, UNIQUE_DEPTH))
        shares = found.select(_within(other, UNIQUE_DEPTH).mean().alias(other) for other in channels)
        table[name] = {other: float(share or 0.0) for other, share in shares.row(0, named=True).items()}
    return table


def _within(channel: str, depth: int) -> pl.Expr:
    return (pl.col(f"{channel}_rank") <= depth).fill_null(False)


def _merged(rows: pl.DataFrame, positive_ranks: pl.DataFrame, requests: pl.DataFrame) -> dict[str, float]:
    hits = positive_ranks.select(_within("recall", depth).mean().alias(f"hit@{depth}") for depth in RECALL_DEPTHS)
    ceiling = positive_ranks.join(rows.select("request_id", "item_id"), on=["request_id", "item_id"], how="semi")
    return {
        **hits.row(0, named=True),
        "ceiling": len(ceiling) / max(len(positive_ranks), 1),
        "candidates_per_request": len(rows) / max(len(requests), 1),
    }


def _by_request(rows: pl.DataFrame, score: str, requests: pl.DataFrame) -> pl.DataFrame:
    scored = rows.select("request_id", "item_id", "label", pl.col(score).alias("score"))
    return per_request(scored, requests, METRICS)
