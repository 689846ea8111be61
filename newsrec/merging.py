"""How much each recall channel counts in the merged list, learned on requests whose clicks are known.

A channel's weight multiplies its part of the reciprocal rank fusion (`newsrec.candidates`). One weight after the other
is set to the factor of a short grid that finds the most clicks among the first of the list, until none helps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import polars as pl

from features.windows import Ints
from newsrec.assembly import Assembly
from newsrec.candidates import FUSION_OFFSET, MergeConfig, label
from newsrec.progress import Progress

MERGES: Final = ("equal", "learned")
REQUESTS: Final = 4_000
"""Requests that weights are learned on at most; drawn evenly over time."""
FACTORS: Final = (0.125, 0.25, 0.5, 2.0, 4.0, 8.0)
ROUNDS: Final = 5
LEAST_GAIN: Final = 1e-3
"""Share of the requests that a step must gain; less is luck."""


@dataclass(frozen=True)
class Votes:
    """What each channel says of each proposed article, and where the clicks are."""

    parts: np.ndarray
    """Reciprocal rank of each channel, 0 where it did not propose the article, shape (n_rows, n_channels)."""
    request: Ints
    """Request of each row, ascending, shape (n_rows,)."""
    clicked: np.ndarray
    """Whether a row was clicked, shape (n_rows,)."""
    n_requests: int

    @classmethod
    def of(cls, proposed: pl.DataFrame, channels: list[str], n_requests: int) -> Self:
        """From labelled rows with `request_id` and `<channel>_rank`; requests without a click among them are let go."""
        found = proposed.filter((pl.col("label") == 1).any().over("request_id"))
        ranks = found.select(pl.col(f"{name}_rank").cast(pl.Float64).fill_null(np.inf) for name in channels)
        request = found["request_id"].rle_id().to_numpy().astype(np.int64)
        return cls(1.0 / (FUSION_OFFSET + ranks.to_numpy()), request, found["label"].to_numpy() == 1, n_requests)

    def hit_rate(self, weights: np.ndarray, depth: int) -> float:
        """hit@depth of the merged list, misses included; ties count against the click."""
        fused = self.parts @ weights
        best = np.full(int(self.request[-1]) + 1 if len(self.request) else 0, -np.inf)
        np.maximum.at(best, self.request[self.clicked], fused[self.clicked])
        before = np.bincount(self.request, weights=~self.clicked & (fused >= best[self.request]), minlength=len(best))
        return float((before < depth).sum() / max(self.n_requests, 1))


def learned(assembly: Assembly, requests: pl.DataFrame, positives: pl.DataFrame, tell: Progress) -> MergeConfig:
    """The assembly's merge with learned weights; all 1 where no other find more.

    Args:
        assembly: With fitted channels and the length of lists.
        requests: Whose clicks are known and that no score is reported on: those of validation.
        positives: `request_id, item_id` of the clicks.
        tell: Told of the stage and of what it found.
    """
    channels = list(assembly.channels)
    every = max(1, -(-len(requests) // REQUESTS))
    asked = requests.sort("requested_at", maintain_order=True).gather_every(every)
    rows = []
    with tell.stage("merge", len(asked)) as step:
        for chunk, lists in assembly.recalled(asked):
            rows.append(label(lists, positives))
            step(len(chunk))
    votes = Votes.of(pl.concat(rows), channels, len(asked))
    weights, hits = climbed(votes, assembly.list_length)
    found = dict(zip(channels, weights.tolist(), strict=True))
    told = ", ".join(f"{name} {weight:g}" for name, weight in found.items())
    before = votes.hit_rate(np.ones(len(channels)), assembly.list_length)
    tell.say(f"merge: hit@{assembly.list_length} {before:.4f} of equal weights, {hits:.4f} of {told}")
    return replace(assembly.merge, weights=_told(found))


def climbed(votes: Votes, depth: int) -> tuple[np.ndarray, float]:
    """Weights of shape (n_channels,), and their hit@depth."""
    weights = np.ones(votes.parts.shape[1])
    best = votes.hit_rate(weights, depth)
    for _ in range(ROUNDS):
        before = best
        for channel in range(len(weights)):
            tried = np.repeat(weights[None], len(FACTORS), axis=0)
            tried[:, channel] *= FACTORS
            hits = [votes.hit_rate(each, depth) for each in tried]
            if max(hits) >= best + LEAST_GAIN:
                best, weights = max(hits), tried[int(np.argmax(hits))]
        if best == before:
            break
    return weights, best


def _told(weights: Mapping[str, float]) -> dict[str, float]:
    """Without those that are 1."""
    return {name: weight for name, weight in weights.items() if weight != 1.0}
