"""What a reader clicked before a request, one click after the other: the input of networks that look at histories."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.columns import HOUR, SECOND
from features.events import EventStore, history, take
from features.tables import NO_DWELL
from features.windows import NO_KEY, NO_TIME, Ints

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Histories:
    """The last clicks of each request's user, newest first, request after request."""

    length: Ints
    """Clicks per request, shape (n_requests,)."""
    item: Ints
    """Article code, shape (n_clicks,)."""
    age_hours: Floats
    """From the click to the request, above 0, shape (n_clicks,)."""
    dwell_seconds: Floats
    """How long the article was read; NaN where nobody measured it or the reading had not ended, shape (n_clicks,)."""


def histories(store: EventStore, user: Ints, at: Ints, last: int) -> Histories:
    """Look up the clicks strictly before each moment.

    Args:
        store: The log.
        user: User code per request, shape (n_requests,); -1 has no history.
        at: Moment per request in ms, shape (n_requests,).
        last: At most this many clicks per request.
    """
    row, place, _ = history(store, user, at, last)
    table, asked = store.tables["clicks"], at[row]
    time, dwell = take(table["time"], place, NO_TIME), take(table["dwell"], place, NO_DWELL)
    # A reading is known when it ends, as in the index "reading".
    known = (dwell >= 0) & (time + dwell < asked)
    return Histories(
        np.bincount(row, minlength=len(user)),
        take(table["item"], place, NO_KEY),
        ((asked - time) / HOUR).astype(np.float32),
        np.where(known, dwell / SECOND, np.nan).astype(np.float32),
    )
