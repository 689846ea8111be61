"""Facts that impressions tell: what was shown how often to whom, what came of it, and where in a visit the user is."""

from typing import Final

import numpy as np
import polars as pl

from features.columns import REQUEST_CONTEXT
from features.events import take
from features.facts import WINDOWS, FactGroup, Facts, Rows, counted, decayed_of_item, known_numbers, known_times
from features.indices import HALF_LIVES
from features.vocabulary import UNKNOWN
from features.windows import NO_KEY, NO_TIME, Ints

EXPOSURE_WINDOWS: Final = ("5m", "15m", "1h", "6h", "24h", "all")
CHANCE_WINDOWS: Final = ("1h", "6h", "24h", "all")
LENGTH_WINDOWS: Final = ("15m", "1h", "6h")
DEPTH_WINDOWS: Final = ("15m", "1h", "6h", "24h")
CLICKED_WINDOWS: Final = ("1h", "6h", "24h")
OWN_WINDOWS: Final = ("5m", "1h", "24h", "all")
LAST_REQUESTS: Final = (1, 2, 5, 10)
NEEDS: Final = ("impressions",)


def _last_exposure(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    return {"item_exposed_ms": known_times(rows.store.index("exposure").latest(rows.item, rows.statistics_of_row))}


def _own_exposure(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    return {
        "user_item_exposed_ms": known_times(rows.store.index("user_exposure").latest(rows.user_item, rows.at_of_row))
    }


def _own_category(rows: Rows) -> Ints:
    return rows.store.pair_key(rows.user[rows.row], rows.category)


def _session(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    requests, table = rows.store.index("request"), rows.store.tables["requests"]
    return {
        "session_requests": requests.counts_since(rows.user, rows.session_start, rows.at),
        "session_start_ms": rows.session_start,
        "session_opens": requests.sums("session_starts", rows.user, rows.at, (None,))[0],
        "last_request_ms": known_times(take(table["time"], rows.earlier_request(0), NO_TIME)),
        "last_list_length": known_numbers(take(table["shown"], rows.earlier_request(0), -1)),
    }


def _session_exposures(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    since = rows.session_start[rows.row]
    return {
        "session_item_exposures": rows.store.index("user_exposure").counts_since(rows.user_item, since, rows.at_of_row)
    }


def _repeated(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    index, time = rows.store.index("user_exposure"), rows.store.tables["requests"]["time"]
    key, at = rows.user_item, rows.at_of_row
    facts: dict[str, Ints] = {}
    for name in wanted:
        first = rows.earlier_request(int(name.rsplit("_", 1)[1]) - 1)
        # With fewer requests than that, all of them count.
        since = take(time, first, NO_TIME // 2)
        facts[name] = index.counts_since(key, since[rows.row], at)
    return facts


def _page(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    # By id, not by code: a store that does not know the article yet must say the same as one that does.
    kind = rows.store.items.dtype
    pages = (
        rows.requests["page_item_id"]
        if "page_item_id" in rows.requests.columns
        else pl.repeat(None, len(rows.at), eager=True)
    )
    page = pages.cast(kind, strict=False).gather(rows.row)
    same = (rows.item_ids.cast(kind, strict=False) == page).cast(pl.Float64)
    return {
        "on_page": page.is_not_null().to_numpy(),
        "is_page": same.fill_null(np.nan).to_numpy(),
        "page_category_code": known_numbers(take(rows.store.category, _page_of(rows)[rows.row], NO_KEY)),
    }


def _page_of(rows: Rows) -> Ints:
    """Article that the user stands on while the list is shown, per request; -1 for none."""
    if "page_item_id" not in rows.requests.columns:
        return np.full(len(rows.at), NO_KEY)
    return rows.store.item_codes(rows.requests["page_item_id"])


def _page_move(rows: Rows) -> Ints:
    return rows.store.pair_key(_page_of(rows)[rows.row], rows.item)


def _now(name: str) -> FactGroup:
    """A context column of the request itself."""

    def compute(rows: Rows, wanted: tuple[str, ...]) -> Facts:
        if name not in rows.requests.columns:
            return {f"now_{name}_code": np.full(len(rows.at), UNKNOWN, np.int64)}
        return {f"now_{name}_code": rows.vocabulary.codes(rows.requests[name])}

    return FactGroup((f"now_{name}_code",), compute, per_request=True, needs=(f"impressions.{name}",))


EXPOSURE_FACTS: Final[tuple[FactGroup, ...]] = (
    counted(tuple(f"item_exposures_{w}" for w in EXPOSURE_WINDOWS), "exposure", lambda r: r.item, needs=NEEDS),
    counted(
        tuple(f"item_chance_{w}" for w in CHANCE_WINDOWS), "exposure", lambda r: r.item, value="chance", needs=NEEDS
    ),
    counted(
        tuple(f"item_list_lengths_{w}" for w in LENGTH_WINDOWS),
        "exposure",
        lambda r: r.item,
        value="length",
        needs=NEEDS,
    ),
    counted(tuple(f"item_depth_{w}" for w in DEPTH_WINDOWS), "exposure", lambda r: r.item, value="depth", needs=NEEDS),
    *(
        counted(
            tuple(f"{name}_{w}" for w in CLICKED_WINDOWS), "clicked_list", lambda r: r.item, value=value, needs=NEEDS
        )
        for name, value in (("item_clicked_lists", "known"), ("item_clicked_list_lengths", "length"))
    ),
    decayed_of_item(tuple(f"item_chance_decayed_{span}" for span in HALF_LIVES), "exposure_decay", needs=NEEDS),
    FactGroup(("item_exposed_ms",), _last_exposure, needs=NEEDS),
    counted(
        tuple(f"user_item_exposures_{w}" for w in OWN_WINDOWS),
        "user_exposure",
        lambda r: r.user_item,
        own=True,
        needs=NEEDS,
    ),
    FactGroup(("user_item_exposed_ms",), _own_exposure, needs=NEEDS),
    counted(("user_item_clicks_all",), "user_item", lambda r: r.user_item, own=True, needs=NEEDS),
    counted(
        ("user_category_exposures_all",),
        "user_category_exposure",
        _own_category,
        own=True,
        needs=(*NEEDS, "articles.category"),
    ),
    counted(
        ("user_requests_24h", "user_requests_all"), "request", lambda r: r.user, own=True, per_request=True, needs=NEEDS
    ),
    FactGroup(
        ("session_requests", "session_start_ms", "session_opens", "last_request_ms", "last_list_length"),
        _session,
        per_request=True,
        needs=NEEDS,
    ),
    FactGroup(("session_item_exposures",), _session_exposures, needs=NEEDS),
    FactGroup(tuple(f"repeated_{n}" for n in LAST_REQUESTS), _repeated, needs=NEEDS),
    FactGroup(("on_page", "is_page", "page_category_code"), _page, needs=("impressions.page_item_id",)),
    counted(("page_transitions_36h",), "transition", _page_move, needs=("impressions.page_item_id",)),
    counted(("item_visits_1h", "item_visits_24h"), "visit", lambda r: r.item, needs=("impressions.page_item_id",)),
    counted(("item_readings_24h", "item_readings_all"), "reading", lambda r: r.item, needs=("clicks.dwell_seconds",)),
    counted(
        ("item_read_ms_24h", "item_read_ms_all"),
        "reading",
        lambda r: r.item,
        value="ms",
        needs=("clicks.dwell_seconds",),
    ),
    counted(
        ("user_readings_all",),
        "user_reading",
        lambda r: r.user,
        own=True,
        per_request=True,
        needs=("clicks.dwell_seconds",),
    ),
    counted(
        ("user_read_ms_all",),
        "user_reading",
        lambda r: r.user,
        own=True,
        value="ms",
        per_request=True,
        needs=("clicks.dwell_seconds",),
    ),
    *(_now(name) for name in REQUEST_CONTEXT),
)
"""Facts that only logs with impressions, or with measured readings, can tell."""

assert set(EXPOSURE_WINDOWS) <= set(WINDOWS)
