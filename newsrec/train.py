"""All stages in order: read this file first. A click log goes in, a bundle under `artifacts/` comes out.

`python -m newsrec.train --ranker lgbm` and the library function `train` do the same.
"""

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from features.catalog import Feature
from features.columns import CLICK_KEY, TIME
from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec.artefacts import Artefact, artefacts
from newsrec.assembly import Assembly, score_lists, training_data
from newsrec.bundle import fresh_run, read_manifest, refuse_unwritable, write_json, write_manifest, writing
from newsrec.candidates import SamplingConfig
from newsrec.data import Log, read_log
from newsrec.data.log import read_as, read_facts
from newsrec.errors import BundleError, UsageError
from newsrec.evaluation.stages import StageFigures, evaluate_stages
from newsrec.own import OwnFeatures, read_own
from newsrec.process import peak_rss_mb
from newsrec.progress import Clock, Progress, Silent
from newsrec.rankers import RANKERS, Ranker, RankingData
from newsrec.report import render_report
from newsrec.simulate import SimulationConfig, simulate
from newsrec.slates import SPLITS
from newsrec.split import Split
from newsrec.state import Memory, write_state
from newsrec.train_config import DEFAULTS, TrainConfig

if TYPE_CHECKING:
    from newsrec.rerankers.stage import TrainedReranker


@dataclass(frozen=True)
class TrainResult:
    """What a run left."""

    run: Path
    metrics: dict[str, Any]


def train(config: TrainConfig = DEFAULTS, progress: Progress | None = None, *, log: Log | None = None) -> TrainResult:
    """Train, evaluate and keep a ranking.

    Args:
        config: What to train on and how.
        progress: Told of stages and lines; None is silent.
        log: A log that is already in memory (see `newsrec.data.log_from_frames`); None reads `config.data`.

    Returns:
        The bundle's folder and the content of its `metrics.json`.

    Raises:
        NewsrecError: Bad data, contradicting settings, or a place that cannot be written; nothing is left behind.
    """
    tell, clock = progress or Silent(), Clock()
    out = config.out or fresh_run()
    config.refuse_contradictions()
    own = read_own(config.features)
    refuse_unwritable(out, config.overwrite)
    with clock.time("total"):
        # 1 read
        with clock.time("read"):
            log = read(config) if log is None else log
            found = artefacts(log)
            own.refuse_unfit(log)
        _introduce(log, found, tell)

        # 2 split
        config = config.settled(log)
        store = EventStore(log.clicks, log.articles, log.impressions)
        split = SPLITS[config.candidates or ""](log, store, replace(config.split, seed=config.seed))
        split = replace(split, requests=own.with_columns(split.requests, log.impressions))

        # 3 to 5 recall, candidates, features
        assembly = _assembly(config, log, store, split, clock, own)
        sampling = replace(config.sampling, seed=config.seed)
        rows = training_data(assembly, split.part("train"), split.positives, sampling, tell)
        watched = training_data(assembly, split.part("valid"), split.positives, None, tell)

        # 6 rank
        ranker = _fit(config, assembly, rows, watched, tell)

        # 7 rerank
        reranked = _rerank(config, assembly, ranker, rows, split, tell)

        # Shown lists are few and dear: what is measured has seen validation too, with the trees that it chose.
        if split.slates is not None:
            rows = _more(assembly, rows, split, ("valid",), sampling, tell)
            ranker = _refit(config, assembly, ranker, rows)

        # 8 evaluate: whole lists of requests that nothing was fitted on
        test = split.part("test")
        rescored, reranks = (None, False) if reranked is None else (reranked.reranker.rescored, reranked.on)
        scored = score_lists(assembly, ranker.score, test, split.positives, tell, rescored)
        result = evaluate_stages(
            scored.rows,
            scored.positive_ranks,
            test,
            tuple(assembly.channels),
            scored.baselines,
            seed=config.seed,
            probabilities=ranker.gives_probabilities,
            reranks=reranks,
        )
        if config.refit:
            parts = ("valid", "test") if split.slates is None else ("test",)
            ranker = _refit(config, assembly, ranker, _more(assembly, rows, split, parts, sampling, tell))

    metrics = _metrics(config, log, split, found, ranker, result, clock, out)
    metrics |= {} if reranked is None else {"reranker": reranked.figures()}

    # 9 bundle
    with writing(out, config.overwrite) as folder:
        _write(folder, config, log, assembly, ranker, split, metrics, result.per_request, own, reranked)
    tell.say(f"bundle: {out}")
    return TrainResult(out, metrics)


