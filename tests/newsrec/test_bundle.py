"""A bundle is whole or not there, whatever happens while it is written, and is checked before anything reads it."""

import inspect
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from newsrec.bundle import FORMAT_VERSION, MANIFEST, fresh_run, read_manifest, sha256, write_manifest, writing
from newsrec.errors import BundleError, NewsrecError, UsageError
from newsrec.serve import Recommender
from newsrec.train import TrainResult

ROOT = Path(__file__).parents[2]
Python = Callable[..., subprocess.CompletedProcess[str]]


def make(out: Path, text: str = "one", overwrite: bool = False) -> Path:
    """A small bundle: two files, one of them in a folder."""
    with writing(out, overwrite) as folder:
        (folder / "state").mkdir()
        (folder / "model.txt").write_text(text * 100)
        (folder / "state" / "clicks.txt").write_text(text)
        write_manifest(folder, {"seed": 7})
    return out


def content(out: Path) -> str:
    """What the checked bundle holds."""
    read_manifest(out)
    return (out / "state" / "clicks.txt").read_text()


def edit(out: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((out / MANIFEST).read_text())
    change(manifest)
    (out / MANIFEST).write_text(json.dumps(manifest))


def refusal(out: Path) -> str:
    """The one line that says what is wrong with the bundle."""
    with pytest.raises(BundleError) as caught:
        read_manifest(out)
    line = str(caught.value)
    assert "\n" not in line
    assert "expected" in line
    return line


def dead_pid() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_manifest_names_hash_and_size_of_every_other_file(tmp_path: Path) -> None:
    out = make(tmp_path / "run")
    manifest = read_manifest(out)
    assert manifest["seed"] == 7
    assert manifest["format_version"] == FORMAT_VERSION
    assert sorted(manifest["files"]) == ["model.txt", "state/clicks.txt"]
    one = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"  # printf one | sha256sum
    assert manifest["files"]["state/clicks.txt"] == {"sha256": one, "size": 3}


def test_trained_bundle_lists_every_file_that_it_has(trained: TrainResult) -> None:
    there = {path.relative_to(trained.run).as_posix() for path in trained.run.rglob("*") if path.is_file()}
    assert there == set(read_manifest(trained.run)["files"]) | {MANIFEST}
    assert all(sha256(trained.run / name) == f["sha256"] for name, f in read_manifest(trained.run)["files"].items())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[Callable[[Path], None], str] = {
    truncate: "bytes instead of",
    grow: "bytes instead of",
    empty: "with 0 bytes instead of",
    flip: "with another sha256",
    Path.unlink: "missing",
    to_folder: "missing",
}


@pytest.mark.parametrize("name", ["lambdarank.txt", "state/clicks.parquet", "vocabulary.parquet", "report.html"])
@pytest.mark.parametrize("harm", DAMAGE, ids=lambda harm: harm.__name__)
def test_damaged_file_is_refused_by_name(bundle: Path, harm: Callable[[Path], None], name: str) -> None:
    harm(bundle / name)
    line = refusal(bundle)
    assert f"'{name}'" in line
    assert DAMAGE[harm] in line
    with pytest.raises(BundleError):
        Recommender.load(bundle)


def test_swapped_files_are_refused(bundle: Path) -> None:
    one, two = bundle / "state" / "clicks.parquet", bundle / "state" / "articles.parquet"
    content_one = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content_one)
    assert "'state/articles.parquet'" in refusal(bundle)


def test_all_faults_are_told_at_once(bundle: Path) -> None:
    empty(bundle / "lambdarank.txt")
    (bundle / "vocabulary.parquet").unlink()
    line = refusal(bundle)
    assert "'lambdarank.txt' with 0 bytes" in line
    assert "'vocabulary.parquet' missing" in line


def test_model_is_not_read_before_every_hash_is_checked(bundle: Path) -> None:
    """A model that waits for ever when opened, beside another file that is damaged: the load must still refuse."""
    grow(bundle / "report.html")
    (bundle / "lambdarank.txt").unlink()
    os.mkfifo(bundle / "lambdarank.txt")
    assert "'lambdarank.txt' missing; 'report.html' with" in refusal(bundle)


