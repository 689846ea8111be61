"""Lists for networks, made at random, and a small world in which only attention finds what a reader wants."""

from dataclasses import replace

import numpy as np

from newsrec.neural.vocabulary import IdVocabulary
from newsrec.rerankers.base import Shape
from newsrec.tensors import AGE, DWELL, Array, Fields, Lists

DENSE = 3
ITEMS, CATEGORIES = 12, 4
KINDS = ("int64", "string")


def fields_of(kind: str = "int64") -> Fields:
    """Three dense columns with the ranker's score, two id fields, two numbers."""
    return Fields(("a", "b", "ranker_score"), {"item_id": kind, "category": "string"}, (AGE, DWELL))


def vocabulary_of(kind: str = "int64") -> IdVocabulary:
    """Articles 1 to 12 and four categories."""
    return IdVocabulary({"item_id": items(kind), "category": np.array([*"abcd"], object)})


def items(kind: str = "int64") -> Array:
    """All known articles in ascending order."""
    numbers = np.arange(1, ITEMS + 1)
    return numbers if kind == "int64" else np.array([f"n{i:02d}" for i in numbers], object)


SHAPE = Shape(DENSE, (ITEMS + 1, CATEGORIES + 1), 2)


def random_lists(n: int = 40, seed: int = 0, kind: str = "int64", longest: int = 7, history: int = 6) -> Lists:
    """Lists of 1 to `longest` candidates, histories of 0 to `history` clicks, one click in each list; raw ids."""
    rng = np.random.default_rng(seed)
    length, clicks = rng.integers(1, longest + 1, n), rng.integers(0, history + 1, n)
    rows, events = int(length.sum()), int(clicks.sum())
    label = np.zeros(rows, np.uint8)
    label[np.cumsum(length) - 1 - rng.integers(0, length)] = 1
    dense = rng.normal(0, 10, (rows, DENSE)).astype(np.float32)
    dense[rng.random(dense.shape) < 0.2] = np.nan
    dwell = rng.gamma(1, 40, events).astype(np.float32)
    dwell[rng.random(events) < 0.3] = np.nan
    known = {"item_id": items(kind), "category": np.array([*"abcd"], object)}
    return Lists(
        np.arange(n),
        length,
        dense,
        {name: rng.choice(ids, rows) for name, ids in known.items()},
        clicks,
        {name: rng.choice(ids, events) for name, ids in known.items()},
        {AGE: rng.gamma(1, 20, events).astype(np.float32), DWELL: dwell},
        label,
    )


def interests(n: int, seed: int = 0, kinds: int = 40) -> Lists:
    """Readers with several interests: what is clicked is of a kind that the reader has read, often or once.

    Coded lists of four candidates with one field and one number. A reader has read six of many kinds, most of them
    once; one candidate, drawn among the six with equal chances, is of such a kind, three are not. The mean of the
    history tells mostly of the kind that was read most, whatever the candidate.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(rng.random((n, kinds)), axis=1) + 1  # (readers, kinds), each reader's own
    history = np.repeat(order[:, :6], (1, 1, 1, 1, 2, 6), axis=1)
    clicked, place = order[np.arange(n), rng.integers(0, 6, n)], rng.integers(0, 4, n)
    target, label = order[:, 6:10].copy(), np.zeros((n, 4), np.uint8)
    target[np.arange(n), place], label[np.arange(n), place] = clicked, 1
    return Lists(
        np.arange(n),
        np.full(n, 4),
        np.zeros((n * 4, 1), np.float32),
        {"item_id": target.ravel()},
        np.full(n, 12),
        {"item_id": history.ravel()},
        {AGE: np.ones(n * 12, np.float32)},
        label.ravel(),
        coded=True,
    )


def drifts(n: int, seed: int = 0, kinds: int = 20) -> Lists:
    """Readers whose interest has moved on: what is clicked is of the newest kind, and no longer of the oldest.

    Coded lists of two candidates, of these two kinds; only the order of the six clicks tells which is which.
    """
    rng = np.random.default_rng(seed)
    history = np.argsort(rng.random((n, kinds)), axis=1)[:, :6] + 1
    first = rng.random(n) < 0.5
    both = np.where(first[:, None], history[:, [0, 5]], history[:, [5, 0]])
    return _pairs(history, both, first, np.ones(history.shape))


def sessions(n: int, seed: int = 0, kinds: int = 20) -> Lists:
    """Readers with two sessions, one of them with a click of kind 1: what else they read in that one, they want again.

    Coded lists of two candidates, a kind of either session. Which session has the mark, where it stands, and how long
    ago and how long both are, is chance: no click by itself and no age tells. Clicks of a session are 1 to 29 minutes
    apart, the sessions 35 to 60, so that two clicks of one session may well be hours apart.
    """
    rng = np.random.default_rng(seed)
    newer, place, every = rng.integers(2, 7, n)[:, None], np.arange(8), np.arange(n)
    history = np.argsort(rng.random((n, kinds - 1)), axis=1)[:, :8] + 2
    pauses = np.where(place == newer, rng.uniform(35, 60, (n, 8)), rng.uniform(1, 29, (n, 8))) / 60
    ages = rng.uniform(0.1, 24, n)[:, None] + pauses.cumsum(axis=1)
    marked = (place < newer) == (rng.random((n, 1)) < 0.5)  # (readers, clicks), those of the marked session
    shuffled = rng.random((n, 8))
    mark, wanted = np.argsort(shuffled + ~marked, axis=1)[:, :2].T  # two different clicks of the one
    other = np.argmin(shuffled + marked, axis=1)  # and one of the other
    history[every, mark] = 1
    first = rng.random(n) < 0.5
    pair = history[every, wanted], history[every, other]
    both = np.where(first[:, None], np.stack(pair, axis=1), np.stack(pair[::-1], axis=1))
    return _pairs(history, both, first, ages)


def long_ago(n: int, seed: int = 0, kinds: int = 20, clicks: int = 70) -> Lists:
    """Readers whose only interest lies behind their fifty newest clicks, which are of one kind.

    Coded lists of two candidates, articles that nobody has clicked: one of the kind that was read long ago.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(rng.random((n, kinds - 1)), axis=1) + 2
    history = np.where(np.arange(clicks) < 50, 1, order[:, :1])
    first = rng.random(n) < 0.5
    both = np.where(first[:, None], order[:, :2], order[:, 1::-1][:, :2])
    lists = _pairs(history, both, first, np.ones(history.shape))
    nothing = {
        name: np.ones_like(codes)
        for name, codes in (("of", lists.ids["item_id"]), ("in", lists.history_ids["item_id"]))
    }
    return replace(
        lists,
        ids={"item_id": nothing["of"], "category": lists.ids["item_id"]},
        history_ids={"item_id": nothing["in"], "category": lists.history_ids["item_id"]},
    )


