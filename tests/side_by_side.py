"""`pytest -n 4`: tests in so many processes, each forked from one that has imported and collected them all.

                                     ┌─ fork ─► takes a group, runs its tests ─┐ reports
    imports and collects, once ──────┼─ fork ─► takes the next group …         ├────────► prints them, as ever
                                     └─ fork ─► …                              ┘

pytest-xdist starts each process anew: six thousand tests and what they import cost each ten seconds of CPU and 300 MB.
What a module draws at random when it is imported is the same in all: tests that tell a server of it are one group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any

import pytest

_fork = get_context("fork")

Group = Sequence[pytest.Item]
Location = tuple[str, int | None, str]


def run(session: pytest.Session, groups: Sequence[Group], processes: int) -> None:
    """Run all tests, those of one group in one process and in their order.

    Raises Session.Failed and Session.Interrupted as pytest's own loop does, Failed also if a test was left out.
    """
    # Tests make their folders in one, which is made here.
    session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined] # it has no other name
    taken, stop = _fork.Value("i", 0), _fork.Event()
    running: dict[Connection, _Running] = {}
    for _ in range(min(processes, len(groups))):
        ours, theirs = _fork.Pipe(duplex=False)
        process = _fork.Process(target=_work, args=(session, _items(groups, taken), stop, theirs))
        process.start()
        theirs.close()
        running[ours] = _Running(session, process)
    finished = 0
    try:
        while running:
            for ready in wait(running):
                assert isinstance(ready, Connection)
                try:
                    finished += running[ready].receive(*ready.recv())
                except EOFError:
                    running.pop(ready).ended()
            if session.shouldfail or session.shouldstop:
                stop.set()
    finally:
        stop.set()
        for connection in running:
            connection.close()
    if not session.shouldfail and not session.shouldstop and finished < len(session.items):
        session.shouldfail = f"{len(session.items) - finished} tests did not run to their end"
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)


@dataclass
class _Running:
    """One process as the one that collected sees it."""

    session: pytest.Session
    process: BaseProcess
    #: The test that it is at, and where that stands.
    test: tuple[str, Location] | None = field(default=None, init=False)

    def receive(self, what: str, arguments: dict[str, Any]) -> bool:
        """Take a message of its `_Reporter`; returns whether a test is over."""
        hook = self.session.config.hook
        match what:
            case "start":
                self.test = arguments["nodeid"], arguments["location"]
                hook.pytest_runtest_logstart(**arguments)
            case "report":
                config = self.session.config
                hook.pytest_runtest_logreport(
                    report=hook.pytest_report_from_serializable(config=config, data=arguments)
                )
            case "finish":
                self.test = None
                hook.pytest_runtest_logfinish(**arguments)
        return what == "finish"

    def ended(self) -> None:
        """Its last message was read. A test that it left unfinished has failed."""
        self.process.join()
        if self.test is not None:
            nodeid, location = self.test
            said = f"The test's process ended: {self.process.exitcode}"
            failed = pytest.TestReport(nodeid, location, {}, "failed", said, "call")
            self.session.config.hook.pytest_runtest_logreport(report=failed)


def _work(session: pytest.Session, items: Iterator[pytest.Item], stop: Event, reports: Connection) -> None:
    """Run `items` until there are no more or `stop` is set: the life of one process."""
    plugins = session.config.pluginmanager
    plugins.unregister(name="terminalreporter")
    plugins.register(_Reporter(session.config, reports))
    # What tests print goes to a file, which is the other processes' too until it is opened anew.
    capture = plugins.get_plugin("capturemanager")
    assert capture is not None
    capture.stop_global_capturing()
    capture.start_global_capturing()
    try:
        for item, following in _with_next(items):
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail or session.shouldstop or stop.is_set():
                break
    except (KeyboardInterrupt, BrokenPipeError):
        pass  # Nobody reads what becomes of the others.
    finally:
        session._setupstate.teardown_exact(None)
        capture.stop_global_capturing()


def _items(groups: Sequence[Group], taken: Any) -> Iterator[pytest.Item]:
    """The tests of group after group, each taken when the one before is given out."""
    while True:
        with taken.get_lock():
            number = taken.value
            taken.value += 1
        if number >= len(groups):
            return
        yield from groups[number]


def _with_next(items: Iterator[pytest.Item]) -> Iterator[tuple[pytest.Item, pytest.Item | None]]:
    """Each test and the one after it, whose fixtures are kept."""
    item = next(items, None)
    while item is not None:
        following = next(items, None)
        yield item, following
        item = following


@dataclass(frozen=True)
class _Reporter:
    """Sends what happens to the process that collected."""

    config: pytest.Config
    reports: Connection

    def pytest_runtest_logstart(self, nodeid: str, location: Location) -> None:
        self.reports.send(("start", {"nodeid": nodeid, "location": location}))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.reports.send(("report", data))

    def pytest_runtest_logfinish(self, nodeid: str, location: Location) -> None:
        self.reports.send(("finish", {"nodeid": nodeid, "location": location}))
