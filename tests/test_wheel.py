"""The wheel as a stranger gets it: installed into a clean folder and used from somewhere far from the checkout."""

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from newsrec import __version__

ROOT = Path(__file__).parents[1]
PACKAGES = ("features", "newsrec", "tuning")
Python = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, python: Python) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = python("-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory, python: Python) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    done = python("-m", "pip", "install", "--no-deps", "--no-index", "--target", folder, wheel, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def files_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    sources = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    files = {name for name in files_of(wheel) if ".dist-info/" not in name}
    assert files == sources
    assert {*(f"{package}/py.typed" for package in PACKAGES), "newsrec/report/template.html"} <= files


def test_wheel_says_who_it_is(wheel: Path) -> None:
    assert wheel.name == f"newsrec-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    assert "Requires-Dist: lightgbm" in text
    assert "# newsrec" in text
    assert any(name.endswith("licenses/LICENSE") for name in files_of(wheel))


def test_packages_are_imported_from_where_they_were_installed(installed: Path, tmp_path: Path, python: Python) -> None:
    code = "import newsrec.api, features.build, tuning; print(newsrec.__file__, features.__file__, tuning.__file__)"
    done = python("-W", "error", "-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(installed / package / "__init__.py") for package in ("newsrec", *PACKAGES[::2])]


def test_verbs_and_report_work_from_another_directory(installed: Path, tmp_path: Path, python: Python) -> None:
    done = python("-W", "error", "-m", "newsrec.train", "--help", cwd=tmp_path, PYTHONPATH=str(installed))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: newsrec train")
    code = (
        "from newsrec.report import render_report, page; "
        "print(page.__file__); print(render_report({'run': 'far away'}))"
    )
    done = python("-W", "error", "-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed / "newsrec" / "report"))
    assert "far away" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="scripts have another form there")
def test_script_is_installed(installed: Path, tmp_path: Path, python: Python) -> None:
    script = installed / "bin" / "newsrec"
    done = python(script, "simulate", "--help", cwd=tmp_path, PYTHONPATH=str(installed))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: newsrec simulate")
