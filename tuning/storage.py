"""Where studies live: an SQLite file, a journal file, or PostgreSQL; and what goes wrong with each, in one line.

SQLite needs a local disk. A journal is a file too, and works on a network file system; one that a crash cut short is
mended when it is opened.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from newsrec.errors import UsageError
from newsrec.progress import Progress, Silent

DEFAULT: Final = "sqlite:///artifacts/tuning.db"
LOCKED_SECONDS: Final = 60.0
"""How long to wait for an SQLite file that another process writes to."""
LOCK_GRACE_SECONDS: Final = 10
"""A journal's lock is held for one line; one that is older belonged to a process that was killed."""
FAULTS: Final = (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError)
"""What a storage raises when it cannot be reached, read or written."""


def open_storage(url: str, tell: Progress | None = None) -> BaseStorage:
    """Open a storage, and make it where it does not exist.

    Args:
        url: `sqlite:///path`, `journal:///path` or `postgresql://user@host/database`.
        tell: Told of a journal that was mended.

    Raises:
        UsageError: An unknown kind, no driver, or a place that cannot be reached, read or written.
    """
    scheme = url.partition(":")[0].partition("+")[0]
    if scheme not in STORAGES or "://" not in url:
        expected = ", ".join(f"{name}://..." for name in STORAGES)
        raise UsageError(f"--storage: expected one of {expected}, found {url!r}.")
    with storage_faults(url):
        return STORAGES[scheme](url, tell or Silent())


@contextlib.contextmanager
def storage_faults(url: str) -> Iterator[None]:
    """Turns what a storage raises into one line; what was written before is still there.

    Raises:
        UsageError: With what the storage said.
    """
    try:
        yield
    except (*FAULTS, ModuleNotFoundError, ArgumentError) as error:
        raise UsageError(
            f"--storage: expected a storage to read and write at '{without_password(url)}', found: {_reason(error)}. "
            "Finished trials are kept; mend it and give the same command again."
        ) from error


def without_password(url: str) -> str:
    """The address as it may be shown."""
    head, at, tail = url.rpartition("@")
    user, colon, _ = head.rpartition(":")
    return f"{user}:***@{tail}" if at and colon and "/" not in head[len(user) + 1 :] else url


def folder_beside(url: str) -> Path:
    """A folder on this machine for what belongs to a study: that of its file, or `artifacts/`."""
    return _path(url).parent if url.startswith(("sqlite", "journal")) else Path("artifacts")


def _path(url: str) -> Path:
    """The file of `scheme:///relative` or `scheme:////absolute`."""
    path = url.partition(":///")[2]
    if not path:
        raise UsageError(f"--storage: expected a file such as {DEFAULT}, found {url!r}.")
    return Path(path)


def _sqlite(url: str, _: Progress) -> BaseStorage:
    path = _path(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise PermissionError(13, "no permission to write", str(path))
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": LOCKED_SECONDS}})
    _lock_before_reading(storage.engine)
    return storage


def _lock_before_reading(engine: Engine) -> None:
    """Let each transaction lock the file as it begins.

    Optuna looks at a trial's state and then changes it. By default SQLite locks from the change on only, and two
    workers may both find the same trial waiting, and both run it.
    """

    @event.listens_for(engine, "connect")
    def _(connection: Any, _: object) -> None:
        connection.isolation_level = None  # else the driver begins transactions too

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections from before


def _postgresql(url: str, _: Progress) -> BaseStorage:
    # psycopg 3 is the driver of the extra; a driver that the address names is taken as it is.
    driven = url.replace("postgresql://", "postgresql+psycopg://", 1)
    return RDBStorage(driven, engine_kwargs={"pool_pre_ping": True})


def _journal(url: str, tell: Progress) -> BaseStorage:
    path = _path(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileSymlinkLock(str(path), LOCK_GRACE_SECONDS)
    if path.exists():
        lock.acquire()  # else a line that another process is writing would look cut short
        try:
            mend_journal(path, tell)
        finally:
            lock.release()
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except (ValueError, KeyError, AttributeError) as error:
        raise OSError(f"a journal that cannot be read ({error})") from error


def mend_journal(path: Path, tell: Progress) -> None:
    """Cut a last line that was not written whole; the file as it was stays beside it as `<name>.damaged`."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    last = content[:whole].rstrip(b"\n").rfind(b"\n") + 1
    with contextlib.suppress(ValueError):
        if whole == len(content) and (not whole or json.loads(content[last:whole])):
            return
    keep = whole if whole < len(content) else last
    backup = path.with_name(f"{path.name}.damaged")
    shutil.copyfile(path, backup)
    with path.open("r+b") as file:
        file.truncate(keep)
        file.flush()
        os.fsync(file.fileno())
    tell.say(
        f"note: the journal '{path}' was cut short in its last line; {len(content) - keep} bytes were dropped, "
        f"the file as it was is kept as '{backup.name}'"
    )


def _reason(error: BaseException) -> str:
    """The innermost line that says something."""
    while error.__cause__ is not None:
        error = error.__cause__
    told = (
        str(getattr(error, "strerror", None) or getattr(error, "orig", None) or error).strip() or type(error).__name__
    )
    return " ".join(told.splitlines()[0].split()).rstrip(".")


STORAGES: Final[Mapping[str, Callable[[str, Progress], BaseStorage]]] = {
    "sqlite": _sqlite,
    "journal": _journal,
    "postgresql": _postgresql,
}
"""Kind, as an address begins -> what opens it."""
