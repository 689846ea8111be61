"""Layers over histories: their order, and attention against torch's own."""

import torch
from torch import Tensor
from torch.nn import functional as F

from newsrec.rerankers.sequences import Block, MultiHead, softmax_over, turned, with_room

MASK = torch.tensor([[1.0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]])


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_turned_reverses_clicks_before_their_padding_and_back() -> None:
    values = torch.arange(12.0).reshape(3, 4, 1)
    found = turned(values, MASK)
    assert found[0, :3, 0].tolist() == [2, 1, 0]
    assert found[1, 0, 0] == 4
    again = turned(found, MASK)
    torch.testing.assert_close(again * MASK[..., None], values * MASK[..., None])


def test_room_is_padding() -> None:
    values, mask = with_room(torch.ones(3, 0, 2), torch.ones(3, 0), 2)
    assert values.shape == (3, 2, 2)
    assert not values.any()
    assert not mask.any()


def test_nothing_is_weighed_where_nothing_is() -> None:
    weight = softmax_over(torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]), torch.tensor([[1.0, 1, 0], [0, 0, 0]]))
    torch.testing.assert_close(weight[0, :2], torch.softmax(torch.tensor([1.0, 2.0]), 0))
    assert weight[0, 2] == 0
    assert not weight[1].any()


def test_attention_is_that_of_torch() -> None:
    attention = MultiHead(6, heads=2, units=5)
    asking, asked = drawn(3, 4, 6), drawn(3, 4, 6)
    there = MASK[:, None].clone()
    there[2] = 1
    query, key, value = (
        layer(each).view(3, 4, 2, 5).transpose(1, 2)
        for layer, each in ((attention.query, asking), (attention.key, asked), (attention.value, asked))
    )
    seen = F.scaled_dot_product_attention(query, key, value, there[:, None].bool())
    wanted = attention.out(seen.transpose(1, 2).reshape(3, 4, 10))
    torch.testing.assert_close(attention(asking, asked, there), wanted, rtol=1e-4, atol=1e-5)


def test_looking_at_itself_too_is_being_the_last_of_the_sequence() -> None:
    block = Block(6, heads=2, units=5, dropout=0.5).eval()
    clicks, candidate = drawn(3, 4, 6), drawn(3, 2, 6)
    found = block(candidate, clicks, MASK[:, None], itself=True)
    for place in range(2):
        sequence = torch.cat([clicks, candidate[:, place : place + 1]], dim=1)
        there = torch.cat([MASK, torch.ones(3, 1)], dim=1)[:, None]
        torch.testing.assert_close(block(sequence, sequence, there)[:, -1], found[:, place], rtol=1e-4, atol=1e-5)