def rare(n: int, seed: int = 0, kinds: int = 80) -> Lists:
    """Lists of four articles, whose quality draws the click, and one click in twelve draws a second action.

    What the quality of an article is, the same whatever the seed, has to be learned one by one.
    """
    rng, quality = np.random.default_rng(seed), np.random.default_rng(99).normal(0, 2, kinds)
    items = np.argsort(rng.random((n, kinds)), axis=1)[:, :4]
    wanted = quality[items] + rng.gumbel(size=(n, 4))
    label = (wanted == wanted.max(axis=1, keepdims=True)).astype(np.uint8)
    second = label * (rng.random((n, 1)) < 1 / 12)
    return _without_clicks(items, label, second=second)


def shown_and_liked(n: int, seed: int = 0, kinds: int = 40, even: bool = False) -> Lists:
    """Lists of eight articles, some of which were shown; what is shown is clicked by its quality.

    Half of the articles are shown with a chance of 0.1, the others of 0.9; `even` shows all with 0.5. Neither depends
    on the quality. Of all seeds the articles are the same.
    """
    rng, quality = np.random.default_rng(seed), np.random.default_rng(99).normal(0, 2, kinds)
    items = np.argsort(rng.random((n, kinds)), axis=1)[:, :8]
    chance = np.full(items.shape, 0.5) if even else np.where(items % 2, 0.1, 0.9)
    shown = rng.random(items.shape) < chance
    liked = rng.random(items.shape) < 1 / (1 + np.exp(-quality[items]))
    return _without_clicks(items, shown & liked, exposed=shown)


def _without_clicks(items: Array, label: Array, **further: Array) -> Lists:
    """Coded lists with empty histories; everything is (lists, candidates), articles count from 0."""
    n, candidates = items.shape
    return Lists(
        np.arange(n),
        np.full(n, candidates),
        np.zeros((items.size, 1), np.float32),
        {"item_id": items.ravel() + 1},
        np.zeros(n, np.int64),
        {"item_id": np.zeros(0, np.int64)},
        {AGE: np.zeros(0, np.float32)},
        label.astype(np.uint8).ravel(),
        coded=True,
        further={task: values.astype(np.float32).ravel() for task, values in further.items()},
    )


def _pairs(history: Array, both: Array, first: Array, ages: Array) -> Lists:
    n, clicks = history.shape
    label = np.stack([first, ~first], axis=1).astype(np.uint8)
    return Lists(
        np.arange(n),
        np.full(n, 2),
        np.zeros((n * 2, 1), np.float32),
        {"item_id": both.ravel()},
        np.full(n, clicks),
        {"item_id": history.ravel()},
        {AGE: ages.ravel().astype(np.float32)},
        label.ravel(),
        coded=True,
    )
