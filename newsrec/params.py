"""Parameters of a ranker from a file: what `tuning` writes and `train --params` takes."""

import json
from pathlib import Path
from typing import Any

from newsrec.errors import UsageError


def load_params(path: Path, ranker: str) -> dict[str, Any]:
    """Parameters from a file that `tuning` wrote, or a plain JSON object of them.

    Raises:
        UsageError: Not such a file, or one for another ranker.
    """
    content = load_object(path, "--params")
    if content.get("ranker", ranker) != ranker:
        raise UsageError(
            f"--params: expected parameters of the ranker '{ranker}', found '{content['ranker']}' in '{path}'."
        )
    params = content.get("params", content)
    if not isinstance(params, dict):
        raise UsageError(f"--params: expected a JSON object, found {type(params).__name__} in '{path}' under 'params'.")
    return {name: value for name, value in params.items() if name != "ranker"}


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
