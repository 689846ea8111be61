"""What is searched: one space per model, each bound with its reason, and TOML files that change them.

A space is a mapping from the name of a parameter to its `Dimension`. `suggest` asks a trial for all of them, always in
the same order, so that every sampler sees one space; `defaults` is the point that every study begins with.
"""

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import optuna

from newsrec.errors import UsageError
from newsrec.rerankers import RERANKERS

Space = Mapping[str, "Dimension"]
Value = float | int | bool | str


@dataclass(frozen=True)
class Dimension:
    """Values of one parameter: a range, or choices. A single choice is not searched, but kept."""

    default: Value
    """What the study's first trial has."""
    low: float | None = None
    """Least value, inclusive."""
    high: float | None = None
    """Greatest value, inclusive."""
    log: bool = False
    """Whether to search orders of magnitude."""
    choices: tuple[Value, ...] | None = None

    @property
    def whole(self) -> bool:
        """Whether the range is of whole numbers."""
        return all(isinstance(each, int) for each in (self.default, self.low, self.high))

    @property
    def fixed(self) -> bool:
        """Whether there is nothing to search."""
        return self.choices is not None and len(self.choices) == 1


LGBM: Final[Space] = {
    # Validation picks among the three: which one wins differs from log to log.
    "objective": Dimension("lambdarank", choices=("lambdarank", "rank_xendcg", "binary")),
    # Below 0.03 the 300 trees end before early stopping does; above 0.2 a few trees memorise the training days.
    "learning_rate": Dimension(0.07, 0.03, 0.2, log=True),
    # Relative to what follows from the rows (`LgbmParams.for_rows`), so that a sample's answer serves the whole log.
    # A quarter of 31 leaves is 8, about depth 3; four times 255 is where memory of the histograms begins to matter.
    "leaves_scale": Dimension(1.0, 0.25, 4.0, log=True),
    # A tenth of 100 rows: ten requests can make a leaf. Ten times: leaves as large as the news of an hour.
    "leaf_rows_scale": Dimension(1.0, 0.1, 10.0, log=True),
    # Many features say nearly the same in other windows, so small shares work; below 0.2 most trees miss the best.
    "feature_fraction": Dimension(0.5, 0.2, 1.0),
    # Less than 0.4 of the rows throws away what was dear to describe.
    "bagging_fraction": Dimension(0.8, 0.4, 1.0),
    # Gradients of ranking are small: 0.01 is no regularisation, 100 stops a tree after a few splits.
    "lambda_l2": Dimension(5.0, 0.01, 100.0, log=True),
    # Below the length that is scored, pairs of interest are lost; beyond 50 the tail of the list sets the gradient.
    "truncation": Dimension(10, 5, 50, log=True),
    # Early stopping chooses the trees, so these two are not searched. `max_bin` is absent: it shapes the binned data,
    # which a worker makes once.
    "trees": Dimension(300, choices=(300,)),
    "patience": Dimension(40, choices=(40,)),
}

TRAINER: Final[Space] = {
    # Those that order a list; a test holds the names to `newsrec.neural.losses.LOSSES`.
    "trainer.loss": Dimension("softmax", choices=("softmax", "bce", "focal", "bpr", "lambdaloss")),
    # Adam's usual decade on both sides: slower does not end within the epochs, faster forgets the embeddings.
    "trainer.learning_rate": Dimension(1e-3, 1e-4, 1e-2, log=True),
    # From no regularisation to embeddings that cannot grow.
    "trainer.l2": Dimension(1e-5, 1e-7, 1e-2, log=True),
    # Most articles of tomorrow are unknown, so some hiding helps; with half of them hidden ids say little.
    "trainer.hidden_ids": Dimension(0.1, 0.0, 0.5),
    # Of the others in a top of twenty: one is the least, nineteen are all.
    "trainer.negatives": Dimension(4, 1, 19, log=True),
    # Lists per step: below 32 steps are noise and slow, above 512 there are too few of them.
    "trainer.batch": Dimension(128, 32, 512, log=True),
}
"""What every network shares: names are those of `train --rerank-params`, joined by a dot."""
DIN: Final[Space] = {
    **TRAINER,
    # Half and twice the paper's 36 and more: what weighs a click is a small question.
    "network.attention": Dimension(36, 9, 72, log=True),
    # Units per layer as text, since a choice is a plain value.
    "network.hidden": Dimension("64,32", choices=("32", "64,32", "128,64")),
    # The paper leaves the softmax out; others keep it.
    "network.softmax": Dimension(True, choices=(False, True)),
    "network.dropout": Dimension(0.1, 0.0, 0.5),
}


