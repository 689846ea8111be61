"""DIN, DIEN and the pooling control beside the same networks of DeepCTR-Torch: same rows, sizes, loss and epochs.

Rows and validation are those of `neural_training`. What differs on purpose stays: ours multiplies interest and
candidate before the last layers, draws embeddings wider, and both of ours with attention are given ages that are all
the same. DIEN is trained without its further loss in both, since each draws the negatives for it in its own way.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from newsrec.data import read_log
from newsrec.neural import trainer
from newsrec.neural.model import Model
from newsrec.neural.trainer import score
from newsrec.neural.vocabulary import IdVocabulary
from newsrec.rerankers import make
from newsrec.rerankers.base import Shape
from newsrec.simulate import simulate
from newsrec.tensors import Lists
from tests.bench import deepctr
from tests.bench.neural_training import CONFIG, THREADS, drawn_lists, settings, without_ages

REQUESTS: Final = 30_000
EPOCHS: Final = 2
SEEDS: Final = (0, 1, 2)
COMMON: Final[dict[str, Any]] = {"dropout": 0.0}
PARAMS: Final[dict[str, dict[str, Any]]] = {
    "pooling": COMMON,
    "din": COMMON | {"activation": "dice", "softmax": False},
    "dien": COMMON | {"auxiliary": 0.0},
}


def run(data: Path | None) -> Iterator[str]:
    """Validation AUC of each network, ours and theirs: mean and range over the seeds."""
    torch.set_num_threads(THREADS)
    raw = [without_ages(lists) for lists in drawn_lists(simulate().log if data is None else read_log(data), REQUESTS)]
    vocabulary = IdVocabulary.of(raw[0])
    train, valid = map(vocabulary.coded, raw)
    yield f"{len(train.label):,} training rows, {len(valid.label):,} of validation, {EPOCHS} epochs, {len(SEEDS)} seeds"
    for name in PARAMS:
        yield _told(name, "newsrec", [_ours(name, vocabulary, train, valid, seed) for seed in SEEDS])
        if deepctr.python() is None:
            yield deepctr.ABSENT
            continue
        told = [settings(vocabulary, EPOCHS, seed) for seed in SEEDS]
        yield _told(
            name, "DeepCTR-Torch", [deepctr.trained(name, train, valid, each, name == "dien").auc for each in told]
        )


def _told(name: str, whose: str, found: list[float]) -> str:
    return f"{name}, {whose}: validation AUC {np.mean(found):.4f} ({min(found):.4f} .. {max(found):.4f})"


def _ours(name: str, vocabulary: IdVocabulary, train: Lists, valid: Lists, seed: int) -> float:
    torch.manual_seed(seed)
    model = Model(make(name, Shape(2, vocabulary.sizes, 1), PARAMS[name]), 2, 1)
    config = replace(CONFIG, seed=seed)
    optimiser = trainer._optimiser(model, config)
    for epoch in range(EPOCHS):
        trainer._epoch(model, train, optimiser, config, epoch)
    return deepctr.auc(score(model, valid), valid.label)
