"""All stages in order: read this file first. A click log goes in, a bundle under `artifacts/` comes out.

`python -m newsrec.train --ranker lgbm` and the library function `train` do the same.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from features.catalog import Feature
from features.columns import CLICK_KEY, TIME
from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec.artefacts import Artefact, artefacts
from newsrec.assembly import Assembly, score_lists, training_data
from newsrec.bundle import fresh_run, refuse_unwritable, write_json, write_manifest, writing
from newsrec.calibration import Calibrator, calibrate, save_calibrator
from newsrec.candidates import SamplingConfig
from newsrec.data import Log, read_log
from newsrec.data.log import read_facts
from newsrec.errors import BundleError, UsageError
from newsrec.evaluation.stages import StageFigures, evaluate_stages
from newsrec.neural.signature import figures_of
from newsrec.neural.tower_file import write_user_tower
from newsrec.own import OwnFeatures, read_own
from newsrec.process import peak_rss_mb
from newsrec.progress import Clock, Progress, Silent
from newsrec.rankers import RANKERS, Ranker, RankingData
from newsrec.recall import ALL, refuse_lacking, working
from newsrec.report import render_report
from newsrec.simulate import SimulationConfig, simulate
from newsrec.slates import SPLITS
from newsrec.split import Split
from newsrec.state import Memory, write_state
from newsrec.tasks import task_labels
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
        _tell_of_other_data(config, log, tell)

        # 2 split
        config = config.settled(log)
        store = EventStore(log.clicks, log.articles, log.impressions)
        if config.recall == (ALL,):
            config = replace(config, recall=working(store, tell.say))
        refuse_lacking(config.recall or (), store)
        config.merge.refuse_contradictions(config.recall or ())
        split = SPLITS[config.candidates or ""](log, store, replace(config.split, seed=config.seed))
        split = replace(split, requests=own.with_columns(split.requests, log.impressions))

        # 3 to 5 recall, candidates, features
        assembly = assembly_of(config, log, store, split, clock, own)
        biased = bool(config.params.get("position_bias"))
        sampling = replace(config.sampling, seed=config.seed, places=biased)
        rows = training_data(assembly, split.part("train"), split.positives, sampling, tell, split.learn_until)

        # 6 rank
        ranker = _fit(config, assembly, rows, split, tell)

        # 7 rerank
        kept_epochs = out.parent / f".{out.name}.reranker.npz"  # the same command goes on there after a kill
        reranked = _rerank(config, log, assembly, ranker, rows, split, kept_epochs, tell)
        calibrator = _calibrate(assembly, ranker, reranked, split, tell)

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
            calibrator=calibrator,
        )
        if config.kept is not None:
            ranker = config.kept.ranker
        elif config.refit:
            parts = ("valid", "test") if split.slates is None else ("test",)
            ranker = _refit(config, assembly, ranker, _more(assembly, rows, split, parts, sampling, tell))

    metrics = _metrics(config, log, split, found, ranker, result, clock, out)
    metrics |= {} if reranked is None else {"reranker": reranked.figures()}

    # 9 bundle
    with writing(out, config.overwrite) as folder:
        _as_onnx(folder, assembly, ranker, rows, tell)
        _write(
            folder, config, log, assembly, ranker, split, metrics, result.per_request, own, reranked, calibrator, tell
        )
    kept_epochs.unlink(missing_ok=True)
    tell.say(f"bundle: {out}")
    return TrainResult(out, metrics)


def read(config: TrainConfig) -> Log:
    """The configured log; the simulated one where no data is named."""
    if config.data is None:
        if config.format not in ("auto", "simulated"):
            raise UsageError(f"--format {config.format}: expected --data with it, found none. Name the log's folder.")
        return simulate(SimulationConfig()).log
    return read_log(config.data, config.format, options=config.read)


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


def _tell_of_other_data(config: TrainConfig, log: Log, tell: Progress) -> None:
    others = sorted({fingerprint[:12] for fingerprint in config.tuned_on if fingerprint != log.fingerprint})
    if others:
        tell.say(f"note: parameters were tuned on other data (fingerprint {', '.join(others)}), not on this log's")


def assembly_of(
    config: TrainConfig, log: Log, store: EventStore, split: Split, clock: Clock, own: OwnFeatures
) -> Assembly:
    """Channels and features of a settled configuration; what is learned looks no further than `split.learn_until`."""
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
        feature_names=None if config.kept is None else config.kept.features,
        list_length=config.list_length,
        clock=clock,
        slates=split.slates,
        without=config.without,
        own=own.features,
        merge=config.merge,
    )


def categorical_of(features: Iterable[Feature]) -> list[str]:
    """Names of the columns that hold codes."""
    return [f.name for f in features if f.categorical]


def _fit(config: TrainConfig, assembly: Assembly, rows: RankingData, split: Split, tell: Progress) -> Ranker:
    """A new ranker, or the kept one as it was before it had seen validation and test."""
    if config.kept is not None:
        return _refit(config, assembly, config.kept.ranker, rows)
    watched = training_data(assembly, split.part("valid"), split.positives, None, tell)
    ranker = RANKERS[config.ranker].of(config.params)
    with assembly.clock.time("rank"), tell.stage("rank", 0) as step:
        return ranker.fit(
            rows,
            watched,
            categorical=categorical_of(assembly.features),
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
    config: TrainConfig,
    log: Log,
    assembly: Assembly,
    ranker: Ranker,
    rows: RankingData,
    split: Split,
    checkpoint: Path,
    tell: Progress,
) -> "TrainedReranker | None":
    if config.reranker is None:
        return None
    from newsrec.rerankers.stage import RerankConfig, train_reranker

    chosen = replace(
        RerankConfig.of(config.reranker, config.rerank_top, config.rerank_params, config.seed, checkpoint),
        int8=config.int8,
        tasks=config.tasks,
    )
    requests = {name: split.part(name) for name in ("train", "valid")}
    asked = split.part("train", "valid")
    labels = task_labels(log, asked, split.positives, config.tasks) if config.tasks else None
    return train_reranker(chosen, assembly, ranker, rows, requests, split.positives, tell, labels)


def _calibrate(
    assembly: Assembly, ranker: Ranker, reranked: "TrainedReranker | None", split: Split, tell: Progress
) -> Calibrator:
    """What a score of the served order means, from whole validation lists, those that recall missed included."""
    on = reranked is not None and reranked.on
    rescored = reranked.reranker.rescored if reranked is not None and on else None
    valid = score_lists(assembly, ranker.score, split.part("valid"), split.positives, tell, rescored).rows
    with assembly.clock.time("calibrate"):
        return calibrate(valid["rerank" if on else "score"], valid["label"])


def _refit(config: TrainConfig, assembly: Assembly, ranker: Ranker, rows: RankingData) -> Ranker:
    with assembly.clock.time("refit"):
        return ranker.refit(rows, categorical=categorical_of(assembly.features), seed=config.seed)


def _as_onnx(folder: Path, assembly: Assembly, ranker: Ranker, rows: RankingData, tell: Progress) -> None:
    """The ranker also as ONNX, where the extra is installed. Serving does without it: a fault costs the file only."""
    if find_spec("onnx") is None:
        tell.say("note: no lambdarank.onnx, as onnx is not installed (pip install 'newsrec[neural]')")
        return
    from newsrec.neural.ranker_onnx import export_ranker

    try:
        export_ranker(ranker, rows.features, categorical_of(assembly.features), folder)
    except BundleError as error:
        tell.say(f"note: no lambdarank.onnx: {error}")


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
    calibrator: Calibrator,
    tell: Progress,
) -> None:
    store = assembly.store if config.refit else _before_test(log, split)
    memory = _memory(config, reranked)
    known_until = write_state(folder, memory.folded(store), assembly.channels)
    write_user_tower(folder, assembly.channels, known_until, tell.say)
    assembly.vocabulary.table.write_parquet(folder / "vocabulary.parquet")
    per_request.write_parquet(folder / "per_request.parquet")
    ranker.save(folder)
    if reranked is not None:
        reranked.save(folder)
    metrics["onnx"] = figures_of(folder)
    save_calibrator(folder, calibrator, "rerank" if reranked is not None and reranked.on else "rank")
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
                "settings": {
                    name: getattr(config.recall_settings, name) for name in ("refresh_ms", "depth", "training_ms")
                },
                "list_length": config.list_length,
                "merge": {"quotas": dict(config.merge.quotas), "weights": dict(config.merge.weights)},
            },
            "state": memory.facts(),
            "sampling": asdict(replace(config.sampling, seed=config.seed)),
            "features": [f.name for f in assembly.features],
            "protocol": metrics["protocol"],
            "onnx": metrics["onnx"],
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
