"""Events as growing tables of arrays: clicks in the order of each user's reading, what was shown, and the requests.

Each row also carries what the user's earlier rows decide (the click before, the place in the session), so that every
index of `features.events` is a plain function of a row. Appending rows costs what these rows cost.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from features.windows import NO_KEY, NO_TIME, SESSION_PAUSE_MS, Ints, first_of_its_kind, previous_in_sequence

ROOM: Final = 1.25
"""A full column moves to a place so many times as long."""

NO_DWELL: Final = -1
"""Length of a reading that nobody measured, ms."""


class Growing:
    """A column that grows at its end. `values` of an older one stay valid and unchanged while newer ones grow.

    One writer at a time; any number of readers.
    """

    def __init__(self, values: Ints) -> None:
        self._buffer, self._used = values, [len(values)]
        self.values = values

    def extended(self, more: Ints) -> "Growing":
        """With more values at the end."""
        length, whole = len(self.values), len(self.values) + len(more)
        grown = Growing(self.values)
        if self._used[0] == length and whole <= len(self._buffer):
            grown._buffer, grown._used = self._buffer, self._used
        else:
            grown._buffer, grown._used = np.empty(int(whole * ROOM) + 1_024, self._buffer.dtype), [length]
            grown._buffer[:length] = self.values
        grown._buffer[length:whole] = more
        grown._used[0] = whole
        grown.values = grown._buffer[:whole]
        return grown


class Table:
    """Columns of one length by name."""

    def __init__(self, columns: Mapping[str, Growing]) -> None:
        self._columns = dict(columns)

    @classmethod
    def of(cls, columns: Mapping[str, Ints]) -> "Table":
        """A table of these values."""
        return cls({name: Growing(values) for name, values in columns.items()})

    def __getitem__(self, name: str) -> Ints:
        return self._columns[name].values

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())).values)

    def rows(self, start: int) -> dict[str, Ints]:
        """The rows from `start` on."""
        return {name: column.values[start:] for name, column in self._columns.items()}

    def extended(self, more: Mapping[str, Ints]) -> "Table":
        """With more rows at the end; all columns must be given."""
        return Table({name: column.extended(more[name]) for name, column in self._columns.items()})


def follow(user: Ints, time: Ints, kind: Ints, before: Mapping[str, Ints]) -> dict[str, Ints]:
    """What the earlier clicks of a user decide about each click.

    Args:
        user: User code, shape (n_clicks,); in `features.windows.sequence_order`.
        time: Milliseconds.
        kind: Category code, -1 unknown.
        before: About the click before the first of these of each user, repeated for all rows of the user: `item`,
            `time` and `session_place`, -1 and `NO_TIME` where there is none; and `known`, whether the user has read
            the row's kind before.

    Returns:
        `previous_row` (row among these, -1 for a user's first), `opens_session` and `new_kind` (0 or 1) and
        `session_place` (1 for the first click of a session), each of shape (n_clicks,).
    """
    earlier = previous_in_sequence(user, 1)
    inside = earlier >= 0
    previous_time = np.where(inside, time[np.maximum(earlier, 0)], before["time"])
    opens = (previous_time == NO_TIME) | (
        time - np.where(previous_time == NO_TIME, 0, previous_time) > SESSION_PAUSE_MS
    )
    index = np.arange(len(user), dtype=np.int64)
    first_of_user = np.maximum.accumulate(np.where(inside, 0, index)) if len(index) else index
    opened = np.maximum.accumulate(np.where(opens, index, NO_KEY)) if len(index) else index
    place = np.where(opened >= first_of_user, index - opened + 1, before["session_place"] + index - first_of_user + 1)
    return {
        "previous_row": earlier,
        "opens_session": opens.astype(np.int64),
        "session_place": place,
        "new_kind": first_of_its_kind(user, kind) * (before["known"] == 0),
    }
