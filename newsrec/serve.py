"""Stage 10: a bundle that answers. Loads state and model, and ranks for any user at any moment.

Imports neither torch nor optuna. Recall, features and ranking are those of training: `newsrec.assembly.Assembly`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import polars as pl

from features.columns import CLICK_KEY, TIME
from features.events import EventStore, history, milliseconds
from features.vocabulary import Vocabulary
from newsrec.assembly import Assembly, chunks
from newsrec.bundle import read_manifest
from newsrec.errors import BundleError, DataError, UsageError
from newsrec.frames import to_polars
from newsrec.progress import Progress, Silent
from newsrec.rankers import RANKERS, Ranker
from newsrec.recall import RecallRequests, RecallSettings

NEEDED: Final = ("features", "protocol", "ranker", "recall", "seed", "validation")
"""Facts of the manifest that serving and evaluation cannot do without."""


@dataclass
class Recommender:
    """A loaded bundle.

    >>> Recommender.load("artifacts/my-run").recommend(user_id=42, k=5)  # doctest: +SKIP
    """

    manifest: dict[str, Any]
    ranker: Ranker
    vocabulary: Vocabulary
    store: EventStore
    _assembly: Assembly | None = field(default=None, repr=False)
    _since: int | None = field(default=None, repr=False)

    @classmethod
    def load(cls, run: str | Path) -> Self:
        """Check and read a bundle.

        Raises:
            BundleError: If anything in the folder is not what `train` wrote.
        """
        folder = Path(run)
        manifest = read_manifest(folder)
        _refuse_incomplete(manifest, folder)
        ranker = RANKERS[manifest["ranker"]].load(folder)
        vocabulary = Vocabulary(pl.read_parquet(folder / "vocabulary.parquet"))
        clicks = pl.read_parquet(folder / "state" / "clicks.parquet")
        articles = pl.read_parquet(folder / "state" / "articles.parquet")
        return cls(manifest, ranker, vocabulary, EventStore(clicks, articles))

    @property
    def known_until(self) -> int:
        """The instant after the last event that the state holds, ms."""
        return 0 if self.store.last_event is None else self.store.last_event + 1

    def with_log(self, clicks: object, articles: object) -> "Recommender":
        """The same model over other events.

        Data that starts after the state's last event continues it; data that overlaps it stands alone: it is its own
        history. An event known to both counts once. The object itself stays as it is.

        Args:
            clicks: Canonical clicks, Polars or pandas.
            articles: Canonical articles, Polars or pandas; those only the bundle knows are kept.

        Raises:
            DataError: Ids of another kind than the bundle's.
        """
        new, more = to_polars(clicks, "clicks"), to_polars(articles, "articles")
        _refuse_other_ids(new, self.store.clicks, ("user_id", "item_id"))
        _refuse_other_ids(more, self.store.articles, ("item_id",) if len(more) else ())
        first = new["clicked_at"].min()
        last = self.store.clicks["clicked_at"].max()
        continues = first is not None and last is not None and first > last  # type: ignore[operator]
        if continues or new.is_empty():
            new = pl.concat([self.store.clicks, new], how="diagonal_relaxed").unique(CLICK_KEY, maintain_order=True)
        both = pl.concat([more, self.store.articles], how="diagonal_relaxed").unique(
            "item_id", keep="first", maintain_order=True
        )
        return replace(self, store=EventStore(new, both), _assembly=None, _since=None)

    def recommend(self, user_id: int | str, at: datetime | None = None, k: int = 5) -> pl.DataFrame:
        """The best articles for one user at one moment.

        Args:
            user_id: Known or not; an unknown user gets what is popular.
            at: Time zone aware; None is the instant after the last known event.
            k: Number of articles, >= 1.

        Returns:
            `item_id, rank` (1 is best) and `score` (null for one that only fills the list); at most k rows, none
            that the user has read.
        """
        moment = self.known_until if at is None else _ms(at)
        try:
            user = pl.Series("user_id", [user_id], dtype=self.store.users.dtype)
        except TypeError as error:
            raise UsageError(f"user_id: expected {self.store.users.dtype}, found {user_id!r}.") from error
        return self.recommend_many(self.requests(user, moment), k).select("item_id", "rank", "score")

    def requests(self, users: pl.Series, at: int | np.ndarray, statistics_until: int | None = None) -> pl.DataFrame:
        """Canonical requests: one per user, at one moment or one each (ms).

        Args:
            users: User ids.
            at: `requested_at` in ms.
            statistics_until: Statistics about articles stop here, ms; None lets them run up to the request.
        """
        moments = np.broadcast_to(np.asarray(at, np.int64), (len(users),))
        border = moments if statistics_until is None else np.minimum(moments, statistics_until)
        return pl.DataFrame(
            {
                "request_id": np.arange(len(users), dtype=np.int64),
                "user_id": users,
                "requested_at": pl.Series(moments).cast(TIME),
                "statistics_at": pl.Series(border).cast(TIME),
            }
        )

    def recommend_many(
        self, requests: object, k: int = 5, *, explain: bool = False, progress: Progress | None = None
    ) -> pl.DataFrame:
        """The best articles of many requests.

        Args:
            requests: Polars or pandas: `request_id, user_id, requested_at, statistics_at`.
            k: Number of articles, >= 1.
            explain: Add `channels` (which recall channels proposed the article) and `because` (the three features that
                moved its score most, TreeSHAP, Lundberg et al. 2018).
            progress: Told after each chunk.

        Returns:
            Polars: `request_id, user_id, item_id, rank, score`, in the order of the requests, rank 1 first.

        Raises:
            UsageError: `k` below 1.
            DataError: A column is missing, or a `request_id` occurs twice.
        """
        if k < 1:
            raise UsageError(f"--k: expected at least 1, found {k}.")
        asked = to_polars(requests, "requests")
        _refuse_requests(asked)
        parts = []
        with (progress or Silent()).stage("recommend", len(asked)) as step:
            for chunk in chunks(asked):
                parts.append(self._best(chunk, k, explain))
                step(len(chunk))
        order = asked.select("request_id", "user_id")
        if not parts:
            ranked: dict[str, Any] = {"item_id": self.store.items.dtype, "rank": pl.UInt32, "score": pl.Float32}
            reasons = {"channels": pl.String, "because": pl.String} if explain else {}
            return pl.DataFrame(schema={**order.schema, **ranked, **reasons})
        return order.join(pl.concat(parts), on="request_id", how="left", maintain_order="left_right").filter(
            pl.col("item_id").is_not_null()
        )

    def assembly(self, since: int) -> Assembly:
        """Channels and features for requests whose statistics stand at or after `since`, ms; kept between calls."""
        if self._assembly is None or self._since is None or since < self._since:
            settings = RecallSettings(**{**self.manifest["recall"]["settings"], "since": since})
            self._assembly = Assembly.of(
                self.store,
                self.manifest["recall"]["channels"],
                settings,
                self.vocabulary,
                self.manifest["features"],
                self.manifest["recall"]["list_length"],
            )
            self._since = since
        return self._assembly

    def _best(self, requests: pl.DataFrame, k: int, explain: bool) -> pl.DataFrame:
        assembly = self.assembly(int(milliseconds(requests["statistics_at"]).min()))
        lists, coded = assembly.lists(requests)
        candidates = assembly.cut(lists)
        described = assembly.describe(candidates, requests)
        scored = candidates.with_columns(pl.Series("score", self.ranker.score(described))).with_row_index("place")
        best = (
            scored.sort("request_id", "score", "item_id", descending=[False, True, False])
            .with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.UInt32).over("request_id").alias("rank"))
            .filter(pl.col("rank") <= k)
        )
        columns = ["request_id", "item_id", "rank", "score"]
        if explain:
            reasons = explanations(self.ranker, described[best["place"]])
            proposed = pl.concat_str(
                *(
                    pl.when(pl.col(f"{name}_rank").is_not_null()).then(pl.lit(name))
                    for name in self.manifest["recall"]["channels"]
                ),
                separator=", ",
                ignore_nulls=True,
            )
            best = best.with_columns(proposed.alias("channels"), reasons.alias("because"))
            columns += ["channels", "because"]
        best = best.select(columns)
        return pl.concat([best, self._fill(best, requests, coded, k)], how="diagonal").sort("request_id", "rank")

    def _fill(self, best: pl.DataFrame, requests: pl.DataFrame, coded: RecallRequests, k: int) -> pl.DataFrame:
        """Places that recall left empty (tiny logs, readers of everything): the most read articles that exist.

        Reads are counted up to the recall refresh that the request sees: what comes later it cannot know.
        """
        have = requests.select("request_id").join(
            best.group_by("request_id").len("have"), on="request_id", how="left", maintain_order="left"
        )
        rows = pl.DataFrame({"row": np.arange(len(requests)), "have": have["have"].fill_null(0)})
        short = rows.filter(pl.col("have") < k)
        if short.is_empty():
            return best.clear()
        row, place, _ = history(self.store, coded.user, coded.at)
        seen = pl.DataFrame({"row": row, "item": self.store.tables["clicks"]["item"][place]})
        refresh = self.manifest["recall"]["settings"]["refresh_ms"]
        few = short["row"].to_numpy()
        moment = pl.Series("moment", coded.statistics_at[few] // refresh * refresh)
        most = k + int(np.bincount(row, minlength=len(requests))[few].max())
        ready = [
            group.join(self._most_read(until, coded.at[group["row"].to_numpy()], most), how="cross")
            for (until,), group in short.with_columns(moment).group_by("moment", maintain_order=True)
        ]
        offered = pl.concat(ready).join(seen, on=["row", "item"], how="anti", maintain_order="left")
        exists = self.store.exists_from[offered["item"].to_numpy()] < coded.at[offered["row"].to_numpy()]
        offered = offered.filter(pl.Series(exists))
        offered = offered.with_columns(
            requests["request_id"].gather(offered["row"]).alias("request_id"),
            self.store.items.gather(offered["item"]).alias("item_id"),
        )
        new = offered.join(best, on=["request_id", "item_id"], how="anti", maintain_order="left")
        return (
            new.with_columns((pl.col("have") + pl.int_range(1, pl.len() + 1).over("row")).cast(pl.UInt32).alias("rank"))
            .filter(pl.col("rank") <= k)
            .select("request_id", "item_id", "rank")
        )

    def _most_read(self, until: Any, at: np.ndarray, n: int) -> pl.DataFrame:
        """Articles by clicks before `until`, ms; at least `n` that exist at each moment of `at`, if there are."""
        store = self.store
        clicks = store.tables["clicks"]
        read = np.bincount(clicks["item"][clicks["time"] < until], minlength=store.n_items)
        there = np.flatnonzero(store.exists_from < at.max())
        order = there[np.lexsort((there, -read[there]))]
        young = int((store.exists_from[there] >= at.min()).sum())
        return pl.DataFrame({"item": order[: n + young]})


def explanations(ranker: Ranker, described: pl.DataFrame, top: int = 3) -> pl.Series:
    """The features that moved each score most, as text such as `item_clicks_15m +0.41, hour -0.10`. Shape (n_rows,)."""
    if described.is_empty():
        return pl.Series(dtype=pl.String)
    moved = ranker.contributions(described)
    order = np.argsort(-np.abs(moved), axis=1, kind="stable")[:, :top]
    names = np.array(described.columns)[order]
    values = np.take_along_axis(moved, order, axis=1)
    columns = [
        pl.DataFrame({"name": names[:, i], "value": values[:, i]})
        .select(
            pl.format(
                "{} {}{}",
                "name",
                pl.when(pl.col("value") < 0).then(pl.lit("")).otherwise(pl.lit("+")),
                pl.col("value").round(3),
            )
        )
        .to_series()
        .rename(str(i))
        for i in range(order.shape[1])
    ]
    return pl.DataFrame(columns).select(pl.concat_str(pl.all(), separator=", ")).to_series()


def _refuse_incomplete(manifest: dict[str, Any], folder: Path) -> None:
    missing = [name for name in NEEDED if name not in manifest]
    if missing:
        raise BundleError(f"{folder}: expected a manifest with {missing}, found none of these. Train again.")
    if manifest["ranker"] not in sorted(RANKERS):
        raise BundleError(
            f"{folder}: expected a ranker of {sorted(RANKERS)}, found {manifest['ranker']!r}. "
            "Train again, or use the newsrec that wrote it."
        )


def _refuse_requests(asked: pl.DataFrame) -> None:
    missing = sorted({"request_id", "user_id", "requested_at", "statistics_at"} - set(asked.columns))
    if missing:
        raise DataError(f"requests: expected columns {missing}, found {sorted(asked.columns)}. Name the columns so.")
    repeated = asked["request_id"].filter(asked["request_id"].is_duplicated())
    if len(repeated):
        raise DataError(
            f"requests: expected each 'request_id' once, found {len(repeated)} rows that share one "
            f"{repeated.unique().sort().head(3).to_list()}. Number the requests."
        )


def _refuse_other_ids(new: pl.DataFrame, known: pl.DataFrame, names: Sequence[str]) -> None:
    wrong = [
        f"{name}: {known[name].dtype} in the bundle, {new[name].dtype} in the data"
        for name in names
        if new[name].dtype != known[name].dtype
    ]
    if wrong:
        raise DataError(
            f"--data: expected ids of the bundle's kind, found {'; '.join(wrong)}. Read it in the same format."
        )


def _ms(at: datetime) -> int:
    if at.tzinfo is None:
        raise UsageError(f"--at: expected a moment with a time zone, found '{at}'. Write it as 2024-01-31T08:00:00Z.")
    return round(at.timestamp() * 1000)
