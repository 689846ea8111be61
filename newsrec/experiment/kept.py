"""The folder of an experiment: each cell is written whole when it is done, so that a stopped run goes on."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import polars as pl

from newsrec.bundle import telling_of_place, write_json
from newsrec.errors import UsageError

WHAT: Final = "experiment.json"


@dataclass(frozen=True)
class Kept:
    """Cells that are done, by key."""

    folder: Path

    @classmethod
    def open(cls, folder: Path, facts: dict[str, Any]) -> Self:
        """Make the folder, or go on in it.

        Raises:
            UsageError: It holds something else, or another experiment; the differing facts are named.
        """
        facts = json.loads(json.dumps(facts, default=str))
        what = folder / WHAT
        if what.is_file():
            found = json.loads(what.read_text(encoding="utf-8"))
            differing = sorted(k for k in {*facts, *found} if facts.get(k) != found.get(k))
            if differing:
                raise UsageError(
                    f"--out: expected an empty folder or the same experiment, found one in '{folder}' that differs in "
                    f"{differing}. Choose another folder."
                )
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"--out: expected an empty folder or an experiment, found '{folder}'. Choose another.")
        with telling_of_place(folder):
            (folder / "cells").mkdir(parents=True, exist_ok=True)
            write_json(what, facts)
        return cls(folder)

    def has(self, key: str) -> bool:
        """Whether the cell is done."""
        return self._path(key, "json").is_file()

    def add(self, key: str, figures: dict[str, Any], per_request: pl.DataFrame) -> None:
        """Keep a cell; its figures come last, and at once."""
        with telling_of_place(self.folder):
            per_request.write_parquet(self._path(key, "parquet"))
            unfinished = self._path(key, f"writing-{os.getpid()}")
            write_json(unfinished, figures)
            unfinished.replace(self._path(key, "json"))

    def figures(self, key: str) -> dict[str, Any]:
        """What `add` was given."""
        found: dict[str, Any] = json.loads(self._path(key, "json").read_text(encoding="utf-8"))
        return found

    def per_request(self, key: str) -> pl.DataFrame:
        """What `add` was given."""
        return pl.read_parquet(self._path(key, "parquet"))

    def _path(self, key: str, kind: str) -> Path:
        return self.folder / "cells" / f"{key}.{kind}"
