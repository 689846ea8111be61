"""Ids and their codes: found by join or by search, and growing without moving."""

from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.ids import MANY_CHUNKS, Ids, codes_of


def text(*values: str | None) -> pl.Series:
    return pl.Series(values, dtype=pl.String)


def test_codes_are_places_in_ascending_order_and_null_has_none() -> None:
    ids = Ids.of(text("c", None, "a"), text("b", "a"))
    assert ids.values.to_list() == ["a", "b", "c"]
    assert ids.codes(text("c", "x", None, "a")).tolist() == [2, -1, -1, 0]
    assert len(ids) == 3


def test_new_ids_get_the_next_codes_and_the_old_keep_theirs() -> None:
    old = Ids.of(text("b", "d"))
    new = old.extended(text("c", "a", "d", None, "c"))
    assert new.values.to_list() == ["b", "d", "a", "c"]
    assert new.codes(text("a", "b", "c", "d", "e")).tolist() == [2, 0, 3, 1, -1]
    assert old.codes(text("a", "b")).tolist() == [-1, 0]
    assert len(old) == 2


def test_nothing_new_gives_the_ids_themselves() -> None:
    ids = Ids.of(text("b", "d"))
    assert ids.extended(text("d", None)) is ids
    assert ids.extended(text()) is ids


def test_order_is_that_of_the_ids_however_they_came() -> None:
    ids = Ids.of(text("m")).extended(text("z")).extended(text("a"))
    assert ids.order().tolist() == [1, 2, 0]


def test_column_without_a_type_takes_that_of_the_first_values() -> None:
    ids = Ids.of(pl.Series([None, None]))
    assert ids.codes(text("a", None)).tolist() == [-1, -1]
    assert ids.extended(text("b", "a")).codes(text("a", "b")).tolist() == [0, 1]


def test_ids_of_a_narrower_type_are_the_same_ids() -> None:
    ids = Ids.of(pl.Series([5, 7], dtype=pl.Int64)).extended(pl.Series([7, 9], dtype=pl.Int32))
    assert ids.values.to_list() == [5, 7, 9]
    assert ids.values.dtype == pl.Int64


@given(batches=st.lists(st.lists(st.integers(-50, 50), max_size=30), min_size=1, max_size=25), as_text=st.booleans())
def test_grown_ids_answer_as_a_dictionary(batches: list[list[int]], as_text: bool) -> None:
    frames = [
        pl.Series([f"n{i}" for i in b] if as_text else b, dtype=pl.String if as_text else pl.Int64) for b in batches
    ]
    ids, known = Ids.of(frames[0]), {}
    for number, frame in enumerate(frames):
        ids = ids.extended(frame) if number else ids
        for value in frame.unique().sort().to_list():
            known.setdefault(value, len(known))
    asked = pl.concat([*frames, frames[0][:0]])
    assert ids.values.to_list() == list(known)
    assert ids.codes(asked).tolist() == [known[value] for value in asked]
    for value in asked[:3]:  # one at a time: found by search
        assert ids.codes(pl.Series([value], dtype=asked.dtype)).tolist() == [known[value]]
    assert codes_of(asked, ids.values).tolist() == [known[value] for value in asked]
    assert [ids.values[int(i)] for i in ids.order().argsort()] == sorted(known)


@pytest.mark.parametrize("n", [1, 5, 400])
def test_one_id_at_a_time_leaves_few_pieces(n: int) -> None:
    ids = Ids.of(pl.Series(range(1_000)))
    for i in range(n):
        ids = ids.extended(pl.Series([10_000 - i]))
    assert ids.codes(pl.Series([10_000, 10_001 - n, 999])).tolist() == [1_000, 999 + n, 999]
    assert ids.values.n_chunks() <= MANY_CHUNKS + 2


def test_two_lists_that_grow_out_of_one_know_nothing_of_each_other() -> None:
    ids = Ids.of(pl.Series(range(100)))
    assert ids.codes(pl.Series([7])).tolist() == [7]
    first, second = ids.extended(pl.Series([200])), ids.extended(pl.Series([300]))
    asked = pl.Series([200]), pl.Series([300])
    assert [first.codes(one).tolist() for one in asked] == [[100], [-1]]
    assert [second.codes(one).tolist() for one in asked] == [[-1], [100]]
    assert [ids.codes(one).tolist() for one in asked] == [[-1], [-1]]


def test_threads_that_ask_first_together_all_get_the_codes() -> None:
    """The table is made at the first question; a half-made one must not answer."""
    values = pl.Series(range(300_000))
    for _ in range(5):
        ids = Ids(values)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(ids.codes, [pl.Series([299_999])] * 8))
        assert [codes.tolist() for codes in found] == [[299_999]] * 8
