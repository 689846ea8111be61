"""The loop of a worker, with an objective that costs nothing: counts, failures, stops, resumes."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from newsrec.errors import DataError, UsageError
from tests.tuning.planted import PROTOCOL, SPACE, measured, planted, study_at
from tuning.objective import FoldDone, Measured, Report
from tuning.product import best_trial, default_trial
from tuning.recovery import DEFAULT_TRIAL, HOLDER, REASON, RETRY_OF, claim, is_gone, this_process
from tuning.study import open_study
from tuning.trials import Plan, finished, packed, unpacked, work


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"journal:///{tmp_path}/study.log"


def states(study: optuna.Study) -> Counter[str]:
    return Counter(trial.state.name for trial in study.get_trials(deepcopy=False))


def test_study_ends_with_exactly_the_asked_trials_and_is_no_worse_than_the_defaults(url: str) -> None:
    study = study_at(url)
    work(study, planted, SPACE, Plan(12))
    assert finished(study) == 12
    assert set(states(study)) <= {"COMPLETE", "PRUNED"}
    first, best = default_trial(study), best_trial(study)
    assert first is not None
    assert best is not None
    assert first.number == 0
    assert first.params == {"x": 0.9, "y": 5}
    assert best.values[0] > first.values[0]
    assert best.user_attrs["folds"] == [best.values[0]] * 2
    assert best.user_attrs["spread"] == 0.0
    assert unpacked(best.user_attrs["per_request"], np.float32).shape == (6,)


def test_resume_keeps_total_and_best_and_proposes_anew(url: str) -> None:
    work(study_at(url), planted, SPACE, Plan(6))
    before = study_at(url)
    proposed, best = [t.params for t in before.trials], best_trial(before)
    again = study_at(url)
    work(again, planted, SPACE, Plan(9))
    assert finished(again) == 9
    assert [t.params for t in again.trials][:6] == proposed
    assert not [t.params for t in again.trials[6:] if t.params in proposed]
    assert best is not None
    assert best_trial(again).values[0] >= best.values[0]  # type: ignore[union-attr]
    work(again, planted, SPACE, Plan(9))
    assert finished(again) == 9


def test_bad_trials_are_pruned_but_never_the_defaults(url: str) -> None:
    study = study_at(url)
    work(study, planted, SPACE, Plan(40))
    pruned = [t for t in study.trials if t.state == TrialState.PRUNED]
    assert pruned
    assert not [t for t in pruned if t.user_attrs.get(DEFAULT_TRIAL)]


def test_score_that_is_no_number_fails_its_trial_and_the_study_goes_on(url: str) -> None:
    def sometimes(params: Mapping[str, Any], report: Report, fold_done: FoldDone) -> Measured:
        return measured(float("nan")) if params["y"] % 2 == 0 else planted(params, report, fold_done)

    study = study_at(url)
    work(study, sometimes, SPACE, Plan(8))
    failed = [t for t in study.trials if t.state == TrialState.FAIL]
    assert finished(study) == 8
    assert failed
    assert all(t.user_attrs[REASON].startswith("a score that is no number") for t in failed)


def test_what_fails_always_stops_with_its_reason(url: str) -> None:
    def broken(*_: Any) -> Measured:
        raise DataError("no rows at all")

    study = study_at(url)
    with pytest.raises(UsageError, match="found 5 in a row that failed: no rows at all"):
        work(study, broken, SPACE, Plan(8))
    assert states(study) == {"FAIL": 5}
    work(study_at(url), planted, SPACE, Plan(2))  # the defaults come first again
    assert default_trial(study) is not None


def test_unforeseen_error_leaves_no_trial_running(url: str) -> None:
    def broken(*_: Any) -> Measured:
        raise ZeroDivisionError("odd")

    study = study_at(url)
    with pytest.raises(ZeroDivisionError):
        work(study, broken, SPACE, Plan(8))
    assert states(study) == {"FAIL": 1}
    assert study.trials[0].user_attrs[REASON] == "ZeroDivisionError: odd"


@pytest.mark.parametrize("ends", [optuna.TrialPruned(), DataError("bad"), KeyError("unforeseen"), None])
def test_trial_that_others_have_ended_meanwhile_stays_as_they_left_it(url: str, ends: Exception | None) -> None:
    study = study_at(url)
    left = [0]

    def late(params: Mapping[str, Any], report: Report, fold_done: FoldDone) -> Measured:
        if left:
            study.tell(left.pop(), state=TrialState.FAIL)
            if ends is not None:
                raise ends
        return measured(1.0)

    if isinstance(ends, KeyError):
        with pytest.raises(KeyError, match="unforeseen"):
            work(study, late, SPACE, Plan(2))
    else:
        work(study, late, SPACE, Plan(2))
        assert finished(study) == 2
    assert study.get_trials(deepcopy=False)[0].state == TrialState.FAIL


def test_trial_that_is_stopped_is_given_back_to_be_asked_again(url: str) -> None:
    study = study_at(url)
    answers = iter([False, True, True])  # before the trial, after its first iteration, before the next
    work(study, planted, SPACE, Plan(8), stop=lambda: next(answers))
    assert states(study) == {"FAIL": 1, "WAITING": 1}
    assert study.trials[0].user_attrs[REASON] == "stopped"
    again = study_at(url)
    work(again, planted, SPACE, Plan(3))
    assert finished(again) == 3
    assert again.trials[1].params == again.trials[0].params
    assert again.trials[1].user_attrs[RETRY_OF] == 0
    assert default_trial(again).number == 1  # type: ignore[union-attr]


def test_trial_of_a_dead_process_is_failed_at_the_next_start_and_retried_once(url: str) -> None:
    study = study_at(url)
    dead = this_process() | {"pid": 2**22 + 1}

    def die(study: optuna.Study) -> None:
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.suggest_int("y", 1, 9)
        claim(trial)
        trial.set_user_attr(HOLDER, dead)

    die(study)
    again = study_at(url)
    assert [t.state for t in again.trials] == [TrialState.FAIL, TrialState.WAITING]
    assert again.trials[0].user_attrs[REASON] == "its process is gone"
    die(again)
    last = study_at(url)  # the retry died too: no third time, but the defaults must be measured
    assert [t.state for t in last.trials] == [TrialState.FAIL, TrialState.FAIL, TrialState.WAITING]
    assert RETRY_OF not in last.trials[2].user_attrs
    work(last, planted, SPACE, Plan(2))
    assert finished(last) == 2


def test_living_trial_of_another_process_is_left_alone(url: str) -> None:
    study = study_at(url)
    claim(study.ask())
    again = study_at(url)
    assert again.trials[0].state == TrialState.RUNNING


def test_process_is_known_by_more_than_its_number() -> None:
    me = this_process()
    assert not is_gone(me, 0.0)
    assert is_gone(me | {"started": "another boot/1"}, 0.0)
    assert is_gone(me | {"pid": 2**22 + 1, "started": None}, 4e9)
    elsewhere = me | {"host": "elsewhere"}
    assert is_gone(elsewhere, 0.0)
    assert not is_gone(elsewhere, 4e9)  # a sign of life from a clock ahead of ours


def test_one_too_many_is_given_back(url: str) -> None:
    study = study_at(url)
    other = study_at(url)
    claim(other.ask())  # somebody else is at the only open place ...
    seen: list[int] = []

    def look_away(*_: Any) -> Measured:
        raise AssertionError("there was no open place")

    def stop() -> bool:
        seen.append(1)
        return len(seen) > 3

    work(study, look_away, SPACE, Plan(1), stop=stop)
    assert states(study) == {"RUNNING": 1}


def test_surplus_trial_is_failed_where_two_asked_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study, other = study_at(url), study_at(url)
    claim(other.ask())
    monkeypatch.setattr("tuning.trials._open_places", lambda *_: 1)  # what was seen before the other asked
    stops = iter([False, True])
    work(study, planted, SPACE, Plan(1), stop=lambda: next(stops))
    assert [t.state for t in study.trials] == [TrialState.RUNNING, TrialState.FAIL]
    assert study.trials[1].user_attrs[REASON] == "one more than was asked for"


def test_no_trial_begins_after_the_deadline(url: str) -> None:
    study = study_at(url)
    work(study, planted, SPACE, Plan(5, deadline=1.0))
    assert finished(study) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"fingerprint": "g"}}, "data.fingerprint: 'f' before, 'g' now"),
        ({"metric": "auc"}, "metric: 'ndcg@10' before, 'auc' now"),
        ({"space": 1, "seed": 2}, "seed: 0 before, 2 now; space: 'absent' before, 1 now"),
    ],
)
def test_other_protocol_is_refused_with_the_difference(url: str, change: dict[str, Any], message: str) -> None:
    work(study_at(url), planted, SPACE, Plan(2))
    with pytest.raises(UsageError, match=f"--study s: expected what the study was begun with, .*{message}"):
        study_at(url, protocol=PROTOCOL | change)
    assert finished(study_at(url)) == 2


def test_other_direction_is_refused(url: str) -> None:
    optuna.create_study(storage=study_at(url)._storage, study_name="down", direction="minimize")
    with pytest.raises(UsageError, match=r"directions: \['minimize'\] before, \['maximize'\] now"):
        study_at(url, "down", protocol={})


def test_study_of_somebody_else_is_not_taken_over(url: str) -> None:
    foreign = optuna.create_study(storage=study_at(url)._storage, study_name="foreign", direction="maximize")
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(UsageError, match="metric: 'absent' before"):
        open_study(foreign._storage, "foreign", PROTOCOL, SPACE)


def test_packed_values_come_back(url: str) -> None:
    values = np.array([0.0, np.nan, 0.63], np.float32)
    assert np.array_equal(unpacked(packed(values), np.float32), values, equal_nan=True)
    assert len(packed(np.zeros(12_000, np.float32))) < 200
