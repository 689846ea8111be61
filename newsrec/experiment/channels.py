"""Recall compared: channels alone, all without each, and quotas, on the same requests; no ranker."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
import polars as pl

from newsrec.candidates import ALIKE, MergeConfig, label, propose
from newsrec.data import Log
from newsrec.evaluation.comparison import paired_comparison
from newsrec.experiment.config import ExperimentConfig, RecallCell
from newsrec.experiment.kept import Kept
from newsrec.experiment.material import divided
from newsrec.metrics import Metric, hit, per_request, summarise
from newsrec.progress import Progress
from newsrec.recall import CHANNELS, RecallRequests, RecallSettings, working
from newsrec.split import Split

DEPTHS: Final = (5, 20, 50, 100, 200)
ANYWHERE: Final = 10**6
CHUNK: Final = 2_000
"""Requests that are merged at once."""
CEILING: Final = "ceiling"
"""The click is anywhere in the merged list: what no ranker can exceed."""
HITS: Final[Mapping[str, Metric]] = {f"hit@{k}": Metric(hit(k)) for k in DEPTHS} | {CEILING: Metric(hit(ANYWHERE))}


@dataclass(frozen=True)
class Proposed:
    """What a channel said, once for all cells."""

    found: pl.DataFrame
    """As `newsrec.recall.Channel.recall` gives it, `DEPTHS[-1]` articles per request at most."""
    fit_seconds: float
    recall_seconds: float

    def recall(self, _: RecallRequests) -> pl.DataFrame:
        """The same again."""
        return self.found

    def between(self, low: int, high: int) -> "Proposed":
        """Of these requests only, counted from `low`."""
        rows = self.found.filter(pl.col("row").is_between(low, high, closed="left"))
        return replace(self, found=rows.with_columns(pl.col("row") - pl.lit(low, pl.UInt32)))


@dataclass(frozen=True)
class RecallMaterial:
    """What every channel proposes for the test requests."""

    log: Log
    split: Split
    requests: RecallRequests
    proposed: Mapping[str, Proposed]

    @classmethod
    def of(cls, config: ExperimentConfig, tell: Progress) -> Self:
        """Read, divide, and ask every channel that can work on the log."""
        _, log, store, split = divided(replace(config, candidates="recall"))
        requests = RecallRequests.of(split.part("test"), store)
        proposed = {}
        names = working(store, tell.say)
        with tell.stage("channels", len(names)) as step:
            for name in names:
                began = time.perf_counter()
                channel = CHANNELS[name]().fit(store, RecallSettings(depth=max(DEPTHS)))
                fitted = time.perf_counter()
                found = channel.recall(requests)
                proposed[name] = Proposed(found, fitted - began, time.perf_counter() - fitted)
                step(1)
        return cls(log, split, requests, proposed)

    @property
    def counts(self) -> dict[str, int]:
        """Articles of the log."""
        return {"articles": self.requests.store.n_items}

    @property
    def protocol(self) -> dict[str, Any]:
        """Of every figure."""
        return {**self.split.protocol, "candidates": f"recall, {max(DEPTHS)} per channel at most, no ranker"}

    def can(self, cell: RecallCell, say: Callable[[str], None]) -> bool:
        """Whether the log has what the cell's channels need; `of` has told of those that it has not."""
        named = {*cell.only, *cell.without}
        return named <= set(self.proposed)

    def channels(self, cell: RecallCell) -> dict[str, Proposed]:
        """Of a cell, in the order of `CHANNELS`."""
        return {
            name: each
            for name, each in self.proposed.items()
            if name not in cell.without and (name in cell.only or not cell.only)
        }


def run_cell(material: RecallMaterial, cell: RecallCell) -> tuple[dict[str, Any], pl.DataFrame]:
    """Merge and measure.

    Returns:
        Figures for JSON, and `newsrec.metrics.per_request` with `HITS`.
    """
    channels = material.channels(cell)
    quotas = {} if cell.quota is None else dict.fromkeys(channels, cell.quota)
    found = _hits(material, channels, MergeConfig(quotas=quotas))
    alone = {}
    if len(cell.only) == 1:
        best = _hits(material, {name: each for name, each in material.proposed.items() if name not in cell.only})
        alone = {f"alone@{k}": float(((found[f"hit@{k}"] == 1) & (best[CEILING] == 0)).mean()) for k in DEPTHS}  # type: ignore[arg-type]
    return {
        **cell.facts(),
        "figures": summarise(found, HITS),
        "articles": float(found["n_candidates"].mean()),  # type: ignore[arg-type]
        "fit_seconds": sum(each.fit_seconds for each in channels.values()),
        "recall_seconds": sum(each.recall_seconds for each in channels.values()),
        **alone,
    }, found


def _hits(material: RecallMaterial, channels: Mapping[str, Proposed], merge: MergeConfig = ALIKE) -> pl.DataFrame:
    """`HITS` of the merged list, per request."""
    requests, found = material.requests, []
    for low in range(0, len(requests.at), CHUNK):
        chunk = requests.rows(np.arange(low, min(low + CHUNK, len(requests.at))))
        of_chunk = {name: each.between(low, low + CHUNK) for name, each in channels.items()}
        merged = propose(of_chunk, chunk, requests.store.items, merge)  # type: ignore[arg-type]
        scored = merged.select("request_id", "item_id", score=-pl.col("recall_rank").cast(pl.Float32))
        found.append(per_request(label(scored, material.split.positives), chunk.frame, HITS))
    return pl.concat(found)


def table_of(cells: Sequence[RecallCell], seeds: range, baseline: RecallCell, kept: Kept) -> pl.DataFrame:
    """Lay the cells out.

    Returns:
        One row per cell: `channels, quota, articles` (per request); for each of `HITS` the value, its `_gain` over the
        default channels and the ends `_low`, `_high` of the paired 95 % interval (users drawn); `alone@k`: requests
        whose click one channel has among its first k and no other has at all; `fit_seconds, recall_seconds`.
    """
    first = kept.per_request(baseline.key)
    rows = []
    for cell in cells:
        told = kept.figures(cell.key)
        differences = paired_comparison(first, kept.per_request(cell.key), {}, {}, metrics=HITS)
        row: dict[str, Any] = {**cell.facts(), "articles": told["articles"]}
        for name, d in differences.items():
            row |= {name: d.second, f"{name}_gain": d.difference, f"{name}_low": d.low, f"{name}_high": d.high}
        row |= {f"alone@{k}": told.get(f"alone@{k}") for k in DEPTHS}
        rows.append(row | {name: told[name] for name in ("fit_seconds", "recall_seconds")})
    return pl.DataFrame(rows, infer_schema_length=None)
