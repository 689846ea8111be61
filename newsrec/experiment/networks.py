"""Networks compared: one ranker's tops for all, one network and one loss per cell, measured on whole test lists."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import polars as pl

from features.windows import Ints
from newsrec.assembly import Assembly, Described, rows_of, training_data
from newsrec.bundle import telling_of_place
from newsrec.candidates import SamplingConfig
from newsrec.data import Log
from newsrec.errors import UsageError
from newsrec.evaluation import protocol_line
from newsrec.evaluation.comparison import paired_comparison
from newsrec.experiment.config import RANKER, ExperimentConfig, NetworkCell
from newsrec.experiment.kept import Kept
from newsrec.experiment.material import prepared
from newsrec.experiment.pages import BLEND, TASK, TOGETHER, grids, html, markdown
from newsrec.experiment.table import mean
from newsrec.metrics import METRICS, per_request, summarise
from newsrec.neural.latency import CANDIDATES, latency
from newsrec.neural.trainer import score
from newsrec.neural.vocabulary import IdVocabulary
from newsrec.progress import Progress
from newsrec.rankers import RANKERS, Ranker
from newsrec.rerank import MODEL_FILE, Reranker, RerankSettings, as_columns, lists_place, log_odds, top_lists
from newsrec.rerankers import history_of, is_own, learns_tasks, make, traits_of
from newsrec.rerankers.base import Shape
from newsrec.rerankers.blending import fit_blend
from newsrec.rerankers.stage import (
    RerankConfig,
    auc_of_lists,
    fit_raw,
    settings_before,
    task_figures,
    train_network,
    training_tops,
    with_tasks,
)
from newsrec.sessions import open_session
from newsrec.split import Split
from newsrec.tasks import CLICK, refuse_unknown_tasks, task_labels, tasks_in
from newsrec.tensors import Lists, concatenated

COMPARED: Final = ("mrr@5", "hit@5", "ndcg@5", "ndcg@10", "auc", "gauc")
SERVED: Final = ("mrr@5", "hit@5", "auc")
"""Of the blended order."""
POOLING: Final = "pooling"
TITLE: Final = "Networks on top of the ranker"
NOTE: Final = (
    f"Latency: {CANDIDATES} candidates and a whole history in onnxruntime on one thread. Values are of the "
    "network's own order; misses of recall count as zero; differences with 95 % intervals, users drawn in pairs. GAUC "
    "also compares lists of one user, between which a loss over lists (softmax, bpr, lambdaloss) leaves the level open."
)


@dataclass(frozen=True)
class Tops:
    """Whole lists of some requests with the ranker's scores, and their tops as networks read them."""

    scored: pl.DataFrame
    """`request_id, item_id, label, score`."""
    place: Ints
    """Rows of the tops."""
    lists: Lists
    """Raw ids, histories as long as any network reads."""
    requests: pl.DataFrame


