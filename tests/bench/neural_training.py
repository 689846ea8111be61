"""Rows per second in training: our DIN, the same without each of its savings, and DeepCTR-Torch's DIN.

All read article and category of the candidate and of the last 50 clicks, with the same embedding sizes, layers, rows
per batch, loss, epochs and threads. Validation is a tenth of the users in the same days: of articles that nobody had
clicked before, ids tell nothing. DeepCTR-Torch runs where `DEEPCTR_PYTHON` names a Python that has it.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import polars as pl
import torch
from torch import Tensor

from features.columns import HOUR
from features.events import EventStore, milliseconds
from newsrec.data import Log, read_log
from newsrec.neural import trainer
from newsrec.neural.model import Model
from newsrec.neural.trainer import TrainerConfig, score
from newsrec.neural.vocabulary import IdVocabulary
from newsrec.rerankers import din
from newsrec.rerankers.base import Shape
from newsrec.rerankers.din import Din, DinParams
from newsrec.simulate import simulate
from newsrec.split import SplitConfig, split_log
from newsrec.tensors import AGE, RANKER_SCORE, Fields, Lists, lists_of
from tests.bench import deepctr
from tests.bench.deepctr import HISTORY

NEGATIVES: Final = 4
BATCH_ROWS: Final = 1_000
EPOCHS: Final = 2
ROUNDS: Final = 3
THREADS: Final = 2
REQUESTS: Final = 60_000
VALID: Final = 0.1
"""Share of the users."""
PARAMS: Final = DinParams(activation="dice", softmax=False, dropout=0.0)
CONFIG: Final = TrainerConfig(
    loss="bce", batch=BATCH_ROWS // (1 + NEGATIVES), l2=1e-6, hidden_ids=0.0, negatives=None, device="cpu"
)


def run(data: Path | None) -> Iterator[str]:
    """A ladder from plain to ours, each step's factor; then DeepCTR-Torch beside ours, with the validation's AUC."""
    torch.set_num_threads(THREADS)
    log = simulate().log if data is None else read_log(data)
    raw = [without_ages(lists) for lists in drawn_lists(log)]
    vocabulary = IdVocabulary.of(raw[0])
    train, valid = map(vocabulary.coded, raw)
    rows, clicks = len(train.label), train.history_length.mean()
    yield f"{rows:,} rows in {len(train):,} lists, mean history {clicks:.1f} of at most {HISTORY}, {THREADS} threads"
    before = _rows_per_second(vocabulary, _per_row(train), whole=True, padding=True)
    yield f"plain: every row its own history, padded to {HISTORY}, one whole first layer: {before:,.0f} rows/s"
    steps = {
        "shared histories": {"lists": train, "whole": True, "padding": True},
        "no padding": {"lists": train, "whole": True, "padding": False},
        "split layer": {"lists": train, "whole": False, "padding": False},
    }
    for name, options in steps.items():
        speed = _rows_per_second(vocabulary, **options)  # type: ignore[arg-type]
        yield f"+ {name}: {speed:,.0f} rows/s, factor {speed / before:.2f}"
        before = speed
    yield from _in_turn(vocabulary, train, valid)


def drawn_lists(log: Log, requests: int = REQUESTS, history: int = HISTORY) -> tuple[Lists, Lists]:
    """Each click with four articles that others clicked in the three hours before it; training and validation."""
    store = EventStore(log.clicks, log.articles)
    split = split_log(log, store, SplitConfig(train_requests=requests))
    parted, clicked = split.part("train"), split.positives.unique("request_id", maintain_order=True)
    asked = parted.select("request_id", "requested_at").join(clicked, on="request_id", maintain_order="left")
    recent = log.clicks.select("clicked_at", "item_id").sort("clicked_at")
    time_of, at = milliseconds(recent["clicked_at"]), milliseconds(asked["requested_at"])
    first, last = np.searchsorted(time_of, at - 3 * HOUR), np.searchsorted(time_of, at)
    draw = np.random.default_rng(0).random((len(asked), NEGATIVES))
    place = first[:, None] + (draw * np.maximum(last - first, 1)[:, None]).astype(np.int64)
    others = recent["item_id"].gather(np.minimum(place, len(recent) - 1).ravel()).to_numpy().reshape(place.shape)
    items = np.column_stack([asked["item_id"].to_numpy(), others])
    kept = (items[:, :1] != others).all(axis=1) & (last > first)  # a draw that hits the click would be no negative
    rows = pl.DataFrame(
        {
            "request_id": np.repeat(asked["request_id"].to_numpy()[kept], 1 + NEGATIVES),
            "item_id": items[kept].ravel(),
            "label": np.tile([1] + [0] * NEGATIVES, int(kept.sum())).astype(np.uint8),
            "score": np.zeros(int(kept.sum()) * (1 + NEGATIVES), np.float32),
        }
    )
    fields = replace(Fields.of(store, ()), dense=("nothing", RANKER_SCORE), numbers=(AGE,))
    described = pl.DataFrame({"nothing": np.zeros(len(rows), np.float32)})
    lists = lists_of(described, rows, parted, store, fields, history)
    users = parted["user_id"].unique().sort()
    held = parted.filter(pl.col("user_id").is_in(users.sample(fraction=VALID, seed=0).implode()))["request_id"]
    validates = np.isin(lists.request_id, held.to_numpy())
    return lists.chosen(np.flatnonzero(~validates)), lists.chosen(np.flatnonzero(validates))


def without_ages(lists: Lists) -> Lists:
    """DeepCTR-Torch's DIN reads none."""
    return replace(lists, history_numbers={AGE: np.ones_like(lists.history_numbers[AGE])})


