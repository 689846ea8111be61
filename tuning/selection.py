"""Which families of features, or which features, can go without loss: trials over switches, judged by paired intervals.

A study begins with everything on, then each switch off alone, then what the sampler proposes. No trial is given up, as
each is judged against everything on, request by request.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial, TrialState

from features.catalog import Feature, features_for, parts_of
from newsrec.data import Log
from newsrec.errors import DataError, UsageError
from newsrec.evaluation import Difference
from newsrec.own import read_own
from newsrec.train_config import TrainConfig
from tuning.frames import Frames
from tuning.objective import FoldDone, LgbmObjective, Measured, Report, Setting
from tuning.product import default_trial, gain_over
from tuning.spaces import Dimension, Space, Value
from tuning.study import PROTOCOL

MARGIN: Final = 0.005
"""Share of the score that may be lost: what a day's chance moves, and a reader would not notice."""

LEVELS: Final[Mapping[str, Callable[[Feature], str]]] = {
    "families": lambda feature: feature.family,
    "features": lambda feature: feature.name,
}
"""What one switch turns off, by its name on the command line."""


def switches_of(level: str, config: TrainConfig, log: Log) -> dict[str, tuple[str, ...]]:
    """Switch -> features behind it, for all that this log can have.

    Raises:
        UsageError: An unknown level.
    """
    if level not in LEVELS:
        raise UsageError(f"--switches: expected one of {sorted(LEVELS)}, found {level!r}.")
    config, found = config.settled(log), dict[str, tuple[str, ...]]()
    has, own = parts_of(log.clicks, log.articles, log.impressions), read_own(config.features).features
    for feature in features_for(config.recall or (), has, config.without, own):
        name = LEVELS[level](feature)
        found[name] = (*found.get(name, ()), feature.name)
    return found


def switch_space(switches: Mapping[str, tuple[str, ...]]) -> Space:
    """All on by default."""
    return {name: Dimension(True, choices=(True, False)) for name in switches}


def one_off(switches: Mapping[str, tuple[str, ...]]) -> list[dict[str, Value]]:
    """Each switch off alone."""
    return [{name: name != off for name in switches} for off in switches]


@dataclass
class SwitchObjective:
    """The ranker with its default parameters on the columns that are on.

    Rows are binned anew in each trial: LightGBM has no way to leave a column out of its draws of features.
    """

    frames: Frames
    setting: Setting

    def __call__(self, params: Mapping[str, Any], report: Report, fold_done: FoldDone) -> Measured:
        behind = dict(self.setting.switches)
        on = {name for switch, names in behind.items() if params[switch] for name in names}
        kept = [name for name in self.frames.facts.features if name in on]
        if not kept:
            raise DataError("selection: expected a feature that is on, found none")
        objective = _OnColumns(self.frames, self.setting, kept)
        measured = objective({}, report, fold_done)
        return replace(measured, facts={**measured.facts, "features": len(kept)})


@dataclass
class _OnColumns(LgbmObjective):
    """On some of the columns."""

    kept: Sequence[str] = ()

    def _columns(self) -> list[int]:
        names = self.frames.facts.features
        return [names.index(name) for name in self.kept]


def judged(study: optuna.Study) -> list[dict[str, Any]]:
    """Every complete trial against everything on, fewest features first.

    Raises:
        UsageError: The trial with everything on is not complete.
    """
    everything = default_trial(study)
    if everything is None:
        raise UsageError(
            f"--study {study.study_name}: expected a complete trial with everything on, found none. Give the same "
            "command again."
        )
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    others = [_judge(study, trial, everything) for trial in complete if trial.number != everything.number]
    return sorted(others, key=lambda row: (row["features"], -row["score"], row["trial"]))


def _judge(study: optuna.Study, trial: FrozenTrial, everything: FrozenTrial) -> dict[str, Any]:
    found: Difference = gain_over(study, trial, everything)
    return {
        "trial": trial.number,
        "off": sorted(name for name, on in trial.params.items() if not on),
        "features": trial.user_attrs["features"],
        "score": trial.values[0],
        **{name: asdict(found)[name] for name in ("difference", "low", "high")},
        "without_loss": bool(found.low > -MARGIN * found.first),
    }


def selection(study: optuna.Study) -> dict[str, Any]:
    """What can go: the content of the file.

    `alone`: each switch off alone; `without`: of all trials without loss, what the one with the fewest features has
    off. It was chosen among many on the requests that it is judged by: confirm it with `train --without`.
    """
    rows = judged(study)
    everything = default_trial(study)
    chosen = next((row for row in rows if row["without_loss"]), None)
    protocol = study.user_attrs[PROTOCOL]
    return {
        "study": study.study_name,
        "metric": protocol["metric"],
        "score": None if everything is None else everything.values[0],
        "margin": MARGIN,
        "without": [] if chosen is None else chosen["off"],
        "chosen": chosen,
        "alone": [row for row in rows if len(row["off"]) == 1],
        "trials": rows,
        "data": protocol["data"],
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
