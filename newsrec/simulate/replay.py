"""What a policy truly earns on the simulated log: readers are asked again, with another article on top."""

from typing import Final

import numpy as np
import polars as pl

from newsrec.errors import DataError
from newsrec.frames import to_polars
from newsrec.simulate.clicks import click_chances, examination
from newsrec.simulate.frames import Simulation
from newsrec.simulate.world import Floats, Ints

DRAWS: Final = 16
"""Random orders of the rest of a list that the chance of a click is averaged over."""


def true_click_rate(simulation: Simulation, first: object, draws: int = DRAWS, seed: int = 0) -> pl.DataFrame:
    """The chance that anything in a list is clicked if a policy chooses the article on top and chance orders the rest.

    No click is drawn: the chance is that of the readers' own choice, at the moments and with the lists of the log.

    Args:
        simulation: A log with its truth.
        first: Polars or pandas, what the policy puts on top: `request_id, item_id`, one row per request that it is
            asked for; all requests for a policy's true value.
        draws: Orders of the rest, >= 1.
        seed: Of the orders.

    Returns:
        `request_id, click_probability` (Float64, 0..1), in the order of the lists.

    Raises:
        DataError: An article that was not in the request's list.
    """
    chosen = to_polars(first, "first").select("request_id", "item_id", pl.lit(True).alias("first"))
    exposures = simulation.truth.exposures.join(chosen.select("request_id"), on="request_id", how="semi")
    rows = exposures.join(chosen, on=["request_id", "item_id"], how="left", maintain_order="left")
    on_top = rows["first"].fill_null(False).to_numpy()
    if on_top.sum() != len(chosen):
        raise DataError(
            f"first: expected one article of each request's own list, found {len(chosen) - int(on_top.sum())} of "
            f"{len(chosen)} that were not in it. Choose among what was shown."
        )
    request = rows["request_id"].rle_id().to_numpy()
    worth = np.exp(rows["utility"].to_numpy().astype(np.float64))
    rng = np.random.default_rng(seed)
    chance = np.mean([_chance(rng, request, on_top, worth) for _ in range(draws)], axis=0)
    return rows.select(pl.col("request_id").unique(maintain_order=True)).with_columns(click_probability=chance)


def _chance(rng: np.random.Generator, request: Ints, on_top: np.ndarray, worth: Floats) -> Floats:
    """Chance of a click in each list under one order; (n_requests,)."""
    order = np.lexsort((rng.random(len(request)), ~on_top, request))
    starts = np.flatnonzero(np.diff(request, prepend=-1))
    position = 1 + np.arange(len(request)) - starts[request]  # rows of a list stand together before and after
    return click_chances(np.add.reduceat(examination(position) * worth[order], starts))
