import pytest
import torch
from torch import nn

from newsrec.neural.averaging import RunningMean


def model(weight: float) -> nn.Module:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    nn.init.constant_(net[0].weight, weight)
    return net


def weight(net: nn.Module) -> float:
    return float(net.state_dict()["0.weight"])


def mean_of(decay: float, values: list[float]) -> RunningMean:
    net = model(99.0)
    mean = RunningMean(net, decay)
    for value in values:
        nn.init.constant_(net[0].weight, value)
        mean.add(net)
    return mean


@pytest.mark.parametrize(
    ("decay", "expected"),
    [(0.0, 8.0), (0.5, 0.25 * 2 + 0.25 * 4 + 0.5 * 8), (0.9, (2 + 4 + 8) / 3)],
)
def test_mean_of_three_steps_by_hand(decay: float, expected: float) -> None:
    """The weights before the first step are forgotten; as long as there are few steps, all count alike."""
    net = model(7.0)
    with mean_of(decay, [2.0, 4.0, 8.0]).inside(net):
        assert weight(net) == pytest.approx(expected)


def test_the_model_has_its_own_weights_again_afterwards() -> None:
    net = model(7.0)
    with pytest.raises(ZeroDivisionError), mean_of(0.5, [2.0]).inside(net):
        raise ZeroDivisionError
    assert weight(net) == 7.0


def test_steps_change_the_mean_and_not_the_model() -> None:
    net = model(3.0)
    mean = RunningMean(net, 0.5)
    mean.add(net)
    nn.init.constant_(net[0].weight, 5.0)
    mean.add(net)
    assert weight(net) == 5.0
    assert float(mean.state()["0.weight"]) == 4.0


def test_counters_of_a_layer_are_not_averaged() -> None:
    assert "1.num_batches_tracked" not in RunningMean(model(1.0), 0.5).state()


def test_a_stored_mean_goes_on_as_if_nothing_had_happened() -> None:
    kept = {name: value.clone() for name, value in mean_of(0.9, [2.0, 4.0]).state().items()}
    found, net = RunningMean(model(0.0), 0.9), model(8.0)
    found.load(kept)
    found.add(net)
    assert found.steps == 3
    assert torch.equal(found.state()["0.weight"], mean_of(0.9, [2.0, 4.0, 8.0]).state()["0.weight"])