def test_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        assert "found no manifest.json" in refusal(path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", '{"format_version": 1}', '{"format_version": 1, "files": 3}', "[" * 200_000]
    + ['{"format_version": 1, "files": {"model.txt": ' + facts + "}}" for facts in ("null", "3", "{}", '{"size": 3}')],
    ids=lambda text: text[:50],
)  # fmt: skip
def test_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    out = make(tmp_path / "run")
    (out / MANIFEST).write_text(text)
    assert ("without sha256 and size" if "model.txt" in text else "found it damaged") in refusal(out)


def test_manifest_that_is_no_text_is_refused(tmp_path: Path) -> None:
    out = make(tmp_path / "run")
    (out / MANIFEST).write_bytes(b"\xff\xfe" + (out / MANIFEST).read_bytes())
    assert "damaged" in refusal(out)


def test_no_flipped_bit_of_the_manifest_breaks_the_load(bundle: Path) -> None:
    """A flip inside a free text changes no more than that text; any other is refused, never a traceback."""
    whole = (bundle / MANIFEST).read_bytes()
    rng = random.Random(0)
    refused = 0
    for _ in range(80):
        harmed = bytearray(whole)
        harmed[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        (bundle / MANIFEST).write_bytes(harmed)
        try:
            Recommender.load(bundle)
        except NewsrecError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("key", ["ranker", "recall", "features", "seed", "validation", "protocol"])
def test_manifest_without_a_fact_that_serving_needs_is_refused(bundle: Path, key: str) -> None:
    edit(bundle, lambda manifest: manifest.pop(key))
    with pytest.raises(BundleError, match=f"'{key}'"):
        Recommender.load(bundle)


def test_ranker_that_this_version_lacks_is_refused(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest.update(ranker="oracle"))
    with pytest.raises(BundleError, match=r"expected a ranker of \['lgbm'\], found 'oracle'"):
        Recommender.load(bundle)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, "1", None])
def test_bundle_of_another_format_is_refused(tmp_path: Path, version: object) -> None:
    out = make(tmp_path / "run")
    edit(out, lambda manifest: manifest.update(format_version=version))
    assert f"expected bundle format {FORMAT_VERSION}, found {version!r}" in refusal(out)


def test_paths_that_lead_out_of_the_bundle_are_refused(tmp_path: Path) -> None:
    out = make(tmp_path / "run")
    outside = tmp_path / "outside.txt"
    outside.write_text("mine")
    facts = {"sha256": sha256(outside), "size": 4}
    for name in ("../outside.txt", "state/../../outside.txt", str(outside)):
        edit(out, lambda manifest, name=name: manifest["files"].update({name: facts}))
        assert f"'{name}' outside the bundle" in refusal(out)
        edit(out, lambda manifest, name=name: manifest["files"].pop(name))
    assert content(out) == "one"


def test_link_to_a_file_or_through_a_folder_is_refused(tmp_path: Path) -> None:
    """Even with the right content: what it points to can change after the check."""
    out, elsewhere = make(tmp_path / "run"), tmp_path / "elsewhere"
    shutil.move(out / "model.txt", elsewhere)
    (out / "model.txt").symlink_to(elsewhere)
    assert "'model.txt' outside the bundle" in refusal(out)
    out = make(tmp_path / "other")
    shutil.move(out / "state", tmp_path / "state")
    (out / "state").symlink_to(tmp_path / "state")
    assert "'state/clicks.txt' outside the bundle" in refusal(out)


def test_failure_leaves_nothing_and_keeps_the_old_bundle(tmp_path: Path) -> None:
    def fail(out: Path, overwrite: bool) -> None:
        with writing(out, overwrite) as folder:
            (folder / "model.txt").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail(tmp_path / "run", overwrite=False)
    assert list(tmp_path.iterdir()) == []
    out = make(tmp_path / "run")
    with pytest.raises(ZeroDivisionError):
        fail(out, overwrite=True)
    assert content(out) == "one"
    assert list(tmp_path.iterdir()) == [out]


def test_out_that_exists_is_refused_and_kept(tmp_path: Path) -> None:
    out = make(tmp_path / "run")
    with pytest.raises(UsageError, match=r"expected a folder that does not exist, found .*Choose another, or --over"):
        make(out, "two")
    assert content(out) == "one"
    assert content(make(out, "two", overwrite=True)) == "two"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_bundle_is_never_overwritten(tmp_path: Path, overwrite: bool) -> None:
    folder, file = tmp_path / "thesis", tmp_path / "thesis.txt"
    folder.mkdir()
    for mine in (folder / "chapter.txt", file):
        mine.write_text("years of work")
    for out in (folder, file):
        with pytest.raises(UsageError, match="--out: expected a"):
            make(out, overwrite=overwrite)
    assert (folder / "chapter.txt").read_text() == file.read_text() == "years of work"


