"""Format `ebnerd`: a part of EB-NeRD, the log of the RecSys Challenge 2024.

What is known when, which decides what a feature may read:

- `page_item_id` (null: the front page) is the page on which the list was shown. How long the user stayed there,
  `page_dwell_seconds`, is known from `requested_at` + `page_dwell_seconds` on, never at the request itself.
- `dwell_seconds` of an impression is the label beyond the click (`next_read_time`): seconds on the clicked article;
  `read` says whether they reach `READ_SECONDS`. On the click, the same seconds are a fact from click time + dwell on.
- `position` is the place in the file's list. Its order was shuffled by the publisher (click rates are even over the
  places, the same list comes in other orders): it serves the submission, and says nothing of the screen.

Never read: `next_scroll_percentage`, `scroll_percentage`, and the totals of articles, which count the whole log.
"""

from pathlib import Path
from typing import Final

import polars as pl

from newsrec.data.canonical import Parts, make_log
from newsrec.data.casting import EARLIEST
from newsrec.data.files import column_names, read_rows
from newsrec.data.ledger import Ledger
from newsrec.data.log import Log, ReadOptions
from newsrec.data.schema import EBNERD_ARTICLES, EBNERD_HISTORY, EBNERD_LISTS, EBNERD_REQUESTS, EBNERD_TEXTS
from newsrec.data.slates import clicks_inside, find_folder, flagged, longest_rule, shown_items

BEHAVIORS: Final = "behaviors.parquet"
HISTORY: Final = "history.parquet"
ARTICLES: Final = "articles.parquet"
PARTS: Final = ("train", "validation", "test")
"""Folders whose articles lie beside them, one folder up."""
SCROLLED: Final = ("scroll_percentage", "next_scroll_percentage")
TOTALS: Final = ("total_inviews", "total_pageviews", "total_read_time")
READ_SECONDS: Final = 30.0
"""From here a click counts as read: the dwell of a satisfied click in web search (Fox et al. 2005)."""


def read_ebnerd(path: Path, options: ReadOptions) -> Log:
    """Read one part of EB-NeRD.

    Args:
        path: A folder with `behaviors.parquet` and optionally `history.parquet`, or one folder above it. The optional
            `articles.parquet` may also lie one folder above `train`, `validation` or `test`.
        options: `columns` and `integer_ids` do not apply.

    Returns:
        The log. Clicks are the history strictly before the first impression, and the clicked impressions at the
        time of their request. Naive times are UTC.

    Raises:
        DataError: No behaviours there or several parts, columns missing, or too many bad rows.
    """
    ledger = Ledger(options)
    folder = find_folder(path, BEHAVIORS, "ebnerd")
    rows = _requests(folder / BEHAVIORS, ledger)
    impressions, clicks = _impressions(rows, ledger)
    if (folder / HISTORY).is_file():
        clicks = pl.concat([_history(folder / HISTORY, rows, ledger), clicks], how="diagonal")
    parts = Parts(clicks, impressions=impressions)
    beside = folder.parent / ARTICLES if folder.name in PARTS else folder / ARTICLES
    articles = next((file for file in (folder / ARTICLES, beside) if file.is_file()), None)
    if articles is not None:
        parts.articles = _articles(articles, ledger)
    return make_log("ebnerd", parts, ledger)


def _requests(path: Path, ledger: Ledger) -> pl.DataFrame:
    """One row per request, the lists still lists. Without its column, `chosen` is empty lists."""
    rule = longest_rule(pl.col("item_id").list.len(), "article_ids_inview")
    columns = (*EBNERD_REQUESTS, *EBNERD_LISTS)
    rows = read_rows(path, "impressions", columns, ledger, known=SCROLLED, rules=[rule])
    if "chosen" not in rows.columns:
        ledger.note(
            "impressions: no 'article_ids_clicked', as in the competition's test set; nothing counts as clicked"
        )
        rows = rows.with_columns(chosen=pl.lit([], pl.List(pl.Int64)))
    if "beyond_accuracy" in rows.columns:
        beyond = pl.col("beyond_accuracy").fill_null(False)
        lost = int(rows.select(beyond.sum()).item())
        if lost:
            # All of them bear impression id 0 and one list of 250: no requests that anybody made.
            ledger.note(
                f"impressions: {lost} rows of the beyond-accuracy track are no logged requests and were dropped"
            )
        rows = rows.filter(~beyond).drop("beyond_accuracy")
    return _with_dwell_of_one_click(rows, ledger)


