"""Which process runs a trial, whether it still lives, and what becomes of a trial whose process is gone.

Every storage is treated alike: a trial carries host, process and start time, and a sign of life every half minute. On
the same host a process that is gone is known at once; of another host only the signs of life are known.
"""

import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from tuning.storage import FAULTS

HOLDER: Final = "process"
SEEN: Final = "seen_at"
RETRY_OF: Final = "retry_of"
DEFAULT_TRIAL: Final = "defaults"
REASON: Final = "reason"
BEAT_SECONDS: Final = 30.0
SILENT_SECONDS: Final = 600.0
"""A trial of another host that gave no sign of life for so long is given up; clocks may differ by minutes."""
UNNAMED_SECONDS: Final = 30.0
"""A trial is given up if nobody put a name to it for so long: its process died between two writes."""


def this_process() -> dict[str, Any]:
    """Host, process id and start time: a process id alone is soon another's."""
    return {"host": this_host(), "pid": os.getpid(), "started": start_of(os.getpid())}


def this_host() -> str:
    """Where a process id means something: the machine, and on Linux the container too, which may share its name."""
    try:
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def start_of(pid: int) -> str | None:
    """When a process of this host began, as the system counts it; None where it does not tell, empty for a zombie.

    The boot is part of it, as the count begins anew with each.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return "" if fields[0] == "Z" else f"{boot}-{fields[19]}"


def is_gone(holder: Mapping[str, Any], seen_at: float) -> bool:
    """Whether the process behind a running trial is dead, or silent for too long on another host."""
    if holder["host"] != this_host():
        return time.time() - seen_at > SILENT_SECONDS
    started = start_of(int(holder["pid"]))
    if started is not None and holder["started"] is not None:
        return bool(started != holder["started"])
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


@contextmanager
def signs_of_life(trial: optuna.Trial) -> Iterator[None]:
    """Say every half minute that the trial is being worked on."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            with suppress(UpdateFinishedTrialError, *FAULTS):
                trial.set_user_attr(SEEN, time.time())
        trial.study._storage.remove_session()  # a database connection belongs to its thread

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def claim(trial: optuna.Trial) -> None:
    """Put this process's name to a trial."""
    trial.set_user_attr(SEEN, time.time())
    trial.set_user_attr(HOLDER, this_process())


class Recovery:
    """Fails running trials whose process is gone, and asks for each of them once more."""

    def __init__(self) -> None:
        self._unnamed: dict[int, float] = {}

    def recover(self, study: optuna.Study) -> list[int]:
        """Look at every running trial; the numbers of those that were failed."""
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial.number for trial in running if self._gone(trial) and give_up(study, trial, "its process is gone")]

    def _gone(self, trial: FrozenTrial) -> bool:
        holder = trial.user_attrs.get(HOLDER)
        if holder is None:
            first = self._unnamed.setdefault(trial.number, time.monotonic())
            return time.monotonic() - first > UNNAMED_SECONDS
        return is_gone(holder, trial.user_attrs.get(SEEN, 0.0))


def give_up(study: optuna.Study, trial: FrozenTrial, reason: str) -> bool:
    """Fail a running trial and ask for the same parameters once more; False where somebody else was first."""
    if not fail(study, trial, reason):
        return False
    known = trial.system_attrs.get("fixed_params") or trial.params
    if known and RETRY_OF not in trial.user_attrs:
        kept = {name: trial.user_attrs[name] for name in (DEFAULT_TRIAL,) if name in trial.user_attrs}
        study.enqueue_trial(known, user_attrs={RETRY_OF: trial.number, **kept})
    return True


def fail(study: optuna.Study, trial: FrozenTrial | optuna.Trial, reason: str) -> bool:
    """Fail a running trial with a reason; False where it is no longer running."""
    try:
        study._storage.set_trial_user_attr(trial._trial_id, REASON, reason)
        study.tell(trial.number, state=TrialState.FAIL)
    except (UpdateFinishedTrialError, ValueError):
        return False
    return True
