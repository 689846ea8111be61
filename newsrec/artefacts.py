"""Traces that the making of a log left in it: rules of the recorder that a model would learn as if readers had them.

Each detector takes the log as arrays and gives one `Artefact`, found or not; `newsrec.inspect` shows them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from features.columns import DAY, HOUR, MINUTE, SECOND
from features.windows import NO_TIME, SESSION_PAUSE_MS
from newsrec.data.log import Log

Ints = npt.NDArray[np.int64]

FEW: Final = 100
"""Below this many gaps, ages or sessions nothing is said."""
STANDS_OUT: Final = 10.0
"""A count is an artefact where it is this many times that of its neighbours."""
NEIGHBOURS: Final = 5
"""Steps of the clock on either side of a gap that it is compared with."""
LEAST_SHARE: Final = 0.01
LONE_SHARE: Final = 0.001
"""Users with a single click that a rule against them may have let through."""
OFFSETS: Final = range(1, 15)
"""Whole hours tried as an offset of the creation time: the time zones of the world."""
RESOLUTIONS: Final = (DAY, HOUR, MINUTE, SECOND)


@dataclass(frozen=True)
class Artefact:
    """One trace, and whether this log has it."""

    name: str
    found: bool
    share: float
    """In [0, 1]; of what, the explanation says."""
    explanation: str
    """What was seen and what it means for a model, in plain sentences."""


class Trace:
    """The clicks in order of user and time, as the detectors need them. Arrays of shape (n_clicks,) or as said."""

    def __init__(self, log: Log) -> None:
        self.log = log
        ordered = log.clicks.select("user_id", "clicked_at", "item_id").sort("user_id", "clicked_at", "item_id")
        self.time: Ints = ordered["clicked_at"].to_physical().to_numpy()
        user = ordered["user_id"]
        same = user.slice(1) == user.slice(0, max(len(user) - 1, 0))
        self.starts_user = np.concatenate([[True], ~same.to_numpy()])[: len(user)]
        self.item = ordered["item_id"]

    @cached_property
    def gaps(self) -> Ints:
        """Milliseconds from each click to the same user's next, shape (n_gaps,)."""
        gaps: Ints = self._steps[~self.starts_user[1:]]
        return gaps

    @cached_property
    def last_gaps(self) -> Ints:
        """The last gap of each user with two clicks or more, shape (n_users_with_gaps,)."""
        ends_user = np.concatenate([self.starts_user[1:], [True]])
        last: Ints = self._steps[ends_user[1:] & ~self.starts_user[1:]]
        return last

    @cached_property
    def clicks_of_user(self) -> Ints:
        """Clicks per user, shape (n_users,)."""
        return _lengths(self.starts_user)

    @cached_property
    def starts_session(self) -> npt.NDArray[np.bool_]:
        """Whether a click opens a session: the user's first, or after a pause."""
        paused = np.concatenate([[True], self._steps >= SESSION_PAUSE_MS])[: len(self.time)]
        starts: npt.NDArray[np.bool_] = self.starts_user | paused
        return starts

    @cached_property
    def ages(self) -> Ints:
        """Milliseconds from creation to click where creation is known, shape (n_dated_clicks,)."""
        articles = self.log.articles
        if "created_at" not in articles.columns:
            return np.zeros(0, np.int64)
        joined = self.item.to_frame().join(
            articles.select("item_id", "created_at"), on="item_id", how="left", maintain_order="left"
        )
        created = joined["created_at"].to_physical().fill_null(NO_TIME).to_numpy()
        known = created != NO_TIME
        ages: Ints = self.time[known] - created[known]
        return ages

    @cached_property
    def resolution(self) -> int:
        """The step of the log's clock in ms: 1, a second, a minute, an hour or a day."""
        return next((step for step in RESOLUTIONS if len(self.time) and not (self.time % step).any()), 1)

    @cached_property
    def _steps(self) -> Ints:
        return np.diff(self.time)


def artefacts(log: Log) -> list[Artefact]:
    """Look for every known trace.

    Args:
        log: Any log with clicks.

    Returns:
        One entry for each of `DETECTORS`, in its order, found or not.
    """
    return look_for_all(Trace(log))


def look_for_all(trace: Trace) -> list[Artefact]:
    """The same, for a trace that is already made."""
    return [detect(trace) for detect in DETECTORS]


