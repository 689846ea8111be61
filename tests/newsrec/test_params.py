"""Files of parameters: plain ones, tuned ones, and those that are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from newsrec.errors import UsageError
from newsrec.params import load_params


@pytest.mark.parametrize(
    "content",
    [
        {"trees": 7, "num_leaves": 15},
        {"params": {"trees": 7, "num_leaves": 15}, "ranker": "lgbm", "score": 0.4},
        {"ranker": "lgbm", "trees": 7, "num_leaves": 15},
    ],
)
def test_plain_and_tuned_files_are_read(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "params.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert load_params(path, "lgbm").params == {"trees": 7, "num_leaves": 15}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{trees: 7}", "--params: expected a JSON file, found"),
        ("", "--params: expected a JSON file, found"),
        ("[1]", "--params: expected a JSON object, found list in"),
        ('{"params": [1]}', "--params: expected a JSON object, found list in"),
        ('{"format_version": 99, "params": {}}', "--params: expected format version 1, found 99 in"),
        ('{"ranker": "linear", "params": {}}', "expected parameters of the ranker 'lgbm', found 'linear' in"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "params.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message) as error:
        load_params(path, "lgbm")
    assert str(path) in str(error.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--params: expected a JSON file, found '.*none.json'"):
        load_params(tmp_path / "none.json", "lgbm")


def test_file_tells_what_it_was_tuned_on(tmp_path: Path) -> None:
    path = tmp_path / "params.json"
    path.write_text('{"format_version": 1, "params": {"trees": 7}, "data": {"fingerprint": "f"}}', encoding="utf-8")
    assert load_params(path, "lgbm").tuned_on == "f"
    path.write_text('{"trees": 7}', encoding="utf-8")
    assert load_params(path, "lgbm").tuned_on is None


def test_parameters_of_a_network_are_told_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "din.json"
    path.write_text('{"reranker": "din", "params": {"trainer": {"l2": 0.1}}}', encoding="utf-8")
    assert load_params(path, "din", "reranker", "--rerank-params").params == {"trainer": {"l2": 0.1}}
    with pytest.raises(UsageError, match="--rerank-params: expected parameters of the reranker 'lr', found 'din' in"):
        load_params(path, "lr", "reranker", "--rerank-params")
    path.write_text('{"network": {"softmax": true}}', encoding="utf-8")
    assert load_params(path, None, "reranker", "--rerank-params").params == {"network": {"softmax": True}}
