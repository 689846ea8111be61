"""Format `mind`: a part of MIND, Microsoft's news log.

Ids are text ('N123', 'U456'). The order of items in a slate was shuffled by the publisher, so it is no position:
`slate_order` keeps it for the submission, and no feature may use it.

A user's history has an order and no times. It becomes clicks with made-up times: one minute apart, the last of each
user `HISTORY_DAYS` before the log's first impression. There they stand strictly before every request and far outside
every window of recent hours, so that they tell what a user likes and never what is popular now. Features that read
gaps or ages of these clicks read the convention and not the user. Notation of times is American, taken as UTC.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import polars as pl

from features.columns import TIME
from newsrec.data.canonical import Parts, make_log
from newsrec.data.files import read_rows
from newsrec.data.ledger import Ledger
from newsrec.data.log import Log, ReadOptions
from newsrec.data.schema import MIND_ARTICLES, MIND_REQUESTS
from newsrec.data.slates import find_folder, longest_rule, shown_items

BEHAVIORS: Final = "behaviors.tsv"
NEWS: Final = "news.tsv"
BEHAVIOR_NAMES: Final = ("impression_id", "user_id", "time", "history", "impressions")
NEWS_NAMES: Final = (
    "news_id",
    "category",
    "subcategory",
    "title",
    "abstract",
    "url",
    "title_entities",
    "abstract_entities",
)
LEFT_OUT: Final = ("abstract", "url", "title_entities", "abstract_entities")
HISTORY_DAYS: Final = 60
"""Longer than any window of a statistic, and than the four weeks that MIND's histories cover."""
LABEL: Final = 2
"""Characters of '-0' and '-1'."""


def read_mind(path: Path, options: ReadOptions) -> Log:
    """Read one part of MIND.

    Args:
        path: A folder with `behaviors.tsv` and optionally `news.tsv`, or one folder above it.
        options: `columns` and `integer_ids` do not apply.

    Returns:
        The log. Clicks are the histories, at made-up times, and the clicked impressions at the time of their request.
        In a test set, whose slates have no labels, nothing is clicked.

    Raises:
        DataError: No behaviours there or several parts, or too many bad rows.
    """
    ledger = Ledger(options)
    folder = find_folder(path, BEHAVIORS, "mind")
    rules = [_label_rule(), longest_rule(pl.col("slate").str.count_matches(" ", literal=True) + 1, "impressions")]
    rows = read_rows(folder / BEHAVIORS, "impressions", MIND_REQUESTS, ledger, names=BEHAVIOR_NAMES, rules=rules)
    impressions = _impressions(rows, ledger)
    logged = impressions.filter("clicked").select("user_id", "item_id", clicked_at="requested_at")
    parts = Parts(pl.concat([_history(rows, ledger), logged]), impressions=impressions)
    if (folder / NEWS).is_file():
        parts.articles = read_rows(folder / NEWS, "articles", MIND_ARTICLES, ledger, names=NEWS_NAMES, known=LEFT_OUT)
        ledger.note(f"articles: {', '.join(LEFT_OUT)} are left out")
    return make_log("mind", parts, ledger)


def history_clicks(histories: pl.DataFrame, start: datetime) -> pl.DataFrame:
    """Histories as clicks at made-up times.

    Args:
        histories: `user_id, item_id`, one row per user, `item_id` being a list in the order of clicking.
        start: Time of the log's first impression.

    Returns:
        `user_id, item_id, clicked_at`, one row per click. Repeated items stay.
    """
    length = pl.col("item_id").list.len().cast(pl.Int64)
    later = pl.int_ranges(length - 1, -1, step=-1)
    rows = histories.filter(length > 0).with_columns(later=later).explode("item_id", "later")
    last = pl.lit(start, TIME) - pl.duration(days=HISTORY_DAYS)
    return rows.select("user_id", "item_id", clicked_at=last - pl.duration(minutes=pl.col("later")))


def _label_rule() -> pl.Expr:
    """A file has labels or has none; rows of the rarer kind are bad."""
    labelled = pl.col("slate").str.contains("-", literal=True)
    lack = pl.lit("'impressions' has no -0 and -1, which other rows have")
    surplus = pl.lit("'impressions' has -0 or -1, which other rows have not")
    most = labelled.mean() >= 0.5
    return pl.when(most & ~labelled).then(lack).when(~most & labelled).then(surplus)


def _impressions(rows: pl.DataFrame, ledger: Ledger) -> pl.DataFrame:
    rows = rows.select("request_id", "user_id", "requested_at", item_id=pl.col("slate").str.split(" "))
    shown = shown_items(rows, "slate_order", ledger)
    labelled = pl.col("item_id").str.contains("-", literal=True)
    if not shown.select(labelled.any()).item():
        ledger.note("impressions: no labels, as in the competition's test set; nothing counts as clicked")
    item = pl.when(labelled).then(pl.col("item_id").str.head(-LABEL)).otherwise("item_id")
    return shown.with_columns(item_id=item, clicked=labelled & pl.col("item_id").str.ends_with("1"))


def _history(rows: pl.DataFrame, ledger: Ledger) -> pl.DataFrame:
    """Clicks of what each user's first row says. What later rows add has no time that it could be known from."""
    first = rows.sort("requested_at", "request_id", "history", nulls_last=True)
    first = first.unique("user_id", keep="first", maintain_order=True)
    grown = rows.group_by("user_id").agg(pl.col("history").n_unique())["history"].gt(1).sum()
    if grown:
        ledger.note(f"clicks: {grown} users have rows with several histories; the one of their first row is taken")
    start = rows["requested_at"].min()
    histories = first.select("user_id", item_id=pl.col("history").str.split(" "))
    clicks = history_clicks(histories, start if isinstance(start, datetime) else datetime.now(UTC))
    if clicks.height:
        ledger.note(
            f"clicks: {clicks.height} of histories without times stand one minute apart, the last of each user "
            f"{HISTORY_DAYS} days before the first impression; their gaps and ages mean nothing"
        )
    return clicks
