"""Two towers in NumPy: what a reader clicked on one side, an article on the other, unit vectors out of both.

An article is f = its own vector + that of its category + its embedding, projected. A reader is the mean x of the last
clicks' f, the newest weighing most, through a layer beside a skip: u = unit(x + relu(x A + a) B + b), as the pooled
history of Covington, Adams & Sargin 2016 ("Deep neural networks for YouTube recommendations", section 3); an article
is v = unit(f + f C + c). The articles clicked by the others of a batch are the negatives, and a frequent one is met
more often than it should be: the loss is softmax of u v / temperature - log q, with q the chance that a place of the
batch holds the article (Yi et al. 2019, "Sampling-bias-corrected neural modeling for large corpus item
recommendations", section 3). Steps are those of AdaGrad.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from features.articles import UNIT
from features.windows import Ints
from newsrec.recall.base import distinct
from newsrec.recall.dense import Floats, product

Vectors = npt.NDArray[np.float32]
Weights = dict[str, Vectors]

FIRST: Final = 0.1
"""AdaGrad's squares begin here, so that first steps are not the largest."""
LARGEST: Final = 15.0
"""Numbers of f beyond it are cut: 16 bits hold no larger ones."""


@dataclass(frozen=True)
class Known:
    """What the towers read of each known article, arrays of shape (n_known, ...)."""

    category: Ints
    """Row in the table of categories."""
    text: Vectors
    """Embedding, of unit length or zeros, (n_known, text_dim); `text_dim` may be 0."""

    def rows(self, chosen: Ints) -> "Known":
        """Only the given ones."""
        return Known(self.category[chosen], self.text[chosen])


@dataclass(frozen=True)
class Batch:
    """Readers with the article that each clicked next."""

    met: Ints
    """Rows of all articles in it, (n_met,)."""
    pool: csr_matrix
    """Weight of each article in each reader's mean, (n, n_met)."""
    column: Ints
    """Distinct clicked articles, as places in `met`, (n_columns,)."""
    own: Ints
    """Which of the columns each reader clicked, (n,)."""
    forbidden: tuple[Ints, Ints]
    """`(reader, column)` of articles that a reader had read before: no negatives."""

    @classmethod
    def of(cls, history: Ints, weight: Vectors, target: Ints) -> "Batch":
        """From rows of articles.

        Args:
            history: (n, last), -1 where there is no click.
            weight: (n, last), 0 where there is no click; the weights of a reader sum to one.
            target: (n,).
        """
        reader, last = np.nonzero(history >= 0)
        before = history[reader, last]
        met, place = distinct(np.concatenate([target, before]))
        clicked, read = place[target], place[before]
        borders = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(reader, minlength=len(target)))])
        pool = csr_matrix((weight[reader, last], read, borders), shape=(len(target), len(met)))
        pool.sum_duplicates()
        column, which = distinct(clicked, len(met))
        clash = which[read] >= 0
        return cls(met, pool, column, which[clicked], (reader[clash], which[read][clash]))


def begun(dim: int, hidden: int, text_dim: int, seed: int) -> Weights:
    """Weights without any article yet; row 0 of `category` is of articles without one."""
    rng, of_text = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    return {
        "article": np.zeros((0, dim), np.float32),
        "category": np.zeros((1, dim), np.float32),
        "text": of_text.normal(0, 1 / np.sqrt(dim), (text_dim, dim)).astype(np.float32),
        "user_in": rng.normal(0, np.sqrt(2 / dim), (dim, hidden)).astype(np.float32),
        "user_in_bias": np.zeros(hidden, np.float32),
        "user_out": rng.normal(0, 0.1 * np.sqrt(2 / hidden), (hidden, dim)).astype(np.float32),
        "user_out_bias": np.zeros(dim, np.float32),
        "item": rng.normal(0, 0.1 / np.sqrt(dim), (dim, dim)).astype(np.float32),
        "item_bias": np.zeros(dim, np.float32),
    }


