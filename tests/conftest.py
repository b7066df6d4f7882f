"""In which order tests run, and which of them in one process (`--jobs`, see `tests.spread`)."""

from __future__ import annotations

import importlib
import sys

import pytest

from chain.rpc.library import load_web3
from config.processes import collector
from tests import spread

#: Folders whose tests share something: one pool; one wallet on one Docker engine, after which containers are named. Of
#: those that hold a file, the first counts.
TOGETHER = tuple(f"tests/integration/{folder}/" for folder in ("pool/trouble", "pool", "workers"))

#: What takes longest begins first, or all others would wait for it in the end.
LONGEST = tuple(f"tests/integration/{folder}" for folder in ("pool/", "workers/", "pipeline/", "lane/", ""))

collector.relax()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--jobs`."""
    parser.addoption("--jobs", type=int, default=1, metavar="N", help="run the tests in N processes at a time")


def pytest_sessionstart() -> None:
    """Import what takes longer if a test imports it first by its name."""
    load_web3()
    # Imported later, after `settle`, its report at the end of a run would warn.
    importlib.import_module("hypothesis")


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the garbage collector need not look at it again and again."""
    collector.settle()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Nobody asks for the keywords of a test that passed, which would be sent three times for each."""
    if report.passed:
        report.keywords = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest folders first."""
    items.sort(key=lambda item: next((n for n, folder in enumerate(LONGEST) if item.nodeid.startswith(folder)), 9))


def together(nodeid: str) -> str:
    """What a test shares expensive fixtures or names with: its file, or one of some folders."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in TOGETHER if file.startswith(folder)), file)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests in several processes, if `--jobs` says so."""
    jobs = session.config.option.jobs
    if jobs < 2 or session.config.option.collectonly or session.testsfailed:
        return None
    # A test has imported it, if one starts processes by it.
    forged = sys.modules.get("tests.integration.forged")
    if forged is not None:
        forged.begin()
    spread.run(session, jobs, spread.grouped(session.items, together))
    return True
