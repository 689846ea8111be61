"""The loop of one worker: ask, fit, tell, until the study has the asked number of finished trials.

Many workers may share a study. A trial counts when it is complete or pruned; a worker whose trial would be one too
many gives it back and waits, since another worker may die.
"""

import base64
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from newsrec.errors import NewsrecError, UsageError
from tuning.objective import Measured, Objective
from tuning.pruning import step_of
from tuning.recovery import DEFAULT_TRIAL, Recovery, claim, fail, give_up, signs_of_life
from tuning.spaces import Space, suggest
from tuning.stopping import Asked, Stopped

FINISHED: Final = (TrialState.COMPLETE, TrialState.PRUNED)
FAILURES_IN_A_ROW: Final = 5
"""After so many a worker stops: what fails always would run for ever."""
WAIT_SECONDS: Final = 0.5
REPORT_EVERY: Final = 25
"""Iterations between two reports: writing to a database after each would cost more than a small tree."""


@dataclass(frozen=True)
class Plan:
    """When a worker has done enough."""

    trials: int
    """Finished trials that the study is to have, those of earlier runs included."""
    deadline: float | None = None
    """Epoch seconds after which no trial begins."""
    prunes: bool = True
    """Whether bad trials are given up before their last fold."""


def work(
    study: optuna.Study,
    objective: Objective,
    space: Space,
    plan: Plan,
    *,
    on_trial: Callable[[], None] = lambda: None,
    stop: Asked = lambda: False,
) -> None:
    """Run trials.

    Args:
        study: With its sampler and pruner.
        objective: What a trial is worth.
        space: What is searched.
        plan: How many trials, until when.
        on_trial: Called after each trial of this worker.
        stop: Asked before each trial and after each iteration; a trial that is stopped is given back.

    Raises:
        UsageError: Several trials in a row failed; the last reason is told.
    """
    recovery, failed = Recovery(), 0
    while not stop() and not _over(plan):
        recovery.recover(study)
        if _open_places(study, plan) <= 0:
            if finished(study) >= plan.trials:
                return
            time.sleep(WAIT_SECONDS)
            continue
        trial = study.ask()
        claim(trial)
        if _is_surplus(study, plan, trial.number):
            give_up(study, _frozen(study, trial), "one more than was asked for")
            continue
        reason = _run(study, trial, objective, space, plan, stop)
        failed = failed + 1 if reason else 0
        on_trial()
        if failed >= FAILURES_IN_A_ROW:
            raise UsageError(f"tuning: expected trials that end well, found {failed} in a row that failed: {reason}")


def finished(study: optuna.Study) -> int:
    """Complete and pruned trials so far."""
    return len(study.get_trials(deepcopy=False, states=FINISHED))


def packed(values: npt.NDArray[Any]) -> str:
    """An array as short text for a trial's attributes: most metrics take few values, so it packs well."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes(), 6)).decode()


def unpacked(text: str, dtype: Any) -> npt.NDArray[Any]:
    """What `packed` took."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype)


def _over(plan: Plan) -> bool:
    return plan.deadline is not None and time.time() >= plan.deadline


def _open_places(study: optuna.Study, plan: Plan) -> int:
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return plan.trials - finished(study) - len(running)


def _is_surplus(study: optuna.Study, plan: Plan, number: int) -> bool:
    """Whether earlier trials fill the plan, should they end well; several workers may have asked at once."""
    trials = study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.RUNNING))
    before = sum(trial.state in FINISHED or trial.number < number for trial in trials if trial.number != number)
    return before >= plan.trials


def _frozen(study: optuna.Study, trial: optuna.Trial) -> FrozenTrial:
    return next(t for t in study.get_trials(deepcopy=False) if t.number == trial.number)


def _run(
    study: optuna.Study, trial: optuna.Trial, objective: Objective, space: Space, plan: Plan, stop: Asked
) -> str | None:
    """One trial; the reason where it failed."""
    try:
        with signs_of_life(trial):
            measured = _measure(trial, objective, space, plan, stop)
            values = [measured.score, *([] if measured.latency_ms is None else [measured.latency_ms])]
            if not all(math.isfinite(value) for value in values):
                return _failed(study, trial, f"a score that is no number ({values})")
            _note(trial, measured)
            study.tell(trial, values, skip_if_finished=True)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
    except (lgb.basic.LightGBMError, NewsrecError) as error:
        return _failed(study, trial, str(error))
    except UpdateFinishedTrialError:
        return None  # others took this process for dead and have asked for the trial again
    except Stopped:
        give_up(study, _frozen(study, trial), "stopped")
    except BaseException as error:
        fail(study, trial, f"{type(error).__name__}: {error}")
        raise
    return None


def _measure(trial: optuna.Trial, objective: Objective, space: Space, plan: Plan, stop: Asked) -> Measured:
    began = time.perf_counter()
    # What every study begins with must come to its end. Optuna takes no reports where there are two aims.
    many = len(trial.study.directions) > 1
    prunes = plan.prunes and not trial.user_attrs.get(DEFAULT_TRIAL)

    def told(step: int, value: float) -> None:
        if many:
            return
        trial.report(value, step)
        if prunes and trial.should_prune():
            raise optuna.TrialPruned

    def by_fold(fold: int, value: float) -> None:
        told(step_of(fold), value)

    def by_iteration(fold: int, iteration: int, value: float) -> None:
        if stop():
            raise Stopped
        if iteration % REPORT_EVERY == 0:
            told(step_of(fold, iteration), value)

    measured = objective(suggest(space, trial), by_iteration, by_fold)
    trial.set_user_attr("seconds", round(time.perf_counter() - began, 2))
    return measured


def _note(trial: optuna.Trial, measured: Measured) -> None:
    """What a trial keeps beside its value."""
    facts = {"folds": list(measured.scores), "spread": measured.spread, **measured.facts}
    for name, value in (facts | {"per_request": packed(measured.values)}).items():
        trial.set_user_attr(name, value)


def _failed(study: optuna.Study, trial: optuna.Trial, reason: str) -> str:
    fail(study, trial, reason)
    return reason
