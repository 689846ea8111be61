"""One sentence that says what a score measured. A score without it is not a score."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

_TOLD: Final = frozenset(
    {"format", "validation", "train_requests", "test_requests", "candidates", "users", "test_from", "test_until"}
    | {"denominator", "fingerprint"}
)
"""Keys that have a place of their own in the sentence; all others are told as they are at its end."""


def protocol_line(protocol: Mapping[str, Any]) -> str:
    """Name split, users, candidates and denominator of a run, and that misses count as zero.

    Args:
        protocol: What `metrics.json` has under `protocol`; any key may lack, further keys are told as they are.

    >>> protocol_line({"format": "mind", "validation": "temporal", "candidates": "slate", "seed": 0}).split("; ")[0]
    'mind, temporal split, candidates: slate'
    """
    facts = {key: value for key, value in protocol.items() if value is not None}
    tests = f"{_text(facts['test_requests'])} " if "test_requests" in facts else ""
    denominator = facts.get("denominator", f"all {tests}test requests")
    split = [
        str(facts["format"]) if "format" in facts else "",
        f"{facts['validation']} split" if "validation" in facts else "",
        f"trained on {_text(facts['train_requests'])} requests" if "train_requests" in facts else "",
        _period(facts),
        f"users: {_text(facts['users'])}" if "users" in facts else "",
        f"candidates: {_text(facts['candidates'])}" if "candidates" in facts else "",
    ]
    told = [
        ", ".join(part for part in split if part),
        f"mean over {_text(denominator)}, a click outside the candidates counts as zero",
        ", ".join(f"{key.replace('_', ' ')} {_text(value)}" for key, value in facts.items() if key not in _TOLD),
        f"data {str(facts['fingerprint'])[:12]}" if facts.get("fingerprint") else "",
    ]
    return "; ".join(part for part in told if part) + "."


def _period(facts: Mapping[str, Any]) -> str:
    start = f" from {_text(facts['test_from'])}" if "test_from" in facts else ""
    end = f" until {_text(facts['test_until'])}" if "test_until" in facts else ""
    return f"tested{start}{end}" if start or end else ""


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_text(each) for each in value) + "]"
    return str(value)
