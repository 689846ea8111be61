"""Layers over histories: their order in time, and clicks that look at each other."""

import torch
from torch import Tensor, nn

from newsrec.rerankers.layers import FAR


def turned(values: Tensor, mask: Tensor) -> Tensor:
    """Clicks in the opposite order, padding staying behind them; twice is as before, where clicks are.

    Args:
        values: (requests, history, width).
        mask: (requests, history).
    """
    return values.gather(1, _opposite(mask)[..., None].expand_as(values))


def _opposite(mask: Tensor) -> Tensor:
    """Place of the click that stands there in the opposite order, (requests, history)."""
    place = mask.cumsum(dim=1).long()  # from 1, up to the number of clicks
    return (mask.sum(dim=1, keepdim=True).long() - place).clamp_min(0)


def with_room(values: Tensor, mask: Tensor, places: int = 1) -> tuple[Tensor, Tensor]:
    """Some places of padding behind each history: recurrent layers refuse empty ones."""
    more = values.new_zeros(values.shape[0], places, values.shape[2])
    return torch.cat([values, more], dim=1), torch.cat([mask, more[..., 0]], dim=1)


def softmax_over(scores: Tensor, there: Tensor) -> Tensor:
    """Softmax along the last axis over what is there (1 or 0, broadcast); all 0 where nothing is."""
    weight: Tensor = torch.softmax(scores + FAR * (1 - there), dim=-1)
    return weight * there


def split(values: Tensor, heads: int) -> Tensor:
    """(requests, n, heads * units) to (requests, heads, n, units)."""
    units: Tensor = torch.unflatten(values, -1, (heads, -1)).transpose(1, 2)
    return units


class MultiHead(nn.Module):
    """Scaled dot-product attention with several heads (Vaswani et al., 2017, section 3.2).

    Args:
        width: Of what asks and of what is asked.
        heads: How many.
        units: Of each head's queries, keys and values.
    """

    def __init__(self, width: int, heads: int, units: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, units**-0.5
        self.query, self.key, self.value = (nn.Linear(width, heads * units, bias=False) for _ in range(3))
        self.out = nn.Linear(heads * units, width, bias=False)

    def forward(self, asking: Tensor, asked: Tensor, there: Tensor, itself: bool = False) -> Tensor:
        """(requests, n, width), each a mean of values of what it looks at.

        Args:
            asking: (requests, n, width).
            asked: (requests, m, width).
            there: 1 where one may look at the other, (requests, n or 1, m).
            itself: Whether each also looks at itself, which is not among `asked`.
        """
        query, key, value = (
            split(self.query(asking), self.heads),
            split(self.key(asked), self.heads),
            split(self.value(asked), self.heads),
        )
        scores = query @ key.transpose(-2, -1)  # (requests, heads, n, m)
        there = there[:, None].expand_as(scores)
        if itself:
            own_key, own_value = split(self.key(asking), self.heads), split(self.value(asking), self.heads)
            own = (query * own_key).sum(dim=-1, keepdim=True)  # (requests, heads, n, 1)
            weight = softmax_over(
                torch.cat([scores, own], dim=-1) * self.scale, torch.cat([there, torch.ones_like(own)], dim=-1)
            )
            seen = weight[..., :-1] @ value + weight[..., -1:] * own_value
        else:
            seen = softmax_over(scores * self.scale, there) @ value  # (requests, heads, n, units)
        joined: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return joined


class Block(nn.Module):
    """A transformer layer: attention and a small network, each with a way round it and layer normalisation.

    `S' = LayerNorm(S + Dropout(MultiHead(S)))`, `F = LayerNorm(S' + Dropout(LeakyReLU(S' W1 + b1) W2 + b2))`, as in
    section 2.2 of the behaviour sequence transformer.
    """

    def __init__(self, width: int, heads: int, units: int, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHead(width, heads, units)
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.LeakyReLU(), nn.Linear(2 * width, width))
        self.first, self.second, self.dropout = nn.LayerNorm(width), nn.LayerNorm(width), nn.Dropout(dropout)

    def forward(self, asking: Tensor, asked: Tensor, there: Tensor, itself: bool = False) -> Tensor:
        """The arguments of `MultiHead`; (requests, n, width)."""
        seen = self.first(asking + self.dropout(self.attention(asking, asked, there, itself)))
        out: Tensor = self.second(seen + self.dropout(self.inner(seen)))
        return out
