"""The state of a running recommender as one value that never changes: what is known, and tables fitted on it.

Readers take it once and work with it; a writer makes the next one. Recall tables are fitted when a request needs a
refresh that no earlier one did, as a production system refreshes its tables on a grid.
"""

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl

from features.catalog import Feature
from features.columns import SECOND, TIME
from features.events import NEVER, EventStore, milliseconds
from features.vocabulary import Vocabulary
from features.windows import Ints
from newsrec.asked import Id, typed_ids
from newsrec.assembly import Assembly
from newsrec.candidates import ALIKE, MergeConfig
from newsrec.diversity import Diversity
from newsrec.errors import UsageError
from newsrec.recall import RecallSettings
from newsrec.state import Memory

FOR_SLATES = ("popular",)
"""Channels that propose where a bundle was trained on shown lists and is asked for a list of its own."""


@dataclass(frozen=True)
class Filter:
    """Which articles a list may hold."""

    exclude: tuple[Id, ...] = ()
    categories: tuple[Id, ...] | None = None
    """None allows all."""
    max_age: timedelta | None = None
    """Since the article exists: its creation, else its first event."""
    diversity: Diversity = Diversity()
    """Not a filter of articles but of lists."""


@dataclass(frozen=True)
class _Fitted:
    assembly: Assembly
    since: int
    """Requests whose statistics stand before it were not prepared for, ms."""
    until: int = NEVER
    """Refreshes up to this moment know all they should, ms: the first event that was observed later."""


class Live:
    """One state.

    Args:
        manifest: Of the bundle.
        vocabulary: Of the bundle.
        store: What is known.
        own: Own features that the bundle was trained with.
    """

    def __init__(
        self, manifest: dict[str, Any], vocabulary: Vocabulary, store: EventStore, own: Sequence[Feature] = ()
    ) -> None:
        self.store = store
        self._manifest, self._vocabulary, self._own = manifest, vocabulary, own
        self._memory = Memory.of_bundle(manifest)
        self._withdrawn: frozenset[Any] = frozenset()
        self._fitted: dict[bool, _Fitted] = {}
        self._fitting = threading.Lock()

    @property
    def recall(self) -> dict[str, Any]:
        """What the bundle says of recall: `channels`, `settings`, `list_length`, `merge`."""
        found: dict[str, Any] = self._manifest["recall"]
        return found

    @property
    def withdrawn(self) -> frozenset[Any]:
        """Articles that must not be recommended."""
        return self._withdrawn

    def observed(
        self, clicks: pl.DataFrame | None, articles: pl.DataFrame | None, impressions: pl.DataFrame | None
    ) -> "Live":
        """The state after some events; what is older than it should keep is folded."""
        times = [
            frame[name]
            for frame, name in ((clicks, "clicked_at"), (impressions, "requested_at"))
            if frame is not None and len(frame)
        ]
        store = self._memory.folded(self.store.extended(clicks, articles, impressions))
        # What is known already makes no table stale.
        first = min((int(milliseconds(c).min()) for c in times if store is not self.store), default=NEVER)
        back = frozenset() if articles is None else frozenset(articles["item_id"])
        return self._next(store, self._withdrawn - back, first)

    def without(self, item_ids: Collection[Any]) -> "Live":
        """The state in which these articles are withdrawn."""
        return self._next(self.store, self._withdrawn | frozenset(item_ids), NEVER)

    def _next(self, store: EventStore, withdrawn: frozenset[Any], first: int) -> "Live":
        following = Live(self._manifest, self._vocabulary, store, self._own)
        following._withdrawn = withdrawn
        # Codes of articles keep their meaning unless the store was made anew.
        if store.grew_from(self.store):
            following._fitted = {
                kind: replace(fitted, until=min(fitted.until, first)) for kind, fitted in self._fitted.items()
            }
        return following

    @property
    def answers_from(self) -> int | None:
        """The first moment of requests, and of their statistics, that can be asked for, ms; None for every moment."""
        return self._memory.answers_from(self.store)

    def assembly(self, requests: pl.DataFrame) -> Assembly:
        """Channels and features for these requests."""
        return self._assembly(requests, proposing=False)

    def proposing(self, requests: pl.DataFrame) -> Assembly:
        """The same, and always with a channel that proposes candidates."""
        return self._assembly(requests, proposing=not self.recall["channels"])

    def _assembly(self, requests: pl.DataFrame, proposing: bool) -> Assembly:
        border = milliseconds(requests["statistics_at"])
        refresh = self.recall["settings"]["refresh_ms"]
        earliest, latest = int(border.min()), int(border.max()) // refresh * refresh
        self._refuse_folded(earliest)
        with self._fitting:
            found = self._fitted.get(proposing)
            if found is None or earliest < found.since or latest > found.until:
                found = _Fitted(self._fit(earliest, proposing), earliest)
                self._fitted = {**self._fitted, proposing: found}
        own = found.assembly.store is self.store
        return found.assembly if own else replace(found.assembly, store=self.store)

    def _refuse_folded(self, earliest: int) -> None:
        if self.answers_from is not None and earliest < self.answers_from:
            first, asked = pl.Series([self.answers_from, earliest]).cast(TIME)
            raise UsageError(
                f"requests: expected moments, of statistics too, from {first.isoformat()} on, as events before are "
                f"folded away, found {asked.isoformat()}. Ask for later ones, or train with more --keep-days."
            )

    def _fit(self, since: int, proposing: bool) -> Assembly:
        recall = self.recall
        slates = pl.DataFrame(schema={"request_id": pl.Int64, "item_id": self.store.items.dtype})
        return Assembly.of(
            self.store,
            FOR_SLATES if proposing else recall["channels"],
            RecallSettings(**{**recall["settings"], "since": since}),
            self._vocabulary,
            self._manifest["features"],
            recall["list_length"],
            slates=None if recall["channels"] or proposing else slates,
            own=self._own,
            merge=ALIKE if proposing else MergeConfig(**recall.get("merge", {})),
        )

    def withdrawn_among(self, items: pl.Series) -> np.ndarray:
        """Whether each article is withdrawn, shape (n_items,)."""
        if not self._withdrawn:
            return np.zeros(len(items), bool)
        gone = pl.Series(list(self._withdrawn), dtype=items.dtype)
        return items.is_in(gone.implode()).to_numpy()

    def allowed(self, chosen: Filter, at: Ints) -> pl.Series:
        """Whether each article may be given, by item code; shape (n_items,)."""
        store = self.store
        good = np.ones(store.n_items, bool)
        banned = store.item_codes(typed_ids([*chosen.exclude, *self._withdrawn], store.items.dtype, "exclude"))
        good[banned[banned >= 0]] = False
        if chosen.categories is not None:
            known = store.articles_by_code.categories
            codes = known.codes(typed_ids(chosen.categories, known.values.dtype, "categories"))
            good &= np.isin(store.category, codes[codes >= 0])
        if chosen.max_age is not None and len(at):
            limit = round(chosen.max_age.total_seconds() * SECOND)
            good &= store.exists_from >= int(at.min()) - limit
        return pl.Series(good)
