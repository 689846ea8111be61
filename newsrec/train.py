"""All stages in order: read this file first. A click log goes in, a bundle under `artifacts/` comes out.

`python -m newsrec.train --ranker lgbm` and the library function `train` do the same.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from features.columns import TIME
from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec.artefacts import Artefact, artefacts
from newsrec.assembly import Assembly, Described, kept_rows, rows_of, score_lists, together, training_data
from newsrec.bundle import fresh_run, refuse_unwritable, writing
from newsrec.calibration import Calibrator, calibrate
from newsrec.candidates import SamplingConfig
from newsrec.data import Log, read_log
from newsrec.errors import UsageError
from newsrec.evaluation.stages import evaluate_stages
from newsrec.merging import learned
from newsrec.own import OwnFeatures, read_own
from newsrec.process import trim_memory
from newsrec.progress import Clock, Progress, Silent
from newsrec.rankers import RANKERS, Ranker, RankingData
from newsrec.recall import ALL, refuse_lacking, working
from newsrec.simulate import SimulationConfig, simulate
from newsrec.slates import SPLITS
from newsrec.split import Split
from newsrec.tasks import task_labels
from newsrec.train_config import DEFAULTS, TrainConfig
from newsrec.train_output import Trained, metrics_of, write_trained

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
        config, store, split = _divide(config.settled(log), log, own, tell)

        # 3 to 5 recall, candidates, features
        assembly = assembly_of(config, log, store, split, clock, own)
        if config.merge_by == "learned" and assembly.channels:
            merge = learned(assembly, split.part("valid"), split.positives, tell)
            config, assembly = replace(config, merge=merge), replace(assembly, merge=merge)
        biased = bool(config.params.get("position_bias"))
        sampling = replace(config.sampling, seed=config.seed, places=biased)
        held_out = split.part("valid", "test") if split.learn_until is None else None  # of other users, of all times
        rows = training_data(
            assembly, split.part("train"), split.positives, sampling, tell, split.learn_until, beside=held_out
        )

        # 6 rank; validation lists are described once, for all stages that look at them
        valid = list(assembly.described(split.part("valid"), split.positives, tell, "validation"))
        ranker, valid = _fit(config, assembly, rows, valid, tell)

        # 7 rerank
        kept_epochs = out.parent / f".{out.name}.reranker.npz"  # the same command goes on there after a kill
        reranked = _rerank(config, log, assembly, ranker, rows, split, valid, kept_epochs, tell)
        calibrator = _calibrate(assembly, ranker, reranked, valid)
        further = [kept_rows(assembly, each, sampling) for each in valid]
        del valid  # whole lists are large, and the fits that follow are the most that a run holds

        # Shown lists are few and dear: what is measured has seen validation too, with the trees that it chose.
        if split.slates is not None:
            rows, further = _joined(assembly, rows, further, sampling, tell), []
            ranker = _refit(config, assembly, ranker, rows)

        # 8 evaluate: whole lists of requests that nothing was fitted on
        test = split.part("test")
        rescored, reranks = (None, False) if reranked is None else (reranked.reranker.rescored, reranked.on)
        refits = config.refit and config.kept is None
        lists = assembly.described(test, split.positives, tell, "score")
        passing = _keeping(further, assembly, lists, sampling) if refits else lists
        scored = score_lists(assembly, passing, ranker.score, rescored)
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
        elif refits:
            ranker = _refit(config, assembly, ranker, _joined(assembly, rows, further, sampling, tell))

    trained = Trained(config, log, found, split, own, assembly, ranker, reranked, calibrator, result)
    metrics = metrics_of(trained, clock, out.name)

    # 9 bundle
    with writing(out, config.overwrite) as folder:
        write_trained(folder, trained, rows, metrics, tell)
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


def _divide(config: TrainConfig, log: Log, own: OwnFeatures, tell: Progress) -> tuple[TrainConfig, EventStore, Split]:
    """The settled configuration with its channels named, the log, and its requests divided by time.

    Raises:
        UsageError: A channel whose data the log lacks, or a quota or weight of one that is not asked.
    """
    store = EventStore(log.clicks, log.articles, log.impressions)
    if config.recall == (ALL,):
        config = replace(config, recall=working(store, tell.say))
    refuse_lacking(config.recall or (), store)
    config.merge.refuse_contradictions(config.recall or ())
    split = SPLITS[config.candidates or ""](log, store, replace(config.split, seed=config.seed))
    return config, store, replace(split, requests=own.with_columns(split.requests, log.impressions))


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


def _fit(
    config: TrainConfig, assembly: Assembly, rows: RankingData, valid: Sequence[Described], tell: Progress
) -> tuple[Ranker, list[Described]]:
    """A new ranker, or the kept one as it was before it had seen validation and test; validation lists scored by it."""
    if config.kept is not None:
        ranker = _refit(config, assembly, config.kept.ranker, rows)
    else:
        watched = rows_of(assembly, valid, None)
        with assembly.clock.time("rank"), tell.stage("rank", 0) as step:
            ranker = RANKERS[config.ranker].of(config.params)
            ranker.fit(
                rows,
                watched,
                categorical=assembly.categorical,
                seed=config.seed,
                on_iteration=lambda: step(1),
            )
    with assembly.clock.time("rank"):
        return ranker, [each.scored_by(ranker.score) for each in valid]


def _keeping(
    kept: list[RankingData], assembly: Assembly, lists: Iterable[Described], sampling: SamplingConfig
) -> Iterator[Described]:
    """The lists, passed on; their rows, sampled as for training, are added to `kept`."""
    for each in lists:
        kept.append(kept_rows(assembly, each, sampling))
        yield each


def _joined(
    assembly: Assembly, rows: RankingData, further: Sequence[RankingData], sampling: SamplingConfig, tell: Progress
) -> RankingData:
    return RankingData.concat([rows, together(assembly, further, sampling, tell)])


def _rerank(
    config: TrainConfig,
    log: Log,
    assembly: Assembly,
    ranker: Ranker,
    rows: RankingData,
    split: Split,
    valid: Sequence[Described],
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
    asked = split.part("train", "valid")
    labels = task_labels(log, asked, split.positives, config.tasks) if config.tasks else None
    return train_reranker(chosen, assembly, ranker, rows, split.part("train"), valid, split.positives, tell, labels)


def _calibrate(
    assembly: Assembly, ranker: Ranker, reranked: "TrainedReranker | None", valid: Sequence[Described]
) -> Calibrator:
    """What a score of the served order means, from whole validation lists, those that recall missed included."""
    on = reranked is not None and reranked.on
    rescored = reranked.reranker.rescored if reranked is not None and on else None
    rows = score_lists(assembly, valid, ranker.score, rescored).rows
    with assembly.clock.time("calibrate"):
        return calibrate(rows["rerank" if on else "score"], rows["label"])


def _refit(config: TrainConfig, assembly: Assembly, ranker: Ranker, rows: RankingData) -> Ranker:
    trim_memory()
    with assembly.clock.time("refit"):
        return ranker.refit(rows, categorical=assembly.categorical, seed=config.seed)


if __name__ == "__main__":
    from newsrec.cli import run_verb

    run_verb("train")
