"""Logistic regression on the same inputs (McMahan et al., KDD 2013, without its online learner): no crosses, no depth.

What the reader clicked moves all candidates of a request alike: the order knows of it only by the dense columns.
"""

from dataclasses import dataclass
from typing import Final

from torch import nn

from newsrec.rerankers.base import Shape, Traits
from newsrec.rerankers.layers import Wide


@dataclass(frozen=True)
class LrParams:
    """A straight line has no parameters."""


PARAMS = LrParams
TRAITS: Final = Traits(sequence=False, target=False)


def network(shape: Shape, params: LrParams = LrParams()) -> nn.Module:
    """The plainest baseline with new weights."""
    return Wide(shape)
