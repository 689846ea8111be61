"""The table of networks for people: Markdown for a README, and one HTML page that opens offline."""

from collections.abc import Mapping
from html import escape
from typing import Any, Final

import polars as pl

AGAINST: Final = {"over_pooling": "over pooling", "over_ranker": "over the ranker"}
COSTS: Final = {
    "parameters": "parameters",
    "seconds": "training s",
    "epochs": "epochs",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "kilobytes": "kB",
}
BLEND: Final = "blend_"
"""Before the columns of the order that a bundle would serve."""
TASK: Final = "task_"
TOGETHER: Final = "_together"
STYLE: Final = (
    "body{font:14px system-ui,sans-serif;margin:2rem;max-width:90rem}table{border-collapse:collapse;margin:1rem 0}"
    "td,th{padding:.3rem .7rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}"
    "td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}"
)

Grid = tuple[str, list[str], list[list[str]]]
"""Title, head and cells of a table."""


def grids(table: pl.DataFrame, metrics: tuple[str, ...], served: tuple[str, ...]) -> list[Grid]:
    """What networks are and cost, and one grid per metric with both comparisons.

    Args:
        table: `newsrec.experiment.networks.table_of`.
        metrics: Columns of it.
        served: Metrics of the blended order, columns of it behind `BLEND`.
    """
    rows = table.to_dicts()
    names = [[row["network"], row["loss"] or ""] for row in rows]
    traits = ("models_the_sequence", "aware_of_the_target")
    costs = [
        [*name, *(_yes(row[trait]) for trait in traits), *(_number(row[cost], cost) for cost in COSTS)]
        for name, row in zip(names, rows, strict=True)
    ]
    head = ["network", "loss", "models the sequence", "aware of the target", *COSTS.values()]
    quality = [
        (
            metric,
            ["network", "loss", metric, *AGAINST.values()],
            [[*name, f"{row[metric]:.4f}", *(_difference(row, f"{metric}_{key}") for key in AGAINST)]
             for name, row in zip(names, rows, strict=True) if row[metric] is not None],
        )
        for metric in metrics
    ]  # fmt: skip
    blend = [
        [
            *name,
            _number(row["weight"], ""),
            *(cell for metric in served for cell in _blended(row, BLEND + metric)),
        ]
        for name, row in zip(names, rows, strict=True)
    ]
    of_blend = ["network", "loss", "weight", *(cell for metric in served for cell in (metric, AGAINST["over_ranker"]))]
    blended = ("blended with the ranker", of_blend, blend)
    return [("what they are and cost", head, costs), *quality, blended, *_see_saw(rows, names)]


def _blended(row: Mapping[str, Any], column: str) -> tuple[str, str]:
    if row[column] is None:
        return "", ""
    return f"{row[column]:.4f}", _difference(row, f"{column}_over_ranker")


def _see_saw(rows: list[dict[str, Any]], names: list[list[str]]) -> list[Grid]:
    """Each label by networks of several tasks, and by one network for it alone; nothing where there are none."""
    tasks = [name.removeprefix(TASK).removesuffix(TOGETHER) for name in rows[0] if name.endswith(TOGETHER)]
    found = []
    for row, name in zip(rows, names, strict=True):
        for task in tasks:
            both = (row[f"{TASK}{task}{TOGETHER}"], row[f"{TASK}{task}_alone"])
            if None not in both:
                found.append([*name, task, *(f"{auc:.4f}" for auc in both), f"{both[0] - both[1]:+.4f}"])
    head = ["network", "loss", "label", "auc with all labels", "auc with it alone", "together less alone"]
    return [("several labels: the see-saw", head, found)] if found else []


def markdown(title: str, told: str, found: list[Grid]) -> str:
    """As Markdown."""
    parts = [f"# {title}", told]
    for name, head, rows in found:
        lines = [head, ["---"] * len(head), *rows]
        parts += [
            f"## {name}",
            "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines),
        ]
    return "\n\n".join(parts) + "\n"


def html(title: str, told: str, found: list[Grid]) -> str:
    """As a page without anything from elsewhere."""
    body = [f"<h1>{escape(title)}</h1><p>{escape(told)}</p>"]
    for name, head, rows in found:
        lines = [_row("th", head), *(_row("td", row) for row in rows)]
        body.append(f"<h2>{escape(name)}</h2><table>{''.join(lines)}</table>")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _row(tag: str, cells: list[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _yes(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def _number(value: float | None, name: str) -> str:
    whole = name in ("parameters", "kilobytes", "seconds")
    return "" if value is None else f"{value:,.0f}" if whole else f"{value:.2f}"


def _difference(row: Mapping[str, Any], column: str) -> str:
    if row[column] is None:
        return ""
    return f"{row[column]:+.4f} ({row[f'{column}_low']:+.4f} .. {row[f'{column}_high']:+.4f})"
