"""From the frames of a format to a `Log`: repeats dropped, rows sorted, absences noted, a fingerprint taken.

Every format ends here, so that the same data gives the same log whatever files it came in. Row order in the files never
matters: where rows repeat a key, the one that sorts first is kept, known values before unknown ones.
"""

from dataclasses import dataclass

import polars as pl

from features.columns import CLICK_KEY, CONTEXT
from newsrec.data.casting import smallest_integer
from newsrec.data.fingerprint import fingerprint
from newsrec.data.ledger import Ledger
from newsrec.data.log import Intake, Log
from newsrec.data.schema import KNOWN, NEEDED, SLATE_ORDER
from newsrec.errors import DataError


@dataclass
class Parts:
    """What a format has read, in canonical columns and dtypes but raw rows."""

    clicks: pl.DataFrame | None = None
    articles: pl.DataFrame | None = None
    impressions: pl.DataFrame | None = None
    held_out_users: pl.Series | None = None


def make_log(format: str, parts: Parts, ledger: Ledger) -> Log:
    """Make the log.

    Args:
        format: Its name.
        parts: At least clicks or impressions. Without clicks, the clicked impressions are the clicks, at request time.
        ledger: What reading has counted; settled here.

    Raises:
        DataError: Too many bad rows, neither a click nor an impression, or ids that do not fit each other.
    """
    ledger.settle()
    impressions = None if parts.impressions is None else _impressions(parts.impressions, ledger)
    clicks = parts.clicks if parts.clicks is not None else _clicks_of(impressions, ledger)
    if not clicks.height and (impressions is None or not impressions.height):
        raise DataError(
            f"clicks: at least one row expected, none found in {ledger.rows_read} rows read; check the files"
        )
    clicks, duplicates = _clicks(clicks, ledger)
    articles = _articles(parts.articles, clicks, ledger)
    _check_ids(clicks, {"articles": articles, "impressions": impressions})
    _note_unknown(clicks, articles, ledger)
    held_out = None
    if parts.held_out_users is not None:
        held_out = parts.held_out_users.cast(clicks.schema["user_id"]).unique().sort().to_frame("user_id")
    frames = {"clicks": clicks, "articles": articles, "impressions": impressions, "held_out_users": held_out}
    return Log(
        format=format,
        clicks=clicks,
        articles=articles,
        impressions=impressions,
        held_out_users=held_out,
        intake=Intake(ledger.rows_read, ledger.rows_bad, duplicates, tuple(ledger.notes)),
        fingerprint=fingerprint(frames),
    )


def _clicks(clicks: pl.DataFrame, ledger: Ledger) -> tuple[pl.DataFrame, int]:
    order = ("clicked_at", "user_id", "item_id")
    tidy = _tidy(clicks, "clicks", ledger)
    distinct = _first_of_each(tidy, CLICK_KEY, order)
    duplicates = tidy.height - distinct.height
    return distinct, duplicates


def _articles(articles: pl.DataFrame | None, clicks: pl.DataFrame, ledger: Ledger) -> pl.DataFrame:
    if articles is None:
        return pl.DataFrame(schema={"item_id": clicks.schema["item_id"]})
    tidy = _tidy(articles, "articles", ledger)
    distinct = _first_of_each(tidy, ("item_id",), ("item_id",))
    repeated = tidy.height - distinct.height
    if repeated:
        ledger.note(f"articles: {repeated} rows repeat an item_id and were dropped")
    return distinct


def _impressions(impressions: pl.DataFrame, ledger: Ledger) -> pl.DataFrame:
    tidy = _tidy(impressions, "impressions", ledger)
    of_request = tidy.group_by("request_id").agg(pl.col("user_id", "requested_at").n_unique())
    torn = of_request.filter((pl.col("user_id") > 1) | (pl.col("requested_at") > 1))["request_id"].sort()
    if len(torn):
        raise DataError(
            f"impressions: one user and one time per request_id expected, {len(torn)} requests with several found "
            f"({torn.head(3).to_list()}); give each request its own request_id"
        )
    place = next((name for name in SLATE_ORDER if name in tidy.columns), "item_id")
    # Of a repeated item the clicked row is kept: True sorts last, so its opposite leads.
    tidy = tidy.with_columns(skipped=~pl.col("clicked"))
    distinct = _first_of_each(tidy, ("request_id", "item_id"), ("requested_at", "request_id", "item_id", "skipped"))
    repeated = tidy.height - distinct.height
    if repeated:
        ledger.note(f"impressions: {repeated} rows repeat an item of the same request and were dropped")
    return distinct.drop("skipped").sort("requested_at", "request_id", place, "item_id", nulls_last=True)


