"""What happened while reading: rows counted, bad rows set aside with their reason, notes for the user.

One `Ledger` lives for one `read_log`. Readers put bad rows in; `settle` writes the quarantine file and refuses a log of
which too much is bad.
"""

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from newsrec.data.log import ReadOptions
from newsrec.errors import DataError

QUARANTINE_SCHEMA = {"file": pl.String, "line": pl.Int64, "reason": pl.String, "raw": pl.String}
SHOWN = 3
"""Example rows in a message."""


@dataclass
class Ledger:
    """Counts and bad rows, by role (`clicks`, `articles`, `impressions`)."""

    options: ReadOptions
    rows: dict[str, int] = field(default_factory=dict)
    bad: dict[str, list[pl.DataFrame]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def count(self, role: str, rows: int) -> None:
        """Note that `rows` rows of a role were read, bad ones included."""
        self.rows[role] = self.rows.get(role, 0) + rows

    def quarantine(self, role: str, path: Path, bad: pl.DataFrame) -> None:
        """Set rows aside.

        Args:
            role: Whose share of bad rows they count in.
            path: The file they come from.
            bad: `line, reason, raw`, shape (n_bad, 3).
        """
        if bad.height:
            named = bad.with_columns(file=pl.lit(str(path))).select(list(QUARANTINE_SCHEMA))
            self.bad.setdefault(role, []).append(named.cast(pl.Schema(QUARANTINE_SCHEMA)))

    def note(self, sentence: str) -> None:
        """Remember one sentence for the user; a sentence that is already there is not repeated."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    @property
    def rows_read(self) -> int:
        """Rows of all roles, bad ones included."""
        return sum(self.rows.values())

    @property
    def rows_bad(self) -> int:
        """Bad rows of all roles."""
        return sum(frame.height for frames in self.bad.values() for frame in frames)

    def settle(self) -> None:
        """Write the quarantine file where one was asked for, then refuse a log with too many bad rows.

        Raises:
            DataError: A role has more than `max_bad_share` bad rows, or the quarantine file cannot be written.
        """
        self._write()
        limit = self.options.max_bad_share
        for role, frames in sorted(self.bad.items()):
            bad, rows = pl.concat(frames), self.rows[role]
            if bad.height > limit * rows:
                raise DataError(
                    f"{role}: at most {limit:.2%} bad rows expected, {bad.height} of {rows} ({bad.height / rows:.2%}) "
                    f"found; {_examples(bad)}; mend the file or raise max_bad_share{self._where()}"
                )

    def _write(self) -> None:
        path = self.options.quarantine
        if path is None or not self.bad:
            return
        frames = [frame for role in sorted(self.bad) for frame in self.bad[role]]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            pl.concat(frames).write_csv(path)
        except OSError as error:
            raise DataError(
                f"quarantine: a file that can be written expected at '{path}', {error} found; name another"
            ) from error
        self.note(f"{self.rows_bad} bad rows are in {path}")

    def _where(self) -> str:
        return f" (all of them are in {self.options.quarantine})" if self.options.quarantine else ""


def _examples(bad: pl.DataFrame) -> str:
    rows = bad.head(SHOWN).iter_rows(named=True)
    return "; ".join(f"{Path(row['file']).name} line {row['line']}: {row['reason']}" for row in rows)
