"""What no poison can show: an attribute that was filled in afterwards, such as an article's clicks of the whole log.

Each feature is asked how well it alone orders a request's articles, at the true time and at shuffled times, and each
static column what it says of an article's future clicks beyond what its past clicks and its age say. An own column of
the request orders nothing by itself; only the features made with it are asked.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from features.articles import GROUPS
from features.catalog import FACTS, Feature
from features.events import NEVER, EventStore, milliseconds
from features.own_columns import is_own
from newsrec.audit.material import Material, Sample, at_moments

Floats = npt.NDArray[np.float64]

CORRELATION_LIMIT: Final = 0.4
"""Partial rank correlation with future clicks from which a static column is suspicious: it then explains a sixth of
their variance that past clicks and age leave open. The strongest honest column has 0.18 on the simulated log (the
category) and 0.27 on the Globo log (the creation time); the clicks of the whole log, as a column, have 0.62 and 0.57,
0.68 on EB-NeRD and 0.79 on MIND."""
AUC_LIMIT: Final = 0.97
"""AUC of one static column inside a request from which it is suspicious, whatever it correlates with: whole
rankers stay below that on public news logs."""
FEW_ARTICLES: Final = 30
"""Below so many articles a correlation says nothing."""
STATIC_FACTS: Final = frozenset({"created_ms", "words"})
"""Facts of the catalogue that are attributes as they stand."""


def single_aucs(described: pl.DataFrame, candidates: pl.DataFrame) -> dict[str, float]:
    """How well each column alone orders the clicked above the others: mean AUC inside the requests, null lowest.

    Args:
        described: One row per candidate; every request holds a clicked and another article.
        candidates: `request_id, label` of the same rows.

    Returns:
        Name -> AUC, 0..1; below 0.5 the smaller values are the clicked ones. Ties count half (Mann and Whitney 1947).
    """
    names = described.columns
    filled = described.with_columns(pl.all().cast(pl.Float64).fill_null(-np.inf))
    ranks = filled.with_columns(candidates["request_id"].alias("__request"), candidates["label"].alias("__label"))
    ranked = ranks.with_columns(pl.col(name).rank("average").over("__request") for name in names)
    clicked = pl.col("__label").sum().cast(pl.Float64)
    pairs = clicked * (pl.len() - clicked)
    area = [((pl.col(name) * pl.col("__label")).sum() - clicked * (clicked + 1) / 2) / pairs for name in names]
    by_request = ranked.group_by("__request", maintain_order=True).agg(
        e.alias(n) for e, n in zip(area, names, strict=True)
    )
    return {name: float(value) for name, value in by_request.select(pl.col(names).mean()).row(0, named=True).items()}


def shuffled_aucs(material: Material) -> dict[str, float]:
    """The same where the request times are shuffled: what is left of an AUC is static, or knows the future.

    Only requests that moved to an earlier time count: moved later, they know their own answers.
    """
    sample = material.sample
    true = milliseconds(sample.requests["requested_at"])
    moved = true[np.random.default_rng([material.seed, 4]).permutation(len(true))]
    earlier = np.flatnonzero(moved < true)
    if not len(earlier):
        return {}
    requests = at_moments(sample.requests[earlier], moved[earlier])
    candidates = sample.candidates.join(
        requests.select("request_id"), on="request_id", how="semi", maintain_order="left"
    )
    return single_aucs(material.described_at(requests, candidates), candidates)


def static_features(features: Sequence[Feature]) -> list[Feature]:
    """Features that read an attribute of articles, or an own column, as it stands."""
    return [f for f in features if any(is_own(root) or root in STATIC_FACTS for root in f.roots)]


def future_correlations(material: Material) -> dict[str, float]:
    """Partial rank correlation of each static column with its article's future clicks, given past clicks and age.

    Returns:
        Name of each static feature, and `articles.<column>` for each column of articles behind a feature -> -1..1.
    """
    sample, store = material.sample, material.store
    target, controls, item = future_of(sample, store)
    request = sample.candidates["request_id"].to_numpy()
    if len(np.unique(item)) < FEW_ARTICLES:
        return {}
    known: dict[str, Floats] = {f.name: _filled(sample.described[f.name]) for f in static_features(material.features)}
    for name in columns_behind(material.features):
        values = store.article_column(name)
        if values is not None:
            known[f"articles.{name}"] = learned(values.gather(pl.Series(item)), ranks(target, request), item)
    return {name: partial_rank_correlation(values, target, controls, request) for name, values in known.items()}


def columns_behind(features: Sequence[Feature]) -> list[str]:
    """Columns of articles that the catalogue's facts are made of."""
    facts = frozenset[str]().union(*(f.roots for f in features))
    needs = {need for group in FACTS if facts & set(group.names) for need in group.needs}
    return sorted(need.split(".")[1] for need in needs if need.startswith("articles."))


