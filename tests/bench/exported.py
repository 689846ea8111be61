"""The exported files at work: one request with 50 candidates and a history of 50, from arrays to scores, on one core.

Beside the network: torch on the same model, and DeepCTR-Torch's DIN where `DEEPCTR_PYTHON` names a Python that has it
(the same fields, embedding and hidden sizes); beside the ranker: LightGBM.
Weights are new: they cost as much as trained ones.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import torch

from newsrec.neural.embedding_sizes import EMBEDDING_SIZES
from newsrec.neural.export import export_network
from newsrec.neural.model import Model
from newsrec.neural.parity import random_batch
from newsrec.neural.ranker_onnx import INPUT, RANKER_MODEL, export_ranker
from newsrec.neural.trainer import tensors
from newsrec.neural.vocabulary import IdVocabulary
from newsrec.rankers import RANKERS, RankingData
from newsrec.rerank import MODEL_FILE
from newsrec.rerankers import make
from newsrec.rerankers.base import Shape
from newsrec.rerankers.din import DinParams
from newsrec.rerankers.int8 import quantised
from newsrec.sessions import open_session
from newsrec.tensors import AGE, Batch, Fields

SIZE: Final = (1, 50, 50)
DENSE: Final = 75
ITEMS, CATEGORIES = 20_000, 400
REQUESTS: Final = 3_000
LIMIT_MS: Final = 3.0
CORES: Final = 2
SECONDS: Final = 5.0
DEEPCTR: Final = Path(__file__).with_name("deepctr_serving.py")

Call = Callable[[int], object]


def run(data: Path | None) -> Iterator[str]:
    """Latency on one core, requests per second on two."""
    torch.set_num_threads(1)
    fields = Fields(tuple(f"f{i}" for i in range(DENSE)), {"item_id": "int64", "category": "int64"}, (AGE,))
    vocabulary = IdVocabulary({"item_id": np.arange(1, ITEMS + 1) * 7, "category": np.arange(1, CATEGORIES + 1)})
    model = Model(make("din", Shape(DENSE, vocabulary.sizes, 1)), DENSE, 1)
    model.eval()
    batches = [_whole(random_batch(vocabulary, fields, SIZE, np.random.default_rng(i))) for i in range(50)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL_FILE
        export_network(model, vocabulary, fields, random_batch(vocabulary, fields, (2, 3, 4), _rng()), path, {})
        exact = path.read_bytes()
    small = quantised(exact)
    yield f"reranker.onnx {len(exact):,} bytes, int8 {len(small):,}; {ITEMS:,} articles, {DENSE} dense columns"
    for name, content in (("onnx", exact), ("onnx int8", small)):
        session, inputs = open_session(content), [batch.named() for batch in batches]
        yield f"{name}: {_measured(lambda i, s=session, x=inputs: s.run(None, x[i % len(x)]))}, limit {LIMIT_MS} ms p99"
    coded = [tensors(_coded(vocabulary, batch)) for batch in batches]
    yield f"torch eager, from codes: {_measured(lambda i: _eager(model, coded[i % 50]))}"
    yield from _deepctr()
    yield from _ranker()


def _coded(vocabulary: IdVocabulary, batch: Batch) -> Batch:
    candidates, clicks = (
        {name: vocabulary.codes(name, values) for name, values in ids.items()} for ids in (batch.ids, batch.history_ids)
    )
    return replace(batch, ids=candidates, history_ids=clicks)


def _eager(model: Model, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    with torch.no_grad():
        return model.probabilities(model(*inputs))


def _measured(call: Call) -> str:
    """Latency of single calls on one core; then calls per second of as many threads as cores."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(everywhere)})
    spread = latency(call)
    os.sched_setaffinity(0, everywhere)
    return f"{spread}; {_rate(call):,.0f} requests/s on {CORES} cores"


def latency(call: Call, times: int = REQUESTS) -> str:
    """Median and 99th percentile, after a tenth as many calls that do not count."""
    for i in range(times // 10):
        call(i)
    spent = []
    for i in range(times):
        began = time.perf_counter()
        call(i)
        spent.append(1000 * (time.perf_counter() - began))
    median, p99 = np.quantile(spent, [0.5, 0.99])
    return f"p50 {median:.2f} ms, p99 {p99:.2f} ms"


def _rate(call: Call) -> float:
    end = time.perf_counter() + SECONDS

    def work(_: int) -> int:
        done = 0
        while time.perf_counter() < end:
            call(done)
            done += 1
        return done

    with ThreadPoolExecutor(CORES) as pool:
        return sum(pool.map(work, range(CORES))) / SECONDS


def _deepctr() -> Iterator[str]:
    python = os.environ.get("DEEPCTR_PYTHON")
    if not python:
        yield "DeepCTR-Torch: not measured, DEEPCTR_PYTHON names no Python that has it"
        return
    params, codes = DinParams(), (ITEMS + 1, CATEGORIES + 1)
    sizes = {
        "candidates": SIZE[1],
        "history": SIZE[2],
        "dense": DENSE,
        "codes": codes,
        "widths": [EMBEDDING_SIZES[params.embedding](n) for n in codes],
        "hidden": params.hidden,
        "attention": [params.attention],
    }
    command = [python, "-W", "ignore", str(DEEPCTR), json.dumps({**sizes, "requests": REQUESTS, "cores": CORES})]
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=alone)
    if done.returncode:
        yield f"DeepCTR-Torch: failed ({done.stderr.strip().splitlines()[-1:]})"
        return
    yield f"DeepCTR-Torch, from codes: {done.stdout.splitlines()[-1]}"


def _ranker() -> Iterator[str]:
    """Five averaged models, as of small logs."""
    rng, n = _rng(), 20_000
    features = pl.DataFrame(rng.normal(size=(n, DENSE)).astype(np.float32))
    label = (features["column_0"].to_numpy() + rng.normal(size=n) > 1).astype(np.uint8)
    rows = RankingData(features, label, np.repeat(np.arange(n // 50), 50), np.ones(n))
    ranker = RANKERS["lgbm"].of({"trees": 100, "models": 5, "threads": 1}).fit(rows, None)
    with tempfile.TemporaryDirectory() as folder:
        export_ranker(ranker, features, (), Path(folder))
        session = open_session((Path(folder) / RANKER_MODEL).read_bytes())
    asked = [features[i * 50 : i * 50 + 50] for i in range(50)]
    arrays: Sequence[np.ndarray] = [np.ascontiguousarray(rows.to_numpy()) for rows in asked]
    yield f"lambdarank.onnx, 5 models of 100 trees: {_measured(lambda i: session.run(None, {INPUT: arrays[i % 50]}))}"
    yield f"LightGBM: {_measured(lambda i: ranker.score(asked[i % 50]))}"


def _whole(batch: Batch) -> Batch:
    """With no place of the history empty."""
    return replace(batch, mask=np.ones_like(batch.mask))


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)
