"""Stage 9: the folder that a training run leaves and serving reads. Whole or not there; checked before it is used.

A bundle is written into a temporary sibling and renamed, so a killed run leaves none. Reading compares every file with
the hash in the manifest before anything else looks at it: a damaged model file can crash the process that loads it.
"""

import contextlib
import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import polars as pl

from newsrec import __version__
from newsrec.errors import BundleError, UsageError

FORMAT_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
PACKAGES: Final = ("lightgbm", "numpy", "polars", "pandas", "onnxruntime")
_TEMPORARY = re.compile(r"^\.(?P<name>.+)\.(?P<what>writing|replaced|probe)-(?P<pid>\d+)$")


@contextlib.contextmanager
def writing(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes `out` when the block ends well, and vanishes when it does not.

    Args:
        out: The bundle's folder.
        overwrite: Replace a bundle that is already there; anything else that is there is refused all the same.

    Raises:
        UsageError: `out` exists, or cannot be written; what was there before is still there.
    """
    refuse_unwritable(out, overwrite)
    out = out.resolve()  # a link to a bundle stays, and leads to the new one
    _clean_stale(out, mine=True)
    temporary = out.parent / f".{out.name}.writing-{os.getpid()}"
    try:
        with telling_of_place(out):
            temporary.mkdir()
            yield temporary
            _sync(temporary)
            if out.exists():
                old = out.parent / f".{out.name}.replaced-{os.getpid()}"
                os.replace(out, old)
                os.replace(temporary, out)
                shutil.rmtree(old)
            else:
                os.replace(temporary, out)
            _sync_folder(out.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def telling_of_place(out: Path) -> Iterator[None]:
    """Turns what goes wrong in writing, a full disk above all, into one line about `--out`.

    Raises:
        UsageError: With what the system or Polars found.
    """
    try:
        yield
    except (OSError, pl.exceptions.ComputeError) as error:  # Polars tells of a full disk by the latter
        found = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise UsageError(f"--out: expected a place to write '{out}', found: {found}. Choose another.") from error


def refuse_unwritable(out: Path, overwrite: bool) -> None:
    """Find out before the work whether its result could be kept.

    Raises:
        UsageError: With what is in the way.
    """
    with telling_of_place(out):
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            if not overwrite:
                raise UsageError(
                    f"--out: expected a folder that does not exist, found '{out}'. Choose another, or --overwrite."
                )
            if not (out / MANIFEST).is_file():
                raise UsageError(
                    f"--out: expected a bundle to overwrite, found '{out}' without {MANIFEST}. Choose another."
                )
        out.parent.mkdir(parents=True, exist_ok=True)
        probe = out.parent / f".{out.name}.probe-{os.getpid()}"
        probe.mkdir(exist_ok=True)
        probe.rmdir()


def write_whole(out: Path, write: Callable[[Path], object]) -> None:
    """Write a file through a temporary sibling, so that a reader never meets half of it.

    Raises:
        UsageError: `out` cannot be written; what was there before is still there.
    """
    temporary = out.with_name(f".{out.name}.writing-{os.getpid()}")
    try:
        with telling_of_place(out):
            write(temporary)
            os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


def refuse_unwritable_file(out: Path) -> None:
    """Find out before the work whether its file could be kept.

    Raises:
        UsageError: With what is in the way.
    """
    if out.is_dir():
        raise UsageError(f"--out: expected a file, found the folder '{out}'. Name a file in it.")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise UsageError(f"--out: expected a folder to write into, found '{out.parent}' absent or read-only.")


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Write `manifest.json` last: the facts, and hash and size of every file that is there.

    Args:
        folder: The temporary folder.
        facts: Data, configuration, seed, protocol, features.
    """
    files = {
        str(path.relative_to(folder)): {"sha256": sha256(path), "size": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {
        "format_version": FORMAT_VERSION,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "newsrec": __version__,
        "packages": versions(),
        **facts,
        "files": files,
    }
    write_json(folder / MANIFEST, manifest)


def read_manifest(run: Path) -> dict[str, Any]:
    """Read the manifest and check the whole bundle against it; the one way in.

    Raises:
        BundleError: No bundle there, another format version, or a file that is missing or not as it was written.
    """
    _clean_stale(run)
    path = run / MANIFEST
    if not path.is_file():
        raise BundleError(
            f"--run: expected a bundle, found no {MANIFEST} in '{run}'. Give the folder that train wrote."
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found, files = manifest["format_version"], dict(manifest["files"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{path}: expected a manifest in JSON, found it damaged ({error}). Train again.") from error
    if found != FORMAT_VERSION:
        raise BundleError(
            f"{path}: expected bundle format {FORMAT_VERSION}, found {found!r}. "
            "Train again, or use the newsrec that wrote it."
        )
    faults = [fault for name, facts in sorted(files.items()) if (fault := _fault(run, name, facts))]
    if faults:
        raise BundleError(
            f"{run}: expected the files that train wrote, found {'; '.join(faults[:3])}. Train or copy it again."
        )
    checked: dict[str, Any] = manifest
    return checked


def _fault(run: Path, name: str, facts: Any) -> str | None:
    path, inside = run / name, Path(name)
    links = (run / part for part in (inside, *inside.parents[:-1]))
    if inside.is_absolute() or ".." in inside.parts or any(part.is_symlink() for part in links):
        return f"'{name}' outside the bundle"
    if not isinstance(facts, dict) or not {"sha256", "size"} <= facts.keys():
        return f"'{name}' without sha256 and size in {MANIFEST}"
    if not path.is_file():
        return f"'{name}' missing"
    size = path.stat().st_size
    if size != facts["size"]:
        return f"'{name}' with {size} bytes instead of {facts['size']}"
    return f"'{name}' with another sha256" if sha256(path) != facts["sha256"] else None


def sha256(path: Path) -> str:
    """Hash of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write JSON that a person can read; NaN is refused, since JSON has none."""
    path.write_text(json.dumps(content, indent=2, allow_nan=False, default=str) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Installed versions of the packages that a bundle depends on."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def fresh_run(root: Path = Path("artifacts")) -> Path:
    """A folder name that no other run has: the time to the microsecond, as a run's folder comes only at its end."""
    return root / datetime.now(UTC).strftime("run-%Y%m%d-%H%M%S-%f")


def _sync(folder: Path) -> None:
    """Force files and folders to the disk before the rename makes them the bundle."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            _sync_folder(path)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _clean_stale(out: Path, mine: bool = False) -> None:
    """Put right what a killed run left for this bundle; a run that is still alive keeps its folders.

    Args:
        out: The bundle's folder.
        mine: Folders with this process's own id are stale too: in a container every run may be process 1.
    """
    out = out.resolve()
    for path in sorted(out.parent.glob(f".{glob.escape(out.name)}.*-*")) if out.parent.is_dir() else []:
        found = _TEMPORARY.match(path.name)
        if not found or found["name"] != out.name:
            continue
        pid = int(found["pid"])
        if _alive(pid) and not (mine and pid == os.getpid()):
            continue
        if found["what"] == "replaced" and not out.exists():
            os.replace(path, out)  # killed between moving the old bundle away and the new one in
        else:
            shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    if os.name != "posix":
        return True  # no harmless way to ask; the folder stays
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True  # somebody else's, or no process id: not ours to remove
    return True