@dataclass(frozen=True)
class NetworkMaterial:
    """Everything before the network."""

    config: ExperimentConfig
    log: Log
    split: Split
    assembly: Assembly
    settings: RerankSettings
    """Of the tops."""
    train: Lists
    """Each list scored by a ranker that was fitted on earlier requests."""
    valid: Tops
    test: Tops
    seconds: float
    """That the ranker trained for."""

    @classmethod
    def of(cls, config: ExperimentConfig, tell: Progress) -> Self:
        """Read, divide, recall, describe, fit the ranker, and score."""
        _, log, split, assembly = prepared(config)
        refuse_unknown_tasks(log, config.tasks, exposable=split.slates is None)
        longest = max(history_of(name) for name in config.networks)
        settings = replace(settings_before(RerankConfig(POOLING, config.rerank_top), assembly), history=longest)
        rows = training_data(assembly, split.part("train"), split.positives, SamplingConfig(), tell, split.learn_until)
        parts = {name: split.part(name) for name in ("valid", "test")}
        valid_lists = list(assembly.described(parts["valid"], split.positives, tell, "valid lists"))
        watched = rows_of(assembly, valid_lists, None)
        categorical = assembly.categorical
        began = time.perf_counter()
        ranker = RANKERS["lgbm"].of(config.params).fit(rows, watched, categorical=categorical)
        seconds = time.perf_counter() - began
        train = training_tops(settings, assembly, ranker, rows, split.part("train"), split.positives, 0, tell)
        valid = _tops(assembly, settings, ranker, parts["valid"], valid_lists)
        test_lists = assembly.described(parts["test"], split.positives, tell, "test lists")
        test = _tops(assembly, settings, ranker, parts["test"], test_lists)
        if tasks := config.tasks or tasks_in(log):
            labels = task_labels(log, split.part("train", "valid", "test"), split.positives, tasks)
            train = with_tasks(train, labels)
            valid, test = (replace(tops, lists=with_tasks(tops.lists, labels)) for tops in (valid, test))
        return cls(config, log, split, assembly, settings, train, valid, test, seconds)

    @property
    def protocol(self) -> dict[str, Any]:
        """Of every figure."""
        shown = "the whole list that was shown" if self.split.slates is not None else "recall, never sampled"
        told = f"{shown}; networks order the ranker's first {self.settings.top}"
        return {**self.split.protocol, "candidates": told}

    @property
    def counts(self) -> dict[str, Any]:
        """Lists and rows that networks train on, and cores that they may train with."""
        return {"train": len(self.train), "rows": len(self.train.label), "cores": os.cpu_count()}

    def can(self, cell: NetworkCell, say: Callable[[str], None]) -> bool:
        """Whether the log has what the network reads; else a line says that it is left out."""
        fields = self.settings.fields
        if cell.alone:
            return bool(self.train.further)
        if cell.network != RANKER and learns_tasks(cell.network) and not self.train.further:
            say(f"left out: {cell.network}, as the log has no second label")
            return False
        try:
            if cell.network != RANKER:
                make(cell.network, Shape(len(fields.dense), (2,) * len(fields.ids), len(fields.numbers)))
        except UsageError as error:
            say(f"left out: {cell.network} ({error})")
            return False
        return True


def _tops(
    assembly: Assembly, settings: RerankSettings, ranker: Ranker, requests: pl.DataFrame, lists: Iterable[Described]
) -> Tops:
    rows, tops = [], []
    for each in lists:
        scored = each.candidates.select("request_id", "item_id", "label").with_columns(
            pl.Series("score", ranker.score(each.features))
        )
        rows.append(scored)
        tops.append(top_lists(each.features, scored, each.requests, assembly.store, settings))
    scored = pl.concat(rows)
    return Tops(scored, lists_place(scored, settings.top), concatenated(tops), requests)


def run_cell(material: NetworkMaterial, cell: NetworkCell) -> tuple[dict[str, Any], pl.DataFrame]:
    """Train, export, measure.

    Returns:
        Figures for JSON, and `newsrec.metrics.per_request` of the test lists in the network's order, with the columns
        of the blended order behind it.
    """
    test = material.test
    if cell.alone:
        return _alone(material, cell)
    if cell.network == RANKER:
        found = _measured(test, test.scored["score"], test.scored["score"])
        return {**cell.facts(), **_figures(found), "seconds": material.seconds}, found
    config = RerankConfig.of(cell.network, material.settings.top, {"trainer": {"loss": cell.loss}}, cell.seed)
    settings = settings_before(config, material.assembly)
    read = (each.newest(settings.history) for each in (material.train, material.valid.lists, test.lists))
    several = learns_tasks(cell.network)
    train, valid, asked = (each if several else replace(each, further={}) for each in read)
    began = time.perf_counter()
    model, fitted, files = train_network(config, settings, train, valid, lambda _: None)
    seconds = time.perf_counter() - began
    reranker = Reranker(settings, files[MODEL_FILE])
    blend = fit_blend(valid, log_odds(reranker.probabilities(valid)))
    alone = log_odds(reranker.probabilities(asked))
    rank_score = test.scored["score"].to_numpy()[test.place].astype(float)
    columns = as_columns(test.scored, test.place, asked, blend.scores(rank_score, alone) * blend.ranker_spread, alone)
    found = _measured(test, columns["rerank_alone"], columns["rerank"])
    vocabulary = IdVocabulary.of(train)
    session = open_session(files[MODEL_FILE])
    of_tasks = task_figures(model, vocabulary.coded(asked)) if several else {}
    middle, late = latency(session, vocabulary, settings.fields, settings.history)
    return {
        **cell.facts(),
        **_traits(cell.network),
        **_figures(found),
        "weight": blend.weight,
        "parameters": sum(weight.numel() for weight in model.network.parameters()),
        "seconds": seconds,
        "epochs": len(fitted.curves.valid),
        "bytes": len(files[MODEL_FILE]),
        "p50_ms": middle,
        "p99_ms": late,
        "tasks": of_tasks,
        "curves": {"train": list(fitted.curves.train), "valid": list(fitted.curves.valid)},
        "overfitting": fitted.curves.verdict(),
    }, found


