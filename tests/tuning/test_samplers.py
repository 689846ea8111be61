"""Every sampler proposes inside the space, repeatably, and never the same again after a resume."""

from importlib.util import find_spec

import optuna
import pytest

from newsrec.errors import UsageError
from tuning.samplers import NEEDS, SAMPLERS, SeededByTrial, refuse_unusable
from tuning.spaces import LGBM, suggest

USABLE = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            any(find_spec(package) is None for package in NEEDS.get(name, ())), reason=f"needs {NEEDS.get(name)}"
        ),
    )
    for name in SAMPLERS
]


def proposals(name: str, trials: int, seed: int = 0, storage: optuna.storages.BaseStorage | None = None) -> list[dict]:
    """Proposed parameters of so many more trials of one study."""
    study = optuna.create_study(
        storage=storage, study_name="s", direction="maximize", sampler=SeededByTrial(name, seed), load_if_exists=True
    )
    found = []
    for _ in range(trials):
        trial = study.ask()
        params = suggest(LGBM, trial)
        study.tell(trial, float(params["learning_rate"]))
        found.append(params)
    return found


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", USABLE)
def test_proposals_are_repeatable_and_new_after_a_resume(name: str) -> None:
    storage = optuna.storages.InMemoryStorage()
    first = proposals(name, 11, storage=storage)
    resumed = proposals(name, 1, storage=storage)
    assert not [params for params in resumed if params in first]
    assert proposals(name, 12) == first + resumed  # stopped and resumed or in one go
    assert proposals(name, 1, seed=1) != first[:1]


def test_two_workers_that_begin_together_propose_otherwise() -> None:
    study = optuna.create_study(sampler=SeededByTrial("random", 0))
    other = optuna.load_study(study_name=study.study_name, storage=study._storage, sampler=SeededByTrial("random", 0))
    one, two = study.ask(), other.ask()
    assert suggest(LGBM, one) != suggest(LGBM, two)


def test_unknown_sampler_and_missing_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"--sampler: expected one of .*'tpe'.*found 'grid'"):
        refuse_unusable("grid")
    monkeypatch.setitem(NEEDS, "tpe", ("no_such_package",))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expected the package no_such_package, found none"):
        refuse_unusable("tpe")
