"""A study: made, or found again and compared with what is asked of it now."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from newsrec.errors import UsageError
from tuning.pruning import FoldPruner
from tuning.recovery import DEFAULT_TRIAL, Recovery
from tuning.samplers import SeededByTrial
from tuning.spaces import Space, Value, defaults

PROTOCOL: Final = "protocol"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def refuse_name(name: str) -> None:
    """Find out whether a name could be a study's.

    Raises:
        UsageError: It could not.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"--study: expected 1 to 64 letters, digits, dots, dashes or underscores, found {name!r}.")


def open_study(
    storage: BaseStorage,
    name: str,
    protocol: Mapping[str, Any],
    space: Space,
    *,
    sampler: str = "tpe",
    seed: int = 0,
    latency: bool = False,
    also: Sequence[Mapping[str, Value]] = (),
) -> optuna.Study:
    """Make a study with the defaults as its first trial, or continue the one of that name.

    Trials whose process is gone are failed and asked for once more.

    Args:
        storage: See `tuning.storage.open_storage`.
        name: Of the study.
        protocol: All that makes scores comparable: data, folds, metric, space; JSON.
        space: What is searched.
        sampler: Name in `tuning.samplers.SAMPLERS`.
        seed: Of the sampler.
        latency: Whether trials have a second value, to be minimised.
        also: Points that a new study tries after the defaults.

    Raises:
        UsageError: A study of that name has another protocol or direction; the differences are named.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = ["maximize", *(["minimize"] if latency else [])]
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=[StudyDirection[each.upper()] for each in directions],
        load_if_exists=True,
        sampler=SeededByTrial(sampler, seed),
        pruner=FoldPruner(),
    )
    if PROTOCOL not in study.user_attrs and not study.get_trials(deepcopy=False):
        study.set_user_attr(PROTOCOL, dict(protocol))
    _refuse_other(study, name, protocol, directions)
    Recovery().recover(study)
    _begin_with(study, space, also)
    return study


def _refuse_other(study: optuna.Study, name: str, protocol: Mapping[str, Any], directions: list[str]) -> None:
    kept = {**study.user_attrs.get(PROTOCOL, {}), "directions": [each.name.lower() for each in study.directions]}
    asked = {**protocol, "directions": directions}
    differing = _differences(kept, asked)
    if differing:
        raise UsageError(
            f"--study {name}: expected what the study was begun with, found another {'; '.join(differing)}. "
            "Choose another --study, or give the earlier settings."
        )


def _differences(kept: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`name: before, now` of every value that differs, deep inside too."""
    found = []
    for key in sorted(set(kept) | set(asked)):
        before, now = kept.get(key, "absent"), asked.get(key, "absent")
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += _differences(before, now, f"{prefix}{key}.")
        elif before != now:
            found.append(f"{prefix}{key}: {_short(before)} before, {_short(now)} now")
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _begin_with(study: optuna.Study, space: Space, also: Sequence[Mapping[str, Value]]) -> None:
    trials = study.get_trials(deepcopy=False)
    there = [t for t in trials if t.user_attrs.get(DEFAULT_TRIAL) and t.state != TrialState.FAIL]
    if not there:
        study.enqueue_trial(defaults(space), user_attrs={DEFAULT_TRIAL: True})
    for point in also if not trials else ():
        study.enqueue_trial(dict(point))
