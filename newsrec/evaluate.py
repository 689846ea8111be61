"""How good a bundle is on a log: only on clicks that it cannot have seen.

`python -m newsrec.evaluate` and the library function `evaluate` do the same.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import polars as pl

from features.columns import CLICK_KEY, TIME
from features.events import EventStore
from newsrec.assembly import score_lists
from newsrec.bundle import write_json
from newsrec.data import SHUFFLED_FORMATS, Log, ReadOptions
from newsrec.errors import DataError, UsageError
from newsrec.evaluation.comparison import Difference, paired_comparison
from newsrec.evaluation.first_place import first_place
from newsrec.evaluation.offpolicy import off_policy
from newsrec.evaluation.stages import evaluate_stages
from newsrec.process import peak_rss_mb
from newsrec.progress import Clock, Progress, Silent
from newsrec.serve import Recommender
from newsrec.slates import canonical_requests, requests_of, slates_of, unseen_slates
from newsrec.split import Split, SplitConfig, divides_by_time, held_out_requests
from newsrec.state import known_keys

LIST: Final = ("user_id", "requested_at")
"""What tells shown lists apart."""


@dataclass(frozen=True)
class EvaluateConfig:
    """What to measure."""

    run: Path
    data: Path | None = None
    """The log; None is the embedded simulated log."""
    format: str = "auto"
    json: Path | None = None
    """File for the figures."""
    frozen: bool = False
    """Statistics about articles stay as the bundle knows them, however old."""
    test_requests: int = 50_000
    """At most so many requests, sampled evenly with the bundle's seed."""
    read: ReadOptions = ReadOptions()
    features: Path | None = None
    """The file of own features that the bundle was trained with."""
    off_policy: bool = False
    """Also estimate how many lists would be clicked if the bundle chose the first article of each. Only where readers
    saw the lists in random order."""


