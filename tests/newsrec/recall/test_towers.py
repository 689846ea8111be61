"""The towers against a plain in-batch softmax in float64, and a reader's vector in whole numbers."""

import numpy as np
import pytest

from features.articles import UNIT
from newsrec.recall import towers
from newsrec.recall.towers import FIRST, Batch, Known, UserTower, Weights, begun, descend, objective

HISTORY = np.array([[1, 3, -1], [2, 2, 0], [0, -1, -1], [4, 1, 2], [5, -1, -1], [1, 4, -1]])
WEIGHT = np.where(HISTORY >= 0, [4.0, 2.0, 1.0], 0.0)
WEIGHT /= WEIGHT.sum(axis=1, keepdims=True)
TARGET = np.array([0, 3, 3, 0, 2, 3])
"""Articles 0 and 3 are clicked by several; readers 1, 2, 3 and 5 had read what another of the batch clicked."""
TEMPERATURE = 0.4
LOG_Q = np.log([0.4, 0.1, 0.2, 0.3, 0.05, 0.02])


def made(text_dim: int = 4, seed: int = 0) -> tuple[Weights, Known]:
    """Weights of six articles in three categories, all of them away from where they begin."""
    rng = np.random.default_rng(seed)
    weights = begun(3, 5, text_dim, seed)
    weights["article"], weights["category"] = np.zeros((6, 3), np.float32), np.zeros((3, 3), np.float32)
    weights = {name: (w + rng.normal(0, 0.5, w.shape)).astype(np.float32) for name, w in weights.items()}
    text = rng.normal(size=(6, text_dim)).astype(np.float32)
    return weights, Known(np.array([0, 1, 1, 2, 0, 2]), text)


def plain(weights: dict[str, np.ndarray], known: Known) -> float:
    """Every reader against every click of the batch, one place after the other."""
    w = weights
    f = w["article"] + w["category"][known.category] + known.text.astype(np.float64) @ w["text"]
    x = np.array([sum(s * f[i] for s, i in zip(ws, h, strict=True)) for ws, h in zip(WEIGHT, HISTORY, strict=True)])
    z = x + np.maximum(x @ w["user_in"] + w["user_in_bias"], 0) @ w["user_out"] + w["user_out_bias"]
    y = f + f @ w["item"] + w["item_bias"]
    u, v = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (z, y))
    loss = 0.0
    for reader, own in enumerate(TARGET):
        logit = {place: u[reader] @ v[item] / TEMPERATURE - LOG_Q[item] for place, item in enumerate(TARGET)}
        others = [
            logit[place]
            for place, item in enumerate(TARGET)
            if item != own and item not in HISTORY[reader]  # hits by accident, and what was read
        ]
        loss += np.log(np.exp([logit[reader], *others]).sum()) - logit[reader]
    return float(loss)


def whole_batch() -> Batch:
    return Batch.of(HISTORY, WEIGHT.astype(np.float32), TARGET)


def found(weights: Weights, known: Known) -> tuple[float, Weights]:
    batch = whole_batch()
    log_q = LOG_Q[batch.met[batch.column]].astype(np.float32)
    return objective(weights, known.rows(batch.met), batch, log_q, TEMPERATURE)


@pytest.mark.parametrize("text_dim", [0, 4])
def test_loss_and_gradient_are_those_of_a_plain_softmax(text_dim: int) -> None:
    weights, known = made(text_dim)
    loss, slope = found(weights, known)
    assert loss == pytest.approx(plain({n: w.astype(np.float64) for n, w in weights.items()}, known), rel=1e-5)
    assert whole_batch().met.tolist() == list(range(6))
    for name, values in weights.items():
        for place in np.ndindex(values.shape):
            sides = []
            for step in (1e-5, -1e-5):
                moved = {n: w.astype(np.float64) for n, w in weights.items()}
                moved[name][place] += step
                sides.append(plain(moved, known))
            assert slope[name][place] == pytest.approx((sides[0] - sides[1]) / 2e-5, abs=2e-4), (name, place)


def test_step_goes_down_and_leaves_articles_alone_that_it_did_not_meet() -> None:
    weights, known = made()
    weights["article"] = np.vstack([weights["article"], np.ones((1, 3), np.float32)])
    squares = {name: np.full_like(w, FIRST) for name, w in weights.items()}
    before, slope = found(weights, known)
    old = {name: w.copy() for name, w in weights.items()}
    descend(weights, squares, slope, whole_batch().met, 0.01)
    assert found(weights, known)[0] < before
    assert (weights["article"][6] == 1).all()
    wanted = old["item"] - 0.01 * slope["item"] / np.sqrt(FIRST + slope["item"] ** 2)
    np.testing.assert_allclose(weights["item"], wanted, rtol=1e-5)


class TestUserTower:
    def tower(self) -> UserTower:
        weights, known = made()
        f, _ = towers.item_vectors(weights, known, np.arange(6))
        return UserTower.of(weights, f, np.array([1_000.0, 500.0, 250.0]))

    def test_is_the_readers_side_that_was_trained(self) -> None:
        weights, known = made()
        f, _ = towers.item_vectors(weights, known, np.arange(6))
        x = np.einsum("nl,nld->nd", WEIGHT, f[HISTORY])
        z = x + np.maximum(x @ weights["user_in"] + weights["user_in_bias"], 0) @ weights["user_out"]
        z += weights["user_out_bias"]
        unit = z / np.linalg.norm(z, axis=1, keepdims=True)
        np.testing.assert_allclose(self.tower().vectors(HISTORY) / UNIT, unit, atol=0.005)

    def test_one_reader_gets_the_bits_of_many(self) -> None:
        tower, rng = self.tower(), np.random.default_rng(1)
        history = rng.integers(-1, 6, (500, 3))
        whole = tower.vectors(history)
        assert all((tower.vectors(history[i : i + 1]) == whole[i]).all() for i in range(500))

    def test_reader_without_a_known_click_is_nowhere(self) -> None:
        found = self.tower().vectors(np.array([[-1, -1, -1], [-1, -1, 2]]))
        assert not found[0].any()
        assert found[1].any()

    def test_numbers_too_large_for_sixteen_bits_are_cut(self) -> None:
        weights, _ = made()
        tower = UserTower.of(weights, np.array([[1e9, -1e9, 1.0]], np.float32), np.ones(1))
        assert tower.article.tolist() == [[15 * UNIT, -15 * UNIT, UNIT]]
