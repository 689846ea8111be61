"""A reranker's trials: the ranker's tops of each fold, made once and mapped by all workers, and networks over them.

A trial is worth what would be served: MRR@5 of the blend of network and ranker, each half of the validation users
judging what the other half chose.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from newsrec.assembly import rows_of
from newsrec.data import Log
from newsrec.neural.trainer import METRIC
from newsrec.neural.vocabulary import IdVocabulary
from newsrec.progress import Progress
from newsrec.rankers import RANKERS, Ranker, RankingData
from newsrec.rerankers.base import Shape
from newsrec.rerankers.blending import crosswise
from newsrec.rerankers.stage import RerankConfig, fit_network, settings_before, tops_of, training_tops, weighed
from newsrec.tensors import Lists
from newsrec.train_config import TrainConfig
from tuning.frames import (
    FACTS,
    Divided,
    FoldFacts,
    Frames,
    FramesFacts,
    before,
    divided,
    moment,
    telling_of_room,
    training_rows,
)
from tuning.objective import FoldDone, Measured, Report, Setting
from tuning.spaces import nested
from tuning.trials import REPORT_EVERY

EPOCH_STEPS: Final = REPORT_EVERY
"""Iterations that an epoch counts as: each is reported, and the first is not judged."""
NAMED: Final = ("ids", "history_ids", "history_numbers")
"""Parts of `Lists` that are mappings."""
PLAIN: Final = ("request_id", "length", "dense", "history_length", "label")
WEIGHT: Final = "weight"


def write_tops(config: TrainConfig, log: Log, folds: int, folder: Path, tell: Progress) -> Frames:
    """Fit the ranker of each fold and lay down its tops, coded; the arguments and errors of `write_frames`."""
    parts = divided(config, log, folds)
    rows = training_rows(parts, tell)
    with telling_of_room(folder):
        facts = [_write_fold(parts, number, rows, folder, tell) for number in range(folds)]
        found = FramesFacts(tuple(rows.features.columns), (), tuple(facts))
        (folder / FACTS).write_text(json.dumps(asdict(found)) + "\n", encoding="utf-8")
    return Frames(folder, found)


def _write_fold(parts: Divided, number: int, rows: RankingData, folder: Path, tell: Progress) -> FoldFacts:
    """Train on what lies before the fold's validation period, and write both tops."""
    config, first, split = parts.config, parts.splits[0], parts.splits[number]
    requests, asked = before(first.part("train"), split), split.part("valid")
    earlier = rows.take(np.isin(rows.request, requests["request_id"].to_numpy()))
    assembly, validating = parts.assembly(0), parts.assembly(number)
    whole = list(validating.described(asked, split.positives, tell, "validation"))
    watched = rows_of(validating, whole, None)
    ranker: Ranker = RANKERS[config.ranker].of(config.params)
    ranker.fit(earlier, watched, categorical=assembly.categorical, seed=config.seed)
    chosen = RerankConfig(config.reranker or "", config.rerank_top)
    settings = settings_before(chosen, assembly)
    train = training_tops(settings, assembly, ranker, earlier, requests, first.positives, config.seed, tell)
    train = weighed(train, earlier)
    valid = tops_of(validating, settings, ranker.score, whole)
    vocabulary = IdVocabulary.of(train)
    for name, lists in (("train", train), ("valid", valid)):
        _write_lists(folder / f"{name}-{number}", vocabulary.coded(lists))
    shape = Shape(len(settings.fields.dense), vocabulary.sizes, len(settings.fields.numbers))
    (folder / f"shape-{number}.json").write_text(json.dumps(asdict(shape)) + "\n", encoding="utf-8")
    asked.select("request_id", "user_id", "positives").write_parquet(folder / f"requests-{number}.parquet")
    until = (moment(split.learn_until), moment(split.known_until))
    return FoldFacts(len(train.label), len(train), *until, valid_requests=len(asked))


@dataclass
class RerankObjective:
    """A network on every fold."""

    name: str
    """In `newsrec.rerankers.RERANKERS`."""
    frames: Frames
    setting: Setting

    def __post_init__(self) -> None:
        """Map each fold when it is first asked for."""
        self._tops = cache(self._open)

    def __call__(self, params: Mapping[str, Any], report: Report, fold_done: FoldDone) -> Measured:
        if self.setting.threads:
            torch.set_num_threads(self.setting.threads)
        config = RerankConfig.of(self.name, 2, nested(params), self.setting.seed)
        scores: list[float] = []
        values, epochs = [], []
        for fold in range(len(self.frames.facts.folds)):
            shape, train, valid = self._tops(fold)
            _, fitted = fit_network(config, shape, train, valid, _on_epoch(fold, report))
            found = crosswise(valid, fitted.logits, self.frames.requests(fold), self.setting.seed)[1][METRIC]
            scores.append(float(found.mean() or 0.0))  # type: ignore[arg-type]
            values.append(found.cast(pl.Float32).to_numpy())
            epochs.append(fitted.curves.best_epoch)
            fold_done(fold, float(np.mean(scores)))
        return Measured(tuple(scores), np.concatenate(values), {"epochs": epochs})

    def _open(self, fold: int) -> tuple[Shape, Lists, Lists]:
        told = json.loads((self.frames.folder / f"shape-{fold}.json").read_text(encoding="utf-8"))
        shape = Shape(**(told | {"sizes": tuple(told["sizes"])}))
        train, valid = (_read_lists(self.frames.folder / f"{name}-{fold}") for name in ("train", "valid"))
        return shape, train, valid


def _on_epoch(fold: int, report: Report) -> Callable[[float], None]:
    seen: list[float] = []

    def tell(value: float) -> None:
        seen.append(value)
        report(fold, len(seen) * EPOCH_STEPS, max(seen))

    return tell


def _write_lists(folder: Path, lists: Lists) -> None:
    folder.mkdir()
    arrays: dict[str, npt.NDArray[Any]] = {name: getattr(lists, name) for name in PLAIN}
    arrays |= {} if lists.weight is None else {WEIGHT: lists.weight}
    arrays |= {f"{part}.{name}": values for part in NAMED for name, values in getattr(lists, part).items()}
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    fields = {part: list(getattr(lists, part)) for part in NAMED}  # their order is that of the network's columns
    (folder / "fields.json").write_text(json.dumps(fields) + "\n", encoding="utf-8")


def _read_lists(folder: Path) -> Lists:
    """Coded lists, mapped; copied where somebody writes, as torch takes no array that cannot be written."""
    fields = json.loads((folder / "fields.json").read_text(encoding="utf-8"))

    def array(name: str) -> npt.NDArray[Any]:
        mapped: npt.NDArray[Any] = np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)
        return mapped

    told: dict[str, Any] = {name: array(name) for name in PLAIN}
    told |= {WEIGHT: array(WEIGHT)} if (folder / f"{WEIGHT}.npy").is_file() else {}
    told |= {part: {name: array(f"{part}.{name}") for name in fields[part]} for part in NAMED}
    return Lists(**told, coded=True)