def _alone(material: NetworkMaterial, cell: NetworkCell) -> tuple[dict[str, Any], pl.DataFrame]:
    """AUC of each label by a network that learned it alone; the ranker's order stands for an order."""
    test = material.test
    config = RerankConfig.of(cell.network, material.settings.top, {"trainer": {"loss": cell.loss}}, cell.seed)
    settings = settings_before(config, material.assembly)
    read = [each.newest(settings.history) for each in (material.train, material.valid.lists, test.lists)]
    began, tasks = time.perf_counter(), {}
    for task in (CLICK, *material.train.further):
        train, valid, asked = (_of_label(lists, task) for lists in read)
        vocabulary, model, _ = fit_raw(config, settings, train, valid)
        found = score(model, vocabulary.coded(asked))
        tasks[task] = {"auc": auc_of_lists(found, asked.label == 1, asked.row_request)}
    unmoved = _measured(test, test.scored["score"], test.scored["score"])
    return {**cell.facts(), **_figures(unmoved), "tasks": tasks, "seconds": time.perf_counter() - began}, unmoved


def _of_label(lists: Lists, task: str) -> Lists:
    """The lists with this label in place of the click; candidates of which nobody knows it are not there."""
    if task == CLICK:
        return replace(lists, further={})
    known = np.isfinite(lists.further[task])
    of_label = replace(lists, label=np.where(known, lists.further[task], 0).astype(np.uint8), further={})
    return of_label.only(known)


def _traits(name: str) -> dict[str, bool]:
    if is_own(name):
        return {}
    traits = traits_of(name)
    return {"models_the_sequence": traits.sequence, "aware_of_the_target": traits.target}


def _measured(test: Tops, alone: pl.Series, blended: pl.Series) -> pl.DataFrame:
    first, second = (
        per_request(test.scored.with_columns(scores.alias("score")), test.requests, METRICS)
        for scores in (alone, blended)
    )
    return first.hstack(second.select(pl.col(name).alias(BLEND + name) for name in METRICS))


def _figures(found: pl.DataFrame) -> dict[str, Any]:
    return {"figures": summarise(found), "blend": summarise(_of_blend(found))}


def _of_blend(found: pl.DataFrame) -> pl.DataFrame:
    """The frame with the blended order's values in place of the network's."""
    kept = ["request_id", "user_id", "n_candidates"]
    return found.select(*kept, *(pl.col(BLEND + name).alias(name) for name in METRICS))


