"""When a trial is given up: by iteration inside a fold, and by fold at its end.

Optuna's own pruners compare a trial's best value over all steps, but folds differ in level, so a good first day would
carry a trial through all others. Here a value meets only values of the same fold.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

FOLD_STEPS: Final = 1_000_000
"""Steps of one fold; its last one holds the mean over the folds so far."""
STARTUP_TRIALS: Final = 5
"""Complete trials before the first is given up."""
WARMUP_ITERATIONS: Final = 50
"""Iterations of a fold that nothing is judged by: a small learning rate begins slowly."""
BY_ITERATION: Final = 0.25
"""A trial in the worst quarter so far is given up; not the worse half, as a slow start is no bad end."""
BY_FOLD: Final = 0.5
"""At the end of a fold the worse half is given up."""


def step_of(fold: int, iteration: int | None = None) -> int:
    """The step of an iteration, or that of the fold's end."""
    return fold * FOLD_STEPS + (FOLD_STEPS - 1 if iteration is None else iteration)


class FoldPruner(optuna.pruners.BasePruner):
    """Gives up a trial that is among the worst of the complete ones at the same point of the same fold."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Judge a trial by its last report; higher is better."""
        step = trial.last_step
        if step is None:
            return False
        at_end = step % FOLD_STEPS == FOLD_STEPS - 1
        if not at_end and step % FOLD_STEPS < WARMUP_ITERATIONS:
            return False
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        others = [value for other in complete for value in _best(other, step, at_end)]
        mine = max(_best(trial, step, at_end))
        border = BY_FOLD if at_end else BY_ITERATION
        return len(others) >= STARTUP_TRIALS and mine < float(np.quantile(others, border))


def _best(trial: FrozenTrial, step: int, at_end: bool) -> Iterator[float]:
    """The best value in the step's fold up to it, or that of the step itself at a fold's end; none without a report.

    A trial that stopped early keeps its best: it has no later step to compare.
    """
    if at_end:
        seen = [value for at, value in trial.intermediate_values.items() if at == step]
    else:
        first = step - step % FOLD_STEPS
        seen = [value for at, value in trial.intermediate_values.items() if first <= at <= step]
    if seen:
        yield max(seen)
