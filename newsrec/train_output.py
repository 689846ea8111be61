"""Stage 9 of a training: what it gave becomes `metrics.json` and the files of a bundle."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from features.columns import CLICK_KEY, TIME
from features.events import EventStore
from newsrec.artefacts import Artefact
from newsrec.assembly import Assembly
from newsrec.bundle import write_json, write_manifest
from newsrec.calibration import Calibrator, save_calibrator
from newsrec.data import Log
from newsrec.data.log import read_facts
from newsrec.errors import BundleError
from newsrec.evaluation.stages import StageFigures
from newsrec.neural.signature import figures_of
from newsrec.neural.tower_file import write_user_tower
from newsrec.own import OwnFeatures
from newsrec.process import peak_rss_mb
from newsrec.progress import Clock, Progress
from newsrec.rankers import Ranker, RankingData
from newsrec.report import render_report
from newsrec.split import Split
from newsrec.state import Memory, write_state
from newsrec.train_config import TrainConfig

if TYPE_CHECKING:
    from newsrec.rerankers.stage import TrainedReranker


@dataclass(frozen=True)
class Trained:
    """What all stages before the bundle gave."""

    config: TrainConfig
    """Settled."""
    log: Log
    artefacts: Sequence[Artefact]
    split: Split
    own: OwnFeatures
    assembly: Assembly
    ranker: Ranker
    """The one that serves."""
    reranked: "TrainedReranker | None"
    calibrator: Calibrator
    result: StageFigures
    """Of the test requests."""


def metrics_of(trained: Trained, clock: Clock, run: str) -> dict[str, Any]:
    """The content of `metrics.json` but for `onnx`, which `write_trained` adds.

    Args:
        trained: What was trained.
        clock: Seconds per stage.
        run: Name of the bundle's folder.
    """
    fitting = trained.ranker.fitting
    return {
        "run": run,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "protocol": {
            **trained.split.protocol,
            "candidates": trained.config.candidates_in_words,
        },
        **trained.result.figures,
        "curves": {
            "metric": fitting.metric,
            "train": list(fitting.train),
            "valid": list(fitting.valid),
            "best_iteration": fitting.best_iteration,
        },
        "importance": list(fitting.importance),
        "artefacts": [asdict(artefact) for artefact in trained.artefacts],
        "intake": asdict(trained.log.intake),
        "refit": trained.config.refit,
        "seconds": {name: round(seconds, 2) for name, seconds in sorted(clock.seconds.items())},
        "peak_rss_mb": peak_rss_mb(),
        **({} if trained.reranked is None else {"reranker": trained.reranked.figures()}),
    }


def write_trained(folder: Path, trained: Trained, rows: RankingData, metrics: dict[str, Any], tell: Progress) -> None:
    """Write every file of the bundle.

    Args:
        folder: The temporary folder.
        trained: What was trained.
        rows: Rows that the ranker was fitted on; its ONNX file is tried on some of them.
        metrics: Of `metrics_of`; gets the key `onnx`.
        tell: Hears why a file is not there.
    """
    config, assembly, reranked = trained.config, trained.assembly, trained.reranked
    _as_onnx(folder, assembly, trained.ranker, rows, tell)
    store = assembly.store if config.refit else _before_test(trained.log, trained.split)
    memory = _memory(config, reranked)
    known_until = write_state(folder, memory.folded(store), assembly.channels)
    write_user_tower(folder, assembly.channels, known_until, tell.say)
    assembly.vocabulary.table.write_parquet(folder / "vocabulary.parquet")
    trained.result.per_request.write_parquet(folder / "per_request.parquet")
    trained.ranker.save(folder)
    if reranked is not None:
        reranked.save(folder)
    metrics["onnx"] = figures_of(folder)
    save_calibrator(folder, trained.calibrator, "rerank" if reranked is not None and reranked.on else "rank")
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
                "format": trained.log.format,
                "fingerprint": trained.log.fingerprint,
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
            **({"own_features": trained.own.facts} if trained.own.facts else {}),
            **({} if reranked is None else {"reranker": reranked.reranker.settings.facts()}),
        },
    )


def features_page(assembly: Assembly) -> list[dict[str, Any]]:
    """The model's columns in order: name, dtype, family, meaning."""
    return [
        {"name": f.name, "dtype": "Float32", "family": f.family, "categorical": f.categorical, "meaning": f.meaning}
        for f in assembly.features
    ]


def _as_onnx(folder: Path, assembly: Assembly, ranker: Ranker, rows: RankingData, tell: Progress) -> None:
    """The ranker also as ONNX, where the extra is installed. Serving does without it: a fault costs the file only."""
    if find_spec("onnx") is None:
        tell.say("note: no lambdarank.onnx, as onnx is not installed (pip install 'newsrec[neural]')")
        return
    from newsrec.neural.ranker_onnx import export_ranker

    try:
        export_ranker(ranker, rows.features, assembly.categorical, folder)
    except BundleError as error:
        tell.say(f"note: no lambdarank.onnx: {error}")


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