def nested(params: Mapping[str, Value]) -> dict[str, Any]:
    """Parameters whose names hold a dot as one object per part; layers that are text become lists.

    >>> nested({"trees": 3, "network.hidden": "64,32", "network.softmax": True})
    {'trees': 3, 'network': {'hidden': [64, 32], 'softmax': True}}
    """
    found: dict[str, Any] = {}
    for name, value in params.items():
        part, dot, inner = name.partition(".")
        if not dot:
            found[name] = value
        else:
            units = inner == "hidden" and isinstance(value, str)
            found.setdefault(part, {})[inner] = [int(n) for n in str(value).split(",")] if units else value
    return found


def suggest(space: Space, trial: optuna.Trial) -> dict[str, Value]:
    """Values of every parameter for a trial."""
    return {name: _suggest(name, each, trial) for name, each in space.items()}


def defaults(space: Space) -> dict[str, Value]:
    """The point to begin with, of what is searched."""
    return {name: each.default for name, each in space.items() if not each.fixed}


def described(space: Space) -> dict[str, Any]:
    """As JSON keeps it: what a study must share with its later trials."""
    found: dict[str, Any] = json.loads(json.dumps({name: asdict(each) for name, each in space.items()}))
    return found


def with_file(space: Space, path: Path | None) -> Space:
    """The space as a TOML file narrows or widens it; None leaves it.

    A table names a parameter and holds any of `low`, `high`, `log`, `default`; or `choices`; or `value`, which fixes
    it. A default that falls outside moves to the nearest value inside.

    Raises:
        UsageError: No such file, no TOML, an unknown parameter or key, or a space without a point.
    """
    if path is None:
        return space
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--space: expected a TOML file, found '{path}' ({error}).") from error
    unknown = sorted(set(told) - set(space))
    if unknown:
        raise UsageError(f"--space {path}: expected parameters of {sorted(space)}, found {unknown}.")
    return {name: _changed(name, each, told.get(name, {}), path) for name, each in space.items()}


def _suggest(name: str, dimension: Dimension, trial: optuna.Trial) -> Value:
    if dimension.choices is not None:
        if dimension.fixed:
            return dimension.choices[0]
        return cast(Value, trial.suggest_categorical(name, dimension.choices))
    low, high = dimension.low, dimension.high
    if dimension.whole:
        return trial.suggest_int(name, int(low or 0), int(high or 0), log=dimension.log)
    return trial.suggest_float(name, float(low or 0.0), float(high or 0.0), log=dimension.log)


KEYS: Final = ("value", "choices", "low", "high", "log", "default")


def _changed(name: str, dimension: Dimension, told: Any, path: Path) -> Dimension:
    where = f"--space {path}: [{name}]"
    if not isinstance(told, dict) or set(told) - set(KEYS):
        raise UsageError(f"{where}: expected a table with keys of {list(KEYS)}, found {told!r}.")
    if not told:
        return dimension
    choices = [told["value"]] if "value" in told else told.get("choices")
    if choices is not None:
        if set(told) - {"value", "choices", "default"} or not isinstance(choices, list) or not choices:
            raise UsageError(f"{where}: expected choices or a value without a range, found {told!r}.")
        kept = told.get("default", dimension.default)
        chosen = Dimension(kept if kept in choices else choices[0], choices=tuple(choices))
    else:
        chosen = _range(dimension, told, where)
    _refuse_impossible(chosen, where)
    return chosen


def _range(dimension: Dimension, told: Mapping[str, Any], where: str) -> Dimension:
    missing = sorted({"low", "high"} - set(told)) if dimension.choices is not None else []
    if missing:
        raise UsageError(f"{where}: expected a range with {missing}, found {dict(told)!r}. Say low and high.")
    changed = replace(dimension, choices=None, **told)
    numbers = (changed.low, changed.high, changed.default)
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in numbers):
        raise UsageError(f"{where}: expected numbers, found {list(numbers)}.")
    low, high, default = (float(each) for each in numbers)  # type: ignore[arg-type]
    inside = min(max(default, low), high)
    return replace(changed, default=int(inside) if changed.whole else inside)


def _refuse_impossible(dimension: Dimension, where: str) -> None:
    """Ranges that hold no value, or none on a logarithmic scale."""
    if dimension.choices is not None:
        return
    low, high = float(dimension.low or 0), float(dimension.high or 0)
    if not (math.isfinite(low) and math.isfinite(high) and low <= high) or (dimension.log and low <= 0):
        wanted = "0 < low <= high" if dimension.log else "low <= high"
        raise UsageError(f"{where}: expected {wanted}, found {dimension.low!r} and {dimension.high!r}.")


SPACES: Final[Mapping[str, Space]] = {"lgbm": LGBM, **dict.fromkeys(RERANKERS, TRAINER), "din": DIN}
"""Space of each model by its name; a new one is one more line."""
