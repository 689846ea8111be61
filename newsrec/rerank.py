"""Stage 7 where it is used: the network of a bundle orders the top of each list again. onnxruntime only, never torch.

The final score of the first `top` candidates blends the ranker's score with the network's; what lies below stays.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from features.events import EventStore
from features.windows import Ints
from newsrec.errors import BundleError
from newsrec.sessions import open_session
from newsrec.tensors import DENSE, Fields, Floats, Lists, batches, lists_of, padded

MODEL_FILE: Final = "reranker.onnx"
SIGNATURE_FILE: Final = "reranker.signature.json"
OUTPUT: Final = "probability"
BATCH: Final = 256
KINDS: Final = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(string)": "string"}
LEAST_PROBABILITY: Final = 1e-7


@dataclass(frozen=True)
class Blend:
    """Final score = (1 - weight) * ranker's score / its spread + weight * network's log-odds / their spread."""

    weight: float
    """Of the network, 0..1: 0 leaves the ranker's order, 1 is the network's alone."""
    ranker_spread: float
    """Standard deviation inside the tops of validation lists, > 0."""
    network_spread: float
    """The same of the network's log-odds, > 0."""

    def scores(self, ranker: npt.NDArray[Any], network: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Blend scores and log-odds; shape kept."""
        of_ranker, of_network = ranker / self.ranker_spread, network / self.network_spread
        blended: npt.NDArray[np.float64] = (1 - self.weight) * of_ranker + self.weight * of_network
        return blended


@dataclass(frozen=True)
class RerankSettings:
    """What the manifest keeps of a reranker."""

    name: str
    """Name in `newsrec.rerankers.RERANKERS`, or file and name of an own network."""
    on: bool
    """Whether the bundle's final order is the blend; else it is the ranker's."""
    top: int
    """Candidates per request that are ordered again, >= 2."""
    history: int
    """Clicks per request at most that the network reads, >= 1."""
    blend: Blend
    fields: Fields
    sha256: str = ""
    """Of the file of an own network; empty for ours."""

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read what `facts` gave.

        Raises:
            BundleError: Something is missing or unknown.
        """
        try:
            given = dict(facts)
            fields = given.pop("fields")
            known = Fields(tuple(fields["dense"]), dict(fields["ids"]), tuple(fields["numbers"]))
            return cls(**{**given, "blend": Blend(**given["blend"]), "fields": known})
        except (KeyError, TypeError) as error:
            raise BundleError(f"manifest: expected a whole entry 'reranker', found a fault ({error}).") from error


class Reranker:
    """A network in onnxruntime with its settings."""

    def __init__(self, settings: RerankSettings, model: bytes) -> None:
        self.settings = settings
        self._session = open_session(model, MODEL_FILE)

    @classmethod
    def load(cls, folder: Path, facts: Mapping[str, Any]) -> Self:
        """Read the files of a bundle whose hashes were checked.

        Raises:
            BundleError: The network's inputs are not those of its signature and of the manifest.
        """
        settings = RerankSettings.of(facts)
        reranker = cls(settings, (folder / MODEL_FILE).read_bytes())
        reranker._refuse_other_signature(folder / SIGNATURE_FILE)
        return reranker

    def probabilities(self, lists: Lists) -> Floats:
        """Probability of a click on each candidate, shape (n_rows,), in the order of the rows."""
        found = np.zeros(len(lists.label), np.float32)
        for chosen in batches(lists, BATCH):
            batch = padded(lists, chosen)
            found[batch.rows] = self._session.run([OUTPUT], batch.named())[0]
        return found

    def rescored(
        self, described: pl.DataFrame, scored: pl.DataFrame, requests: pl.DataFrame, store: EventStore
    ) -> pl.DataFrame:
        """Order the top of each list again.

        Args:
            described: Features of the candidates.
            scored: `request_id, item_id, score` (the ranker's), in the same order.
            requests: Canonical requests.
            store: The log.

        Returns:
            One row per candidate, in their order, Float32: `rerank`, the ranker's score below the top and the blend on
            its scale in the top, which stays above; `rerank_alone`, the network's log-odds in the top, and below it
            the ranker's order.
        """
        lists = top_lists(described, scored, requests, store, self.settings)
        if not len(lists):
            return pl.DataFrame(schema={"rerank": pl.Float32, "rerank_alone": pl.Float32})
        place = lists_place(scored, self.settings.top)
        alone = log_odds(self.probabilities(lists))
        rank_score = scored["score"].to_numpy()[place].astype(np.float64)
        blended = self.settings.blend.scores(rank_score, alone) * self.settings.blend.ranker_spread
        return as_columns(scored, place, lists, blended, alone)

    def _refuse_other_signature(self, path: Path) -> None:
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))["inputs"]
            told = {row["name"]: row["dtype"] for row in rows}
            columns = [name for row in rows if row["name"] == DENSE for name in row["columns"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"{path}: expected the network's signature, found none ({error}). Train again."
            ) from error
        inputs = {each.name: each for each in self._session.get_inputs()}
        found = {name: KINDS.get(each.type, each.type) for name, each in inputs.items()}
        wanted, fields = self.settings.fields.inputs, self.settings.fields.dense
        if not found == told == wanted:
            raise BundleError(
                f"{path}: expected inputs {wanted}, as the manifest tells, found {told} there and {found} in "
                f"{MODEL_FILE}. Train again."
            )
        if inputs[DENSE].shape[-1] != len(fields) or tuple(columns) != fields:
            raise BundleError(
                f"{path}: expected the {len(fields)} dense columns of the manifest in its order, found {len(columns)} "
                f"there and {inputs[DENSE].shape[-1]} in {MODEL_FILE}. Train again."
            )
        if [each.name for each in self._session.get_outputs()] != [OUTPUT]:
            raise BundleError(
                f"{path.with_name(MODEL_FILE)}: expected one output '{OUTPUT}', found "
                f"{[each.name for each in self._session.get_outputs()]}. Train again."
            )


def lists_place(scored: pl.DataFrame, top: int) -> Ints:
    """Rows of the first `top` candidates of each request, requests in their order, best first; ties by article."""
    ordered = (
        scored.select("request_id", "item_id", "score")
        .with_row_index("place")
        .with_columns(pl.col("request_id").rle_id().alias("run"))
        .sort("run", "score", "item_id", descending=[False, True, False])
    )
    first = ordered.filter(pl.int_range(pl.len()).over("run") < top)
    return first["place"].cast(pl.Int64).to_numpy()


def top_lists(
    described: pl.DataFrame, scored: pl.DataFrame, requests: pl.DataFrame, store: EventStore, settings: RerankSettings
) -> Lists:
    """The tops of all lists as a network reads them; see `Reranker.rescored` and `lists_place`."""
    place = lists_place(scored, settings.top)
    return lists_of(described[place], scored[place], requests, store, settings.fields, settings.history)


def log_odds(probability: Floats) -> npt.NDArray[np.float64]:
    """Of a click; finite also where float32 has rounded to 0 or 1; shape kept."""
    p = np.clip(probability.astype(np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    odds: npt.NDArray[np.float64] = np.log(p) - np.log1p(-p)
    return odds


def as_columns(
    scored: pl.DataFrame, place: Ints, lists: Lists, blended: npt.NDArray[Any], alone: npt.NDArray[Any]
) -> pl.DataFrame:
    """Lay the tops' scores over the ranker's: the worst of a top stands where the ranker's worst of it stood.

    Args:
        scored: `request_id, score` (the ranker's) of all candidates.
        place: Rows of the tops, see `lists_place`.
        lists: The tops.
        blended: Scores of their rows.
        alone: The network's log-odds of their rows.

    Returns:
        `rerank` and `rerank_alone`, see `Reranker.rescored`.
    """
    row, run = lists.row_request, scored["request_id"].rle_id().to_numpy()
    score = scored["score"].cast(pl.Float64).to_numpy()
    floor = _least(score[place], row, len(lists))
    lowest = _least(alone, row, len(lists))
    final, network = score.copy(), score + (lowest - floor)[run]
    final[place] = blended + (floor - _least(blended, row, len(lists)))[row]
    network[place] = alone
    return pl.DataFrame({"rerank": final.astype(np.float32), "rerank_alone": network.astype(np.float32)})


def _least(values: npt.NDArray[Any], row: Ints, n: int) -> npt.NDArray[np.float64]:
    """Least value of each list, shape (n,)."""
    least = np.full(n, np.inf)
    np.minimum.at(least, row, values)
    return least
