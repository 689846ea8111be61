"""DSIN by hand: where sessions begin, and that nothing but a session's own clicks makes its interest."""

import torch
from torch import Tensor

from newsrec.neural.model import Model
from newsrec.neural.trainer import TrainerConfig, fit
from newsrec.rerankers import make
from newsrec.rerankers.base import Shape
from newsrec.rerankers.dsin import PLACES, Dsin, DsinParams, sessions_of
from tests.networks import SHAPE, sessions


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


HOURS = torch.tensor([[1.0, 1.25, 1.75, 2.5, 2.75, 9.0, torch.nan]])
MASK = torch.tensor([[1.0, 1, 1, 1, 1, 1, 0]])


def test_more_than_thirty_minutes_begin_another_session() -> None:
    # Pauses of 15 and 30 minutes, then 45, 15, and hours; the last is padding.
    wanted = [[1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1, 0], [0] * 7]
    assert sessions_of(HOURS, MASK, 4)[0].tolist() == wanted
    assert sessions_of(HOURS, MASK, 2)[0].tolist() == wanted[:2]  # earlier ones are left out
    assert sessions_of(HOURS[:, :0], MASK[:, :0], 2).shape == (1, 2, 0)


def test_unknown_hours_make_one_session() -> None:
    found = sessions_of(torch.full((1, 3), torch.nan), torch.ones(1, 3), 2)
    assert found[0].tolist() == [[1, 1, 1], [0, 0, 0]]


def test_an_interest_is_made_of_its_own_session() -> None:
    torch.manual_seed(0)
    net = Dsin(SHAPE, DsinParams(sessions=4)).eval()
    clicks, of = drawn(1, 7, net.embed.width), sessions_of(HOURS, MASK, 4)
    found = net._interests(clicks, of)
    other = clicks.clone()
    other[:, 3:] += 1
    again = net._interests(other, of)
    torch.testing.assert_close(again[:, 0], found[:, 0])
    assert not torch.allclose(again[:, 1], found[:, 1], atol=1e-3)
    assert not found[:, 3].any()  # there is none


def test_place_and_session_have_a_bias_each() -> None:
    torch.manual_seed(0)
    net = Dsin(SHAPE, DsinParams(sessions=3)).eval()
    seen: list[Tensor] = []
    net.extractor.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        net.of_place.copy_(torch.arange(float(PLACES))[:, None])
        net.of_session.copy_(torch.tensor([[100.0], [200.0], [300.0]]))
        net.of_column.zero_()
    net._interests(torch.zeros(1, 7, net.embed.width), sessions_of(HOURS, MASK, 3))
    assert seen[0][0, :6, 0].tolist() == [100, 101, 102, 200, 201, 300]


def test_later_sessions_know_earlier_ones_and_the_other_way_round() -> None:
    """One direction each: of the newest session's context the later half knows all, the earlier half itself alone."""
    torch.manual_seed(0)
    net = Dsin(SHAPE, DsinParams(sessions=2)).eval()
    contexts: list[Tensor] = []
    net.forwards.register_forward_hook(lambda _, __, out: contexts.append(out[0]))
    net.backwards.register_forward_hook(lambda _, __, out: contexts.append(out[0]))
    dense, target, numbers = drawn(1, 2, 3), torch.ones(1, 2, 2, dtype=torch.long), torch.zeros(1, 6, 2)
    for code in (1, 2):
        history = torch.ones(1, 6, 2, dtype=torch.long)
        history[:, 3:] = code  # what the older session was about
        net(dense, target, history, numbers, MASK[:, :6], HOURS[:, :6])
    forwards, backwards = contexts[0::2], contexts[1::2]
    assert not torch.allclose(forwards[0][:, 1], forwards[1][:, 1], atol=1e-4)  # the newest, read last
    torch.testing.assert_close(backwards[0][:, 0], backwards[1][:, 0])  # the newest, read first


def test_it_knows_what_was_read_beside_a_mark() -> None:
    """Of the seeds of `tests/bench/planted.py` the one that is soonest done."""
    train, valid, shape = sessions(3_000, seed=2), sessions(400, seed=102), Shape(1, (21,), 1)
    best = {}
    for name in ("dsin", "din"):
        torch.manual_seed(2)
        config = TrainerConfig(epochs=4, batch=32, learning_rate=5e-3, hidden_ids=0.0, seed=2)
        best[name] = max(fit(Model(make(name, shape), 1, 1), train, valid, config).curves.valid)
    assert best["dsin"] > best["din"] + 0.05