def evaluate(config: EvaluateConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Measure a bundle on the clicks of a log that its state does not hold.

    Args:
        config: Bundle and log.
        progress: Told of stages and lines; None is silent.

    Returns:
        The figures, in the form of `metrics.json`; `off_policy` adds that key, see `newsrec.evaluation.off_policy`.

    Raises:
        NewsrecError: A damaged bundle, bad data, a log in which the bundle knows every click already, or no place for
            the figures.
    """
    from newsrec.train import read
    from newsrec.train_config import TrainConfig

    tell, clock = progress or Silent(), Clock()
    if config.json is not None and (config.json.is_dir() or not config.json.parent.is_dir()):
        raise UsageError(f"--json: expected a file in a folder that exists, found '{config.json}'. Name another.")
    with clock.time("total"):
        bundle = Recommender.load(config.run, config.features)
        with clock.time("read"):
            log = read(TrainConfig(data=config.data, format=config.format, read=config.read))
        if config.off_policy:
            _refuse_no_positions(log)
        recommender = bundle.with_log(log.clicks, log.articles, log.impressions)
        split = _unseen(bundle, recommender.store, log, config)
        requests = bundle.own.with_columns(split.requests, log.impressions)
        assembly = replace(recommender.assembly(requests), clock=clock, slates=split.slates)
        rerank = None if recommender.reranker is None else recommender.reranker.rescored
        lists = assembly.described(requests, split.positives, tell, "score")
        scored = score_lists(assembly, lists, recommender.ranker.score, rerank)
        channels = bundle.manifest["recall"]["channels"]
        result = evaluate_stages(
            scored.rows,
            scored.positive_ranks,
            requests,
            channels,
            scored.baselines,
            probabilities=recommender.ranker.gives_probabilities,
            calibrator=recommender.calibrator,
        )
        value = _value(bundle, recommender, log, config, tell) if config.off_policy else {}
    figures = {
        "run": config.run.name,
        "protocol": {**split.protocol, "candidates": bundle.manifest["protocol"]["candidates"]},
        **result.figures,
        **value,
        "seconds": {name: round(seconds, 2) for name, seconds in sorted(clock.seconds.items())},
        "peak_rss_mb": peak_rss_mb(),
    }
    if config.json is not None:
        write_json(config.json, figures)
    return figures


def compare(first: Path, second: Path, seed: int = 0) -> Mapping[str, Difference]:
    """Compare the test figures of two bundles, user by user.

    Args:
        first: The run to beat.
        second: The other run.
        seed: Of the bootstrap.

    Returns:
        Metric -> difference with interval; above zero, the second is better.

    Raises:
        UsageError: The two were measured under different protocols or on different requests.
    """
    runs = [(Recommender.load(run).manifest, pl.read_parquet(run / "per_request.parquet")) for run in (first, second)]
    (one, rows), (two, other) = runs
    return paired_comparison(rows, other, one["protocol"], two["protocol"], seed=seed)


def _refuse_no_positions(log: Log) -> None:
    if log.impressions is None or "position" not in log.impressions.columns or log.format in SHUFFLED_FORMATS:
        raise UsageError(
            f"--off-policy: expected impressions with the positions that readers saw, found none in a '{log.format}' "
            "log. Give one whose lists were shown in random order, with a column 'position'."
        )


def _value(
    bundle: Recommender, recommender: Recommender, log: Log, config: EvaluateConfig, tell: Progress
) -> dict[str, Any]:
    """What the bundle would earn by choosing the first article of lists that its state does not hold."""
    shown = log.impressions
    assert shown is not None  # refused before
    known = known_keys(shown, bundle.store.impressions, LIST, bundle.store).unique()
    shown = shown.join(known, on=list(LIST), how="anti", maintain_order="left")
    requests = canonical_requests(requests_of(shown), recommender.store)
    if len(requests) > config.test_requests:
        requests = requests.sample(config.test_requests, seed=bundle.manifest["seed"]).sort("request_id")
    requests = bundle.own.with_columns(requests, log.impressions)
    ranked = recommender.rank_many(requests, slates_of(shown, requests), tell)
    ids = requests.select("request_id", pl.col("impression_id"))
    scores = ranked.join(ids, on="request_id").select(pl.col("impression_id").alias("request_id"), "item_id", "score")
    decisions = first_place(shown, scores)
    return {
        "off_policy": {
            "policy": "the bundle chooses the first article of each list, chance orders the rest; reward: any click",
            "logged": decisions["reward"].mean(),
            **{name: asdict(estimate) for name, estimate in off_policy(decisions).items()},
        }
    }


def _unseen(bundle: Recommender, store: EventStore, log: Log, config: EvaluateConfig) -> Split:
    validation = bundle.manifest["validation"]
    state = bundle.store
    settings = replace(SplitConfig(**validation), test_requests=config.test_requests, seed=bundle.manifest["seed"])
    if bundle.ranks_slates or (log.impressions is not None and divides_by_time(settings)):
        shown = log.impressions
        lists = None if shown is None else known_keys(shown, state.impressions, LIST, state)
        split = unseen_slates(log, store, settings, lists)
        split = split if bundle.ranks_slates else replace(split, slates=None)
    else:
        known = known_keys(log.clicks, state.clicks, CLICK_KEY, state)
        unseen = log.clicks.select(CLICK_KEY).join(known, on=list(CLICK_KEY), how="anti")
        split = held_out_requests(log, store, settings, unseen)
    if split.requests.is_empty():
        raise DataError(
            f"--data: expected clicks that the bundle '{config.run}' does not know, found none in {len(log.clicks):,}. "
            "Give a later log, or evaluate a bundle that was trained with --no-refit."
        )
    if config.frozen:
        border = pl.min_horizontal("statistics_at", pl.lit(bundle.known_until).cast(TIME))
        split = replace(split, requests=split.requests.with_columns(border.alias("statistics_at")))
    return replace(
        split, protocol={**split.protocol, "statistics": "frozen with the bundle" if config.frozen else "live"}
    )


if __name__ == "__main__":
    from newsrec.cli import run_verb

    run_verb("evaluate")
