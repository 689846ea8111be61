"""Which features can go: switches, their columns, and the verdict by paired intervals."""

import json
from pathlib import Path

import lightgbm as lgb
import numpy as np
import optuna
import pytest

from newsrec.data import Log
from newsrec.errors import DataError, UsageError
from newsrec.params import load_params
from newsrec.rankers.lgbm import LgbmRanker
from tests.tuning.planted import CONFIG
from tuning.frames import Frames
from tuning.objective import Setting
from tuning.product import USERS
from tuning.recovery import DEFAULT_TRIAL
from tuning.run import TuneConfig, tune
from tuning.selection import LEVELS, SwitchObjective, judged, one_off, selection, switch_space, switches_of
from tuning.study import PROTOCOL
from tuning.trials import packed


@pytest.mark.parametrize("level", LEVELS)
def test_switches_hold_every_feature_of_the_log_once(level: str, log: Log, frames: Frames) -> None:
    switches = switches_of(level, CONFIG, log)
    behind = [name for names in switches.values() for name in names]
    assert sorted(behind) == sorted(frames.facts.features)
    assert len(set(behind)) == len(behind)
    assert [point for point in one_off(switches) if sum(point.values()) != len(switches) - 1] == []
    assert all(each.default is True for each in switch_space(switches).values())


def test_unknown_level_is_refused(log: Log) -> None:
    with pytest.raises(UsageError, match=r"--switches: expected one of \['families', 'features'\], found 'columns'"):
        switches_of("columns", CONFIG, log)


def test_ranker_sees_only_the_columns_that_are_on(log: Log, frames: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    switches = switches_of("families", CONFIG, log)
    objective = SwitchObjective(frames, Setting("ndcg@10", threads=1, switches=tuple(switches.items())))
    seen: list[list[str]] = []
    train = lgb.train

    def watched(params: object, data: object, trees: int, **more: object) -> object:
        seen.append(data.get_feature_name())  # type: ignore[attr-defined]
        return train(params, data, 5, **more)

    monkeypatch.setattr("tuning.objective.lgb.train", watched)
    point = {name: name in ("item", "recall") for name in switches}
    found = objective(point, lambda *_: None, lambda *_: None)
    wanted = [name for family in ("item", "recall") for name in switches[family]]
    assert seen == [[name for name in objective.frames.facts.features if name in wanted]] * 2
    assert found.facts["features"] == len(wanted)
    with pytest.raises(DataError, match="expected a feature that is on, found none"):
        objective(dict.fromkeys(switches, False), lambda *_: None, lambda *_: None)


def study_of(trials: list[tuple[dict[str, bool], int, float]]) -> optuna.Study:
    """Trials by switches, number of features, and the shift of every request's value; 400 users of one request."""
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(PROTOCOL, {"metric": "ndcg@10", "data": {}})
    study.set_user_attr(USERS, packed(np.arange(400, dtype=np.int32)))
    base = np.tile([0.2, 0.8], 200)
    for number, (on, features, shift) in enumerate(trials):
        values = (base + shift).astype(np.float32)
        study.add_trial(
            optuna.trial.create_trial(
                params=on,
                distributions={name: optuna.distributions.CategoricalDistribution((True, False)) for name in on},
                value=float(values.mean()),
                user_attrs={"features": features, "per_request": packed(values), DEFAULT_TRIAL: number == 0},
            )
        )
    return study


def test_fewest_features_without_loss_are_chosen() -> None:
    on = {"a": True, "b": True}
    study = study_of([(on, 10, 0.0), (on | {"a": False}, 7, -0.001), (on | {"b": False}, 4, -0.1)])
    found = selection(study)
    assert found["without"] == ["a"]
    assert [(row["off"], row["without_loss"]) for row in found["alone"]] == [(["b"], False), (["a"], True)]
    assert found["chosen"]["difference"] == pytest.approx(-0.001, abs=1e-6)
    assert found["chosen"]["high"] < 0  # clearly worse, but by less than the margin


def test_nothing_goes_where_everything_loses() -> None:
    on = {"a": True, "b": True}
    found = selection(study_of([(on, 10, 0.0), (on | {"a": False}, 7, -0.05)]))
    assert (found["without"], found["chosen"]) == ([], None)


def test_judging_needs_the_trial_with_everything_on() -> None:
    study = optuna.create_study(direction="maximize")
    with pytest.raises(UsageError, match="expected a complete trial with everything on, found none"):
        judged(study)


def test_study_over_families_ends_in_a_file_that_is_no_params_file(log: Log, tmp_path: Path) -> None:
    out = tmp_path / "can-go.json"
    result = tune(
        TuneConfig(out, 2, CONFIG, folds=1, switches="families", storage=f"journal:///{tmp_path}/s.log"), log=log
    )
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found == result.params
    assert [len(row["off"]) for row in found["trials"]] == [1]
    assert "train --without" in result.in_words(out) or "nothing can go" in result.in_words(out)
    with pytest.raises(UsageError, match="ranker lgbm: expected parameters of"):
        LgbmRanker.of(load_params(out, "lgbm").params)
