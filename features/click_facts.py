"""Facts that clicks and articles tell: how much an article is read, what the user has read, who moved on to what."""

from collections.abc import Callable
from typing import Final

import numpy as np

from features.columns import CONTEXT, DAY
from features.events import NEVER, take
from features.facts import FactGroup, Facts, Rows, counted, decayed_of_item, known_numbers, known_times
from features.indices import HALF_LIVES, TASTE_HALF_LIFE
from features.vocabulary import UNKNOWN
from features.windows import NO_KEY, NO_TIME, Ints

ITEM_WINDOWS: Final = ("5m", "15m", "1h", "3h", "6h", "12h", "24h", "48h", "all")


def _moment(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    return {"requested_ms": rows.at}


def _article(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    return {"created_ms": known_times(take(rows.store.created, rows.item, NO_TIME))}


def _first_seen(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    first = take(rows.store.first_seen, rows.item, NEVER)
    return {"first_seen_ms": known_times(np.where(first < rows.statistics_of_row, first, NO_TIME))}


def _words(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    return {"words": known_numbers(take(rows.store.words, rows.item, -1))}


def _last_item_click(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    return {"item_clicked_ms": known_times(rows.store.index("item").latest(rows.item, rows.statistics_of_row))}


def _user(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    index, table = rows.store.index("user"), rows.store.tables["clicks"]
    clicks, day = index.counts(rows.user, rows.at, (None, DAY))
    last = rows.click(0)
    return {
        "user_clicks": clicks,
        "user_clicks_24h": day,
        "user_sessions": index.sums("session_starts", rows.user, rows.at, (None,))[0],
        "user_first_ms": known_times(np.where(clicks > 0, take(rows.store.first_click, rows.user, NO_TIME), NO_TIME)),
        "user_last_ms": known_times(take(table["time"], last, NO_TIME)),
        "session_clicks": take(table["session_place"], last, 0),
    }


def _user_words(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    index = rows.store.index("user")
    names = {"user_words": "words", "user_clicks_with_words": "with_words"}
    return {name: index.sums(names[name], rows.user, rows.at, (None,))[0] for name in wanted}


def _user_categories(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    return {"user_categories": rows.store.index("user").sums("new_categories", rows.user, rows.at, (None,))[0]}


def _last_created(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    return {"last_created_ms": known_times(take(rows.store.created, rows.clicked(0), NO_TIME))}


def _last_words(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    return {"last_words": known_numbers(take(rows.store.words, rows.clicked(0), -1))}


def _category_clicked(rows: Rows, age: int = 0) -> Ints:
    return take(rows.store.category, rows.clicked(age), NO_KEY)


def _user_category(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    key = rows.store.pair_key(rows.user[rows.row], rows.category)
    return {
        "user_category_clicks": rows.store.index("user_category").counts(key, rows.at_of_row, (None,))[0],
        "category_code": known_numbers(rows.category),
        "last_category_code": known_numbers(_category_clicked(rows)[rows.row]),
        "second_category_code": known_numbers(_category_clicked(rows, 1)[rows.row]),
    }


def _taste(index: str, name: str, attribute: str) -> FactGroup:
    """Clicks of the user on the candidate's category or publisher, older ones counting less."""

    def compute(rows: Rows, wanted: tuple[str, ...]) -> Facts:
        of_item: Ints = getattr(rows.store, attribute)
        key = rows.store.pair_key(rows.user[rows.row], take(of_item, rows.item, NO_KEY))
        sums = rows.store.index(index).decayed({"taste": TASTE_HALF_LIFE}, key, rows.at_of_row)
        return {name: sums["taste"]}

    return FactGroup((name,), compute, needs=(f"articles.{attribute}",))


def _move(age: int, back: bool = False) -> Callable[[Rows], Ints]:
    """Key of the transition from the user's click of that age to the candidate, or back from the candidate to it."""

    def key(rows: Rows) -> Ints:
        clicked = rows.clicked(age)[rows.row]
        return rows.store.pair_key(rows.item, clicked) if back else rows.store.pair_key(clicked, rows.item)

    return key


def _category_move(rows: Rows) -> Ints:
    return rows.store.pair_key(_category_clicked(rows)[rows.row], rows.category)


def _last_context(name: str) -> FactGroup:
    def compute(rows: Rows, wanted: tuple[str, ...]) -> Facts:
        if name not in rows.store.context_ids:
            return {f"last_{name}_code": np.full(len(rows.at), UNKNOWN, np.int64)}
        last = take(rows.store.tables["clicks"][name], rows.click(0), NO_KEY)
        of_value = rows.vocabulary.codes(rows.store.context_ids[name].values.alias(name))
        return {f"last_{name}_code": take(of_value, last, UNKNOWN)}

    return FactGroup((f"last_{name}_code",), compute, per_request=True, needs=(f"clicks.{name}",))


CATEGORY: Final = ("articles.category",)

CLICK_FACTS: Final[tuple[FactGroup, ...]] = (
    FactGroup(("requested_ms",), _moment, per_request=True),
    FactGroup(("created_ms",), _article, needs=("articles.created_at",)),
    FactGroup(("first_seen_ms",), _first_seen),
    FactGroup(("words",), _words, needs=("articles.words",)),
    counted(tuple(f"item_clicks_{w}" for w in ITEM_WINDOWS), "item", lambda r: r.item),
    decayed_of_item(tuple(f"item_clicks_decayed_{span}" for span in HALF_LIVES), "item_decay"),
    FactGroup(("item_clicked_ms",), _last_item_click),
    counted(("category_clicks_1h", "category_clicks_12h"), "category", lambda r: r.category, needs=CATEGORY),
    counted(("all_clicks_15m", "all_clicks_3h"), "all", lambda r: np.zeros_like(r.at), per_request=True),
    FactGroup(
        ("user_clicks", "user_clicks_24h", "user_sessions", "user_first_ms", "user_last_ms", "session_clicks"),
        _user,
        per_request=True,
    ),
    FactGroup(("user_words", "user_clicks_with_words"), _user_words, per_request=True, needs=("articles.words",)),
    FactGroup(("user_categories",), _user_categories, per_request=True, needs=CATEGORY),
    FactGroup(("last_created_ms",), _last_created, per_request=True, needs=("articles.created_at",)),
    FactGroup(("last_words",), _last_words, per_request=True, needs=("articles.words",)),
    FactGroup(
        ("user_category_clicks", "category_code", "last_category_code", "second_category_code"),
        _user_category,
        needs=CATEGORY,
    ),
    _taste("user_category", "user_category_taste", "category"),
    _taste("user_publisher", "user_publisher_taste", "publisher"),
    counted(("transitions_3h", "transitions_36h"), "transition", _move(0)),
    counted(("back_transitions_36h",), "transition", _move(0, back=True)),
    counted(("second_transitions_3h", "second_transitions_36h"), "transition", _move(1)),
    counted(("departures_3h", "departures_36h"), "departure", lambda r: r.clicked(0), per_request=True),
    counted(("second_departures_36h",), "departure", lambda r: r.clicked(1), per_request=True),
    counted(("category_transitions_24h",), "category_transition", _category_move, needs=CATEGORY),
    counted(("category_departures_24h",), "category_departure", _category_clicked, per_request=True, needs=CATEGORY),
    *(_last_context(name) for name in CONTEXT),
)
"""Facts that every click log can tell."""
