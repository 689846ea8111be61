"""What an audit works on: the log, the features it can have, and a seeded sample of requests with their candidates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
import polars as pl

from features.catalog import Feature
from features.columns import TIME
from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec.assembly import Assembly
from newsrec.candidates import label
from newsrec.data import SLATE_FORMATS, Log
from newsrec.errors import DataError
from newsrec.own import OwnFeatures
from newsrec.recall import RecallSettings, working
from newsrec.slates import SPLITS
from newsrec.split import Split, SplitConfig

QUICK: Final = SplitConfig(train_requests=1_500, valid_requests=300, test_requests=800)
"""Requests of an audit: enough for a fit that tells a leak from none, few enough for seconds."""
SETTINGS: Final = RecallSettings()


@dataclass(frozen=True)
class Material:
    """One log under audit."""

    log: Log
    own: OwnFeatures
    seed: int
    n_requests: int

    @cached_property
    def store(self) -> EventStore:
        """Everything the log has."""
        return EventStore(self.log.clicks, self.log.articles, self.log.impressions)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Codes of context values. Fixed once: what is audited is what features see of the log."""
        return Vocabulary.of(self.log.clicks, impressions=self.log.impressions)

    @cached_property
    def split(self) -> Split:
        """Few requests, divided by time.

        Raises:
            DataError: The log is too short to divide, even by an eighth of its length.
        """
        name = "slate" if self.log.format in SLATE_FORMATS else "recall"
        days = (self.log.clicks["clicked_at"].max() - self.log.clicks["clicked_at"].min()).total_seconds() / 86_400  # type: ignore[operator,union-attr]
        part = min(1.0, max(days / 8, 1 / 24))
        config = replace(QUICK, seed=self.seed, test_days=part, valid_days=part)
        split = SPLITS[name](self.log, self.store, config)
        return replace(split, requests=self.own.with_columns(split.requests, self.log.impressions))

    @cached_property
    def assembly(self) -> Assembly:
        """Channels and features over the whole log, for requests at any moment of it."""
        return Assembly.of(
            self.store, working(self.store), SETTINGS, self.vocabulary, slates=self.split.slates, own=self.own.features
        )

    @property
    def features(self) -> Sequence[Feature]:
        """What is audited, in the model's order."""
        return self.assembly.features

    @cached_property
    def sample(self) -> "Sample":
        """Requests drawn evenly from all periods, with their whole lists at their own time."""
        requests = self.split.requests
        if len(requests) > self.n_requests:
            chosen = np.random.default_rng([self.seed, 2]).choice(len(requests), self.n_requests, replace=False)
            requests = requests[np.sort(chosen)]
        lists, _ = self.assembly.lists(requests)
        candidates = label(self.assembly.cut(lists), self.split.positives)
        taught = candidates.group_by("request_id").agg(pl.col("label").n_unique().alias("n")).filter(pl.col("n") == 2)
        candidates = candidates.join(taught, on="request_id", how="semi", maintain_order="left")
        requests = requests.join(taught, on="request_id", how="semi", maintain_order="left")
        if requests.is_empty():
            raise DataError(
                "audit: expected requests whose clicked article is a candidate, found none. Give more data."
            )
        return Sample(requests, candidates, self.assembly.describe(candidates, requests))

    def described_at(self, requests: pl.DataFrame, candidates: pl.DataFrame) -> pl.DataFrame:
        """The same candidates for requests at other moments, recall's word on them included."""
        slates = candidates.select("request_id", "item_id")
        assembly = replace(self.assembly, slates=slates)
        lists, _ = assembly.lists(requests)
        return assembly.describe(lists, requests)


@dataclass(frozen=True)
class Sample:
    """Requests, their candidates with `label`, and the features of these; rows of a request stand together."""

    requests: pl.DataFrame
    candidates: pl.DataFrame
    described: pl.DataFrame


def at_moments(requests: pl.DataFrame, moments: np.ndarray) -> pl.DataFrame:
    """The requests at other moments (ms), with live statistics."""
    time = pl.Series(moments).cast(TIME)
    return requests.with_columns(time.alias("requested_at"), time.alias("statistics_at"))
