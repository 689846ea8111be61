"""What is known of articles, as arrays by code: nulls marked, later news on top, embeddings as whole numbers."""

import numpy as np
import polars as pl

from features.articles import NO_WORDS, UNIT, Articles
from features.windows import NO_KEY, NO_TIME
from tests.factories import articles_of, ms


def made(frame: pl.DataFrame, n_items: int = 3) -> Articles:
    return Articles.of(frame, np.arange(len(frame)), n_items)


def embedded(*vectors: list[float] | None) -> pl.DataFrame:
    return articles_of([*range(len(vectors))]).with_columns(
        pl.Series("embedding", vectors, dtype=pl.Array(pl.Float32, 2))
    )


def test_unknown_values_and_items_without_a_row_have_their_markers() -> None:
    known = made(articles_of([7, 8], [1.0, None], words=[10, None], category=[None, "x"], publisher=["p", None]))
    assert known.created.tolist() == [ms(1), NO_TIME, NO_TIME]
    assert known.words.tolist() == [10, NO_WORDS, NO_WORDS]
    assert known.category.tolist() == [NO_KEY, 0, NO_KEY]
    assert known.publisher.tolist() == [0, NO_KEY, NO_KEY]
    assert known.embedding is None


def test_values_stand_at_the_codes_of_their_rows() -> None:
    known = Articles.of(articles_of([7, 8], words=[10, 20]), np.array([2, 0]), 3)
    assert known.words.tolist() == [20, NO_WORDS, 10]


def test_later_news_replaces_what_was_known_and_a_null_does_not() -> None:
    known = made(articles_of([7, 8], [1.0, 2.0], words=[10, 20], category=["x", "y"]))
    told = articles_of([8, 9], [None, 5.0], words=[21, None], category=[None, "a"])
    later = known.extended(told, np.array([1, 3]), 4)
    assert later.created.tolist() == [ms(1), ms(2), NO_TIME, ms(5)]
    assert later.words.tolist() == [10, 21, NO_WORDS, NO_WORDS]
    assert later.category.tolist() == [0, 1, NO_KEY, 2]
    assert known.words.tolist() == [10, 20, NO_WORDS]


def test_nothing_told_and_no_new_item_copies_nothing() -> None:
    known = made(embedded([3.0, -4.0]), 2)
    assert known.extended(articles_of([7])[:0], np.array([], dtype=np.int64), 2) is known
    assert len(known.extended(articles_of([7])[:0], np.array([], dtype=np.int64), 3).created) == 3


def test_changes_are_of_category_publisher_and_length_only() -> None:
    known = made(articles_of([7, 8, 9], [0.0] * 3, words=[1, 2, 3], category=["x"] * 3, publisher=["p"] * 3))

    def changed(**columns: list[object]) -> list[int]:
        return known.changes(known.extended(articles_of([7, 8, 9], **columns), np.arange(3), 3)).tolist()

    assert changed(words=[1, 5, None]) == [1]
    assert changed(category=["x", None, "z"]) == [2]
    assert changed(publisher=["q", "p", "p"]) == [0]
    assert changed(created=[9.0, 9.0, 9.0]) == []


def test_embeddings_are_unit_vectors_in_whole_numbers() -> None:
    known = made(embedded([3.0, -4.0], None, [0.0, 0.0]), 4)
    assert known.embedding is not None
    assert known.embedding.tolist() == [[round(0.6 * UNIT), round(-0.8 * UNIT)], [0, 0], [0, 0], [0, 0]]
    assert known.embedding.dtype == np.int16


def test_embedding_may_come_later_and_change() -> None:
    bare = made(articles_of([0, 1]), 2)
    first = bare.extended(embedded(None, [0.0, 2.0]), np.array([0, 1]), 3)
    second = first.extended(embedded([5.0, 0.0]), np.array([1]), 4)
    assert bare.embedding is None
    assert first.embedding is not None
    assert second.embedding is not None
    assert first.embedding.tolist() == [[0, 0], [0, UNIT], [0, 0]]
    assert second.embedding.tolist() == [[0, 0], [UNIT, 0], [0, 0], [0, 0]]
    assert made(embedded(None, None)).embedding is None
