"""In which order tests are run, and which of them in one process (`pytest -n 4`; see `tests.side_by_side`)."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis  # noqa: F401 # its report does at the end, and would warn of what is frozen by then
import pytest

from config.processes import collector
from protocol.ethereum.library import load_eth_account
from tests import side_by_side

#: Folders whose tests share something: one pool; one wallet on one Docker engine, after which containers are named; one
#: API, whose machines are users of one RabbitMQ. Of those that hold a file, the first counts.
TOGETHER = tuple(f"tests/integration/{folder}/" for folder in ("pool/trouble", "pool", "workers", "api"))

#: What takes longest begins first, or all others would wait for it in the end.
LONGEST = tuple(f"tests/integration/{folder}" for folder in ("pool/", "workers/", "pipeline/", "lane/", ""))

collector.relax()
# Before any test imports it by its name, which takes longer.
load_eth_account()


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the garbage collector need not look at it again and again."""
    collector.settle()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest folders first."""
    items.sort(key=lambda item: next((n for n, folder in enumerate(LONGEST) if item.nodeid.startswith(folder)), 9))


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that people know from pytest-xdist. Pytest keeps short names for itself, hence the underscore."""
    parser.getgroup("general")._addoption(
        "-n", dest="processes", type=int, default=1, metavar="N", help="run tests in N processes side by side"
    )


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests side by side; None, which has pytest do as ever: if one process is asked for, or none is to run."""
    option = session.config.option
    if option.processes < 2 or option.collectonly or session.testsfailed:
        return None
    side_by_side.run(session, in_groups(session.items), option.processes)
    return True


def in_groups(items: Sequence[pytest.Item]) -> list[list[pytest.Item]]:
    """Keeps together what shares expensive fixtures or names: the tests of one file, and of some folders."""
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        file = item.nodeid.partition("::")[0]
        folders = (folder for folder in TOGETHER if file.startswith(folder))
        groups.setdefault(next(folders, file), []).append(item)
    return list(groups.values())
