"""Pre-training by masked clicks: its loss by hand, what it may see, and that it learns before any label."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from newsrec.errors import UsageError
from newsrec.neural.model import Model
from newsrec.neural.settings import settings_of
from newsrec.neural.trainer import TrainerConfig, fit, pretrain, tensors
from newsrec.rerankers import make
from newsrec.rerankers.transformer import Transformer, TransformerParams
from newsrec.tensors import padded
from tests.networks import SHAPE, random_lists, vocabulary_of

LISTS = vocabulary_of().coded(random_lists(200))
SINGLES = vocabulary_of().coded(random_lists(200, longest=1))


def network(**params: object) -> Transformer:
    torch.manual_seed(0)
    return Transformer(SHAPE, TransformerParams(**{"pretraining": 3, **params})).eval()  # type: ignore[arg-type]


def clicks(n: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`(history, numbers, mask)` of the longest histories."""
    longest = SINGLES.chosen(np.argsort(-SINGLES.history_length, kind="stable")[:n])
    _, _, history, numbers, mask = tensors(padded(longest, np.arange(n)))
    return history, numbers.nan_to_num(), mask


def test_loss_by_hand() -> None:
    """Only newest clicks are masked, and nothing mixes: what is guessed is the mask itself, for every click."""
    made = network(masked=0.0, layers=1)
    made.blocks = torch.nn.ModuleList()
    with torch.no_grad():
        made.places.zero_()
        made.numbers.weight.zero_()
        made.hidden.fill_(1.0)
    history = torch.tensor([[[1, 1], [2, 1]], [[3, 2], [0, 0]], [[1, 1], [3, 2]]])
    mask = torch.tensor([[1.0, 1], [1, 0], [1, 1]])
    worth = made.embed(history[:, 0]).sum(dim=-1)  # of articles 1, 3 and 1 again, which counts once
    every = torch.logsumexp(worth[:2], 0)
    wanted = (3 * every - worth.sum()) / 3
    found = made.masked_loss(history, torch.zeros(3, 2, 2), mask)
    torch.testing.assert_close(found, wanted)


def test_a_masked_click_is_not_seen() -> None:
    """Another article under the mask changes nothing but what is right."""
    made = network(masked=0.0)
    history, numbers, mask = clicks(1)
    seen: list[torch.Tensor] = []
    made.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    other = history.clone()
    other[:, 0, 0] = history[:, 0, 0] % 11 + 1
    assert not torch.equal(history, other)
    for given in (history, other):
        made.masked_loss(given, numbers, mask)
    torch.testing.assert_close(seen[0], seen[1])


def test_padding_changes_nothing_and_nothing_to_guess_costs_nothing() -> None:
    made = network(masked=0.0)
    history, numbers, mask = clicks()
    more = torch.cat([history, torch.ones_like(history)], 1), torch.cat([numbers, torch.full_like(numbers, 9.0)], 1)
    loss = made.masked_loss(history, numbers, mask)
    torch.testing.assert_close(made.masked_loss(*more, torch.cat([mask, 0 * mask], 1)), loss)
    assert made.masked_loss(history, numbers, 0 * mask) == 0
    assert made.masked_loss(0 * history, numbers, mask) == 0  # nobody can guess an unknown article
    assert made.masked_loss(history[:, :0], numbers[:, :0], mask[:, :0]) == 0


def test_pretraining_learns_from_histories_alone_and_is_the_same_again() -> None:
    """Every reader reads one article again and again: what is around a masked click tells it."""
    several = LISTS.chosen(np.flatnonzero(LISTS.history_length > 1))
    only = np.repeat(np.arange(len(several)) % 12 + 1, several.history_length)
    lists = replace(several, history_ids={"item_id": only, "category": only % 4 + 1})
    first = Model(network(pretraining=20), SHAPE.dense, SHAPE.numbers)
    second, unseen = copy.deepcopy(first), replace(lists, label=1 - lists.label)
    config = TrainerConfig(seed=3, learning_rate=1e-2)
    losses = pretrain(first, lists, config)
    assert len(losses) == 20
    assert losses[-1] < 0.5 * losses[0]
    assert pretrain(second, unseen, config) == losses
    for one, two in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)


def test_training_begins_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainerConfig(epochs=1)
    asked: list[int] = []
    monkeypatch.setattr("newsrec.neural.trainer.pretrain", lambda model, lists, _: asked.append(model.pretraining))
    for epochs in (0, 2):
        fit(
            Model(make("transformer", SHAPE, {"pretraining": epochs}), SHAPE.dense, SHAPE.numbers), LISTS, LISTS, config
        )
    assert asked == [0, 2]
    assert pretrain(Model(make("din", SHAPE), SHAPE.dense, SHAPE.numbers), LISTS, config) == []


def test_without_it_there_is_no_further_weight() -> None:
    plain = {name for name, _ in Transformer(SHAPE).named_parameters()}
    assert {name for name, _ in network().named_parameters()} - plain == {"hidden"}


@pytest.mark.parametrize("wrong", [{"pretraining": -1}, {"pretraining": 101}, {"masked": 1.5}])
def test_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=rf"{next(iter(wrong))} in 0\.\."):
        settings_of(TransformerParams, wrong, "--rerank-params transformer")