def read(config: TrainConfig) -> Log:
    """The configured log; the simulated one where no data is named."""
    if config.data is None:
        if config.format not in ("auto", "simulated"):
            raise UsageError(f"--format {config.format}: expected --data with it, found none. Name the log's folder.")
        return simulate(SimulationConfig()).log
    return read_log(config.data, config.format, options=config.read)


def config_of_run(run: Path, config: TrainConfig) -> tuple[TrainConfig, Log]:
    """The same configuration on the data, format and seed of an earlier bundle, and that data.

    The data is read as it was then: its columns, ids and limit of bad rows, where `config.read` has the default.

    Raises:
        BundleError: The bundle is damaged, or the data is no longer the same.
    """
    manifest = read_manifest(run)
    data = manifest["data"]
    path = config.data or (None if data["path"] is None else Path(data["path"]))
    options = read_as(config.read, data.get("read", {}))
    taken = replace(config, data=path, format=data["format"], seed=manifest["seed"], read=options)
    log = read(taken)
    if log.fingerprint != data["fingerprint"]:
        raise BundleError(
            f"--run {run}: expected the data that this bundle was trained on (fingerprint {data['fingerprint'][:12]}), "
            f"found another (fingerprint {log.fingerprint[:12]}). Train without --run."
        )
    return taken, log


def _introduce(log: Log, found: list[Artefact], tell: Progress) -> None:
    """What was read, mended and noticed, once."""
    intake = log.intake
    users, items = log.clicks["user_id"].n_unique(), log.clicks["item_id"].n_unique()
    tell.say(f"read {log.format}: {len(log.clicks):,} clicks of {users:,} users on {items:,} articles")
    if intake.rows_quarantined or intake.duplicate_clicks:
        tell.say(f"left out {intake.rows_quarantined:,} bad rows and {intake.duplicate_clicks:,} repeated clicks")
    for note in intake.notes:
        tell.say(f"note: {note}")
    for artefact in found:
        if artefact.found:
            tell.say(f"artefact {artefact.name} ({artefact.share:.1%}): {artefact.explanation}")


def _assembly(
    config: TrainConfig, log: Log, store: EventStore, split: Split, clock: Clock, own: OwnFeatures
) -> Assembly:
    # Codes of context values are learned before validation begins, as everything else that is learned.
    seen, shown = log.clicks, log.impressions
    if split.learn_until is not None:
        border = pl.lit(split.learn_until).cast(TIME)
        seen = seen.filter(pl.col("clicked_at") < border)
        shown = None if shown is None else shown.filter(pl.col("requested_at") < border)
    return Assembly.of(
        store,
        config.recall or (),
        config.recall_settings,
        Vocabulary.of(seen, impressions=shown),
        list_length=config.list_length,
        clock=clock,
        slates=split.slates,
        without=config.without,
        own=own.features,
    )


def _categorical(features: tuple[Feature, ...] | list[Feature]) -> list[str]:
    return [f.name for f in features if f.categorical]


def _fit(config: TrainConfig, assembly: Assembly, rows: RankingData, watched: RankingData, tell: Progress) -> Ranker:
    ranker = RANKERS[config.ranker].of(config.params)
    with assembly.clock.time("rank"), tell.stage("rank", 0) as step:
        return ranker.fit(
            rows,
            watched,
            categorical=_categorical(list(assembly.features)),
            seed=config.seed,
            on_iteration=lambda: step(1),
        )


def _more(
    assembly: Assembly,
    rows: RankingData,
    split: Split,
    parts: tuple[str, ...],
    sampling: SamplingConfig,
    tell: Progress,
) -> RankingData:
    """The rows and those of further parts, sampled as for training."""
    more = training_data(assembly, split.part(*parts), split.positives, sampling, tell)
    return RankingData.concat([rows, more])


def _rerank(
    config: TrainConfig, assembly: Assembly, ranker: Ranker, rows: RankingData, split: Split, tell: Progress
) -> "TrainedReranker | None":
    if config.reranker is None:
        return None
    from newsrec.neural.trainer import TrainerConfig
    from newsrec.rerankers.stage import RerankConfig, train_reranker

    chosen = RerankConfig(config.reranker, config.rerank_top, TrainerConfig(seed=config.seed))
    requests = {name: split.part(name) for name in ("train", "valid")}
    return train_reranker(chosen, assembly, ranker, rows, requests, split.positives, tell)


