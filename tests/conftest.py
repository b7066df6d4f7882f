"""How tests are spread over processes by pytest-xdist (`pytest -n 3`), each of which imports all of them."""

from __future__ import annotations

import fcntl
import importlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped] # it has no types

from chain.rpc.library import load_web3
from config.processes import collector

TESTS = Path(__file__).parent
#: There once a process has begun to compile tests; it holds a lock until it has them all.
COMPILED = TESTS / "unit/__pycache__"

#: Folders whose tests share something: one pool; one wallet on one Docker engine, after which containers are named. Of
#: those that hold a file, the first counts.
TOGETHER = tuple(f"tests/integration/{folder}/" for folder in ("pool/trouble", "pool", "workers"))

#: What takes longest begins first, or all others would wait for it in the end.
LONGEST = tuple(f"tests/integration/{folder}" for folder in ("pool/", "workers/", "pipeline/", "lane/", ""))

collector.relax()


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Of several processes in a fresh clone, let one compile the tests while the others wait for what it writes.

    All begin with the same file, so that each would compile every one for itself (10 s). The process that hands tests
    out to them collects none, and needs nothing that they need.
    """
    if session.config.option.dist != "no":
        return (yield)
    # Before any test imports it by its name, which takes longer.
    load_web3()
    # Imported later, after `settle`, its report at the end of a run would warn.
    importlib.import_module("hypothesis")
    if not hasattr(session.config, "workerinput"):
        return (yield)
    folder = os.open(TESTS, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if COMPILED.exists():
            fcntl.flock(folder, fcntl.LOCK_UN)
        return (yield)
    finally:
        os.close(folder)


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the garbage collector need not look at it again and again."""
    collector.settle()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Nobody asks for the keywords of a test that passed, which xdist would pack and unpack three times for each."""
    if report.passed:
        report.keywords = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest folders first."""
    items.sort(key=lambda item: next((n for n, folder in enumerate(LONGEST) if item.nodeid.startswith(folder)), 9))


class ByFixtures(LoadScopeScheduling):  # type: ignore[misc] # it has no types
    """Keeps together what shares expensive fixtures or names: the tests of one file, and of some folders."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((folder for folder in TOGETHER if file.startswith(folder)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFixtures:
    """Tell xdist to spread tests our way, whatever `--dist` says, and in the order of their files.

    By itself it begins with the files that have most tests; here those are the quickest, and the slow come first.
    """
    config.option.loadscopereorder = False
    return ByFixtures(config, log)