def objective(
    weights: Mapping[str, Vectors], known: Known, batch: Batch, log_q: Vectors, temperature: float
) -> tuple[float, Weights]:
    """The summed loss of a batch and its gradient.

    Args:
        weights: Of `begun`, with a row per article and category.
        known: Of the articles in `batch.met`.
        batch: Of n readers.
        log_q: Per column, (n_columns,); zeros switch the correction off.
        temperature: Divides cosines, > 0.

    Returns:
        Loss, and the gradient per weight; that of `article` in the order of `batch.met`.
    """
    w = weights
    f = w["article"][batch.met] + w["category"][known.category] + product(known.text, w["text"])  # (met, dim)
    x = batch.pool @ f  # (n, dim)
    inner = np.maximum(product(x, w["user_in"]) + w["user_in_bias"], 0)  # (n, hidden)
    u, u_length = _units(x + product(inner, w["user_out"]) + w["user_out_bias"])  # (n, dim)
    g = f[batch.column]  # (columns, dim)
    v, v_length = _units(g + product(g, w["item"]) + w["item_bias"])
    row, sharp = np.arange(len(u)), np.float32(1 / temperature)
    # A column stands for as many places of the batch as clicked it, but for the reader's own click, which is one.
    often = np.log(np.bincount(batch.own)).astype(np.float32)
    share = product(u * sharp, v.T)  # logits, (n, columns)
    share += often - log_q
    mine = share[row, batch.own] - often[batch.own]
    share[batch.forbidden] = -np.inf
    share[row, batch.own] = mine
    share -= share.max(axis=1, keepdims=True)
    np.exp(share, out=share)
    share /= share.sum(axis=1, keepdims=True)
    loss = -float(np.log(share[row, batch.own]).sum())
    share[row, batch.own] -= 1  # the gradient of the logits
    to_z = _through_units(product(share, v * sharp), u, u_length)  # (n, dim)
    to_y = _through_units(product(share.T, u * sharp), v, v_length)  # (columns, dim)
    to_inner = (product(to_z, w["user_out"].T)) * (inner > 0)
    to_f = batch.pool.T @ (to_z + product(to_inner, w["user_in"].T))
    to_f[batch.column] += to_y + product(to_y, w["item"].T)
    rows = len(batch.met)
    by_category = csr_matrix((np.ones(rows, np.float32), (known.category, np.arange(rows))), (len(w["category"]), rows))
    gradient = {
        "article": to_f,
        "category": by_category @ to_f,
        "text": product(known.text.T, to_f),
        "user_in": product(x.T, to_inner),
        "user_in_bias": to_inner.sum(axis=0),
        "user_out": product(inner.T, to_z),
        "user_out_bias": to_z.sum(axis=0),
        "item": product(g.T, to_y),
        "item_bias": to_y.sum(axis=0),
    }
    return loss, gradient


def descend(weights: Weights, squares: Weights, gradient: Weights, met: Ints, rate: float) -> None:
    """A step of AdaGrad against a gradient, in place; of articles only the met ones."""
    for name, slope in gradient.items():
        rows = met if name == "article" else slice(None)
        square = squares[name][rows] + slope * slope
        squares[name][rows] = square
        weights[name][rows] -= np.float32(rate) * slope / np.sqrt(square)


def item_vectors(weights: Mapping[str, Vectors], known: Known, rows: Ints) -> tuple[Vectors, Vectors]:
    """`(f, v)` of some known articles, both (n_rows, dim)."""
    chosen = known.rows(rows)
    f = weights["article"][rows] + weights["category"][chosen.category] + product(chosen.text, weights["text"])
    return f, _units(f + product(f, weights["item"]) + weights["item_bias"])[0]


@dataclass(frozen=True)
class UserTower:
    """A reader's side in whole numbers of 1 / `UNIT`: one reader gets the bits of many, in NumPy and in ONNX alike."""

    article: npt.NDArray[np.int16]
    """f of each known article, (n_known, dim)."""
    weights: Mapping[str, Floats]
    """`user_in`, `user_out` and their biases; the latter in 1 / `UNIT` ** 2."""
    click: Floats
    """Weight of the newest click, of the one before, ..., in thousandths, (last,)."""

    @classmethod
    def of(cls, weights: Mapping[str, Vectors], article: Vectors, click: Floats) -> "UserTower":
        """Rounded from trained weights, f of some articles, and the weights of clicks."""
        one = {name: UNIT**2 if name.endswith("bias") else UNIT for name in weights if name.startswith("user")}
        rounded = {name: np.rint(weights[name].astype(np.float64) * unit) for name, unit in one.items()}
        return cls(np.rint(np.clip(article, -LARGEST, LARGEST) * UNIT).astype(np.int16), rounded, click)

    def vectors(self, history: Ints) -> Floats:
        """Vectors of length `UNIT` in whole numbers.

        Args:
            history: Rows of the last clicks' articles, newest first, (n, last); -1 where unknown or none.

        Returns:
            (n, dim); zeros for a reader without a known click.
        """
        weight = np.where(history >= 0, self.click, 0.0)
        whole = weight.sum(axis=1, keepdims=True)
        # Sums of whole numbers far below 2 ** 53: exact in any order.
        summed = np.einsum("nl,nld->nd", weight, self.article[history].astype(np.float64))
        x = np.rint(summed / np.maximum(whole, 1))  # (n, dim)
        inner = np.rint(np.maximum(product(x, self.weights["user_in"]) + self.weights["user_in_bias"], 0) / UNIT)
        z = np.rint((product(inner, self.weights["user_out"]) + self.weights["user_out_bias"]) / UNIT) + x
        length = np.sqrt((z * z).sum(axis=1, keepdims=True))
        unit: Floats = np.rint(UNIT * (z / np.maximum(length, 1)))
        return np.where(whole > 0, unit, 0.0)


def _units(z: Vectors) -> tuple[Vectors, Vectors]:
    """Rows at length one, and their lengths (n, 1)."""
    length = np.maximum(np.linalg.norm(z, axis=1, keepdims=True), np.float32(1e-6))
    return z / length, length


def _through_units(slope: Vectors, unit: Vectors, length: Vectors) -> Vectors:
    """The gradient before `_units` from the one behind it."""
    along = np.einsum("ij,ij->i", slope, unit)[:, None]
    result: Vectors = (slope - along * unit) / length
    return result
