"""Does the ONNX file score as torch does? Cases of sizes and values that the export never saw."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from newsrec.errors import BundleError
from newsrec.neural.signature import ATOL, RTOL
from newsrec.neural.vocabulary import IdVocabulary
from newsrec.rerank import OUTPUT
from newsrec.sessions import open_session
from newsrec.tensors import NO_INTEGER, NO_STRING, Array, Batch, Fields

SIZES: Final = ((1, 1, 0), (1, 1, 1), (1, 50, 50), (2, 7, 3), (7, 20, 12), (3, 300, 5), (256, 5, 9))
"""Requests, candidates, clicks."""
UNKNOWN_STRING: Final = "an id that nobody has"


class ParityError(BundleError):
    """The exported network does not score as the trained one."""


def check_parity(score: Callable[[Batch], Array], vocabulary: IdVocabulary, fields: Fields, path: Path) -> float:
    """Compare probabilities and orders over all cases.

    Args:
        score: What torch gives for a batch of raw ids, (requests, candidates).
        vocabulary: Of the network.
        fields: Its inputs.
        path: The ONNX file.

    Returns:
        The largest difference.

    Raises:
        ParityError: With the case, the largest difference and the tolerance.
    """
    session, largest = open_session(path.read_bytes(), str(path)), 0.0
    for name, batch in cases(vocabulary, fields):
        wanted = score(batch)
        found = session.run([OUTPUT], batch.named())[0]
        if found.shape != wanted.shape:
            raise ParityError(f"{path}: expected shape {wanted.shape} in case '{name}', found {found.shape}.")
        difference = float(np.abs(found - wanted).max(initial=0.0))
        if not np.isfinite(found).all() or not np.allclose(found, wanted, RTOL, ATOL) or not same_order(found, wanted):
            raise ParityError(
                f"{path}: expected the scores and the order of torch in case '{name}', found a difference of "
                f"{difference:.2e} (tolerance {ATOL:.0e} + {RTOL:.0e} of the score). Report this as a bug."
            )
        largest = max(largest, difference)
    return largest


def same_order(found: Array, wanted: Array) -> bool:
    """Whether candidates whose wanted scores differ by more than the tolerance stand in the same order.

    Args:
        found: (requests, candidates).
        wanted: (requests, candidates).
    """
    order = np.argsort(-found, axis=1, kind="stable")
    ordered = np.take_along_axis(wanted, order, axis=1)
    rise = ordered[:, 1:] - np.minimum.accumulate(ordered, axis=1)[:, :-1]
    return bool((rise <= ATOL + RTOL * np.abs(ordered[:, 1:])).all())


def cases(vocabulary: IdVocabulary, fields: Fields) -> Iterator[tuple[str, Batch]]:
    """Named batches of raw ids: all sizes, and special values at one size."""
    rng = np.random.default_rng(0)
    for size in SIZES:
        yield f"requests, candidates, clicks = {size}", random_batch(vocabulary, fields, size, rng)
    batch = random_batch(vocabulary, fields, (4, 9, 6), rng)
    yield "empty histories in padding", replace(batch, mask=np.zeros_like(batch.mask))
    yield "half of each history", replace(batch, mask=(np.arange(6) < 3).astype(np.float32) * np.ones_like(batch.mask))
    yield "nothing is known", replace(batch, dense=np.full_like(batch.dense, np.nan))
    extreme = rng.choice(np.array([1e30, -1e30, np.inf, -np.inf, 0.0], np.float32), batch.dense.shape)
    yield "extreme values", replace(batch, dense=extreme)
    yield "unknown ids", replace(batch, ids={name: _unknown(ids) for name, ids in batch.ids.items()})
    same = {name: ids[:, :1].repeat(ids.shape[1], 1) for name, ids in batch.ids.items()}
    yield "one article many times", replace(batch, ids=same)


def random_batch(
    vocabulary: IdVocabulary, fields: Fields, size: tuple[int, int, int], rng: np.random.Generator
) -> Batch:
    """Raw ids, known and unknown, and numbers, drawn at random: requests, candidates, clicks."""
    requests, candidates, history = size
    length = rng.integers(0, history + 1, requests)
    mask = (np.arange(history) < length[:, None]).astype(np.float32)
    return Batch(
        rng.normal(0, 30, (requests, candidates, len(fields.dense))).astype(np.float32),
        {name: _ids(known, (requests, candidates), rng) for name, known in vocabulary.known.items()},
        {name: _ids(known, (requests, history), rng) for name, known in vocabulary.known.items()},
        {name: rng.gamma(1, 30, (requests, history)).astype(np.float32) for name in fields.numbers},
        mask,
        np.zeros((requests, candidates), np.int64),
    )


def _ids(known: Array, shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Known ids, unknown ones, and the marker of a missing one."""
    strange = [-1, 2**62, NO_INTEGER] if known.dtype.kind == "i" else [UNKNOWN_STRING, NO_STRING, "ö\n"]
    found: Array = rng.choice(np.concatenate([known, np.array(strange, known.dtype)]), shape)
    return found


def _unknown(ids: Array) -> Array:
    return np.full_like(ids, -1 if ids.dtype.kind == "i" else UNKNOWN_STRING)
