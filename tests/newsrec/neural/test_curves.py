"""The verdict on overfitting says what the curves show."""

import pytest

from newsrec.neural.curves import Curves

CASES = {
    "overfits after epoch 2: validation 0.3200 at its best and 0.3000 at the end, training 0.3300 and 0.4000": (
        (0.30, 0.33, 0.40),
        (0.30, 0.32, 0.30),
    ),
    "gets worse after epoch 2": ((0.30, 0.33, 0.20), (0.30, 0.32, 0.20)),
    "begins to overfit: the gap has widened by 0.0500 since the first epoch": ((0.45, 0.48, 0.52), (0.30, 0.31, 0.32)),
    "does not overfit, and more epochs may help": ((0.45, 0.46, 0.47), (0.30, 0.31, 0.32)),
    "does not overfit: validation 0.3200": ((0.45, 0.46, 0.47), (0.30, 0.32, 0.3199)),
    "does not overfit: validation 0.3000": ((0.45,), (0.30,)),
}


@pytest.mark.parametrize(("wanted", "curves"), CASES.items())
def test_verdict(wanted: str, curves: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
    train, valid = curves
    best = max(range(len(valid)), key=valid.__getitem__) + 1
    found = Curves((), train, valid, best).verdict()
    assert found.startswith(wanted)
    assert found.endswith(f"the weights of epoch {best} are kept")
