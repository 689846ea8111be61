"""The ordered list of features: the one place that fixes names, order and dtype of a model's columns.

A feature is a function without arguments whose name is the column's; a family is one function and a tuple of arguments.
Its first docstring line says what it means. Which facts it needs is read off its expression.
"""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import polars as pl

from features import context, cross, engagement, exposure, item, recall, session, similarity, slate, user
from features.click_facts import CLICK_FACTS
from features.columns import CONTEXT, REQUEST_CONTEXT
from features.exposure_facts import EXPOSURE_FACTS
from features.similarity_facts import SIMILARITY_FACTS

Family = str

FACTS: Final = (*CLICK_FACTS, *EXPOSURE_FACTS, *SIMILARITY_FACTS)
"""Every fact there is; a feature names the ones it needs by reading their columns."""

IMPRESSIONS: Final = ("impressions",)


@dataclass(frozen=True)
class Feature:
    """One column of the model's input, Float32."""

    name: str
    family: Family
    expression: pl.Expr
    meaning: str
    categorical: bool = False
    needs: tuple[str, ...] = ()
    """Parts of the log that it cannot do without, besides those of its facts."""
    text: str = ""
    """All that its docstring says, in one paragraph; `meaning` is the first line of it."""
    whole_list: bool = False
    """Whether it looks at the other candidates of the request; the family `slate` always does."""

    @cached_property
    def roots(self) -> frozenset[str]:
        """Facts and candidate columns that the expression reads, except the request's id."""
        return frozenset(self.expression.meta.root_names()) - {slate.REQUEST}

    @cached_property
    def column(self) -> pl.Expr:
        """The expression as the model's column; made once, as making it costs a single request some microseconds."""
        return self.expression.cast(pl.Float32).alias(self.name)

    @property
    def of_slate(self) -> bool:
        """Whether it looks at the other candidates of the request."""
        return self.family == "slate" or self.whole_list

    @property
    def requires(self) -> frozenset[str]:
        """All parts of the log that it cannot do without."""
        of_facts = (need for group in FACTS if self.roots & set(group.names) for need in group.needs)
        return frozenset(of_facts).union(self.needs)


def _plain(family: Family, *functions: Callable[[], pl.Expr], needs: tuple[str, ...] = ()) -> tuple[Feature, ...]:
    return tuple(Feature(f.__name__, family, f(), _first_line(f), needs=needs, text=_text(f)) for f in functions)


def _over(
    family: Family,
    function: Callable[[str], pl.Expr],
    arguments: Iterable[str],
    name: str,
    *,
    categorical: bool = False,
    needs: tuple[str, ...] = (),
) -> tuple[Feature, ...]:
    """A family of one function: `name` is a format string that takes the argument."""
    argument_name = function.__code__.co_varnames[0]

    def filled(text: str, argument: str) -> str:
        # "In the last all" is no English.
        return re.sub(r" (in|of) the last all\b", " so far", text.format(**{argument_name: argument}))

    return tuple(
        Feature(
            name.format(argument),
            family,
            function(argument),
            filled(_first_line(function), argument),
            categorical,
            needs,
            filled(_text(function), argument),
        )
        for argument in arguments
    )


def _first_line(function: Callable[..., pl.Expr]) -> str:
    return (function.__doc__ or "").strip().splitlines()[0]


def _text(function: Callable[..., pl.Expr]) -> str:
    return " ".join((function.__doc__ or "").split())


