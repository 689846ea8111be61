"""Writes logs with impressions as EB-NeRD or MIND, and says beforehand what these files cannot hold.

Both formats keep one row per request, with the slate as a list, and know only two kinds of clicks: those before the
first impression, which are the user's history, and those on a slate, which have the time of their request.
"""

from pathlib import Path
from typing import Final

import polars as pl

from features.columns import CLICK_KEY, TIME
from newsrec.data import ebnerd, mind
from newsrec.data.lists import ITEM
from newsrec.data.log import Log
from newsrec.data.schema import EBNERD_ARTICLES, EBNERD_REQUESTS, MIND_ARTICLES, NEEDED
from newsrec.data.slates import slate_order
from newsrec.errors import DataError

KEYS: Final = ("request_id", "user_id", "requested_at")
NAMES: Final = {"user_id": "U", "item_id": "N"}
"""What MIND writes before a number."""
BREAKS: Final = r"[\t\r\n\x00]+"


def write_ebnerd(log: Log, folder: Path) -> None:
    """Write `behaviors.parquet`, `history.parquet` and, with articles, `articles.parquet`."""
    shown = _shown(log)
    requests = [c for c in EBNERD_REQUESTS if c.name in shown.columns]
    chosen = pl.col("item_id").filter(pl.col("clicked"))
    lists = {"article_ids_inview": pl.col("item_id"), "article_ids_clicked": chosen}
    if "dwell_seconds" in shown.columns:
        lists["next_read_time"] = pl.col("dwell_seconds").filter(pl.col("clicked")).first()
    rows = shown.group_by("request_id", maintain_order=True).agg(
        *(pl.col(c.name).first() for c in requests if c.name != "request_id"), **lists
    )
    rows = rows.with_columns(_naive("requested_at")).rename({c.name: c.source for c in requests})
    rows.write_parquet(folder / ebnerd.BEHAVIORS)
    _ebnerd_history(log).write_parquet(folder / ebnerd.HISTORY)
    if log.articles.height:
        columns = [c for c in EBNERD_ARTICLES if c.name in log.articles.columns]
        articles = log.articles.select(c.name for c in columns)
        if "created_at" in articles.columns:
            articles = articles.with_columns(_naive("created_at"))
        articles.rename({c.name: c.source for c in columns}).write_parquet(folder / ebnerd.ARTICLES)


def _ebnerd_history(log: Log) -> pl.DataFrame:
    columns = {"impression_time_fixed": _naive("clicked_at"), "article_id_fixed": pl.col("item_id")}
    if "dwell_seconds" in log.clicks.columns:
        columns["read_time_fixed"] = pl.col("dwell_seconds")
    return _before(log).group_by("user_id", maintain_order=True).agg(**columns)


def write_mind(log: Log, folder: Path) -> None:
    """Write `behaviors.tsv` and, with articles, `news.tsv`. Whole-number ids become 'N1' and 'U1'."""
    shown = _shown(log).with_columns(_named(log.clicks, "user_id"), _named(log.clicks, "item_id"))
    token = pl.format("{}-{}", "item_id", pl.col("clicked").cast(pl.Int8))
    rows = shown.group_by(KEYS, maintain_order=True).agg(impressions=token.str.join(" "))
    histories = _before(log).with_columns(_named(log.clicks, "user_id"), _named(log.clicks, "item_id"))
    histories = histories.group_by("user_id").agg(history=pl.col("item_id").str.join(" "))
    rows = rows.join(histories, on="user_id", how="left", maintain_order="left")
    # Microsoft writes 11/9/2019 2:14:46 PM: no zeros in front of month, day and hour.
    time = pl.col("requested_at").dt.strftime("%-m/%-d/%Y %-I:%M:%S %p").alias("time")
    table = rows.select("request_id", "user_id", time, pl.col("history").fill_null(""), "impressions")
    _plain(table, folder / mind.BEHAVIORS)
    if log.articles.height:
        sources = {c.source: c.name for c in MIND_ARTICLES if c.name in log.articles.columns}
        articles = log.articles.with_columns(_named(log.articles, "item_id"))
        texts = [
            pl.col(sources[name]).cast(pl.String).str.replace_all(BREAKS, " ") if name in sources else pl.lit("")
            for name in mind.NEWS_NAMES
        ]
        _plain(
            articles.select(text.alias(name) for name, text in zip(mind.NEWS_NAMES, texts, strict=True)),
            folder / mind.NEWS,
        )


def lost_in_ebnerd(log: Log) -> list[str]:
    """What EB-NeRD's files have no place for.

    Raises:
        DataError: No impressions, or ids that are text.
    """
    shown = _shown(log)
    texts = sorted({name for name in (*KEYS[:2], "item_id") if not shown.schema[name].is_integer()})
    if texts:
        raise DataError(f"ebnerd: ids that are whole numbers expected, text found in {texts}; write 'mind' or 'table'")
    held = {c.name for c in EBNERD_REQUESTS} | {"item_id", "clicked", "position"}
    beyond = {"dwell_seconds", "read"} if {"dwell_seconds", "read"} <= set(shown.columns) else {"dwell_seconds"}
    of_click = {*CLICK_KEY, *({"device", "dwell_seconds"} & set(shown.columns))}
    lost = _unplaced("clicks", log.clicks, of_click) + _unplaced("impressions", shown, held | beyond)
    lost += _unplaced("articles", log.articles, {c.name for c in EBNERD_ARTICLES})
    back = pl.concat([_before(log).select(CLICK_KEY), _clicked(shown)])
    return lost + _unlike_ebnerd(shown) + _changed(log, back)


