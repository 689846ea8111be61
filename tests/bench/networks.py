"""Every network beside DIN: training rows per second on the same batches, and what its ONNX file costs per request.

All read article, category and age of the last 50 clicks, `sim` of the last 1,000; defaults of every network, one loss.
Latency: 50 candidates, a whole history, onnxruntime on one thread.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import torch

from newsrec.data import read_log
from newsrec.neural import trainer
from newsrec.neural.export import export_network
from newsrec.neural.latency import CANDIDATES, latency
from newsrec.neural.model import Model
from newsrec.neural.parity import random_batch
from newsrec.neural.trainer import TrainerConfig
from newsrec.neural.vocabulary import IdVocabulary
from newsrec.rerankers import RERANKERS, history_of, make
from newsrec.rerankers.base import Shape
from newsrec.sessions import open_session
from newsrec.simulate import simulate
from newsrec.tensors import AGE, RANKER_SCORE, Fields, Lists
from tests.bench.neural_training import drawn_lists

REQUESTS: Final = 14_000
BATCH: Final = 200
"""Lists of five."""
ROUNDS: Final = 3
"""Networks are timed one after the other, so often; the median counts."""
CONFIG: Final = TrainerConfig(batch=BATCH, negatives=None, device="cpu")


def run(data: Path | None) -> Iterator[str]:
    """One line per network."""
    log = simulate().log if data is None else read_log(data)
    raw = drawn_lists(log, REQUESTS, max(map(history_of, RERANKERS)))[0]
    vocabulary = IdVocabulary.of(raw)
    lists = vocabulary.coded(raw)
    clicks = {name: lists.newest(history_of(name)) for name in RERANKERS}
    yield f"{len(lists.label):,} rows, mean history {clicks['din'].history_length.mean():.1f} of at most 50, " + (
        f"{lists.history_length.mean():.1f} of at most 1000; {torch.get_num_threads()} threads"
    )
    speeds: dict[str, list[float]] = {name: [] for name in RERANKERS}
    for _ in range(ROUNDS):
        for name in RERANKERS:
            speeds[name].append(_rows_per_second(name, vocabulary, clicks[name]))
    speed = {name: float(np.median(values)) for name, values in speeds.items()}
    for name in RERANKERS:
        size, (middle, late) = _cost(name, vocabulary)
        yield (
            f"{name}: {speed[name]:,.0f} rows/s, {speed[name] / speed['din']:.2f} of DIN's; "
            f"ONNX {size / 1e3:,.0f} kB, {CANDIDATES} candidates in {middle:.2f} ms (p50), {late:.2f} ms (p99)"
        )


def _model(name: str, vocabulary: IdVocabulary) -> Model:
    torch.manual_seed(0)
    return Model(make(name, Shape(2, vocabulary.sizes, 1)), 2, 1)


def _rows_per_second(name: str, vocabulary: IdVocabulary, lists: Lists) -> float:
    """Of one epoch, after one batch that is not counted."""
    model = _model(name, vocabulary)
    model.fit_scales(lists)
    optimiser = trainer._optimiser(model, CONFIG)
    trainer._epoch(model, lists.chosen(np.arange(BATCH)), optimiser, CONFIG, 0)
    began = time.perf_counter()
    trainer._epoch(model, lists, optimiser, CONFIG, 1)
    return len(lists.label) / (time.perf_counter() - began)


def _cost(name: str, vocabulary: IdVocabulary) -> tuple[int, tuple[float, float]]:
    """Bytes of the file; p50 and p99 of one call in ms, with a history as long as the network reads."""
    fields = Fields(("nothing", RANKER_SCORE), {name: str(ids.dtype) for name, ids in vocabulary.known.items()}, (AGE,))
    example = random_batch(vocabulary, fields, (1, 2, 2), np.random.default_rng(0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        export_network(_model(name, vocabulary), vocabulary, fields, example, path, {})
        session = open_session(path.read_bytes())
        return path.stat().st_size, latency(session, vocabulary, fields, history_of(name))
