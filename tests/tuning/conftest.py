"""Described rows of the small log, and a PostgreSQL server where the machine has one; each once per session."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from newsrec.data import Log
from tests.tuning.planted import frames_of
from tuning.frames import Frames


def _command(name: str) -> str | None:
    found = shutil.which(name)
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return found or (str(installed[-1]) if installed else None)


def _as_postgres(folder: Path) -> list[str]:
    """The server refuses to run as root: the user of the Debian package does it then."""
    if os.getuid() != 0:
        return []
    user = pwd.getpwnam("postgres")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["runuser", "-u", "postgres", "--"]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address of an empty database."""
    initdb, pg_ctl = _command("initdb"), _command("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip("no PostgreSQL here (Debian package postgresql)")
    if find_spec("psycopg") is None:
        pytest.skip("no driver for PostgreSQL here (package psycopg)")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # not below tmp_path, which other users cannot enter
    try:
        user = _as_postgres(folder)
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off"
    data = str(folder / "data")

    def run(*command: str) -> None:
        subprocess.run([*user, *command], check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=60)

    run(initdb, "-D", data, "-A", "trust", "-U", "tester", "--no-sync")
    run(pg_ctl, "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
    yield f"postgresql://tester@127.0.0.1:{port}/postgres"
    run(pg_ctl, "-D", data, "-m", "immediate", "-w", "stop")
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def frames(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Frames:
    """Two folds of the small log. Do not change its folder."""
    return frames_of(log, tmp_path_factory.mktemp("frames"))