def _per_row(lists: Lists) -> Lists:
    """Every candidate as a request of its own, with a copy of its history."""
    copies = lists.chosen(lists.row_request)
    own = np.arange(len(lists.label)) - lists.start[lists.row_request]
    return copies.only(np.arange(len(copies.label)) - copies.start[copies.row_request] == own[copies.row_request])


class WholeUnit(din.ActivationUnit):
    """The activation unit as the paper draws it: one layer over all four parts of every pair."""

    def forward(self, history: Tensor, target: Tensor, numbers: Tensor, mask: Tensor) -> Tensor:
        shape = (*target.shape[:2], *history.shape[1:])
        h, t = history[:, None].expand(shape), target[:, :, None].expand(shape)
        first = self.first(torch.cat([h, t, h - t, h * t], dim=-1)) + self.numbers(numbers)[:, None]
        there = mask[:, None, :]
        weight: Tensor = self.second(self.activation(first, there.expand(first.shape[:-1]))).squeeze(-1)
        return weight * there


def _model(vocabulary: IdVocabulary) -> Model:
    torch.manual_seed(0)
    return Model(Din(Shape(2, vocabulary.sizes, 1), PARAMS), 2, 1)


def _rows_per_second(vocabulary: IdVocabulary, lists: Lists, whole: bool, padding: bool) -> float:
    """Of one epoch."""
    config = replace(CONFIG, batch=BATCH_ROWS // int(lists.length[0]))
    with ExitStack() as stack:
        if whole:
            stack.enter_context(patch.object(din, "ActivationUnit", WholeUnit))
        if padding:
            stack.enter_context(patch.object(trainer, "padded", deepctr.padded_to_the_end))
        model = _model(vocabulary)
        optimiser = trainer._optimiser(model, config)
        began = time.perf_counter()
        trainer._epoch(model, lists, optimiser, config, 0)
        return len(lists.label) / (time.perf_counter() - began)


def _trained(vocabulary: IdVocabulary, train: Lists, valid: Lists) -> deepctr.Trained:
    model = _model(vocabulary)
    optimiser = trainer._optimiser(model, CONFIG)
    began = time.perf_counter()
    for epoch in range(EPOCHS):
        trainer._epoch(model, train, optimiser, CONFIG, epoch)
    speed = EPOCHS * len(train.label) / (time.perf_counter() - began)
    return deepctr.Trained(speed, deepctr.auc(score(model, valid), valid.label))


def _in_turn(vocabulary: IdVocabulary, train: Lists, valid: Lists) -> Iterator[str]:
    """Ours and DeepCTR-Torch's, one after the other, `ROUNDS` times: a machine's speed drifts within minutes."""
    ours, its, ratios = [], [], []
    for _ in range(ROUNDS):
        ours.append(_trained(vocabulary, train, valid))
        if deepctr.python() is not None:
            its.append(deepctr.trained("din", train, valid, settings(vocabulary, epochs=EPOCHS, seed=0)))
            ratios.append(ours[-1].rows_per_second / its[-1].rows_per_second)
    yield f"newsrec: {_told(ours)} after {EPOCHS} epochs"
    if not its:
        yield deepctr.ABSENT
        return
    each = ", ".join(f"{ratio:.1f}" for ratio in ratios)
    yield f"DeepCTR-Torch: {_told(its)}; newsrec is {median(ratios):.1f} times as fast ({each} in {ROUNDS} rounds)"


def _told(rounds: list[deepctr.Trained]) -> str:
    return f"{median(each.rows_per_second for each in rounds):,.0f} rows/s, validation AUC {rounds[0].auc:.4f}"


def settings(vocabulary: IdVocabulary, epochs: int, seed: int) -> dict[str, Any]:
    """What DeepCTR-Torch must be told to train the same."""
    tables = _model(vocabulary).network.embed.tables
    return {
        "fields": [*vocabulary.known],
        "sizes": vocabulary.sizes,
        "widths": [table.embedding_dim for table in tables],  # type: ignore[union-attr]
        "hidden": PARAMS.hidden,
        "attention": [PARAMS.attention],
        "learning_rate": CONFIG.learning_rate,
        "epochs": epochs,
        "batch": BATCH_ROWS,
        "threads": THREADS,
        "seed": seed,
    }
