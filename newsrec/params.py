"""Parameters of a model from a file: what `tuning` writes, and `train --params` and `--rerank-params` take."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from newsrec.errors import UsageError

PARAMS_VERSION: Final = 1
"""Of the files that `tuning` writes; older and newer ones are refused."""


@dataclass(frozen=True)
class ParamsFile:
    """Parameters, and the fingerprint of the data that they were tuned on, where the file tells it."""

    params: Mapping[str, Any]
    tuned_on: str | None = None


def load_params(path: Path, name: str | None, kind: str = "ranker", flag: str = "--params") -> ParamsFile:
    """Parameters from a file that `tuning` wrote, or a plain JSON object of them.

    Args:
        path: The file.
        name: The model that they are for; None takes any.
        kind: What it is: `ranker` or `reranker`.
        flag: What the errors name first.

    Raises:
        UsageError: Not such a file, one of another version, or one for another model.
    """
    content = load_object(path, flag)
    if name is not None and content.get(kind, name) != name:
        raise UsageError(f"{flag}: expected parameters of the {kind} '{name}', found '{content[kind]}' in '{path}'.")
    if content.get("format_version", PARAMS_VERSION) != PARAMS_VERSION:
        raise UsageError(
            f"{flag}: expected format version {PARAMS_VERSION}, found {content['format_version']!r} in '{path}'. "
            "Run its study again, or use the newsrec that wrote it."
        )
    params = content.get("params", content)
    if not isinstance(params, dict):
        raise UsageError(f"{flag}: expected a JSON object, found {type(params).__name__} in '{path}' under 'params'.")
    data = content.get("data")
    tuned_on = data.get("fingerprint") if isinstance(data, dict) else None
    return ParamsFile({key: value for key, value in params.items() if key != kind}, tuned_on)


def load_object(path: Path, flag: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UsageError: Not such a file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{flag}: expected a JSON file, found '{path}' ({error}).") from error
    if not isinstance(content, dict):
        raise UsageError(f"{flag}: expected a JSON object, found {type(content).__name__} in '{path}'.")
    return content
