"""Scores become probabilities of a click, learned on whole lists that nothing was sampled from.

A ranker's score orders; it is no probability: LambdaRank never saw one, and a binary ranker saw thinned lists. A
calibrator maps the final score of a candidate to the share of candidates with such a score that are clicked, and keeps
the order. Training fits one on validation lists, the bundle keeps it, evaluation tells how true it is.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike

from newsrec.errors import BundleError, DataError
from newsrec.metrics import Floats

CALIBRATION: Final = "calibration.json"
"""File of a bundle."""
BINS: Final = 10
"""Classes of predictions, each with the same number of predicted clicks: most candidates have next to no chance, and
classes of equal size would leave one for all that matter."""
ENOUGH_CLICKS: Final = 1_000
"""Below so many, stairs follow the luck of the draw."""
LEAST: Final = 1e-7
"""Probabilities stay so far from 0 and 1."""


class Calibrator(Protocol):
    """A map from score to probability that never falls."""

    @classmethod
    def fit(cls, score: ArrayLike, label: ArrayLike) -> Self:
        """Learn from scores and labels 0 or 1 of whole lists, shape (n_rows,) both.

        Raises:
            DataError: Rows of one class only, or none.
        """
        ...

    def probabilities(self, score: ArrayLike) -> Floats:
        """Chance of a click for each score, above 0 and below 1; shape kept."""
        ...


@dataclass(frozen=True)
class Platt:
    """`sigmoid(slope * score + shift)`: two numbers, so few clicks are enough (Platt 1999)."""

    slope: float
    """Above 0."""
    shift: float
    log_odds: bool = False
    """Scores are probabilities, and their log-odds take their place: a line through probabilities would bend."""

    @classmethod
    def fit(cls, score: ArrayLike, label: ArrayLike) -> Self:
        x, y = _both_classes(score, label)
        bounded = bool(x.min() >= 0 and x.max() <= 1)
        return cls(*platt(_log_odds(x) if bounded else x, y), bounded)

    def probabilities(self, score: ArrayLike) -> Floats:
        x = np.asarray(score, np.float64)
        return _inside(sigmoid(self.slope * (_log_odds(x) if self.log_odds else x) + self.shift))


@dataclass(frozen=True)
class Isotonic:
    """Stairs that never fall, ramps between them: any shape, for many clicks (Zadrozny and Elkan 2002)."""

    score: tuple[float, ...]
    """Ends of the stairs, ascending."""
    probability: tuple[float, ...]
    """Never falling, of the same length."""

    @classmethod
    def fit(cls, score: ArrayLike, label: ArrayLike) -> Self:
        x, y = _both_classes(score, label)
        values, at, count = np.unique(x, return_inverse=True, return_counts=True)
        level, size = never_falling(np.bincount(at, weights=y) / count, count.astype(np.float64))
        last = np.cumsum(size) - 1
        first = last - size + 1
        level = _never_certain(level, np.add.reduceat(count, first))
        ends = np.unique(np.column_stack([first, last]), axis=0)
        knots = np.stack([ends.ravel(), np.repeat(np.arange(len(level)), 2)], axis=1)
        knots = knots[np.append(True, np.diff(knots[:, 0]) > 0)]  # a stair of one score has one end
        return cls(tuple(values[knots[:, 0]].tolist()), tuple(level[knots[:, 1]].tolist()))

    def probabilities(self, score: ArrayLike) -> Floats:
        return _inside(np.interp(np.asarray(score, np.float64), self.score, self.probability))


LEAST_SLOPE: Final = 1e-3
"""Of Platt scaling: an order that tells nothing is still an order."""

CALIBRATORS: Final[Mapping[str, type[Platt] | type[Isotonic]]] = {"platt": Platt, "isotonic": Isotonic}
"""Every kind of calibrator by its name."""


def calibrate(score: ArrayLike, label: ArrayLike) -> Calibrator:
    """Isotonic from `ENOUGH_CLICKS` on, Platt below (Niculescu-Mizil and Caruana 2005).

    Args:
        score: Final scores of whole lists, those without a click included; shape (n_rows,).
        label: 0 or 1, shape (n_rows,).

    Raises:
        DataError: Rows of one class only, or none.
    """
    kind = Isotonic if np.asarray(label).sum() >= ENOUGH_CLICKS else Platt
    return kind.fit(score, label)


def facts_of(calibrator: Calibrator) -> dict[str, Any]:
    """As JSON: `method` and its numbers."""
    name = next(name for name, kind in CALIBRATORS.items() if isinstance(calibrator, kind))
    return {"method": name, **asdict(calibrator)}  # type: ignore[call-overload]


def calibrator_of(facts: Mapping[str, Any]) -> Calibrator:
    """Read what `facts_of` gave.

    Raises:
        BundleError: An unknown method, or other numbers than its own.
    """
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
    method = given.pop("method", None)
    try:
        return CALIBRATORS[str(method)](**given)  # type: ignore[arg-type]
    except (KeyError, TypeError) as error:
        raise BundleError(
            f"calibration: expected one of {sorted(CALIBRATORS)} with its numbers, found {method!r} with "
            f"{sorted(given)}. Train again, or use the newsrec that wrote it."
        ) from error


def save_calibrator(folder: Path, calibrator: Calibrator, of: str) -> None:
    """Write `calibration.json`; `of` says which final score it is made for: `rank` or `rerank`."""
    text = json.dumps({"of": of, **facts_of(calibrator)}, indent=2, allow_nan=False)
    (folder / CALIBRATION).write_text(text + "\n", encoding="utf-8")


def load_calibrator(folder: Path, of: str) -> Calibrator | None:
    """Read what `save_calibrator` wrote; None where it was made for another order.

    Raises:
        BundleError: The file does not hold a calibrator.
    """
    try:
        facts = json.loads((folder / CALIBRATION).read_text(encoding="utf-8"))
        made_for = facts.pop("of")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise BundleError(
            f"{folder / CALIBRATION}: expected a calibrator, found a fault ({error}). Train again."
        ) from error
    calibrator = calibrator_of(facts)
    return calibrator if made_for == of else None


def unsampled(probability: ArrayLike, kept: ArrayLike) -> Floats:
    """The probability before sampling, of one learned where only a share of the negatives was kept.

    `p = q / (q + (1 - q) / w)`, with w above 0 and at most 1: exact for a uniform rate (He et al. 2014, section 6.3).

    >>> float(unsampled(0.5, 0.25))
    0.2
    """
    q = np.asarray(probability, np.float64)
    return np.asarray(q / (q + (1 - q) / np.asarray(kept, np.float64)))


def calibration_figures(probability: ArrayLike, label: ArrayLike) -> dict[str, Any]:
    """How true probabilities are.

    Args:
        probability: Shape (n_rows,), 0..1.
        label: 0 or 1, shape (n_rows,); or the true chance, where it is known.

    Returns:
        `ece`: expected calibration error, the distance of predicted and true rate averaged over the rows of `BINS`
        classes (Naeini et al. 2015); `ece_share`: the same by the click rate; `normalised_entropy`: log loss by that of
        always saying the click rate, below 1 is better than that (He et al. 2014); `logloss`; `mean_probability`;
        `click_rate`; `curve`: `probability, click_rate, rows` of each class, ascending.
    """
    p, y = np.asarray(probability, np.float64), np.asarray(label, np.float64)
    order = np.sort(p)
    share = np.cumsum(order) / max(float(order.sum()), LEAST)
    edges = np.unique(order[np.searchsorted(share, np.arange(1, BINS) / BINS).clip(max=len(order) - 1)])
    bin_ = np.searchsorted(edges, p, side="right")
    sums = np.stack([np.bincount(bin_, weights=w) for w in (np.ones(len(p)), p, y)])
    rows, predicted, clicked = sums[:, sums[0] > 0]
    predicted, clicked = predicted / rows, clicked / rows
    rate = float(y.mean())
    error = float(np.sum(rows * np.abs(predicted - clicked)) / len(p))
    loss, usual = _cross_entropy(p, y), _cross_entropy(np.full(len(y), rate), y)
    return {
        "ece": error,
        "ece_share": error / max(rate, LEAST),
        "normalised_entropy": loss / max(usual, LEAST),
        "logloss": loss,
        "mean_probability": float(p.mean()),
        "click_rate": rate,
        "curve": [
            {"probability": float(a), "click_rate": float(b), "rows": int(n)}
            for a, b, n in zip(predicted, clicked, rows, strict=True)
        ],
    }


def never_falling(value: Floats, weight: Floats) -> tuple[Floats, np.ndarray[Any, np.dtype[np.int64]]]:
    """Pool adjacent violators (Ayer et al. 1955), all falling runs at once.

    Args:
        value: (n,) in order.
        weight: (n,) above 0.

    Returns:
        Levels that strictly rise, (n_levels,), and how many values each stands for.
    """
    size = np.ones(len(value), np.int64)
    while len(value) > 1:
        falls = value[1:] <= value[:-1]
        if not falls.any():
            break
        pool = np.concatenate([[0], np.cumsum(~falls)])
        total = np.bincount(pool, weights=weight).astype(np.float64)
        value = np.bincount(pool, weights=weight * value) / total
        size, weight = np.bincount(pool, weights=size).astype(np.int64), total
    return value, size


def platt(score: Floats, label: Floats) -> tuple[float, float]:
    """Slope and shift of a logistic regression on one variable by Newton's method; the slope is at least `LEAST_SLOPE`.

    A little L2 towards a slope of 1 keeps it finite where the classes separate.

    >>> slope, shift = platt(np.array([-1.0, 1.0] * 500), np.array([0, 0, 1, 1] * 250))
    >>> slope, round(shift, 3)
    (0.001, 0.0)
    """
    line = _newton(np.column_stack([score, np.ones(len(score))]), label, np.array([1.0, 0.0]))
    if line[0] > LEAST_SLOPE:
        return float(line[0]), float(line[1])
    # An order that tells nothing must still be an order, and the mean right.
    known = LEAST_SLOPE * score
    return LEAST_SLOPE, float(_newton(np.ones((len(score), 1)), label, np.zeros(1), known)[0])


def _newton(x: Floats, label: Floats, prior: Floats, known: Floats | float = 0.0) -> Floats:
    """Weights (n_columns,) of a logistic regression beside a known part of the logits."""
    line = prior.copy()
    for _ in range(50):
        p = sigmoid(x @ line + known)
        gradient = x.T @ (p - label) + 1e-3 * (line - prior)
        curvature = (x * (p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(len(line))
        step = np.linalg.solve(curvature, gradient)
        line = line - step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    return line


def sigmoid(x: ArrayLike) -> Floats:
    """`1 / (1 + exp(-x))` without overflow; shape kept."""
    return np.asarray(1 / (1 + np.exp(-np.clip(np.asarray(x, np.float64), -500, 500))))


def _never_certain(level: Floats, rows: np.ndarray[Any, Any]) -> Floats:
    """End stairs without a click, or with nothing else, get half a one: what was not seen is not impossible."""
    moved = level.copy()
    moved[0] = max(level[0], min(0.5 / rows[0], level[min(1, len(level) - 1)]))
    moved[-1] = min(level[-1], max(1 - 0.5 / rows[-1], moved[max(len(level) - 2, 0)]))
    return moved


def _log_odds(probability: Floats) -> Floats:
    p = _inside(probability)
    return np.asarray(np.log(p) - np.log1p(-p))


def _inside(probability: Floats) -> Floats:
    return np.clip(probability, LEAST, 1 - LEAST)


def _cross_entropy(p: Floats, y: Floats) -> float:
    """Mean over the rows, also of true chances between 0 and 1."""
    p = np.clip(p, LEAST, 1 - LEAST)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log1p(-p)))


def _both_classes(score: ArrayLike, label: ArrayLike) -> tuple[Floats, Floats]:
    x, y = np.asarray(score, np.float64), np.asarray(label, np.float64)
    if not (0 < y.sum() < len(y)):
        raise DataError(
            f"calibration: expected clicked and not clicked candidates in validation, found {int(y.sum())} clicked of "
            f"{len(y)}. Validate on more requests."
        )
    return x, y
