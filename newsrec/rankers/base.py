"""What every ranker is: described candidates of requests go in, one score per candidate comes out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from newsrec.rankers.trees import Trees

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RankingData:
    """Rows to fit on; rows of one request stand together.

    `features`: one Float32 column per feature; `label` (UInt8, 1 clicked), `request` (Int64) and `weight` (float, > 0,
    one by its sampling probability) of shape (n_rows,).
    """

    features: pl.DataFrame
    label: npt.NDArray[Any]
    request: npt.NDArray[Any]
    weight: npt.NDArray[Any]
    place: npt.NDArray[Any] | None = None
    """Where each row was shown, 1 is the top and 0 nowhere, (n_rows,) integers; None where nobody asked."""

    @classmethod
    def empty(cls, names: Sequence[str]) -> Self:
        """No rows."""
        none = np.zeros(0)
        return cls(pl.DataFrame(schema=dict.fromkeys(names, pl.Float32)), none.astype(np.uint8), none, none)

    @classmethod
    def concat(cls, parts: Sequence["RankingData"]) -> Self:
        """One after the other; no request may be in two of them. The parts' frames are shared, not copied."""
        return cls(
            pl.concat([part.features for part in parts], rechunk=False),
            np.concatenate([part.label for part in parts]),
            np.concatenate([part.request for part in parts]),
            np.concatenate([part.weight for part in parts]),
            None if any(part.place is None for part in parts) else np.concatenate([part.place for part in parts]),
        )

    def take(self, rows: npt.NDArray[Any]) -> Self:
        """Some rows: a Boolean per row, or their numbers, ascending."""
        features = self.features.filter(rows) if rows.dtype == np.bool_ else self.features[rows]
        place = None if self.place is None else self.place[rows]
        return type(self)(features, self.label[rows], self.request[rows], self.weight[rows], place)

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Fitting:
    """What fitting told: learning curves and what the model looks at."""

    metric: str = ""
    train: tuple[float, ...] = ()
    """The metric per iteration on a sample of the training lists (with sampled negatives: higher by construction)."""
    valid: tuple[float, ...] = ()
    best_iteration: int = 0
    importance: tuple[dict[str, Any], ...] = field(default=())
    """`feature`, `gain` (share, 0..1) and `splits`, the largest gain first."""


class Ranker(Protocol):
    """One ranking model. Constructed with its own parameters only."""

    fitting: Fitting

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Self:
        """Make one from named parameters, the defaults filling in.

        Raises:
            UsageError: An unknown name, or a value out of range.
        """
        ...

    @property
    def gives_probabilities(self) -> bool:
        """Whether scores are click probabilities of the training distribution, so that logloss means something."""
        ...

    @property
    def trees(self) -> tuple[Trees, ...]:
        """The models whose scores are averaged, each as trees; where scores are probabilities, the sum's sigmoid is."""
        ...

    def fit(
        self,
        train: RankingData,
        valid: RankingData | None,
        *,
        categorical: Sequence[str] = (),
        seed: int = 0,
        on_iteration: Callable[[], None] = lambda: None,
    ) -> Self:
        """Fit on `train`; with `valid`, stop when it no longer improves; without, use all iterations.

        Raises:
            DataError: Rows that cannot be learned from: none, one class only, or columns of another kind than Float32.
        """
        ...

    def refit(self, data: RankingData, *, categorical: Sequence[str] = (), seed: int = 0, share: float = 1.0) -> Self:
        """A new model on other rows with what validation chose.

        Args:
            data: The rows.
            categorical: As for `fit`.
            seed: As for `fit`.
            share: How many they are of those that this model was fitted on, 0..1: of fewer, smaller trees are made.
        """
        ...

    def score(self, features: pl.DataFrame) -> Scores:
        """Shape (n_rows,), in the order of the rows, finite, higher is better.

        Raises:
            BundleError: The columns are not the ones of the fit, in its order.
        """
        ...

    def contributions(self, features: pl.DataFrame) -> npt.NDArray[np.float64]:
        """What each feature added to each score: shape (n_rows, n_features); the rest of a score is a constant."""
        ...

    def save(self, folder: Path) -> None:
        """Write the model and its parameters as files into an existing folder."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. The caller has checked the files' hashes: damaged bytes may abort the process."""
        ...