def _clicks_of(impressions: pl.DataFrame | None, ledger: Ledger) -> pl.DataFrame:
    if impressions is None:
        raise DataError(
            "a log: clicks or impressions expected, neither found; name the files clicks.* or impressions.*"
        )
    ledger.note("clicks: none of their own; clicked impressions stand for them at the time of their request")
    kept = [name for name in KNOWN["clicks"] if name in impressions.columns and name != "clicked_at"]
    return impressions.filter("clicked").select(*kept, clicked_at="requested_at")


def _tidy(frame: pl.DataFrame, role: str, ledger: Ledger) -> pl.DataFrame:
    """Canonical column order, narrow context columns, no column without a single value."""
    needed = NEEDED[role]
    empty = [name for name in frame.columns if name not in needed and frame[name].null_count() == frame.height]
    if empty and frame.height:
        ledger.note(f"{role}: columns without any value were dropped: {', '.join(sorted(empty))}")
    kept = [name for name in frame.columns if name not in empty]
    order = [name for name in KNOWN[role] if name in kept] + sorted(set(kept) - set(KNOWN[role]))
    return frame.select(order).with_columns(smallest_integer(frame[name]) for name in order if name in CONTEXT)


def _first_of_each(frame: pl.DataFrame, key: tuple[str, ...], order: tuple[str, ...]) -> pl.DataFrame:
    """One row per key, sorted by `order`. Rows with one key are told apart by their values, never by their place."""
    ordered = frame.sort(order, nulls_last=True)
    # `order` holds the key, so rows that share one are neighbours; comparing them is far cheaper than hashing all.
    same = [ordered[name].slice(1).eq_missing(ordered[name].slice(0, max(frame.height - 1, 0))) for name in key]
    if not pl.DataFrame(same).select(pl.all_horizontal(pl.all()).any()).item():
        return ordered
    rest = [name for name in frame.columns if name not in order and not frame.schema[name].is_nested()]
    return frame.sort(*order, *rest, nulls_last=True).unique(subset=list(key), keep="first", maintain_order=True)


def _check_ids(clicks: pl.DataFrame, others: dict[str, pl.DataFrame | None]) -> None:
    for role, frame in others.items():
        for name in ("user_id", "item_id"):
            if frame is None or name not in frame.columns:
                continue
            own, other = clicks.schema[name], frame.schema[name]
            if own != other:
                raise DataError(
                    f"{role}: {name} of the same dtype as in clicks expected ({own}), {other} found; "
                    "cast one of them, so that both are text or both are whole numbers"
                )


def _note_unknown(clicks: pl.DataFrame, articles: pl.DataFrame, ledger: Ledger) -> None:
    if not articles.height:
        ledger.note("articles: no metadata; features of articles are left out")
        return
    clicked = clicks.select("item_id").unique()
    unknown = clicked.join(articles, on="item_id", how="anti").height
    if clicked.height and unknown == clicked.height:
        ours, theirs = clicked["item_id"].sort().head(3).to_list(), articles["item_id"].head(3).to_list()
        raise DataError(
            f"articles: item ids of the clicks expected (such as {ours}), none of {clicked.height} found "
            f"(there are {theirs}); give files of one log, or map item_id to the right column"
        )
    if "created_at" in articles.columns and (undated := articles["created_at"].null_count()):
        ledger.note(f"{undated} of {articles.height} articles have no created_at; each exists from its first click")
    if unknown:
        ledger.note(f"{unknown} of {clicked.height} clicked articles have no metadata")
