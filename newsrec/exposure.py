"""What was shown decides what could be clicked: weights and places that let training make up for it.

`p(click) = p(shown) p(click | shown)`: a click on an article that is hardly ever shown says more than one on what
everybody sees. Each training list weighs one by the chance that its clicked article was shown, clipped, and normalised
to a mean of one (Schnabel et al. 2016).
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import polars as pl

from features.columns import DAY, HOUR
from features.events import EventStore, milliseconds
from features.windows import Ints
from newsrec.errors import UsageError
from newsrec.metrics import Floats

USUAL_LISTS: Final = 50.0
"""Lists of the last day's usual kind that the last hour's are mixed with: an hour at night shows few."""
NOT_SHOWN: Final = 0
"""Place of a candidate that was not in the list."""

Propensity = Callable[[pl.DataFrame, pl.DataFrame, EventStore], Floats]
"""(rows with `request_id, item_id`, canonical requests, log) -> chance that each was shown, (n_rows,), above 0, at most
1; NaN where it is not known."""


def given(rows: pl.DataFrame, requests: pl.DataFrame, store: EventStore) -> Floats:
    """The column `propensity` of the impressions that the requests were made from."""
    return _of_impressions(rows, requests, store, "propensity").cast(pl.Float64).fill_null(np.nan).to_numpy()


def estimated(rows: pl.DataFrame, requests: pl.DataFrame, store: EventStore) -> Floats:
    """Share of the lists of the hour before the request that showed the article, drawn to its share of the day's."""
    if store.impressions is None:
        raise UsageError("--exposure estimated: expected a log with impressions, found clicks only. Leave it out.")
    of_request = rows.select("request_id").join(requests, on="request_id", how="left", maintain_order="left")
    at = milliseconds(of_request["statistics_at"])
    hour, day = store.index("exposure").counts(store.item_codes(rows["item_id"]), at, (HOUR, DAY))
    lists = np.sort(store.tables["requests"]["time"])
    before = np.searchsorted(lists, at)
    of_hour, of_day = (before - np.searchsorted(lists, at - window) for window in (HOUR, DAY))
    usual = (day + 1.0) / (of_day + USUAL_LISTS)
    return np.minimum((hour + USUAL_LISTS * usual) / (of_hour + USUAL_LISTS), 1.0)


PROPENSITIES: Final[Mapping[str, Propensity | None]] = {"none": None, "given": given, "estimated": estimated}
"""Where the chance of being shown comes from, by the name in `SamplingConfig.exposure`."""


def exposure_weights(rows: pl.DataFrame, requests: pl.DataFrame, store: EventStore, source: str, clip: float) -> Floats:
    """What each training row weighs for the exposure of its request's click.

    Args:
        rows: `request_id, item_id, label`, rows of a request together.
        requests: Canonical requests, at least those of the rows.
        store: The log.
        source: Name in `PROPENSITIES`.
        clip: Largest weight, >= 1.

    Returns:
        (n_rows,): the mean over the clicked articles of the request, 1..clip; 1 where nothing is known.
    """
    propensity = PROPENSITIES[source]
    if propensity is None:
        return np.ones(len(rows))
    chance = propensity(rows, requests, store)
    weight = np.minimum(1.0 / np.maximum(chance, 1e-12), clip)
    clicked = (rows["label"].to_numpy() == 1) & np.isfinite(weight)
    request: Ints = rows["request_id"].rle_id().to_numpy().astype(np.int64)
    n = int(request.max(initial=-1)) + 1
    total, count = (np.bincount(request[clicked], weights=w, minlength=n) for w in (weight[clicked], None))
    mean: Floats = np.divide(total, count, out=np.ones(n), where=count > 0)
    return mean[request]


def places(rows: pl.DataFrame, requests: pl.DataFrame, store: EventStore) -> Ints:
    """Place of each candidate in the list of its request, 1 is the top, `NOT_SHOWN` where it was not in it."""
    return _of_impressions(rows, requests, store, "position").cast(pl.Int64).fill_null(NOT_SHOWN).to_numpy()


def _of_impressions(rows: pl.DataFrame, requests: pl.DataFrame, store: EventStore, name: str) -> pl.Series:
    """A column of the impressions at the rows, null where the article was not shown."""
    shown = store.impressions
    if shown is None or name not in shown.columns or "impression_id" not in requests.columns:
        raise UsageError(
            f"expected impressions with a column '{name}' and requests made from them, found none. "
            "Leave --exposure given and --position-bias out, or name the column."
        )
    keys = ["impression_id", "item_id"]
    of_request = rows.select("request_id", "item_id").join(
        requests.select("request_id", "impression_id"), on="request_id", how="left", maintain_order="left"
    )
    values = shown.select(pl.col("request_id").alias(keys[0]), "item_id", name).unique(keys)
    return of_request.join(values, on=keys, how="left", maintain_order="left")[name]
