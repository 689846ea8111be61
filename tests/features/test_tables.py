"""Tables that grow at their end, and what a user's earlier rows decide about the next."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.tables import Growing, Table, follow
from features.windows import NO_KEY, NO_TIME, SESSION_PAUSE_MS

HALF = SESSION_PAUSE_MS // 2


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@given(batches=st.lists(st.lists(st.integers(0, 99), max_size=900), max_size=12), branch=st.integers(0, 11))
def test_grown_column_holds_all_values_and_older_ones_keep_theirs(batches: list[list[int]], branch: int) -> None:
    columns, expected = [Growing(ints())], [[]]
    for batch in batches:
        columns.append(columns[-1].extended(ints(*batch)))
        expected.append(expected[-1] + batch)
    fork = columns[min(branch, len(batches))]
    other = fork.extended(ints(-1)).extended(ints(-2))
    for column, values in zip(columns, expected, strict=True):
        assert column.values.tolist() == values
    assert other.values.tolist() == [*fork.values.tolist(), -1, -2]


def test_growing_seldom_moves_a_column() -> None:
    column, moved = Growing(ints(1)), 0
    for i in range(3_000):
        grown = column.extended(ints(i))
        moved += not np.shares_memory(grown.values, column.values)
        column = grown
    assert moved < 6


def test_table_grows_by_rows_of_all_columns() -> None:
    table = Table.of({"a": ints(1), "b": ints(2)})
    grown = table.extended({"b": ints(4, 6), "a": ints(3, 5)})
    assert (len(table), len(grown)) == (1, 3)
    assert {name: column.tolist() for name, column in grown.rows(1).items()} == {"a": [3, 5], "b": [4, 6]}
    assert "a" in grown
    assert "c" not in grown


def nothing(n: int) -> dict[str, np.ndarray]:
    none = np.full(n, NO_KEY)
    return {"item": none, "time": np.full(n, NO_TIME), "session_place": none, "known": np.zeros(n, np.int64)}


def test_sessions_and_first_categories_of_two_users() -> None:
    user, time = ints(1, 1, 1, 2), ints(0, SESSION_PAUSE_MS, 2 * SESSION_PAUSE_MS + 1, 5)
    told = follow(user, time, ints(4, 4, NO_KEY, 4), nothing(4))
    assert {name: column.tolist() for name, column in told.items()} == {
        "previous_row": [-1, 0, 1, -1],
        "opens_session": [1, 0, 1, 1],
        "session_place": [1, 2, 1, 1],
        "new_kind": [1, 0, 0, 1],
    }


def test_no_rows_follow_nothing() -> None:
    assert [len(column) for column in follow(ints(), ints(), ints(), nothing(0)).values()] == [0] * 4


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([0, HALF, HALF * 2, HALF * 2 + 1]), st.integers(-1, 2)),
        min_size=1,
        max_size=25,
    ),
    data=st.data(),
)
def test_rows_that_come_later_are_told_the_same(rows: list[tuple[int, int, int]], data: st.DataObject) -> None:
    """Cut at any place: what stood before each user's first later row is handed on as the store does."""
    user, pause, kind = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    time = np.cumsum(pause) + 1
    order = np.lexsort((time, user))
    whole = follow(user[order], time[order], kind[order], nothing(len(rows)))
    cut = data.draw(st.integers(0, int(time.max())))
    early, late = order[time[order] <= cut], order[time[order] > cut]
    first = follow(user[early], time[early], kind[early], nothing(len(early)))
    before = nothing(len(late))
    for place, row in enumerate(late):
        own = np.flatnonzero(user[early] == user[row])
        if len(own):
            before["time"][place] = time[early][own[-1]]
            before["session_place"][place] = first["session_place"][own[-1]]
            before["known"][place] = (kind[early][own] == kind[row]).sum()
    second = follow(user[late], time[late], kind[late], before)
    place = {int(row): i for i, row in enumerate(order)}
    for name in ("opens_session", "session_place", "new_kind"):
        for part, rows_of in ((first, early), (second, late)):
            assert part[name].tolist() == [int(whole[name][place[int(row)]]) for row in rows_of], name