def table_of(cells: Sequence[NetworkCell], seeds: range, baseline: NetworkCell, kept: Kept) -> pl.DataFrame:
    """Lay the cells out.

    Returns:
        One row per cell, means over the seeds: `network, loss, models_the_sequence, aware_of_the_target, parameters,
        seconds` (of training and export), `epochs, p50_ms, p99_ms, kilobytes`; for each metric of `COMPARED` the value
        of the network's order and for `over_pooling` and `over_ranker` the difference and the ends `_low`, `_high` of
        its paired 95 % interval (users drawn; a request's value is its mean over the seeds); `BLEND` + each of `SERVED`
        and its difference to the ranker for the blended order, and `weight`, the network's in it. Networks of several
        tasks also have `TASK` + task + `_together` and `_alone`: AUC inside the tops by that network, and by one such
        network per label (the see-saw: what one task gains, another may lose).
    """
    ranker = next(cell for cell in cells if cell.network == RANKER)
    first = {
        "over_pooling": _mean_per_request(baseline, seeds, kept),
        "over_ranker": _mean_per_request(ranker, seeds, kept),
    }
    rows = []
    alone = {
        (cell.network, cell.loss): _of_tasks([kept.figures(cell.with_seed(seed).key) for seed in seeds], "_alone")
        for cell in cells
        if cell.alone
    }
    for cell in (cell for cell in cells if not cell.alone):
        told = [kept.figures(cell.with_seed(seed).key) for seed in seeds]
        found = _mean_per_request(cell, seeds, kept)
        row: dict[str, Any] = {**cell.facts()}
        row |= {name: told[0].get(name) for name in ("models_the_sequence", "aware_of_the_target")}
        row |= {
            name: mean([t.get(name) for t in told]) for name in ("parameters", "seconds", "epochs", "p50_ms", "p99_ms")
        }
        if of_tasks := _of_tasks(told, TOGETHER):
            row |= of_tasks | alone.get((cell.network, cell.loss), {})
        row["kilobytes"] = mean([t["bytes"] / 1e3 if "bytes" in t else None for t in told])
        for name in COMPARED:
            row |= {name: mean([t["figures"].get(name) for t in told])}
            for against, other in first.items():
                row |= _difference(f"{name}_{against}", other, found, name)
        blended = _of_blend(found)
        row["weight"] = mean([t.get("weight") for t in told])
        for name in SERVED:
            row[BLEND + name] = mean([t["blend"].get(name) for t in told])
            row |= _difference(f"{BLEND}{name}_over_ranker", first["over_ranker"], blended, name)
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def _of_tasks(told: Sequence[Mapping[str, Any]], end: str) -> dict[str, float | None]:
    """AUC of each task over the seeds, by `TASK`, the task and an end."""
    tasks = told[0].get("tasks", {})
    return {f"{TASK}{task}{end}": mean([t["tasks"][task]["auc"] for t in told]) for task in tasks}


def _difference(column: str, first: pl.DataFrame, second: pl.DataFrame, name: str) -> dict[str, float | None]:
    found = paired_comparison(first, second, {}, {}, metrics={name: METRICS[name]}).get(name)
    values = (None, None, None) if found is None else (found.difference, found.low, found.high)
    return dict(zip((column, f"{column}_low", f"{column}_high"), values, strict=True))


def _mean_per_request(cell: NetworkCell, seeds: range, kept: Kept) -> pl.DataFrame:
    """Each request's values, averaged over the seeds."""
    frames = pl.concat([kept.per_request(cell.with_seed(seed).key) for seed in seeds])
    means = [pl.col(name).mean() for name in (*METRICS, *(BLEND + name for name in METRICS))]
    return frames.group_by("request_id", maintain_order=True).agg(pl.col("user_id", "n_candidates").first(), *means)


def write_pages(out: Path, table: pl.DataFrame, protocol: Mapping[str, Any]) -> None:
    """Write `table.md` and `table.html`."""
    told, found = f"{protocol_line(protocol)} {NOTE}", grids(table, COMPARED, SERVED)
    with telling_of_place(out):
        (out / "table.md").write_text(markdown(TITLE, told, found), encoding="utf-8")
        (out / "table.html").write_text(html(TITLE, told, found), encoding="utf-8")
