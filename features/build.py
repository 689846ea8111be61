"""Candidates and the log in, the model's input out: the one implementation for training and for serving."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from features.catalog import FACTS, Feature
from features.events import EventStore
from features.facts import Rows, attach_facts
from features.own_columns import is_own, own_columns
from features.slate import REQUEST
from features.vocabulary import Vocabulary

FACT_NAMES = frozenset(name for group in FACTS for name in group.names)


def build(
    candidates: pl.DataFrame,
    requests: pl.DataFrame,
    store: EventStore,
    vocabulary: Vocabulary,
    features: Sequence[Feature],
) -> pl.DataFrame:
    """Describe each candidate by what was known strictly before its request.

    Args:
        candidates: `request_id, item_id`, and where recall proposed them `recall_rank`, `<channel>_score` and
            `<channel>_rank`; whole lists, since some features compare the candidates of a request. An optional
            Boolean column `kept` says which rows to return; the others still count inside the request.
        requests: `request_id, user_id, requested_at, statistics_at`, one row per request, and what is known of it then
            (`features.columns.REQUEST_CONTEXT`, `page_item_id`); may hold more than are asked.
        store: The log; what lies at or after a request has no influence on its rows.
        vocabulary: Codes of the context columns.
        features: From `features.catalog.features_for`.

    Returns:
        One Float32 column per feature, in their order, one row per kept candidate, in the candidates' order. Null where
        a feature says so; never infinite.
    """
    rows = Rows.of(candidates, requests, store, vocabulary)
    slate = [f for f in features if f.of_slate]
    # Facts that only plain features read are computed for kept rows alone; where all are kept, all at once is cheaper.
    early = _wanted(slate if "kept" in candidates.columns else features)
    whole = _with_facts(candidates, rows, early)
    of_slate = whole.select(REQUEST, *(f.column for f in slate))
    if "kept" in candidates.columns:
        keep = candidates["kept"].to_numpy()
        rows, whole, of_slate = rows.kept(np.flatnonzero(keep)), whole.filter(keep), of_slate.filter(keep)
    plain = [f for f in features if not f.of_slate]
    full = _with_facts(whole, rows, _wanted(plain) - early)
    described = full.select(REQUEST, *(f.column for f in plain))
    return described.hstack([of_slate[f.name] for f in slate])[[f.name for f in features]]


def _wanted(features: Sequence[Feature]) -> frozenset[str]:
    """Facts and own columns that these features read."""
    roots = frozenset[str]().union(*(f.roots for f in features))
    return frozenset(name for name in roots if name in FACT_NAMES or is_own(name))


def _with_facts(frame: pl.DataFrame, rows: Rows, wanted: frozenset[str]) -> pl.DataFrame:
    facts = attach_facts(FACTS, rows, set(wanted & FACT_NAMES))
    return frame.hstack([*facts, *own_columns(rows, sorted(wanted - FACT_NAMES))])
