"""What the page shows, taken from `metrics.json`: tables as rows of text, charts as markup, absent parts as nothing.

The template only lays out; which figures stand beside each other is decided here.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from newsrec.evaluation import protocol_line
from newsrec.report import charts

STAGES: Final = {
    "read": "the log becomes clicks and articles",
    "split": "train, valid and test by time",
    "recall": "channels propose articles; scored in recall's own order",
    "candidates": "merged, labelled, sampled",
    "features": "what was known strictly before each request",
    "rank": "the ranker orders the candidates",
    "rerank": "the network reorders the top: what is served",
    "rerank_alone": "the network alone, without the blend",
    "evaluate": "figures and intervals",
    "bundle": "files with their hashes",
}
"""The way of a click, in order; stages that `metrics.json` names besides these follow."""

SHOWN: Final = ("hit@5", "mrr@5", "ndcg@10", "auc")
MOST_FEATURES: Final = 30
_NONE: Final = "–"

Table = dict[str, Any]
"""`head`: column names; `text`: whether a column is text, not figures; `rows`: lists of cells, the first its name."""


def sections(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the template asks for; None or empty where the run has no such part."""
    return {
        "run": metrics.get("run"),
        "created_at": metrics.get("created_at"),
        "protocol": protocol_line(_mapping(metrics.get("protocol"))),
        "served": served(metrics),
        "tiles": _tiles(metrics),
        "way": _way(metrics),
        "baselines": _baselines(metrics),
        **_recall(metrics),
        "curves": _curves(metrics.get("curves")),
        **_calibration(_mapping(metrics.get("calibration"))),
        **_network(_mapping(metrics.get("reranker"))),
        **_importance(_rows(metrics.get("importance"))),
        "slices": _slices(_rows(metrics.get("slices"))),
        "artefacts": _table(("name", "found", "share", "explanation"), _rows(metrics.get("artefacts"))),
        **_intake(_mapping(metrics.get("intake"))),
        "seconds": _seconds(_mapping(metrics.get("seconds"))),
        "total": _s(_mapping(metrics.get("seconds")), "total"),
        "peak_rss_mb": metrics.get("peak_rss_mb"),
    }


def figure(value: object) -> str:
    """A cell's text: shares with four digits, counts with commas, a dash for nothing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return _NONE
        return f"{value:,.4f}" if abs(value) < 10 else f"{value:,.1f}"
    return _NONE if value is None else str(value)


def served(metrics: Mapping[str, Any]) -> str | None:
    """Which stage's order `recommend` serves."""
    return next((stage for stage in ("rerank", "rank") if _mapping(metrics.get(stage))), None)


def _tiles(metrics: Mapping[str, Any]) -> list[dict[str, object]]:
    """The served order's figures, with the interval where there is one."""
    stage = served(metrics)
    scores, ends = _mapping(metrics.get(stage or "")), _intervals(metrics, stage)
    return [{"name": name, "value": scores[name], "interval": ends.get(name)} for name in SHOWN if name in scores]


def _intervals(metrics: Mapping[str, Any], stage: str | None) -> Mapping[str, Any]:
    """`intervals` may be one mapping for the served order or one per stage."""
    intervals = _mapping(metrics.get("intervals"))
    of_stage = _mapping(intervals.get(stage or "")) or intervals
    return {name: ends for name, ends in of_stage.items() if isinstance(ends, list | tuple) and len(ends) == 2}


def _way(metrics: Mapping[str, Any]) -> Table | None:
    """Each stage, its scores, popularity beside it, and what it took."""
    seconds, baselines = _mapping(metrics.get("seconds")), _mapping(metrics.get("baselines"))
    popularity = _number(_mapping(baselines.get("popularity")).get("mrr@5"))
    rows = []
    for stage in [*STAGES, *(name for name in seconds if name not in STAGES)]:
        scores = _mapping(baselines.get("recall_order") if stage == "recall" else metrics.get(stage))
        if stage not in seconds and not scores:
            continue
        mine = _number(scores.get("mrr@5"))
        beside = popularity if mine is not None else None
        times = f"{mine / beside:.1f} ×" if mine is not None and beside else None
        rows.append(
            [stage, STAGES.get(stage, ""), *(scores.get(name) for name in SHOWN), beside, times, _s(seconds, stage)]
        )
    head = ["stage", "what it does", *SHOWN, "popularity mrr@5", "times popularity", "seconds"]
    text = [place < 2 for place in range(len(head))]
    return {"head": head, "text": text, "rows": rows} if rows else None


def _baselines(metrics: Mapping[str, Any]) -> Table | None:
    """What needs no model, and below it what the run reached."""
    baselines = {name: _mapping(scores) for name, scores in _mapping(metrics.get("baselines")).items()}
    if not any(baselines.values()):
        return None
    orders = {**baselines, **{stage: _mapping(metrics.get(stage)) for stage in ("rank", "rerank", "rerank_alone")}}
    rows = [{"order": name, **scores} for name, scores in orders.items() if scores]
    return _table(tuple(dict.fromkeys(key for row in rows for key in row)), rows)


