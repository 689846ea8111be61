"""The ordered list of features: the one place that fixes names, order and dtype of a model's columns.

A feature is a function without arguments whose name is the column's; a family is one function and a tuple of arguments.
Its first docstring line says what it means. Which facts it needs is read off its expression.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import polars as pl

from features import context, cross, item, recall, slate, user
from features.columns import CONTEXT
from features.facts import FACTS

Family = str


@dataclass(frozen=True)
class Feature:
    """One column of the model's input, Float32."""

    name: str
    family: Family
    expression: pl.Expr
    meaning: str
    categorical: bool = False

    @cached_property
    def roots(self) -> frozenset[str]:
        """Facts and candidate columns that the expression reads, except the request's id."""
        return frozenset(self.expression.meta.root_names()) - {slate.REQUEST}

    @property
    def of_slate(self) -> bool:
        """Whether it looks at the other candidates of the request."""
        return self.family == "slate"

    @property
    def needs(self) -> frozenset[str]:
        """Optional columns of the log that it cannot do without."""
        return frozenset(need for group in FACTS if self.roots & set(group.names) for need in group.needs)


def _plain(family: Family, functions: Iterable[Callable[[], pl.Expr]]) -> tuple[Feature, ...]:
    return tuple(Feature(f.__name__, family, f(), _first_line(f)) for f in functions)


def _over(
    family: Family,
    function: Callable[[str], pl.Expr],
    arguments: Iterable[str],
    name: str,
    *,
    categorical: bool = False,
) -> tuple[Feature, ...]:
    """A family of one function: `name` is a format string that takes the argument."""
    argument_name = function.__code__.co_varnames[0]
    return tuple(
        Feature(
            name.format(argument),
            family,
            function(argument),
            _first_line(function).format(**{argument_name: argument}),
            categorical,
        )
        for argument in arguments
    )


def _first_line(function: Callable[..., pl.Expr]) -> str:
    return (function.__doc__ or "").strip().splitlines()[0]


FEATURES: Final[tuple[Feature, ...]] = (
    *_over("item", item.item_clicks, item.CLICK_WINDOWS, "item_clicks_{}"),
    *_plain(
        "item",
        (
            item.item_traffic_share_15m,
            item.item_traffic_share_3h,
            item.item_trend_15m_3h,
            item.item_trend_1h_12h,
            item.item_minutes_since_click,
            item.item_age_hours,
            item.item_words,
        ),
    ),
    *_over("item", item.category_clicks, item.CATEGORY_WINDOWS, "category_clicks_{}"),
    *_plain("item", (item.item_share_of_category_1h,)),
    *_plain(
        "user",
        (
            user.user_clicks,
            user.user_clicks_24h,
            user.user_sessions,
            user.user_session_clicks,
            user.user_minutes_since_click,
            user.user_mean_gap_hours,
            user.user_mean_words,
            user.user_category_variety,
        ),
    ),
    *_plain(
        "cross",
        (
            cross.user_category_clicks,
            cross.user_category_share,
            cross.same_category_as_last,
            cross.same_category_as_second,
            cross.words_minus_last,
            cross.words_minus_user_mean,
            cross.hours_created_after_last,
            cross.hours_created_after_visit,
        ),
    ),
    *_over("cross", cross.transitions, cross.TRANSITION_WINDOWS, "transitions_{}"),
    *_over("cross", cross.transition_share, cross.TRANSITION_WINDOWS, "transition_share_{}"),
    *_plain(
        "cross",
        (
            cross.back_transitions_36h,
            cross.second_transitions_3h,
            cross.second_transition_share_36h,
            cross.transition_lift_36h,
            cross.category_transition_share_24h,
        ),
    ),
    *_plain("context", (context.hour,)),
    *_over("context", context.last, CONTEXT, "last_{}", categorical=True),
    *_plain("recall", (recall.recall_rank,)),
    *_over("slate", slate.slate_rank, slate.RANKED, "{}_slate_rank"),
    *_over("slate", slate.slate_share, slate.SHARED, "{}_slate_share"),
    *_plain("slate", (slate.slate_freshness_rank, slate.slate_hours_behind_newest)),
)
"""Every feature that any log can have; those of the recall channels join them in `features_for`."""


def features_for(channels: Iterable[str], has: frozenset[str] | None = None) -> tuple[Feature, ...]:
    """The features that a log with these optional columns and these recall channels can have, in the model's order.

    Args:
        channels: Names of the recall channels whose `<channel>_score` and `<channel>_rank` the candidates carry.
        has: Optional columns present, such as `articles.words` or `clicks.device` (see `columns_of`); None: all.
    """
    names = tuple(channels)
    channel_features = (
        *_over("recall", recall.channel_score, names, "{}_score"),
        *_over("recall", recall.channel_rank, names, "{}_rank"),
    )
    return tuple(f for f in (*FEATURES, *channel_features) if has is None or f.needs <= has)


def columns_of(clicks: pl.DataFrame, articles: pl.DataFrame) -> frozenset[str]:
    """Names of the columns of a log, as `Feature.needs` spells them."""
    return frozenset({f"clicks.{name}" for name in clicks.columns} | {f"articles.{name}" for name in articles.columns})
