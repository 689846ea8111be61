"""Storages: each opens, and each fault is one line that loses nothing."""

import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest

from newsrec.errors import UsageError
from tests.factories import Heard
from tuning import storage as module
from tuning.storage import folder_beside, mend_journal, open_storage, storage_faults, without_password


def a_study(url: str) -> optuna.Study:
    return optuna.create_study(storage=open_storage(url), study_name="s", load_if_exists=True)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_file_is_made_with_its_folder_and_opened_again(tmp_path: Path, kind: str) -> None:
    url = f"{kind}:///{tmp_path}/deep/study.db"
    a_study(url).set_user_attr("a", 1)
    assert a_study(url).user_attrs == {"a": 1}
    assert folder_beside(url) == tmp_path / "deep"


@pytest.mark.parametrize("url", ["mysql://me@there/db", "artifacts/study.db", "sqlite", "redis://x"])
def test_unknown_kinds_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"--storage: expected one of sqlite://\.\.\., journal://\.\.\., postgresql"):
        open_storage(url)


def test_file_without_a_name_is_refused() -> None:
    with pytest.raises(UsageError, match="--storage: expected a file such as sqlite:///"):
        open_storage("sqlite://")


def test_unreachable_database_is_one_line_without_its_password() -> None:
    with pytest.raises(UsageError, match="--storage: expected a storage to read and write") as error:
        open_storage("postgresql://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_password_is_hidden_and_nothing_else() -> None:
    assert without_password("postgresql://me:s:e@host/db") == "postgresql://me:s:***@host/db"
    assert without_password("postgresql://me@host/db") == "postgresql://me@host/db"
    assert without_password("sqlite:///a@b.db") == "sqlite:///a@b.db"


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_file_that_is_none_of_ours_is_refused_and_kept(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "other"
    path.write_text("a\nfile of\nsomebody else\n", encoding="utf-8")
    with pytest.raises(UsageError, match="--storage: expected a storage to read and write"):
        a_study(f"{kind}:///{path}")
    assert "somebody else" in (tmp_path / "other").read_text() + "".join(
        each.read_text() for each in tmp_path.glob("*.damaged")
    )


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may write anywhere")
def test_read_only_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    a_study(f"sqlite:///{path}")
    path.chmod(0o400)
    with pytest.raises(UsageError, match="no permission to write"):
        open_storage(f"sqlite:///{path}")


def test_read_only_database_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    with pytest.raises(UsageError, match=r"found: no permission to write|found: .*no permission to write"):
        open_storage(f"sqlite:///{tmp_path}/study.db")


def test_locked_sqlite_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCKED_SECONDS", 0.05)
    url = f"sqlite:///{tmp_path}/study.db"
    study = a_study(url)
    holder = sqlite3.connect(tmp_path / "study.db")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UsageError, match="found: database is locked"), storage_faults(url):
        study.set_user_attr("a", 1)
    holder.close()
    study.set_user_attr("a", 2)
    assert a_study(url).user_attrs == {"a": 2}


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_waiting_trials_are_handed_out_once(tmp_path: Path, kind: str) -> None:
    url = f"{kind}:///{tmp_path}/study.db"
    study = a_study(url)
    for x in range(40):
        study.enqueue_trial({"x": float(x)})
    together = threading.Barrier(4)

    def asked(joined: optuna.Study) -> list[int]:
        together.wait()
        return [joined.ask().number for _ in range(10)]

    with ThreadPoolExecutor(4) as workers:
        given = list(workers.map(asked, [a_study(url) for _ in range(4)]))
    assert sorted(number for each in given for number in each) == list(range(40))


def test_full_disk_is_one_line() -> None:
    with (
        pytest.raises(UsageError, match="found: No space left on device"),
        storage_faults("journal:///j"),
    ):
        raise OSError(28, "No space left on device")


def test_journal_that_was_cut_anywhere_in_its_last_line_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    study = a_study(f"journal:///{path}")
    trial = study.ask()
    study.tell(trial, trial.suggest_float("x", 0, 1))
    whole = path.read_bytes()
    last = len(whole[:-1]) - whole[:-1].rfind(b"\n") - 1
    for cut in {1, 2, last // 2, last}:
        path.write_bytes(whole[:-cut])
        told = Heard()
        mended = optuna.create_study(
            storage=open_storage(f"journal:///{path}", told), study_name="s", load_if_exists=True
        )
        assert len(told.lines) == 1
        assert "was cut short in its last line" in told.lines[0]
        assert (tmp_path / "study.log.damaged").read_bytes() == whole[:-cut]
        assert [t.state.name for t in mended.trials] == ["RUNNING"]  # that it ended was in the last line
        again = mended.ask()
        mended.tell(again, again.suggest_float("x", 0, 1))
        assert mended.trials[-1].state.name == "COMPLETE"


def test_whole_journal_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    a_study(f"journal:///{path}")
    before, told = path.read_bytes(), Heard()
    mend_journal(path, told)
    assert (path.read_bytes(), told.lines) == (before, [])
    path.write_bytes(b"")
    mend_journal(path, told)
    assert told.lines == []