def _with_dwell_of_one_click(rows: pl.DataFrame, ledger: Ledger) -> pl.DataFrame:
    if "dwell_seconds" not in rows.columns:
        return rows
    several = (pl.col("chosen").list.n_unique() > 1) & pl.col("dwell_seconds").is_not_null()
    torn = int(rows.select(several.sum()).item() or 0)
    if torn:
        ledger.note(
            f"impressions: {torn} with several clicks give one reading time for all of them; left out as unclear"
        )
    return rows.with_columns(pl.when(~several).then(pl.col("dwell_seconds")))


def _impressions(rows: pl.DataFrame, ledger: Ledger) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Shown items and logged clicks."""
    shown = shown_items(rows.drop("chosen"), "position", ledger)
    of_click = [name for name in ("device", "dwell_seconds") if name in rows.columns]
    chosen = rows.select("request_id", "user_id", *of_click, item_id="chosen", clicked_at="requested_at")
    clicks = clicks_inside(chosen.explode("item_id").drop_nulls("item_id"), shown, ledger)
    shown = flagged(shown, clicks)
    if "dwell_seconds" in shown.columns:
        shown = shown.with_columns(pl.when("clicked").then("dwell_seconds"))
        # Null, not false, where something was clicked and nobody knows for how long.
        shown = shown.with_columns(read=pl.col("clicked") & (pl.col("dwell_seconds") >= READ_SECONDS))
    return shown, clicks.drop("request_id")


def _history(path: Path, rows: pl.DataFrame, ledger: Ledger) -> pl.DataFrame:
    """Clicks before the first impression. What stands later repeats logged clicks, a few seconds off."""
    lists = [column.name for column in EBNERD_HISTORY if column.name != "user_id"]
    present = column_names(path)
    dated = pl.col("clicked_at").list
    rules = [pl.when(dated.min() < EARLIEST).then(pl.lit("'impression_time_fixed' holds a time before 1990"))]
    rules += [
        pl.when(pl.col(column.name).list.len() != dated.len()).then(
            pl.lit(f"'{column.source}' and 'impression_time_fixed' are of unequal length")
        )
        for column in EBNERD_HISTORY
        if column.name in ("item_id", "dwell_seconds") and column.source in present
    ]
    known = ("scroll_percentage_fixed",)
    of_users = read_rows(path, "history", EBNERD_HISTORY, ledger, known=known, rules=rules)
    clicks = of_users.explode([name for name in lists if name in of_users.columns]).drop_nulls("item_id")
    first = rows["requested_at"].min()
    before = clicks.filter(pl.col("clicked_at") < first)
    if before.height < clicks.height:
        ledger.note(
            f"clicks: {clicks.height - before.height} of {clicks.height} clicks of the history stand at or after the "
            "first logged impression; they repeat logged clicks and were dropped"
        )
    return before


def _articles(path: Path, ledger: Ledger) -> pl.DataFrame:
    found = column_names(path)
    totals = [name for name in TOTALS if name in found]
    if totals:
        ledger.note(
            f"articles: {', '.join(totals)} left out: they count the whole log, and a request would know its future"
        )
    articles = read_rows(path, "articles", (*EBNERD_ARTICLES, *EBNERD_TEXTS), ledger, known=TOTALS)
    texts = [column.name for column in EBNERD_TEXTS if column.name in articles.columns]
    if "body" in texts:
        counts = [pl.col(name).str.count_matches(r"\S+").fill_null(0) for name in texts]
        words = pl.when(pl.col("body").is_not_null()).then(pl.sum_horizontal(counts))
        articles = articles.with_columns(words=words.cast(pl.Int32))
    return articles.drop(texts)
