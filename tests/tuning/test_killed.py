"""Three workers on each storage, one killed in the middle: the study still ends with what was asked for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.conftest import ROOT
from tests.tuning.planted import study_at
from tuning.recovery import HOLDER, REASON, RETRY_OF
from tuning.trials import finished

TRIALS = 9


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("kind", ["sqlite", "journal", "postgresql"])
def test_killed_worker_costs_one_trial_and_nothing_is_left_running(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgresql") if kind == "postgresql" else f"{kind}:///{tmp_path}/study"
    study = study_at(url)
    if kind == "postgresql":
        request.addfinalizer(study._storage._backend.engine.dispose)  # type: ignore[attr-defined]
    command = [sys.executable, "-m", "tests.tuning.planted", url, "s", str(TRIALS), "0.3"]
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    workers = [subprocess.Popen(command, cwd=ROOT, env=variables, stderr=subprocess.PIPE) for _ in range(3)]
    try:
        killed = _kill_one_at_work(study, [worker.pid for worker in workers])
        codes = {worker.pid: worker.wait(timeout=300) for worker in workers}
    finally:
        for worker in workers:
            worker.kill()
        told = {worker.pid: worker.communicate()[1].decode() for worker in workers}
    assert codes.pop(killed) == -signal.SIGKILL
    assert set(codes.values()) == {0}, told
    trials = study.get_trials()
    assert finished(study) == TRIALS
    assert not [t.number for t in trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
    (lost,) = (t for t in trials if t.user_attrs.get(REASON) == "its process is gone")
    (again,) = (t for t in trials if t.user_attrs.get(RETRY_OF) == lost.number)
    assert lost.user_attrs[HOLDER]["pid"] == killed
    assert again.params == lost.params
    assert again.state in (TrialState.COMPLETE, TrialState.PRUNED)


def _kill_one_at_work(study: object, workers: list[int]) -> int:
    """Kill a worker while it holds a trial, after the study has a few finished ones."""
    for _ in range(2_000):
        time.sleep(0.05)
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))  # type: ignore[attr-defined]
        held = [
            t for t in running if set(t.params) == {"x", "y"} and t.user_attrs.get(HOLDER, {}).get("pid") in workers
        ]
        if held and finished(study) >= 3:  # type: ignore[arg-type]
            number, pid = held[0].number, int(held[0].user_attrs[HOLDER]["pid"])
            os.kill(pid, signal.SIGSTOP)  # on a busy machine it may have finished the trial meanwhile
            time.sleep(0.1)
            if study.get_trials(deepcopy=False)[number].state == TrialState.RUNNING:  # type: ignore[attr-defined]
                os.kill(pid, signal.SIGKILL)
                return pid
            os.kill(pid, signal.SIGCONT)
    raise AssertionError("no worker held a trial")