def test_empty_folder_and_folders_that_are_absent_are_fine(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert content(make(tmp_path / "empty")) == "one"
    assert content(make(tmp_path / "a" / "b" / "run")) == "one"


def test_place_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    started = []
    for out in (tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(UsageError, match="--out: expected a place to write"), writing(out):
            started.append(out)
    assert started == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_link_to_a_bundle_is_followed_when_overwritten(tmp_path: Path) -> None:
    out = make(tmp_path / "run")
    (tmp_path / "latest").symlink_to(out)
    assert content(make(tmp_path / "latest", "two", overwrite=True)) == "two"
    assert content(out) == "two"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "run"]


FULL = """
import resource, signal, sys
from pathlib import Path
import polars as pl
from newsrec.bundle import write_manifest, writing
from newsrec.errors import UsageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
WAYS = {
    "text": lambda folder: (folder / "model.txt").write_text("x" * 10_000),
    "table": lambda folder: pl.DataFrame({"a": range(9_999)}).write_parquet(folder / "a.parquet", compression="lz4"),
}
try:
    with writing(Path(sys.argv[1]), overwrite=True) as folder:
        WAYS[sys.argv[2]](folder)
        write_manifest(folder, {})
except UsageError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="file size limits are those of POSIX")
@pytest.mark.parametrize("way", ["text", "table"])
def test_full_disk_is_told_in_one_line_and_leaves_the_old_bundle_and_nothing_else(
    tmp_path: Path, python: Python, way: str
) -> None:
    out = make(tmp_path / "run")
    done = python("-c", FULL, out, way)
    assert done.stdout.startswith(f"--out: expected a place to write '{out}', found: "), done.stderr
    assert "File too large" in done.stdout
    assert done.stdout.count("\n") == 1
    assert content(out) == "one"
    assert list(tmp_path.iterdir()) == [out]


FULL_TRAIN = """
import resource, signal, sys
from newsrec.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
sys.exit(main(["train", *sys.argv[1:]]))
"""


@pytest.mark.skipif(os.name != "posix", reason="file size limits are those of POSIX")
def test_train_on_a_full_disk_exits_2_and_leaves_nothing(tables: Path, tmp_path: Path, python: Python) -> None:
    params = tmp_path / "params.json"
    params.write_text(json.dumps({"trees": 2, "min_data_in_leaf": 20, "threads": 1}))
    words = ("--data", tables, "--integer-ids", "--params", params, "--train-requests", "300", "--recall", "popular")
    done = python("-c", FULL_TRAIN, *words, "--out", tmp_path / "run")
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: --out: expected a place to write '{tmp_path / 'run'}', found: ")
    assert list(tmp_path.iterdir()) == [params]


OVERWRITE_FOR_EVER = f"""
import sys
from pathlib import Path
from newsrec.bundle import write_manifest, writing
{inspect.getsource(make)}
print("ready", flush=True)
while True:
    for text in ("one", "two"):
        make(Path(sys.argv[1]), text, overwrite=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_killed_at_any_moment_leaves_the_old_or_the_new_bundle(tmp_path: Path) -> None:
    out, rng = make(tmp_path / "run"), random.Random(0)
    for _ in range(25):
        command = [sys.executable, "-c", OVERWRITE_FOR_EVER, str(out)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process, process.stdout:
            assert process.stdout.readline() == b"ready\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0.0, 0.03))
            process.send_signal(signal.SIGKILL)
        assert content(out) in ("one", "two")
        assert (out / "model.txt").read_text() == content(out) * 100
        assert list(tmp_path.iterdir()) == [out]


def test_killed_between_the_two_renames_gives_the_old_bundle_back(tmp_path: Path) -> None:
    out = make(tmp_path / "run")
    out.rename(tmp_path / f".run.replaced-{dead_pid()}")
    assert content(out) == "one"
    assert list(tmp_path.iterdir()) == [out]


def test_leftovers_of_the_dead_are_cleaned_and_those_of_the_living_kept(tmp_path: Path) -> None:
    out, dead, alive = make(tmp_path / "run"), dead_pid(), os.getppid()
    names = [f".{name}.{what}-{pid}" for name in ("run", "run.b") for what in ("writing", "replaced")
             for pid in (dead, alive)]  # fmt: skip
    odd = [".run.writing-x", ".run.notes-1", f".run.writing-{10**20}"]
    for name in names + odd:
        (tmp_path / name).mkdir()
        (tmp_path / name / "half.txt").write_text("half")
    assert content(out) == "one"
    gone = {f".run.writing-{dead}", f".run.replaced-{dead}"}
    assert {path.name for path in tmp_path.iterdir()} == {"run", *names, *odd} - gone


def test_leftover_of_an_earlier_process_with_the_same_id_is_not_in_the_way(tmp_path: Path) -> None:
    """In a container every run may be process 1."""
    for what in ("writing", "probe"):
        (tmp_path / f".run.{what}-{os.getpid()}").mkdir()
    (tmp_path / f".run.writing-{os.getpid()}" / "old.txt").write_text("half")
    make(tmp_path / "run", "one")
    assert content(make(tmp_path / "run", "two", overwrite=True)) == "two"
    assert not (tmp_path / "run" / "old.txt").exists()


def test_runs_that_begin_in_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    """The folder of the first is not there yet when the second asks: it comes at the end of the run."""
    names = [fresh_run(tmp_path / "absent") for _ in range(20)]
    assert len(set(names)) == 20
    assert {name.parent for name in names} == {tmp_path / "absent"}
    assert all(name.name.startswith("run-20") for name in names)