FEATURES: Final[tuple[Feature, ...]] = (
    *_over("item", item.item_clicks, item.CLICK_WINDOWS, "item_clicks_{}"),
    *_over("item", item.item_clicks_decayed, item.DECAYS, "item_clicks_decayed_{}"),
    *_plain(
        "item",
        item.item_traffic_share_15m,
        item.item_traffic_share_3h,
        item.item_trend_15m_3h,
        item.item_trend_1h_12h,
        item.item_minutes_since_click,
        item.item_age_hours,
        item.item_hours_since_first_seen,
        item.item_words,
        item.item_is_new,
    ),
    *_over("item", item.category_clicks, item.CATEGORY_WINDOWS, "category_clicks_{}"),
    *_plain("item", item.item_share_of_category_1h),
    *_over("exposure", exposure.item_exposures_log, exposure.EXPOSURE_WINDOWS, "item_exposures_log_{}"),
    *_over("exposure", exposure.item_click_rate, exposure.RATE_WINDOWS, "item_click_rate_{}"),
    *_over("exposure", exposure.item_lift, exposure.RATE_WINDOWS, "item_lift_{}"),
    *_over("exposure", exposure.item_lift_decayed, exposure.DECAYS, "item_lift_decayed_{}"),
    *_plain(
        "exposure",
        exposure.item_exposure_trend_1h_24h,
        exposure.item_click_rate_trend_1h_24h,
        exposure.item_minutes_since_exposure,
    ),
    *_over("exposure", exposure.item_list_length, exposure.LENGTH_WINDOWS, "item_list_length_{}"),
    *_over("exposure", exposure.item_depth, exposure.DEPTH_WINDOWS, "item_depth_{}"),
    *_over("exposure", exposure.item_clicked_list_length, exposure.CLICKED_WINDOWS, "item_clicked_list_length_{}"),
    *_over("exposure", exposure.item_visits, exposure.VISIT_WINDOWS, "item_visits_{}"),
    *_over("exposure", exposure.user_item_exposures, exposure.OWN_WINDOWS, "user_item_exposures_{}"),
    *_plain(
        "exposure",
        exposure.user_item_minutes_since_exposure,
        exposure.user_item_clicks,
        exposure.user_item_passed_over,
        exposure.user_category_click_rate,
    ),
    *_over("engagement", engagement.item_seconds_per_reading, engagement.WINDOWS, "item_seconds_per_reading_{}"),
    *_plain("engagement", engagement.item_seconds_per_exposure_24h, engagement.user_seconds_per_reading),
    *_plain(
        "session",
        session.session_requests,
        session.session_minutes,
        session.session_item_exposures,
    ),
    *_over("session", session.repeated, session.LAST_REQUESTS, "repeated_{}"),
    *_plain(
        "session",
        session.user_requests_24h,
        session.user_visits,
        session.user_minutes_since_request,
        session.last_list_length,
        session.user_clicks_per_request,
    ),
    *_plain(
        "user",
        user.user_clicks,
        user.user_clicks_24h,
        user.user_sessions,
        user.user_session_clicks,
        user.user_minutes_since_click,
        user.user_mean_gap_hours,
        user.user_mean_words,
        user.user_category_variety,
        user.user_is_new,
    ),
    *_plain(
        "cross",
        cross.user_category_clicks,
        cross.user_category_share,
        cross.user_category_taste,
        cross.user_publisher_taste,
        cross.same_category_as_last,
        cross.same_category_as_second,
        cross.words_minus_last,
        cross.words_minus_user_mean,
        cross.hours_created_after_last,
        cross.hours_created_after_visit,
    ),
    *_over("cross", cross.transitions, cross.TRANSITION_WINDOWS, "transitions_{}"),
    *_over("cross", cross.transition_share, cross.TRANSITION_WINDOWS, "transition_share_{}"),
    *_plain(
        "cross",
        cross.back_transitions_36h,
        cross.second_transitions_3h,
        cross.second_transition_share_36h,
        cross.transition_lift_36h,
        cross.category_transition_share_24h,
    ),
    *_plain("similarity", similarity.cosine_last, similarity.cosine_max, similarity.cosine_mean),
    *_plain("context", context.hour, context.weekday),
    *_over("context", context.last, CONTEXT, "last_{}", categorical=True),
    *_over("context", context.now, REQUEST_CONTEXT, "now_{}", categorical=True),
    *_plain("context", context.on_page, context.is_page, context.same_category_as_page, context.page_transitions_36h),
    *_plain("recall", recall.recall_rank),
    *_over("slate", slate.slate_rank, slate.SIGNALS, "{}_slate_rank"),
    *_over("slate", slate.slate_share, slate.SIGNALS, "{}_slate_share"),
    *_plain("slate", slate.slate_freshness_rank, slate.slate_hours_behind_newest),
    *_over("slate", slate.slate_rank, slate.EXPOSURE_SIGNALS, "{}_slate_rank", needs=IMPRESSIONS),
    *_over("slate", slate.slate_share, slate.EXPOSURE_SIGNALS, "{}_slate_share", needs=IMPRESSIONS),
    *_over("slate", slate.slate_distance, slate.EXPOSURE_SIGNALS, "{}_slate_distance", needs=IMPRESSIONS),
    *_over("slate", slate.slate_length_rank, slate.LENGTHS, "slate_length_rank_{}"),
    *_over("slate", slate.slate_length_distance, slate.LENGTHS, "slate_length_distance_{}"),
    *_over("slate", slate.slate_depth_rank, slate.DEPTHS, "slate_depth_rank_{}", needs=IMPRESSIONS),
    *_over("slate", slate.slate_depth_ratio, slate.DEPTHS, "slate_depth_ratio_{}", needs=IMPRESSIONS),
    *_over("slate", slate.slate_clicked_length_rank, slate.CLICKED_LENGTHS, "slate_clicked_length_rank_{}"),
    *_over("slate", slate.slate_clicked_length_ratio, slate.CLICKED_LENGTHS, "slate_clicked_length_ratio_{}"),
    *_plain(
        "slate",
        slate.slate_longer_than_last,
        slate.slate_lift_rank,
        slate.slate_lift_share,
        slate.slate_lift_distance,
        slate.slate_first_seen_rank,
        slate.slate_hours_behind_newest_seen,
        slate.slate_unseen_by_user,
        slate.slate_length,
        needs=IMPRESSIONS,
    ),
)
"""Every feature that any log can have; those of the recall channels join them in `features_for`."""

