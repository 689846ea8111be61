"""What every network of `RERANKERS` promises, whatever is inside it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from newsrec.errors import UsageError
from newsrec.neural.model import Model
from newsrec.neural.trainer import TrainerConfig, fit, score, tensors
from newsrec.rerankers import RERANKERS, history_of, make, refuse_unknown, traits_of
from newsrec.tensors import batches, padded
from tests.networks import SHAPE, random_lists, vocabulary_of

NAMES = list(RERANKERS)
LISTS = vocabulary_of().coded(random_lists())
SAME = {"rtol": 1e-4, "atol": 1e-5}
pytestmark = pytest.mark.parametrize("name", NAMES)


def model_of(name: str, seed: int = 0) -> Model:
    """Weights far from zero, so that every input has a say."""
    torch.manual_seed(seed)
    model = Model(make(name, SHAPE), SHAPE.dense, SHAPE.numbers)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.3)
    model.eval()
    return model


def inputs(n: int = 5, clicks: int = 6) -> tuple[Tensor, ...]:
    """`(dense, target, history, numbers, mask)` of some requests with four candidates."""
    lists = random_lists(300, longest=4, history=clicks)
    chosen = np.flatnonzero(lists.length == 4)[:n]
    return tensors(padded(vocabulary_of().coded(lists), chosen))


def test_scores_have_the_shape_of_the_lists_and_are_finite(name: str) -> None:
    dense, target, history, numbers, mask = inputs()
    found = model_of(name)(dense, target, history, numbers, mask)
    assert found.shape == target.shape[:2]
    assert torch.isfinite(found).all()
    assert len(torch.unique(found)) > 10


def test_more_padding_changes_nothing(name: str) -> None:
    model, (dense, target, history, numbers, mask) = model_of(name), inputs()
    more = torch.cat([history, torch.ones_like(history)], 1), torch.cat([numbers, torch.full_like(numbers, 9)], 1)
    found = model(dense, target, *more, torch.cat([mask, torch.zeros_like(mask)], 1))
    torch.testing.assert_close(found, model(dense, target, history, numbers, mask), **SAME)


def test_permuted_candidates_permute_scores(name: str) -> None:
    model, (dense, target, history, numbers, mask) = model_of(name), inputs()
    order = torch.tensor([2, 0, 3, 1])
    found = model(dense[:, order], target[:, order], history, numbers, mask)
    torch.testing.assert_close(found, model(dense, target, history, numbers, mask)[:, order], **SAME)


def test_a_candidate_alone_scores_as_in_its_list(name: str) -> None:
    model, (dense, target, history, numbers, mask) = model_of(name), inputs()
    alone = model(dense[:, 1:2], target[:, 1:2], history, numbers, mask)
    torch.testing.assert_close(alone, model(dense, target, history, numbers, mask)[:, 1:2], **SAME)


def test_a_request_alone_scores_as_among_others(name: str) -> None:
    model, whole = model_of(name), inputs()
    torch.testing.assert_close(model(*(t[3:4] for t in whole)), model(*whole)[3:4], **SAME)


@pytest.mark.parametrize("clicks", [0, 1, 6])
def test_an_empty_history_is_finite_and_as_no_history_at_all(name: str, clicks: int) -> None:
    model, (dense, target, history, numbers, mask) = model_of(name), inputs()
    masked = model(dense, target, history[:, :clicks], numbers[:, :clicks], 0 * mask[:, :clicks])
    none = model(dense, target, history[:, :0], numbers[:, :0], mask[:, :0])
    assert torch.isfinite(masked).all()
    torch.testing.assert_close(masked, none, **SAME)


def test_the_order_of_the_clicks_matters_where_its_traits_say_so(name: str) -> None:
    model, (dense, target, history, numbers, mask) = model_of(name), inputs()
    turned = history.flip(1), numbers.flip(1)
    whole = torch.ones_like(mask)
    same = torch.allclose(model(dense, target, history, numbers, whole), model(dense, target, *turned, whole), **SAME)
    assert same is not traits_of(name).sequence
    assert history_of(name) == traits_of(name).history >= history_of("own.py") == 50


def test_unknown_and_extreme_numbers_are_finite(name: str) -> None:
    model, (dense, target, history, numbers, mask) = model_of(name), inputs()
    for value in (float("nan"), float("inf"), -float("inf"), 3e38):
        found = model(torch.full_like(dense, value), 0 * target, 0 * history, torch.full_like(numbers, value), mask)
        assert torch.isfinite(found).all()


def test_same_seed_same_scores_and_training_moves_them(name: str) -> None:
    config = TrainerConfig(epochs=2, batch=8)
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        model = Model(make(name, SHAPE), SHAPE.dense, SHAPE.numbers)
        before = score(model, LISTS)
        fit(model, LISTS, LISTS, config)
        runs.append(score(model, LISTS))
    np.testing.assert_array_equal(*runs)
    assert not np.allclose(before, runs[0])


def test_it_learns_what_the_dense_inputs_say(name: str) -> None:
    lists = vocabulary_of().coded(random_lists(600, seed=1))
    lists = replace(lists, dense=np.where(lists.label[:, None] == 1, 5.0, lists.dense).astype(np.float32))
    torch.manual_seed(0)
    model = Model(make(name, SHAPE), SHAPE.dense, SHAPE.numbers)
    curves = fit(model, lists, lists, TrainerConfig(epochs=8, batch=16, learning_rate=5e-3)).curves
    assert max(curves.valid) > 0.9


def test_every_embedding_of_a_batch_is_drawn_to_zero_and_no_other(name: str) -> None:
    chosen = vocabulary_of().coded(random_lists(200, longest=3, history=2))
    lists = chosen.chosen(np.flatnonzero((chosen.length == 3) & (chosen.history_length == 2))[:1])
    torch.manual_seed(0)
    model = Model(make(name, SHAPE), SHAPE.dense, SHAPE.numbers)
    tables = [each.weight for each in model.modules() if isinstance(each, torch.nn.Embedding)]
    with torch.no_grad():
        for table in tables:
            table.copy_(torch.randn(table.shape))
    before = [table.detach().clone() for table in tables]
    config = TrainerConfig(loss="bce", epochs=1, l2=1e3, hidden_ids=0.0, negatives=None)  # one step
    fit(model, lists, lists, config)
    assert tables
    for table, old in zip(tables, before, strict=True):
        moved = (table != old).any(dim=1)
        assert 0 < moved.sum() < len(table)
        assert (table.abs() < old.abs())[moved].all()


def test_batches_hold_each_list_once(name: str) -> None:
    found = np.concatenate([padded(LISTS, chosen).rows.ravel() for chosen in batches(LISTS, 7)])
    assert sorted(found.tolist()) == list(range(len(LISTS.label)))


def test_unknown_names_are_refused_with_those_that_exist(name: str) -> None:
    with pytest.raises(UsageError, match=rf"expected one of .*{name}.*or FILE\.py:NAME, found 'nothing'"):
        refuse_unknown("nothing")
