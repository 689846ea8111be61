"""Labels beyond the click: what a reader did with an article after clicking it, for networks that learn several things.

A task is a column of the impressions that says yes or no (`shared` of the simulated log, `read` of EB-NeRD), or
`dwell:SECONDS`, whether a clicked article was read so long. What was not clicked is 0; what nobody knows is null and
teaches nothing. `exposed` is another kind of task: whether a candidate of recall was in the list that was shown, which
comes before the click (`newsrec.rerankers.experts.clicked_and_shown`).
"""

import re
from collections.abc import Sequence
from typing import Final

import polars as pl

from newsrec.data import Log
from newsrec.errors import DataError, UsageError
from newsrec.slates import slates_of

CLICK: Final = "click"
"""The first task, which every log has."""
EXPOSED: Final = "exposed"
"""The task that comes before the click, where the log has impressions; no column of that name is a task."""
DWELL: Final = "dwell_seconds"
_DWELL_TASK: Final = re.compile(r"dwell:(\d+(?:\.\d+)?)")
_KEY: Final = ["request_id", "item_id"]


def tasks_in(log: Log) -> tuple[str, ...]:
    """The columns of a log's impressions that say yes or no of what followed the click."""
    if log.impressions is None:
        return ()
    return tuple(
        name for name, kind in log.impressions.schema.items() if kind == pl.Boolean and name not in ("clicked", EXPOSED)
    )


def refuse_unknown_tasks(log: Log, tasks: Sequence[str], exposable: bool) -> None:
    """Find out before the work whether a log has these labels.

    Args:
        log: The log.
        tasks: See the module.
        exposable: Whether recall proposes to requests that were made from shown lists, if the log has any: only then
            some candidates were shown and others not.

    Raises:
        UsageError: A task that does not exist; what there is is named. `EXPOSED` where being shown is no question.
        DataError: A label that is all 0 or all missing, or not only 0 and 1.
    """
    shown = log.impressions
    dwells = DWELL in log.clicks.columns or (shown is not None and DWELL in shown.columns)
    exposable = exposable and shown is not None
    for task in tasks:
        if task == EXPOSED and not exposable:
            raise UsageError(
                "--task exposed: expected candidates of recall and lists that were shown, found only one of both. "
                "Take a log with impressions, --candidates recall, and --validation temporal or gap."
            )
        if task == EXPOSED or (_DWELL_TASK.fullmatch(task) and dwells):
            continue
        if shown is None or task not in shown.columns or task in ("clicked", *_KEY):
            known = [*tasks_in(log), *(["dwell:SECONDS"] if dwells else []), *([EXPOSED] if exposable else [])]
            raise UsageError(f"--task: expected one of {known}, found {task!r}.")
        values = shown[task].drop_nulls().unique().cast(pl.String, strict=False).to_list()
        others = sorted(set(values) - {"0", "1", "0.0", "1.0", "false", "true"})
        if others or not set(values) & {"1", "1.0", "true"}:
            found = others[:3] or ("only 0" if values else "nothing")
            raise DataError(f"--task {task}: expected a column of 0 and 1 with some of both, found {found}.")


def task_labels(log: Log, requests: pl.DataFrame, positives: pl.DataFrame, tasks: Sequence[str]) -> pl.DataFrame:
    """What followed the clicks of some requests.

    Args:
        log: That has the tasks.
        requests: Canonical requests; made from impressions, they have an `impression_id`.
        positives: `request_id, item_id`.
        tasks: See the module.

    Returns:
        `request_id, item_id` of the positives of these requests and a Float32 column per task: 1, 0, or null. With
        `EXPOSED` also all other articles that the requests' lists showed, the other labels being null.
    """
    ids = ["impression_id"] if "impression_id" in requests.columns else []
    asked = requests.select("request_id", "user_id", "requested_at", *ids)
    clicked = positives.join(asked, on="request_id", how="inner", maintain_order="left")
    told = _of_impressions(log, clicked) if ids and log.impressions is not None else clicked
    if DWELL not in told.columns and any(map(_DWELL_TASK.fullmatch, tasks)):
        told = _with_dwell_of_clicks(log, told)
    after = told.select(*_KEY, *(_label(task) for task in tasks if task != EXPOSED))
    if EXPOSED not in tasks:
        return after
    assert log.impressions is not None
    shown = slates_of(log.impressions, asked).select(*_KEY, pl.lit(1, pl.Float32).alias(EXPOSED)).unique()
    return after.join(shown, on=_KEY, how="full", coalesce=True).select(*_KEY, *tasks)


def _of_impressions(log: Log, clicked: pl.DataFrame) -> pl.DataFrame:
    assert log.impressions is not None
    further = [name for name in log.impressions.columns if name not in (*clicked.columns, "request_id")]
    shown = log.impressions.select(pl.col("request_id").alias("impression_id"), "item_id", *further)
    keys = ["impression_id", "item_id"]
    return clicked.join(shown.unique(keys), on=keys, how="left", maintain_order="left")


def _with_dwell_of_clicks(log: Log, clicked: pl.DataFrame) -> pl.DataFrame:
    """Of the click that made the request, which has its moment, or is the user's next on the article."""
    clicks = log.clicks.select("user_id", "item_id", "clicked_at", DWELL)
    after = clicked.join(clicks, on=["user_id", "item_id"]).filter(pl.col("clicked_at") >= pl.col("requested_at"))
    first = after.sort("clicked_at").unique(_KEY, keep="first").select(*_KEY, DWELL)
    return clicked.join(first, on=_KEY, how="left", maintain_order="left")


def _label(task: str) -> pl.Expr:
    of_dwell = _DWELL_TASK.fullmatch(task)
    value = pl.col(DWELL) >= float(of_dwell[1]) if of_dwell else pl.col(task)
    return value.cast(pl.Float32).alias(task)