def _refit(config: TrainConfig, assembly: Assembly, ranker: Ranker, rows: RankingData) -> Ranker:
    with assembly.clock.time("refit"):
        return ranker.refit(rows, categorical=_categorical(list(assembly.features)), seed=config.seed)


def _metrics(
    config: TrainConfig,
    log: Log,
    split: Split,
    found: list[Artefact],
    ranker: Ranker,
    result: StageFigures,
    clock: Clock,
    out: Path,
) -> dict[str, Any]:
    fitting = ranker.fitting
    return {
        "run": out.name,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "protocol": {
            **split.protocol,
            "candidates": config.candidates_in_words,
        },
        **result.figures,
        "curves": {
            "metric": fitting.metric,
            "train": list(fitting.train),
            "valid": list(fitting.valid),
            "best_iteration": fitting.best_iteration,
        },
        "importance": list(fitting.importance),
        "artefacts": [asdict(artefact) for artefact in found],
        "intake": asdict(log.intake),
        "refit": config.refit,
        "seconds": {name: round(seconds, 2) for name, seconds in sorted(clock.seconds.items())},
        "peak_rss_mb": peak_rss_mb(),
    }


def _write(
    folder: Path,
    config: TrainConfig,
    log: Log,
    assembly: Assembly,
    ranker: Ranker,
    split: Split,
    metrics: dict[str, Any],
    per_request: pl.DataFrame,
    own: OwnFeatures,
    reranked: "TrainedReranker | None",
) -> None:
    store = assembly.store if config.refit else _before_test(log, split)
    memory = _memory(config, reranked)
    write_state(folder, memory.folded(store), assembly.channels)
    assembly.vocabulary.table.write_parquet(folder / "vocabulary.parquet")
    per_request.write_parquet(folder / "per_request.parquet")
    ranker.save(folder)
    if reranked is not None:
        reranked.save(folder)
    write_json(folder / "features.json", features_page(assembly))
    write_json(folder / "metrics.json", metrics)
    (folder / "report.html").write_text(render_report(metrics), encoding="utf-8")
    write_manifest(
        folder,
        {
            "ranker": config.ranker,
            "seed": config.seed,
            "data": {
                "path": None if config.data is None else str(config.data.resolve()),
                "format": log.format,
                "fingerprint": log.fingerprint,
                "read": read_facts(config.read),
            },
            "validation": asdict(replace(config.split, seed=config.seed)),
            "refit": config.refit,
            "candidates": config.candidates,
            "recall": {
                "channels": list(config.recall or ()),
                "settings": {"refresh_ms": config.recall_settings.refresh_ms, "depth": config.recall_settings.depth},
                "list_length": config.list_length,
            },
            "state": memory.facts(),
            "sampling": asdict(replace(config.sampling, seed=config.seed)),
            "features": [f.name for f in assembly.features],
            "protocol": metrics["protocol"],
            **({"own_features": own.facts} if own.facts else {}),
            **({} if reranked is None else {"reranker": reranked.reranker.settings.facts()}),
        },
    )


def features_page(assembly: Assembly) -> list[dict[str, Any]]:
    """The model's columns in order: name, dtype, family, meaning."""
    return [
        {"name": f.name, "dtype": "Float32", "family": f.family, "categorical": f.categorical, "meaning": f.meaning}
        for f in assembly.features
    ]


def _memory(config: TrainConfig, reranked: "TrainedReranker | None") -> Memory:
    history = 0 if reranked is None else reranked.reranker.settings.history
    return Memory.of(config.keep_days, config.recall_settings, history)


def _before_test(log: Log, split: Split) -> EventStore:
    """What a model without a refit may remember: all before the test, or all but the clicks that are asked for."""
    if split.known_until is not None:
        border, shown = pl.lit(split.known_until).cast(TIME), log.impressions
        earlier = None if shown is None else shown.filter(pl.col("requested_at") < border)
        return EventStore(log.clicks.filter(pl.col("clicked_at") < border), log.articles, earlier)
    asked = split.part("test").join(split.positives, on="request_id").select("user_id", "item_id", "requested_at")
    asked_for = log.clicks.join(asked, on=["user_id", "item_id"]).filter(pl.col("clicked_at") >= pl.col("requested_at"))
    clicks = log.clicks.join(asked_for.select(CLICK_KEY), on=list(CLICK_KEY), how="anti", maintain_order="left")
    return EventStore(clicks, log.articles, log.impressions)


if __name__ == "__main__":
    from newsrec.cli import run_verb

    run_verb("train")
