"""SIM by hand: what its searches find, and an interest that lies behind the clicks that other networks read."""

from pathlib import Path

import numpy as np
import pytest
import torch

from newsrec.errors import UsageError
from newsrec.neural.export import export_network, probabilities
from newsrec.neural.model import Model
from newsrec.neural.parity import random_batch
from newsrec.neural.signature import ATOL, RTOL
from newsrec.neural.trainer import TrainerConfig, fit
from newsrec.rerankers import history_of, make
from newsrec.rerankers.base import Shape
from newsrec.rerankers.sim import Sim, SimParams, nearest, same_category
from newsrec.sessions import open_session
from tests.networks import SHAPE, fields_of, long_ago, vocabulary_of


def test_hard_search_finds_clicks_of_the_category() -> None:
    target = torch.tensor([[[9, 1], [8, 2], [7, 0]]])
    history, mask = torch.tensor([[[9, 2], [8, 1], [7, 1], [6, 0], [5, 1]]]), torch.tensor([[1.0, 1, 1, 1, 0]])
    wanted = [[0, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]  # an unknown category is like no other
    assert same_category(target, history, mask)[0].tolist() == wanted


def test_soft_search_finds_the_nearest() -> None:
    clicks = torch.linspace(-1, 1, 80)[None, :, None].expand(1, 80, 2)
    mask = torch.ones(1, 80)
    mask[:, 75:] = 0
    found = nearest(torch.tensor([[[1.0, 1], [-1, -1]]]), clicks, mask)
    assert found.sum(dim=-1).tolist() == [[50, 50]]
    assert found[0, 0, 25:75].all()
    assert found[0, 1, :50].all()
    assert nearest(torch.ones(1, 1, 2), clicks[:, :3], mask[:, :3]).tolist() == [[[1, 1, 1]]]


def test_exact_search_is_a_softmax_over_what_was_found() -> None:
    torch.manual_seed(0)
    net = Sim(SHAPE, SimParams(heads=1)).eval()
    candidate, clicks = torch.randn(1, 1, net.embed.width), torch.randn(1, 3, net.embed.width + 2)
    found = net._exact(candidate, clicks, torch.tensor([[[1.0, 0, 1]]]))[0, 0]
    scores = (net.of_click(clicks) @ net.of_candidate(candidate)[0, 0])[0, [0, 2]] * net.scale
    torch.testing.assert_close(found, torch.softmax(scores, 0) @ clicks[0, [0, 2]])
    assert not net._exact(candidate, clicks, torch.zeros(1, 1, 3)).any()


@pytest.mark.parametrize(
    ("search", "sizes", "hard"), [("auto", (5, 3), True), ("auto", (5,), False), ("soft", (5, 3), False)]
)
def test_search_is_soft_where_articles_have_no_category(search: str, sizes: tuple[int, ...], hard: bool) -> None:
    net = Sim(Shape(1, sizes, 1), SimParams(search=search)).eval()
    assert net.hard == hard
    codes = torch.ones(1, 3, len(sizes), dtype=torch.long)
    logits = net(torch.zeros(1, 3, 1), codes, codes, torch.zeros(1, 3, 1), torch.ones(1, 3))
    assert logits.isfinite().all()


def test_a_hard_search_without_categories_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match=r"expected articles with a category for the hard search, found none.*'soft'"):
        make("sim", Shape(1, (5,), 1), {"search": "hard"})
    with pytest.raises(UsageError, match=r"search of \['auto', 'hard', 'soft'\], found 'long'"):
        SimParams(search="long")


def test_histories_longer_than_the_export_saw_score_as_in_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, vocabulary, fields = Model(make("sim", SHAPE, {"search": "soft"}), 3, 2), vocabulary_of(), fields_of()
    rng = np.random.default_rng(0)
    export_network(
        model, vocabulary, fields, random_batch(vocabulary, fields, (1, 2, 2), rng), tmp_path / "sim.onnx", {}
    )
    session = open_session((tmp_path / "sim.onnx").read_bytes())
    for size in ((1, 5, 51), (2, 3, history_of("sim"))):
        batch = random_batch(vocabulary, fields, size, rng)
        found = session.run(None, batch.named())[0]
        np.testing.assert_allclose(found, probabilities(model, vocabulary, batch), rtol=RTOL, atol=ATOL)


def test_it_finds_an_interest_of_long_ago() -> None:
    train, valid, shape = long_ago(400), long_ago(200, seed=1), Shape(1, (2, 21), 1)
    best = {}
    for name in ("sim", "din"):
        torch.manual_seed(0)
        model = Model(make(name, shape), 1, 1)
        read = [each.newest(history_of(name)) for each in (train, valid)]
        config = TrainerConfig(epochs=4, batch=16, learning_rate=5e-3, hidden_ids=0.0, patience=8)
        best[name] = max(fit(model, *read, config).curves.valid)
    assert best["sim"] > 0.95
    assert best["din"] < 0.85
