"""Parameters by name: what fits, and what is told of what does not."""

from typing import Any

import pytest

from newsrec.errors import UsageError
from newsrec.neural.settings import settings_of
from newsrec.neural.trainer import TrainerConfig
from newsrec.rerankers import refuse_unfit
from newsrec.rerankers.din import DinParams
from newsrec.rerankers.stage import RerankConfig


def test_what_is_given_is_taken_and_the_rest_stays() -> None:
    given = {"hidden": [16, 8], "softmax": True, "dropout": 0, "activation": "dice"}
    assert settings_of(DinParams, given, "here") == DinParams(
        hidden=(16, 8), softmax=True, dropout=0, activation="dice"
    )
    assert settings_of(TrainerConfig, {"negatives": None}, "here") == TrainerConfig(negatives=None)
    assert settings_of(TrainerConfig, {}, "here") == TrainerConfig()


KINDS: list[tuple[type, dict[str, Any], str]] = [
    (TrainerConfig, {"los": "bpr", "x": 1}, r"here: expected parameters of \['balance', .*found \['los', 'x'\]"),
    (TrainerConfig, {"epochs": 2.5, "loss": 3}, "epochs: a whole number, found 2.5; loss: a text, found 3"),
    (TrainerConfig, {"epochs": True}, "epochs: a whole number, found True"),
    (TrainerConfig, {"batch": None}, "batch: a whole number, found None"),
    (TrainerConfig, {"l2": "1"}, "l2: a number, found '1'"),
    (DinParams, {"hidden": [1.5]}, r"hidden: a list of whole numbers, found \[1.5\]"),
    (DinParams, {"softmax": 1}, "softmax: true or false, found 1"),
    (TrainerConfig, {"loss": "hinge", "epochs": 0}, "expected a loss of .*found 'hinge'; epochs >= 1, found 0"),
    (TrainerConfig, {"negatives": 0}, "negatives >= 1 or null for all, found 0"),
    (TrainerConfig, {"hidden_ids": 1.5, "l2": -1}, "l2 >= 0, found -1; hidden_ids in 0..1, found 1.5"),
    (TrainerConfig, {"learning_rate": float("nan")}, "learning_rate above 0, found nan"),
    (DinParams, {"activation": "relu"}, r"activation of \['dice', 'prelu'\], found 'relu'"),
    (DinParams, {"hidden": [0], "attention": 0}, r"attention in 1..4096, found 0; hidden in 1..65536, found \(0,\)"),
    (DinParams, {"dropout": 2.0, "embedding": "x"}, "embedding of .*found 'x'; dropout in 0..1, found 2.0"),
]


@pytest.mark.parametrize(("kind", "given", "told"), KINDS, ids=range(len(KINDS)))
def test_what_does_not_fit_is_told_at_once(kind: type, given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        settings_of(kind, given, "here")


def test_a_training_is_told_by_its_parts() -> None:
    params = {"trainer": {"loss": "bpr"}, "network": {"softmax": True}}
    found = RerankConfig.of("din", 10, params, 7)
    assert (found.trainer.loss, found.trainer.seed, found.network) == ("bpr", 7, {"softmax": True})
    for wrong in ({"loss": "bpr"}, {"trainer": 3}, {"trainer": {"seed": 1}}):
        with pytest.raises(UsageError, match=r"--rerank-params: expected an object with \['trainer', 'network'\]"):
            RerankConfig.of("din", 10, wrong, 0)


@pytest.mark.parametrize("name", ["lr", "wide_deep"])
def test_parameters_of_another_network_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=rf"--rerank-params {name}: expected parameters of .*found \['softmax'\]"):
        refuse_unfit(name, {"softmax": True})
