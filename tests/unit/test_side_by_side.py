"""Tests in several processes give the report of one: on a folder of its own, as pytest prints it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
GROUPED = """
from tests import side_by_side

def pytest_runtestloop(session):
    groups = {}
    for item in session.items:
        groups.setdefault(item.path, []).append(item)
    side_by_side.run(session, list(groups.values()), 2)
    return True
"""
SHARED = """
import os, pathlib, pytest

@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    yield os.getpid()
    (pathlib.Path(__file__).parent / f"{pathlib.Path(__file__).name}.over").touch()

def test_first(shared):
    print("said by the first")

@pytest.mark.parametrize("number", range(20))
def test_more(shared, number):
    if (number, ENDS) == (10, True):
        os._exit(3)
    assert os.getpid() == shared and number != WRONG
"""


def run(folder: Path, *words: str, **files: tuple[int, bool]) -> tuple[int, str]:
    """Exit code and report; of each file, which of its tests fails, and whether one in the middle ends the process."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "conftest.py").write_text(GROUPED)
    for name, (wrong, ends) in files.items():
        (folder / f"test_{name}.py").write_text(f"WRONG, ENDS = {wrong}, {ends}\n{SHARED}")
    command = [sys.executable, "-m", "pytest", "-qrA", "-p", "no:cacheprovider", "--disable-plugin-autoload", *words]
    done = subprocess.run(
        [*command, str(folder)], env={"PYTHONPATH": str(ROOT)}, cwd=folder, capture_output=True, text=True, check=False
    )
    assert not done.stderr
    return done.returncode, done.stdout


def over(folder: Path) -> set[str]:
    """The files whose shared fixture was ended."""
    return {path.name.removeprefix("test_").removesuffix(".py.over") for path in folder.glob("*.over")}


def test_each_test_is_run_once_beside_those_of_its_group_and_all_are_reported(tmp_path: Path) -> None:
    code, said = run(tmp_path, a=(-1, False), b=(7, False), c=(-1, False))
    assert code == 1
    assert "1 failed, 62 passed" in said
    assert said.count("PASSED") == 62
    assert "test_b.py::test_more[7]" in said
    assert "said by the first" in said
    assert over(tmp_path) == {"a", "b", "c"}


def test_a_test_that_ends_its_process_has_failed_and_the_other_process_goes_on(tmp_path: Path) -> None:
    code, said = run(tmp_path, a=(-1, True), b=(-1, False), c=(-1, False))
    assert code == 1
    assert "test_a.py::test_more[10] - The test's process ended: 3" in said
    assert "10 tests did not run to their end" in said
    assert "1 failed, 53 passed" in said
    assert over(tmp_path) == {"b", "c"}


def test_the_first_failure_is_the_last_test_if_so_asked(tmp_path: Path) -> None:
    code, said = run(tmp_path, "-x", a=(0, False), b=(0, False), c=(0, False))
    assert code == 1
    assert "stopping after" in said
    assert "test_c.py" not in said
    assert over(tmp_path) == {"a", "b"}