def _unlike_ebnerd(shown: pl.DataFrame) -> list[str]:
    """Columns whose values come back otherwise: places with gaps, dwell on the second click of a slate."""
    order = dwell = pl.len() > 0
    if "position" in shown.columns:
        order = (pl.col("position").cast(pl.Int64) == pl.int_range(1, pl.len() + 1)).all()
    if "dwell_seconds" in shown.columns:
        dwell = (pl.col("clicked").sum() < 2) | pl.col("dwell_seconds").is_null().all()
    same = shown.group_by("request_id").agg(order.alias("position"), dwell.alias("dwell_seconds"))
    return [
        f"impressions.{name} of {(~same[name]).sum()} requests"
        for name in ("position", "dwell_seconds")
        if not same[name].all()
    ]


def lost_in_mind(log: Log) -> list[str]:
    """What MIND's files have no place for.

    Raises:
        DataError: No impressions, request ids that are text, or ids with signs that a list cannot hold.
    """
    shown = _shown(log)
    if not shown.schema["request_id"].is_integer():
        raise DataError("mind: request ids that are whole numbers expected, text found; write 'table'")
    frames = (log.clicks, shown, log.articles)
    ids = [frame[name].cast(pl.String) for frame in frames for name in NAMES if name in frame.columns]
    odd = pl.concat([values.unique().rename("id") for values in ids]).unique().sort()
    odd = odd.filter(~odd.str.contains(rf"^{ITEM}$"))
    if len(odd):
        raise DataError(f"mind: ids of letters, digits and '_' expected, {odd.head(3).to_list()} found; write 'table'")
    lost = [f"{name} as a whole number" for name in NAMES if log.clicks.schema[name].is_integer()]
    lost += _unplaced("clicks", log.clicks, set(CLICK_KEY))
    lost += _unplaced("impressions", shown, {*NEEDED["impressions"], "slate_order"})
    whole = shown.select((pl.col("requested_at").dt.truncate("1s") == pl.col("requested_at")).all()).item()
    lost += [] if whole else ["milliseconds of impressions.requested_at"]
    texts = {name for name, dtype in log.articles.schema.items() if dtype == pl.String} | {"item_id"}
    lost += _unplaced("articles", log.articles, {c.name for c in MIND_ARTICLES} & texts)
    broken = [name for name in sorted(texts & set(log.articles.columns)) if _breaks(log.articles[name])]
    lost += [f"line ends in articles.{name}" for name in broken]
    return lost + _changed(log, _read_from_mind(log, shown))


def _read_from_mind(log: Log, shown: pl.DataFrame) -> pl.DataFrame:
    """Clicks as reading would give them: no history of users without an impression, whole seconds, made-up times."""
    second = pl.col("requested_at").dt.truncate("1s")
    shown = shown.with_columns(second)
    histories = _before(log).join(shown.select("user_id").unique(), on="user_id", how="semi", maintain_order="left")
    lists = histories.group_by("user_id", maintain_order=True).agg("item_id")
    history = mind.history_clicks(lists, shown.select(pl.col("requested_at").min()).item())
    return pl.concat([history.select(CLICK_KEY), _clicked(shown)])


def _shown(log: Log) -> pl.DataFrame:
    """The impressions in the order in which they are written."""
    if log.impressions is None or not log.impressions.height:
        raise DataError("a log with impressions expected, one of clicks alone found; write 'table'")
    return log.impressions.sort("requested_at", "request_id", slate_order(log.impressions))


def _before(log: Log) -> pl.DataFrame:
    """Clicks before the first impression, in order."""
    first = _shown(log).select(pl.col("requested_at").min()).item()
    return log.clicks.filter(pl.col("clicked_at") < pl.lit(first, TIME))


def _clicked(shown: pl.DataFrame) -> pl.DataFrame:
    return shown.filter("clicked").select("user_id", "item_id", clicked_at="requested_at")


def _changed(log: Log, back: pl.DataFrame) -> list[str]:
    """Clicks that reading would not give back as they are, and held-out users."""
    changed = log.clicks.join(back, on=CLICK_KEY, how="anti").height
    lost = [f"users, items or times of {changed} clicks"] if changed else []
    return lost + (["held_out_users"] if log.held_out_users is not None else [])


def _unplaced(role: str, frame: pl.DataFrame, held: set[str]) -> list[str]:
    return [f"{role}.{name}" for name in frame.columns if name not in held]


def _named(frame: pl.DataFrame, name: str) -> pl.Expr:
    return pl.format(NAMES[name] + "{}", pl.col(name)).alias(name) if frame.schema[name].is_integer() else pl.col(name)


def _naive(name: str) -> pl.Expr:
    return pl.col(name).dt.replace_time_zone(None)


def _breaks(texts: pl.Series) -> bool:
    return bool(texts.cast(pl.String).str.contains(BREAKS).any())


def _plain(table: pl.DataFrame, path: Path) -> None:
    table.write_csv(path, separator="\t", include_header=False, quote_style="never")
