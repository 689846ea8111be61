"""What a training told, epoch by epoch, and what it says about overfitting, in plain words."""

from dataclasses import dataclass
from typing import Final

TURN: Final = 0.005
"""Validation has turned where it ends by more than this share below its best; less is chance."""
GAP: Final = 0.05
"""A gap that has widened by more than this share of the validation since the first epoch is told of."""


@dataclass(frozen=True)
class Curves:
    """One value per epoch."""

    loss: tuple[float, ...]
    train: tuple[float, ...]
    """MRR@5 on some of the training lists, whole, as in `valid`."""
    valid: tuple[float, ...]
    """MRR@5 on the validation lists; a click outside the list counts as 0."""
    best_epoch: int
    """From 1; its weights were kept."""

    def verdict(self) -> str:
        """Whether it overfits: by validation turning, and by how the gap of both curves widens.

        The gap of the first epoch is the difference of the two periods rather than something learned by heart.

        >>> Curves((), (0.3, 0.32, 0.4), (0.3, 0.32, 0.28), 2).verdict().split(":")[0]
        'overfits after epoch 2'
        """
        best, last = self.best_epoch - 1, len(self.valid) - 1
        kept = f"the weights of epoch {best + 1} are kept"
        widened = (self.train[last] - self.valid[last]) - (self.train[0] - self.valid[0])
        told = f"validation {self.valid[best]:.4f} at its best and {self.valid[last]:.4f} at the end, training {{}}"
        told = told.format(f"{self.train[best]:.4f} and {self.train[last]:.4f}")
        if self.valid[last] < self.valid[best] * (1 - TURN):
            rises = self.train[last] > self.train[best]
            word = "overfits" if rises else "gets worse"
            return f"{word} after epoch {best + 1}: {told}; {kept}"
        if widened > GAP * self.valid[best]:
            return f"begins to overfit: the gap has widened by {widened:.4f} since the first epoch ({told}); {kept}"
        if best == last > 0:
            return f"does not overfit, and more epochs may help: {told}; {kept}"
        return f"does not overfit: {told}; {kept}"
