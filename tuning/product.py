"""What a study is for: one small JSON file that `newsrec train --params` reads."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna
import polars as pl
from optuna.trial import FrozenTrial, TrialState

from newsrec import __version__
from newsrec.bundle import versions, write_json, write_whole
from newsrec.errors import UsageError
from newsrec.evaluation import Difference, paired_comparison
from newsrec.metrics import METRICS
from newsrec.params import PARAMS_VERSION
from tuning.recovery import DEFAULT_TRIAL
from tuning.spaces import Space, nested
from tuning.study import PROTOCOL
from tuning.trials import unpacked

USERS: Final = "users"
"""Attribute of a study: the user of each validation request, packed Int32, in the order of a trial's values."""


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The complete trial with the highest score, the earliest of equals; None without one."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(complete, key=lambda trial: (trial.values[0], -trial.number), default=None)


def default_trial(study: optuna.Study) -> FrozenTrial | None:
    """The complete trial of the defaults; None without one."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return next((trial for trial in complete if trial.user_attrs.get(DEFAULT_TRIAL)), None)


def gain_over(study: optuna.Study, trial: FrozenTrial, before: FrozenTrial) -> Difference:
    """Paired interval of a trial's score minus an earlier one's, users drawn, over the requests of all folds.

    It is measured where the trial was chosen, so it flatters; only the test period tells the gain.
    """
    metric = study.user_attrs[PROTOCOL]["metric"]
    users = unpacked(study.user_attrs[USERS], np.int32)

    def side(of: FrozenTrial) -> pl.DataFrame:
        values = unpacked(of.user_attrs["per_request"], np.float32)
        rows = pl.DataFrame({"request_id": np.arange(len(values)), "user_id": users})
        return rows.with_columns(pl.Series(metric, values.astype(np.float64)).fill_nan(None))

    return paired_comparison(side(before), side(trial), {}, {}, metrics={metric: METRICS[metric]})[metric]


def product(study: optuna.Study, space: Space) -> dict[str, Any]:
    """The content of `params.json`.

    Raises:
        UsageError: No trial is complete.
    """
    best, first = best_trial(study), default_trial(study)
    if best is None:
        raise UsageError(
            f"--study {study.study_name}: expected a complete trial, found none, so nothing was written. Give the same "
            "command again, or train without --params, which takes the defaults."
        )
    protocol: Mapping[str, Any] = study.user_attrs[PROTOCOL]
    states = [trial.state.name.lower() for trial in study.get_trials(deepcopy=False)]
    gain = None if first is None or first.number == best.number else asdict(gain_over(study, best, first))
    fixed = {name: each.choices[0] for name, each in space.items() if each.fixed and each.choices}
    return {
        "format_version": PARAMS_VERSION,
        **({"reranker": protocol["reranker"]} if protocol.get("reranker") else {"ranker": protocol["ranker"]}),
        "params": nested({**best.params, **fixed}),
        "metric": protocol["metric"],
        "score": best.values[0],
        "spread": best.user_attrs["spread"],
        "folds": [
            {**fold, "score": score}
            for fold, score in zip(study.user_attrs["folds"], best.user_attrs["folds"], strict=True)
        ],
        "default_score": None if first is None else first.values[0],
        "gain_where_chosen": gain,
        "trial": best.number,
        "trials": {name: states.count(name) for name in ("complete", "pruned", "fail")},
        "study": study.study_name,
        "seed": protocol["seed"],
        "data": protocol["data"],
        "newsrec": __version__,
        "packages": versions() | {"optuna": version("optuna")},
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **_pareto(study),
    }


def write_product(out: Path, content: Mapping[str, Any]) -> None:
    """Write whole or not at all."""
    write_whole(out, lambda path: write_json(path, content))


def refuse_overwriting(out: Path, study: str, overwrite: bool) -> None:
    """A file is replaced only where it is this study's own.

    Raises:
        UsageError: It is not, and nobody said `--overwrite`.
    """
    if not out.exists() or overwrite:
        return
    try:
        found = json.loads(out.read_text(encoding="utf-8")).get("study")
    except (OSError, ValueError, AttributeError):
        found = None
    if found != study:
        raise UsageError(
            f"--out: expected a file that does not exist or that the study '{study}' wrote, found '{out}'. Choose "
            "another, or --overwrite."
        )


def _pareto(study: optuna.Study) -> dict[str, Any]:
    """The trials that no other beats in both quality and latency, the best quality first."""
    if len(study.directions) < 2:
        return {}
    front = sorted(study.best_trials, key=lambda trial: -trial.values[0])
    return {
        "pareto": [
            {"trial": t.number, "score": t.values[0], "latency_p99_ms": t.values[1], "params": t.params} for t in front
        ]
    }
