"""Who proposes parameters. Each trial has a seed of its own, so no resume and no second worker repeats a proposal."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from newsrec.errors import UsageError

SAMPLERS: Final[Mapping[str, Callable[[int], BaseSampler]]] = {
    "tpe": lambda seed: TPESampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
    "cmaes": lambda seed: CmaEsSampler(seed=seed, warn_independent_sampling=False),
    "gp": lambda seed: GPSampler(seed=seed, warn_independent_sampling=False),
}
"""Name -> sampler with a seed; a new one is one more line."""
NEEDS: Final[Mapping[str, tuple[str, ...]]] = {"cmaes": ("cmaes",), "gp": ("torch", "scipy")}
"""Packages that a sampler cannot do without."""


class SeededByTrial(BaseSampler):
    """A sampler whose seed for a trial follows from the study's seed and the trial's number.

    A run in one process is repeatable, stopped and resumed or not; runs of several workers are not, as what a sampler
    has seen depends on which trials finished first.
    """

    def __init__(self, name: str, seed: int) -> None:
        self._make, self._seed = SAMPLERS[name], seed
        self._sampler = self._make(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Take the trial's seed."""
        self._sampler = self._make(int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0]))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As the sampler does."""
        space: dict[str, BaseDistribution] = self._sampler.infer_relative_search_space(study, trial)
        return space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the sampler does."""
        proposed: dict[str, Any] = self._sampler.sample_relative(study, trial, search_space)
        return proposed

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As the sampler does."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """As the sampler does."""
        self._sampler.after_trial(study, trial, state, values)


def refuse_unusable(name: str) -> None:
    """Find out before the work whether a sampler could propose.

    Raises:
        UsageError: An unknown name, or a package that is not installed.
    """
    if name not in SAMPLERS:
        raise UsageError(f"--sampler: expected one of {sorted(SAMPLERS)}, found {name!r}.")
    for package in NEEDS.get(name, ()):
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"--sampler {name}: expected the package {package}, found none. Install it: pip install {package}."
            ) from error
