"""Names the format of a path by looking at the files that are there, and never at more than a header or a schema."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from newsrec.data.ebnerd import BEHAVIORS as EBNERD
from newsrec.data.files import TABLES, column_names
from newsrec.data.mind import BEHAVIORS as MIND
from newsrec.errors import DataError

SHOWN: Final = 10
"""File names in a message."""
GLOBO_ONLY: Final = "session_id"
ITEM: Final = "click_article_id"


def detect(path: Path, formats: tuple[str, ...]) -> str:
    """The format of a folder or file.

    Args:
        path: What `--data` names.
        formats: The formats that can be read, for the answer and the message.

    Raises:
        DataError: Nothing there, or no format's files.
    """
    if not path.exists():
        raise DataError(f"a log expected at '{path}', nothing found; check the path")
    for name, looks_like in SIGNS.items():
        if not looks_like(path):
            continue
        if name in formats:
            return name
        raise DataError(
            f"one of the formats {sorted(formats)} expected at '{path}', files of '{name}' found; "
            "convert them to 'table'"
        )
    seen = sorted(str(p.relative_to(path)) for p in path.rglob("*"))[:SHOWN] if path.is_dir() else [path.name]
    raise DataError(
        f"files of one of the formats {sorted(formats)} expected at '{path}', {seen} found; "
        "name the folder of the log, pass --format, or name the files clicks.csv and articles.csv"
    )


def _is_tianchi(path: Path) -> bool:
    if path.is_file():
        return ITEM in _columns(path)
    return _any(path, "train_click_log.csv", "test*_click_log.csv")


def _is_globo(path: Path) -> bool:
    if path.is_file():
        return {ITEM, GLOBO_ONLY} <= set(_columns(path))
    if _any(path, "clicks/clicks_hour_*.csv", "clicks_hour_*.csv", "clicks_sample.csv"):
        return True
    return (path / "clicks.parquet").is_file() and ITEM in _columns(path / "clicks.parquet")


def _is_table(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() in TABLES
    return _any(path, *(f"{role}{suffix}" for role in ("clicks", "impressions") for suffix in TABLES))


def _is_ebnerd(path: Path) -> bool:
    return path.name == EBNERD or (path.is_dir() and _any(path, EBNERD, f"*/{EBNERD}"))


def _is_mind(path: Path) -> bool:
    return path.name == MIND or (path.is_dir() and _any(path, MIND, f"*/{MIND}"))


def _any(folder: Path, *patterns: str) -> bool:
    return any(next(folder.glob(pattern), None) is not None for pattern in patterns)


def _columns(path: Path) -> list[str]:
    return column_names(path) if path.suffix.lower() in TABLES else []


SIGNS: Final[dict[str, Callable[[Path], bool]]] = {
    "globo": _is_globo,
    "tianchi": _is_tianchi,
    "ebnerd": _is_ebnerd,
    "mind": _is_mind,
    "table": _is_table,
}
"""In the order of asking: a Globo file is also a Tianchi one, and both have names that `table` knows."""