def _recall(metrics: Mapping[str, Any]) -> dict[str, Any]:
    channels = {name: _mapping(found) for name, found in _mapping(metrics.get("recall")).items()}
    rows = [{"channel": name, **found} for name, found in channels.items() if found]
    hits = [
        (name, {key: float(y) for key, y in found.items() if key.startswith("hit@") and _number(y) is not None})
        for name, found in channels.items()
    ]
    overlap = {
        name: {key: float(share) for key, share in _mapping(row).items() if _number(share) is not None}
        for name, row in _mapping(metrics.get("recall_overlap")).items()
    }
    columns = dict.fromkeys(key for row in rows for key in row)
    return {
        "recall": _table(tuple(columns), rows),
        "recall_chart": charts.grouped_bars("Share of clicked articles among the first k, by channel", hits),
        "overlap": charts.heat_table("Share of what the row's channel found that the column's found too", overlap)
        if any(overlap.values())
        else None,
    }


def _curves(curves: object, steps: str = "trees", best: str = "best_iteration") -> Markup | None:
    found = _mapping(curves)
    lines = {name: [_y(value) for value in found[name]] for name in ("train", "valid") if _sequence(found.get(name))}
    if not lines:
        return None
    marked = found.get(best)
    title = f"{figure(found.get('metric', 'metric'))} by {steps}"
    return charts.line_chart(title, lines, steps, marked if isinstance(marked, int) else None) or None


def _network(reranker: Mapping[str, Any]) -> dict[str, Any]:
    """How the network was trained, whether it overfits, and whether it is switched on."""
    gain = _mapping(reranker.get("gain"))
    columns = ("name", "on", "top", "weight", *(f"gain {key}" for key in gain))
    row = {**reranker, **{f"gain {key}": value for key, value in gain.items()}}
    return {
        "network": _table(columns, [row]) if reranker else None,
        "network_curves": _curves(reranker.get("curves"), "epochs", "best_epoch"),
        "overfitting": reranker.get("overfitting"),
    }


def _importance(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    gains = [(figure(row.get("feature")), _number(row.get("gain")) or 0.0, row.get("splits")) for row in rows]
    total = sum(gain for _, gain, _ in gains) or 1.0
    gains.sort(key=lambda each: (-each[1], each[0]))
    shown = [(name, round(100 * gain / total, 2)) for name, gain, _ in gains[:MOST_FEATURES]]
    return {
        "importance": charts.bars("Share of the model's gain, %, by feature", shown, " %") if shown else None,
        "importance_table": _table(
            ("feature", "gain", "splits"),
            [{"feature": name, "gain": gain, "splits": splits} for name, gain, splits in gains],
        ),
    }


def _calibration(found: Mapping[str, Any]) -> dict[str, Any]:
    """Figures before and after, and both curves."""
    sides = {name: _mapping(found.get(name)) for name in ("before", "after")}
    names = ("mean_probability", "click_rate", "ece", "ece_share", "normalised_entropy", "logloss")
    rows = [{"scores": name, **side} for name, side in sides.items() if side]
    curves = {
        name: [(_y(point.get("probability")), _y(point.get("click_rate"))) for point in _rows(side.get("curve"))]
        for name, side in sides.items()
    }
    return {
        "calibration": _table(("scores", *names), rows),
        "calibration_method": figure(found.get("method")),
        "reliability": charts.reliability("Share of candidates that were clicked, by predicted share", curves),
    }


def _slices(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, Table]]:
    names = dict.fromkeys(figure(row.get("slice")) for row in rows)
    columns = ("value", *dict.fromkeys(key for row in rows for key in row if key not in {"slice", "value"}))
    tables = ((name, _table(columns, [row for row in rows if figure(row.get("slice")) == name])) for name in names)
    return [(name, table) for name, table in tables if table]


def _intake(intake: Mapping[str, Any]) -> dict[str, Any]:
    counts = [{"what": key.replace("_", " "), "count": value} for key, value in intake.items() if key != "notes"]
    notes = intake.get("notes")
    told = notes if isinstance(notes, list | tuple) else ()
    return {
        "intake": _table(("what", "count"), counts),
        "notes": [figure(note) for note in told],
    }


def _seconds(seconds: Mapping[str, Any]) -> Markup | None:
    """A bar for each stage; their total would dwarf them and is told in words."""
    known = {stage: _number(value) for stage, value in seconds.items() if stage != "total"}
    rows = [(stage, round(value, 2)) for stage, value in known.items() if value is not None]
    return charts.bars("Seconds by stage", rows, " s") or None


def _table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Table | None:
    """Cells by column name; columns that no row has are left out."""
    rows = list(rows)
    used = [column for column in columns if any(row.get(column) is not None for row in rows)]
    text = [any(isinstance(row.get(column), str) for row in rows) for column in used]
    return (
        {"head": used, "text": text, "rows": [[row.get(column) for column in used] for row in rows]} if used else None
    )


def _s(seconds: Mapping[str, Any], stage: str) -> str | None:
    value = _number(seconds.get(stage))
    return None if value is None else f"{value:,.1f}"


def _number(value: object) -> float | None:
    """A finite number, or nothing."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _y(value: object) -> float:
    number = _number(value)
    return math.nan if number is None else number


def _mapping(value: object) -> Mapping[str, Any]:
    return {str(key): each for key, each in value.items()} if isinstance(value, Mapping) else {}


def _rows(value: object) -> list[Mapping[str, Any]]:
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list | tuple) else []


def _sequence(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0
