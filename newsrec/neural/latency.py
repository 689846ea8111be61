"""What one request costs in onnxruntime, on one core."""

import time
from typing import TYPE_CHECKING, Final

import numpy as np

from newsrec.neural.parity import random_batch
from newsrec.neural.vocabulary import IdVocabulary
from newsrec.tensors import MASK, Fields

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CANDIDATES: Final = 50
CALLS: Final = 200
UNTIMED: Final = 20
"""Calls before, while onnxruntime lays out its memory."""


def latency(session: "InferenceSession", vocabulary: IdVocabulary, fields: Fields, history: int) -> tuple[float, float]:
    """Median and 99th percentile of a call in milliseconds, for `CANDIDATES` and a whole history.

    Args:
        session: Of one thread.
        vocabulary: Of the network.
        fields: Its inputs.
        history: Clicks.
    """
    batch = random_batch(vocabulary, fields, (1, CANDIDATES, history), np.random.default_rng(0))
    inputs = {**batch.named(), MASK: np.ones_like(batch.mask)}
    taken = []
    for _ in range(UNTIMED + CALLS):
        began = time.perf_counter()
        session.run(None, inputs)
        taken.append(1e3 * (time.perf_counter() - began))
    middle, late = np.percentile(taken[UNTIMED:], [50, 99])
    return float(middle), float(late)