FAMILIES: Final = tuple(dict.fromkeys(f.family for f in FEATURES))


def features_for(
    channels: Iterable[str],
    has: frozenset[str] | None = None,
    without: Collection[str] = (),
    own: Iterable[Feature] = (),
) -> tuple[Feature, ...]:
    """The features that a log with these parts and these recall channels can have, in the model's order.

    Args:
        channels: Names of the recall channels whose `<channel>_score` and `<channel>_rank` the candidates carry; with
            none, the family `recall` is left out.
        has: Parts of the log, such as `impressions`, `articles.words`, `clicks.device` (see `parts_of`); None: all.
        without: Names of features and families to leave out.
        own: Features of somebody's own file; they come last.

    Raises:
        KeyError: A name in `without` that is neither a feature nor a family.
    """
    names = tuple(channels)
    every = (
        *FEATURES,
        *_over("recall", recall.channel_score, names, "{}_score"),
        *_over("recall", recall.channel_rank, names, "{}_rank"),
        *own,
    )
    unknown = sorted(set(without) - {f.name for f in every} - {f.family for f in every} - set(FAMILIES))
    if unknown:
        raise KeyError(unknown)
    off = set(without) | (set() if names else {"recall"})
    return tuple(f for f in every if not off & {f.name, f.family} and (has is None or f.requires <= has))


def parts_of(clicks: pl.DataFrame, articles: pl.DataFrame, impressions: pl.DataFrame | None = None) -> frozenset[str]:
    """What a log has, as `Feature.requires` spells it. A column without any value is not had."""
    frames = {"clicks": clicks, "articles": articles, "impressions": impressions}
    there = {name: frame for name, frame in frames.items() if frame is not None}
    columns = {
        f"{name}.{column.name}"
        for name, frame in there.items()
        for column in frame
        if column.null_count() < len(column)
    }
    return frozenset(columns | set(there))
