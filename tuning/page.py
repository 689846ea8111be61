"""`study.html`: how a study went, in one file that needs no network. Optuna's own charts, with Plotly inside."""

import warnings
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, Final

import optuna
import plotly.graph_objects as go
from optuna import visualization as charts
from optuna.trial import TrialState

from newsrec.bundle import write_whole
from tuning.product import best_trial
from tuning.study import PROTOCOL

MARGINAL: Final = 2
"""Complete trials without which importance and slices say nothing."""
HEAD: Final = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse }} td, th {{ padding: .2rem .8rem; text-align: left; border-bottom: 1px solid #ddd }}
</style></head><body><h1>{title}</h1>
"""


def write_page(study: optuna.Study, out: Path) -> None:
    """Write the page, whole or not at all."""
    write_whole(out, lambda path: path.write_text(render_page(study), encoding="utf-8"))


def render_page(study: optuna.Study) -> str:
    """A whole HTML document that refers to nothing outside itself; names in it are escaped."""
    parts = [HEAD.format(title=escape(f"Study {study.study_name}")), _facts(study)]
    script: str | bool = "inline"
    for title, figure in _figures(study):
        parts.append(f"<h2>{escape(title)}</h2>")
        parts.append(figure.to_html(full_html=False, include_plotlyjs=script, default_height="460px"))
        script = False  # the library, once
    return "".join([*parts, "</body></html>\n"])


def _figures(study: optuna.Study) -> Iterator[tuple[str, go.Figure]]:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    many = len(study.directions) > 1
    aim: dict[str, Any] = {"target": lambda trial: trial.values[0]} if many else {}
    aim |= {"target_name": study.user_attrs[PROTOCOL]["metric"]}
    if complete:
        yield "History", charts.plot_optimization_history(study, **aim)
    if many and complete:
        yield "Pareto front", charts.plot_pareto_front(study, target_names=[aim["target_name"], "p99, ms"])
    if len(complete) >= MARGINAL and len({trial.values[0] for trial in complete}) > 1:
        yield "Importance", _importance(study, aim, many)
        yield "Slices", charts.plot_slice(study, **aim)
    if not many and any(trial.intermediate_values for trial in complete):
        yield "Folds and iterations", charts.plot_intermediate_values(study)
    yield "Timeline", charts.plot_timeline(study)


def _importance(study: optuna.Study, aim: dict[str, Any], many: bool) -> go.Figure:
    """Of the score. PED-ANOVA takes low targets for good and says so whenever it is given one."""
    low = aim | ({"target": lambda trial: -trial.values[0]} if many else {})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*to achieve low `target` values")
        return charts.plot_param_importances(study, **low)


def _facts(study: optuna.Study) -> str:
    """What was searched, and the best of it."""
    best = best_trial(study)
    states = [trial.state.name.lower() for trial in study.get_trials(deepcopy=False)]
    rows = {name: states.count(name) for name in dict.fromkeys(states)} | dict(_flat(study.user_attrs[PROTOCOL]))
    tables = [_table(rows)]
    if best is not None:
        found = {"trial": best.number, "score": best.values[0], "spread over folds": best.user_attrs["spread"]}
        tables.insert(0, f"<h2>Best</h2>{_table(found | best.params)}<h2>Study</h2>")
    return "".join(tables)


def _flat(protocol: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in protocol.items():
        if name != "space":  # the slices show it
            yield name, value


def _table(rows: dict[str, Any]) -> str:
    cells = {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in rows.items()}
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(cell)}</td></tr>" for name, cell in cells.items())
    return f"<table>{body}</table>"
