"""Giving up by iteration and by fold, by hand."""

from collections.abc import Mapping

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from tuning.pruning import STARTUP_TRIALS, FoldPruner, step_of


def study_of(*complete: Mapping[int, float]) -> optuna.Study:
    study = optuna.create_study(direction="maximize", pruner=FoldPruner())
    for reports in complete:
        study.add_trial(
            create_trial(
                params={"x": 0.5},
                distributions={"x": FloatDistribution(0, 1)},
                value=0.0,
                intermediate_values=dict(reports),
            )
        )
    return study


def prunes(study: optuna.Study, reports: Mapping[int, float]) -> bool:
    trial = create_trial(state=TrialState.RUNNING, intermediate_values=dict(reports))
    return FoldPruner().prune(study, trial)


FIVE = [{step_of(0, 100): value, step_of(0): value, step_of(1, 100): value + 1} for value in (0.1, 0.2, 0.3, 0.4, 0.5)]


def test_the_worst_quarter_of_an_iteration_is_given_up() -> None:
    study = study_of(*FIVE)  # the quarter of 0.1 .. 0.5 ends at 0.2
    assert prunes(study, {step_of(0, 100): 0.19})
    assert not prunes(study, {step_of(0, 100): 0.21})


def test_the_worse_half_of_a_fold_is_given_up() -> None:
    study = study_of(*FIVE)
    assert prunes(study, {step_of(0): 0.29})
    assert not prunes(study, {step_of(0): 0.31})


def test_folds_of_another_level_are_not_compared() -> None:
    study = study_of(*FIVE)  # fold 1 lies one higher: what would be the best of fold 0 is the worst there
    assert prunes(study, {step_of(0): 0.9, step_of(1, 100): 0.95})
    assert not prunes(study, {step_of(0): 0.31, step_of(1, 100): 1.3})


def test_first_iterations_are_not_judged() -> None:
    study = study_of(*[{step_of(0, 25): 0.5} for _ in range(5)])
    assert not prunes(study, {step_of(0, 25): 0.0})


def test_few_trials_judge_nobody() -> None:
    assert not prunes(study_of(*FIVE[: STARTUP_TRIALS - 1]), {step_of(0, 100): 0.0})
    assert not prunes(study_of(), {})


def test_trial_that_stopped_early_is_compared_by_its_best() -> None:
    study = study_of(*[{step_of(0, 50): 0.4, step_of(0, 75): 0.3} for _ in range(5)])
    assert prunes(study, {step_of(0, 50): 0.1, step_of(0, 200): 0.35})
    assert not prunes(study, {step_of(0, 50): 0.1, step_of(0, 200): 0.45})


@pytest.mark.parametrize("fold", [0, 1, 4])
def test_steps_of_folds_do_not_meet(fold: int) -> None:
    assert step_of(fold, 1) < step_of(fold, 5_000) < step_of(fold) < step_of(fold + 1, 1)