def future_of(sample: Sample, store: EventStore) -> tuple[Floats, Mapping[str, Floats], npt.NDArray[np.int64]]:
    """Clicks from the request on of each candidate, its past clicks and age (hours), its code; shape (n_rows,)."""
    at = sample.candidates.select("request_id").join(
        sample.requests.select("request_id", "requested_at"), on="request_id", maintain_order="left"
    )
    moment, item = milliseconds(at["requested_at"]), store.item_codes(sample.candidates["item_id"])
    past = store.index("item").counts(item, moment, (None,))[0]
    total = np.bincount(store.tables["clicks"]["item"], minlength=store.n_items)[item]
    exists = store.exists_from[item]
    age = np.where(exists == NEVER, 0.0, (moment - np.where(exists == NEVER, 0, exists)) / 3_600_000)
    return (total - past).astype(np.float64), {"past": past.astype(np.float64), "age": age}, item


def partial_rank_correlation(
    x: Floats, y: Floats, controls: Mapping[str, Floats], group: npt.NDArray[np.int64]
) -> float:
    """Spearman correlation of x and y once the ranks of the controls, squared and multiplied too, are taken out.

    Ranks are those inside a group (a request): the later a request, the less of the future is in the log. Near 0 where
    x is a function of the controls. Source: Conover, Practical Nonparametric Statistics, 1999, section 5.4.
    """
    parts = [ranks(values, group) for values in controls.values()]
    products = [a * b for i, a in enumerate(parts) for b in parts[i:]]
    design = np.column_stack([np.ones(len(x)), *parts, *products])
    left, right = (_left_over(design, ranks(values, group)) for values in (x, y))
    if left is None or right is None:
        return 0.0
    return float(left @ right / np.sqrt((left @ left) * (right @ right)))


def _left_over(design: Floats, values: Floats) -> Floats | None:
    """What a least-squares fit leaves of centred values; None where that is next to nothing."""
    fitted, *_ = np.linalg.lstsq(design, values, rcond=None)
    rest: Floats = values - design @ fitted
    # A hundredth of the variance is what curved functions of the controls leave.
    return None if rest @ rest <= 0.01 * (values @ values) else rest


def ranks(values: Floats, group: npt.NDArray[np.int64]) -> Floats:
    """Ranks inside each group, ties averaged, from -1 to 1 around 0; shape kept.

    >>> ranks(np.array([5.0, 7.0, 9.0, 9.0]), np.array([1, 1, 2, 2])).tolist()
    [-0.5, 0.5, 0.0, 0.0]
    """
    frame = pl.DataFrame({"value": values, "group": group})
    centred = 2 * pl.col("value").rank("average") - pl.len() - 1
    return np.asarray(frame.select((centred / pl.len()).over("group")).to_series().to_numpy())


def learned(values: pl.Series, target: Floats, item: npt.NDArray[np.int64]) -> Floats:
    """A column as one number per row: itself, or what it tells of the target, learned on the other articles."""
    ordered = values.dtype.is_numeric() or values.dtype.is_temporal() or values.dtype == pl.Boolean
    if ordered and values.name not in GROUPS:  # the numbers of a category are names
        return _filled(values.to_physical())
    guess = np.zeros(len(target))
    for half in (0, 1):
        of, other = item % 2 == half, item % 2 != half
        guess[of] = _told_by(values.filter(pl.Series(other)), target[other], values.filter(pl.Series(of)))
    return guess


def _told_by(known: pl.Series, target: Floats, asked: pl.Series) -> Floats:
    if isinstance(known.dtype, pl.Array):
        return _ridge(_vectors(known), target, _vectors(asked))
    means = (
        pl.DataFrame({"value": known, "target": target})
        .group_by("value", maintain_order=True)
        .agg(pl.col("target").mean())
    )
    joined = asked.to_frame("value").join(means, on="value", how="left", maintain_order="left", nulls_equal=True)
    return np.asarray(joined["target"].fill_null(float(target.mean()) if len(target) else 0.0).to_numpy())


def _ridge(known: Floats, target: Floats, asked: Floats) -> Floats:
    if not len(known):
        return np.zeros(len(asked))
    penalty = 1e-3 * len(known) * np.eye(known.shape[1])
    weights = np.linalg.solve(known.T @ known + penalty, known.T @ target)
    return np.asarray(asked @ weights)


def _vectors(column: pl.Series) -> Floats:
    """Vectors of length 1, zeros where unknown; shape (n_rows, dim)."""
    width = column.dtype.size  # type: ignore[attr-defined]
    zero = pl.lit([0.0] * width, dtype=pl.Array(pl.Float64, width))
    filled = column.to_frame("v").select(pl.col("v").cast(pl.Array(pl.Float64, width)).fill_null(zero))["v"]
    vectors = filled.to_numpy()
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0))


def _filled(column: pl.Series) -> Floats:
    """Numbers, the unknown below all."""
    values = column.cast(pl.Float64)
    lowest = float(values.min() or 0.0) - 1.0  # type: ignore[arg-type]
    return np.asarray(values.fill_null(lowest).to_numpy())