def constant_gap(trace: Trace) -> Artefact:
    """One exact gap between clicks far more often than its neighbours, as where a recorder writes its own time-out."""
    gaps = trace.gaps
    if len(gaps) < FEW:
        return _not_found("constant_gap", "too few gaps between clicks to tell")
    values, counts = np.unique(gaps, return_counts=True)
    top = int(np.argmax(counts))
    near = np.abs(values - values[top]) <= NEIGHBOURS * trace.resolution
    near[top] = False
    beside = int(counts[near].max()) if near.any() else 0
    share = float(counts[top] / len(gaps))
    gap = f"{values[top] / SECOND:g} s"
    if share < LEAST_SHARE or counts[top] < STANDS_OUT * max(beside, 1):
        return _not_found("constant_gap", f"no exact gap stands out (the most frequent, {gap}, has {share:.1%})", share)
    last = float((trace.last_gaps == values[top]).mean())
    return Artefact(
        "constant_gap",
        True,
        share,
        f"{share:.1%} of the gaps between two clicks of a user are exactly {gap} ({counts[top]} of them, no "
        f"neighbour over {beside}); the last gap of {last:.1%} of users is exactly that. The recorder wrote "
        "these times, not the reader: a model that sees the request's exact time learns the next click from the clock.",
    )


def created_after_click(trace: Trace) -> Artefact:
    """Clicks on articles before they were created."""
    ages = trace.ages
    if not len(ages):
        return _not_found("created_after_click", "no creation times to compare with")
    share = float((ages < 0).mean())
    if not share:
        return _not_found("created_after_click", "no click is earlier than its article")
    return Artefact(
        "created_after_click",
        True,
        share,
        f"{share:.2%} of clicks are earlier than the creation of their article (by up to {-ages.min() / HOUR:.1f} h): "
        "creation times were written again by later edits, or a clock is off. Such an article cannot be recommended "
        "before its creation, so these clicks are missed.",
    )


def creation_offset(trace: Trace) -> Artefact:
    """Creation times that lie whole hours too early: ages at click begin sharply at a whole hour."""
    name, ages = "creation_offset", trace.ages
    if len(ages) < FEW:
        return _not_found(name, "too few clicks with a known age to tell")
    half = HOUR // 2
    for hours in OFFSETS:
        before, after = (
            int(((ages >= low) & (ages < low + half)).sum()) for low in (hours * HOUR - half, hours * HOUR)
        )
        earlier = float((ages < hours * HOUR).mean())
        if after >= LEAST_SHARE * len(ages) and after >= 5 * max(before, 1) and earlier <= 2 * LEAST_SHARE:
            return Artefact(
                name,
                True,
                1 - earlier,
                f"{1 - earlier:.1%} of clicks come {hours} h or more after the creation of their article, and they "
                f"set in there at once ({after} clicks in the half hour from {hours} h, {before} in the one before): "
                f"creation times are in another time zone, {hours} h or so too early, and ages as much too high.",
            )
    return _not_found(name, "ages at click do not set in at a whole hour")


def sessions_cut(trace: Trace) -> Artefact:
    """Sessions that the start or the end of the log cuts."""
    name = "sessions_cut"
    sessions = int(trace.starts_session.sum())
    if sessions < FEW:
        return _not_found(name, "too few sessions to tell")
    first = trace.time[trace.starts_session]
    last = trace.time[np.concatenate([trace.starts_session[1:], [True]])]
    cut = (first < trace.time.min() + SESSION_PAUSE_MS) | (last > trace.time.max() - SESSION_PAUSE_MS)
    share = float(cut.mean())
    seen = f"{share:.1%} of sessions touch the first or the last half hour of the log"
    if share < LEAST_SHARE:
        return _not_found(name, seen, share)
    return Artefact(name, True, share, f"{seen}: their beginning or their end may be missing.")


def single_clicks_missing(trace: Trace) -> Artefact:
    """A log from which readers with a single click were taken out."""
    name, clicks = "single_clicks_missing", trace.clicks_of_user
    if len(clicks) < FEW:
        return _not_found(name, "too few users to tell")
    lone = int((clicks == 1).sum())
    share = 1 - lone / len(clicks)
    if lone > LONE_SHARE * len(clicks):
        return _not_found(name, f"{lone} of {len(clicks)} users have a single click", share)
    return Artefact(
        name,
        True,
        share,
        f"{lone} of {len(clicks)} users have a single click: such users were left out. That a second click follows the "
        "first is then certain, which it is not where the model will serve.",
    )


DETECTORS: Final[tuple[Callable[[Trace], Artefact], ...]] = (
    constant_gap,
    created_after_click,
    creation_offset,
    sessions_cut,
    single_clicks_missing,
)
"""Every detector; an artefact bears its detector's name."""


def _not_found(name: str, explanation: str, share: float = 0.0) -> Artefact:
    return Artefact(name, False, share, explanation)


def _lengths(starts: npt.NDArray[np.bool_]) -> Ints:
    return np.diff(np.append(np.flatnonzero(starts), len(starts)))
