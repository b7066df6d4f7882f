"""`--jobs` on a few tests of its own: each is run once and reported, whatever becomes of the process that runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ops.stack import tools

_CONFTEST = """
from tests.conftest import pytest_addoption, pytest_runtestloop
"""
_TESTS = """
import os, warnings
from pathlib import Path
import pytest

HERE = Path(__file__)

@pytest.fixture(scope="session")
def kept():
    yield
    HERE.with_suffix(".torn").touch()

def ran(request, tmp_path):
    (HERE.parent / f"{request.node.nodeid.replace('/', '.')}.{os.getpid()}").touch()
    assert tmp_path.parent.parent != HERE.parent

def test_ends_its_process(request, tmp_path):
    ran(request, tmp_path)
    os.kill(os.getpid(), 9)

def test_passes(request, tmp_path, kept):
    ran(request, tmp_path)

def test_fails(request, tmp_path):
    ran(request, tmp_path)
    os.write(1, b"said by what failed")
    assert {"a": 1} == {"a": 2}

def test_is_skipped():
    pytest.skip("not here")

def test_warns(request, tmp_path):
    ran(request, tmp_path)
    warnings.warn("mind this")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    for name in ("test_one.py", "test_other.py"):
        (tmp_path / name).write_text(_TESTS)
    return tmp_path


def spread(folder: Path, *words: str) -> tuple[int, str]:
    """Exit code and output of pytest in two processes on the tests of a folder."""
    command = [sys.executable, "-m", "pytest", "-c", str(folder / "pytest.ini"), "-p", "no:cacheprovider", str(folder)]
    ended = subprocess.run(
        [*command, "--jobs=2", *words], cwd=tools.root(), capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_each_test_is_run_once_and_reported_whatever_becomes_of_its_process(folder: Path) -> None:
    code, said = spread(folder)

    assert code == pytest.ExitCode.TESTS_FAILED
    assert "4 failed, 4 passed, 2 skipped, 2 warnings" in said
    assert said.count("The process that ran this test ended with -9.") == 2
    assert said.count("assert {'a': 1} == {'a': 2}") >= 2
    # What a test writes is shown with it, and nothing that another one wrote.
    assert said.count("said by what failed") >= 2
    assert said.count("UserWarning: mind this") == 2
    ran = sorted(path.name.rpartition(".")[0] for path in folder.glob("*.py::*"))
    names = ("ends_its_process", "fails", "passes", "warns")
    assert ran == [f"test_{file}.py::test_{name}" for file in ("one", "other") for name in names]
    # Fixtures are torn down, and a group is run in one process but for what follows an end.
    assert len(list(folder.glob("*.torn"))) == 2
    assert len({path.name.rpartition(".")[2] for path in folder.glob("*.py::*")}) == 4


def test_a_run_ends_after_the_first_failure_if_it_is_to(folder: Path) -> None:
    code, said = spread(folder, "-x", "--deselect=test_one.py", "-k", "not ends_its_process")

    assert code != 0
    assert "1 failed, 1 passed" in said
    assert (folder / "test_other.torn").exists()
