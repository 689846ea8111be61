"""What attention is good for: networks on shown lists of readers with several interests, three worlds and seeds.

All networks read the same: article, category, the last 50 clicks, and two dense columns, how much the article was
clicked and how old it is. No column tells of the reader, so only the history does. Without `--data` only: the world is
invented. Several minutes on two cores.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import torch

from features.build import build
from features.catalog import features_for, parts_of
from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec.evaluation.comparison import paired_comparison
from newsrec.metrics import METRICS, per_request, summarise
from newsrec.neural.model import Model
from newsrec.neural.trainer import TrainerConfig, fit, score
from newsrec.neural.vocabulary import IdVocabulary
from newsrec.rerankers import make
from newsrec.rerankers.base import Shape
from newsrec.simulate import SimulationConfig, simulate
from newsrec.slates import split_slates
from newsrec.split import SplitConfig
from newsrec.tensors import Fields, Lists, lists_of

SEEDS: Final = (0, 1, 2)
NETWORKS: Final = ("lr", "pooling", "din")
DENSE: Final = ("item_clicks_3h", "item_age_hours")
HISTORY: Final = 50
READERS: Final = {
    "users": 4_000,
    "days": 7,
    "categories": 120,
    "clicks_per_user": 20.0,
    "interest_strength": 8.0,
    "quality_strength": 0.5,
}
"""Readers with one to five interests among many categories, the last click's the strongest; quality decides little."""
GAUC: Final = {"gauc": METRICS["gauc"]}


def run(_: Path | None) -> Iterator[str]:
    """GAUC on the last day of each network, and of each the paired interval to the one before it."""
    differences: dict[str, list[float]] = {}
    for seed in SEEDS:
        parts, scored = _lists(seed), {}
        for name in NETWORKS:
            scored[name] = _trained(name, parts, seed)
            yield f"seed {seed}: {name} GAUC {summarise(scored[name], GAUC)['gauc']:.4f}"
        for worse, better in pairwise(NETWORKS):
            found = paired_comparison(scored[worse], scored[better], {}, {}, metrics=GAUC, seed=seed)["gauc"]
            differences.setdefault(f"{better} - {worse}", []).append(found.difference)
            yield f"seed {seed}: {better} - {worse} {found.difference:+.4f} ({found.low:+.4f} .. {found.high:+.4f})"
    for name, values in differences.items():
        yield f"{name}: mean {np.mean(values):+.4f}, least {min(values):+.4f}"


def _lists(seed: int) -> dict[str, tuple[Lists, pl.DataFrame]]:
    """Lists and requests of each part."""
    log = simulate(SimulationConfig(seed=seed, **READERS)).log  # type: ignore[arg-type]
    store = EventStore(log.clicks, log.articles, log.impressions)
    config = SplitConfig(train_requests=16_000, valid_requests=4_000, test_requests=10_000, seed=seed)
    split = split_slates(log, store, config)
    assert split.slates is not None
    known = features_for((), parts_of(log.clicks, log.articles, log.impressions))
    features, vocabulary = [f for f in known if f.name in DENSE], Vocabulary.of(log.clicks)
    fields = Fields.of(store, tuple(f.name for f in features))
    parts = {}
    for name in ("train", "valid", "test"):
        requests = split.part(name)
        rows = requests.select("request_id").join(split.slates, on="request_id", maintain_order="left_right")
        described = build(rows, requests, store, vocabulary, features)
        unranked = rows.with_columns(pl.lit(0.0, pl.Float32).alias("score"))
        parts[name] = lists_of(described, unranked, requests, store, fields, HISTORY), requests
    return parts


def _trained(name: str, parts: dict[str, tuple[Lists, pl.DataFrame]], seed: int) -> pl.DataFrame:
    """Per test request, the GAUC's value of a network that validation stopped."""
    vocabulary = IdVocabulary.of(parts["train"][0])
    train, valid, test = (vocabulary.coded(parts[part][0]) for part in ("train", "valid", "test"))
    shape = Shape(train.dense.shape[1], vocabulary.sizes, len(train.history_numbers))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Model(make(name, shape), shape.dense, shape.numbers)
        fit(model, train, valid, TrainerConfig(seed=seed))
    rows = pl.DataFrame(
        {
            "request_id": test.request_id[test.row_request],
            "item_id": parts["test"][0].ids["item_id"],
            "score": score(model, test),
            "label": test.label,
        }
    )
    return per_request(rows, parts["test"][1], GAUC)
