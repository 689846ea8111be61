"""Spaces: what is searched, where a study begins, and files that change both."""

from importlib import import_module
from pathlib import Path

import optuna
import pytest

from newsrec.errors import UsageError
from newsrec.neural.settings import settings_of
from newsrec.rankers.lgbm import LgbmParams
from newsrec.rerankers import RERANKERS
from tuning.spaces import LGBM, SPACES, Dimension, Space, defaults, described, nested, suggest, with_file


def changed(tmp_path: Path, text: str) -> Space:
    path = tmp_path / "space.toml"
    path.write_text(text, encoding="utf-8")
    return with_file(LGBM, path)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_study_begins_inside_its_space(space: Space) -> None:
    for name, each in space.items():
        if each.choices is not None:
            assert each.default in each.choices, name
        else:
            assert each.low is not None
            assert each.high is not None
            assert each.low <= each.default <= each.high, name


def test_first_trial_is_the_ranker_as_it_is_by_default() -> None:
    fixed = {name: each.default for name, each in LGBM.items() if each.fixed}
    assert LgbmParams(**defaults(LGBM), **fixed) == LgbmParams()


@pytest.mark.parametrize("name", RERANKERS)
def test_first_trial_is_the_network_as_it_is_by_default(name: str) -> None:
    pytest.importorskip("torch")
    from newsrec.neural.losses import LOSSES
    from newsrec.rerankers.stage import RerankConfig

    told = nested(defaults(SPACES[name]))
    config, plain = RerankConfig.of(name, 20, told, 0), RerankConfig(name)
    assert config.trainer == plain.trainer
    module = import_module(RERANKERS[name])
    assert settings_of(module.PARAMS, config.network, "") == module.PARAMS()
    assert SPACES[name]["trainer.loss"].choices == tuple(LOSSES)


def test_every_corner_of_the_space_makes_a_ranker() -> None:
    for end in ("low", "high"):
        corner = {name: each.choices[-1] if each.choices else getattr(each, end) for name, each in LGBM.items()}
        settled = LgbmParams(**corner).for_rows(100_000)
        assert settled.num_leaves is not None
        assert settled.num_leaves >= 2


def test_trial_is_asked_for_all_that_is_not_fixed() -> None:
    study = optuna.create_study()
    trial = study.ask()
    found = suggest(LGBM, trial)
    assert set(found) == set(LGBM)
    assert set(trial.params) == {name for name, each in LGBM.items() if not each.fixed}
    assert isinstance(found["truncation"], int)


def test_scales_follow_the_rows() -> None:
    half, twice = LgbmParams(leaves_scale=0.5), LgbmParams(leaves_scale=2.0, leaf_rows_scale=0.1)
    assert half.for_rows(1_500_000).num_leaves == 50
    assert (twice.for_rows(1_500_000).num_leaves, twice.for_rows(1_500_000).min_data_in_leaf) == (200, 21)
    assert LgbmParams(num_leaves=9, leaves_scale=3.0).for_rows(10).num_leaves == 9


def test_file_narrows_widens_fixes_and_chooses(tmp_path: Path) -> None:
    space = changed(
        tmp_path,
        """
        [learning_rate]
        low = 0.1
        [truncation]
        high = 100
        [objective]
        choices = ["binary", "lambdarank"]
        [lambda_l2]
        value = 1.5
        [trees]
        low = 50
        high = 200
        """,
    )
    assert space["learning_rate"] == Dimension(0.1, 0.1, 0.2, log=True)  # the default moved inside
    assert space["truncation"] == Dimension(10, 5, 100, log=True)
    assert space["objective"] == Dimension("lambdarank", choices=("binary", "lambdarank"))
    assert space["lambda_l2"].fixed
    assert defaults(space)["trees"] == 200
    assert space["leaves_scale"] == LGBM["leaves_scale"]
    assert described(space) != described(LGBM)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[learning_rate", "expected a TOML file"),
        ("[depth]\nlow = 1", r"expected parameters of .*found \['depth'\]"),
        ("[learning_rate]\nlowest = 1", "expected a table with keys of"),
        ("learning_rate = 3", "expected a table with keys of"),
        ("[learning_rate]\nlow = 0.5", r"\[learning_rate\]: expected 0 < low <= high, found 0.5 and 0.2"),
        ("[learning_rate]\nlow = 0", "expected 0 < low <= high, found 0 and 0.2"),
        ("[learning_rate]\nlow = nan", "expected 0 < low <= high"),
        ("[learning_rate]\nlow = 'a'", "expected numbers, found"),
        ("[objective]\nchoices = []", "expected choices or a value without a range"),
        ("[objective]\nchoices = ['binary']\nlow = 1", "expected choices or a value without a range"),
        ("[trees]\nlow = 10", r"expected a range with \['high'\]"),
    ],
)
def test_impossible_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        changed(tmp_path, text)
    assert "space.toml" in str(error.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--space: expected a TOML file, found .*none.toml"):
        with_file(LGBM, tmp_path / "none.toml")
