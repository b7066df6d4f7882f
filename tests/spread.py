"""`--jobs N`: this process collects the tests, then forks N that run them.

    this process ── collects ── forks ──► runner 1   asks for a group, runs its tests in order, sends each report
      hands out groups, reports     └───► runner 2   …

To import and collect all tests takes several seconds of CPU. Processes that are forked afterwards have it all, where
those of pytest-xdist each start from nothing.

The tests of a group (`together`) run in one process. A runner asks for the next group before the last test of the one
it has, since pytest then knows which fixtures are still wanted.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import StringIO
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

import pytest
from _pytest.config import create_terminal_writer

#: What the pipe of a runner raises once the process at its other end is gone.
_GONE = (EOFError, BrokenPipeError, ConnectionResetError)


def grouped(items: Sequence[pytest.Item], together: Callable[[str], str]) -> list[list[int]]:
    """Indices of the tests by what `together` says of their node ids, in the order of each group's first test."""
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(together(item.nodeid), []).append(index)
    return list(groups.values())


def run(session: pytest.Session, jobs: int, groups: Sequence[Sequence[int]]) -> None:
    """Run these groups of the session's tests. Raises what pytest's own loop raises where a run ends early."""
    spreading = _Spreading(session, deque(list(group) for group in groups))
    try:
        for _ in range(min(jobs, len(groups))):
            spreading.fork()
        spreading.follow()
    finally:
        spreading.end()
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)


@dataclass(eq=False, slots=True)
class _Runner:
    """A process that runs tests, as the one that forked it knows it."""

    pid: int
    connection: Connection[Any, Any]
    #: Tests that it was given and has not ended, the one that it runs first.
    given: deque[int] = field(default_factory=deque)
    #: Why it could go on no more, in its own words.
    broken: str = ""


@dataclass(eq=False, slots=True)
class _Spreading:
    """What is left to do, and who does it."""

    session: pytest.Session
    left: deque[list[int]]
    runners: list[_Runner] = field(default_factory=list)
    forked: int = 0

    @property
    def over(self) -> bool:
        """Whether the run ends before all tests are run."""
        return bool(self.session.shouldfail or self.session.shouldstop)

    def fork(self) -> None:
        """Have one more runner."""
        ours, theirs = Pipe()
        # Before the fork: its folder is made once, and what is written but not flushed would be written twice.
        base = self.session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        sys.stdout.flush()
        sys.stderr.flush()
        self.forked += 1
        pid = os.fork()
        if pid == 0:
            # Else the others would not see that this process has ended, or the first one.
            for runner in self.runners:
                runner.connection.close()
            ours.close()
            folder = base / f"runner-{self.forked}"
            folder.mkdir(mode=0o700)
            self.session.config._tmp_path_factory._basetemp = folder  # type: ignore[attr-defined]
            _run_as_told(self.session, theirs)
        theirs.close()
        self.runners.append(_Runner(pid, ours))

    def follow(self) -> None:
        """Hand out groups and report what comes, until every runner has ended."""
        while self.runners:
            ready = wait([runner.connection for runner in self.runners])
            for runner in [runner for runner in self.runners if runner.connection in ready]:
                said = _received(runner.connection)
                if said is None:
                    self._ended(runner)
                else:
                    self._heed(runner, *said)

    def end(self) -> None:
        """Have every runner stop after the test that it runs, and wait for all."""
        self._tell_all_to_end()
        with suppress(KeyboardInterrupt):
            while self.runners:
                runner = self.runners[-1]
                while _received(runner.connection) is not None:
                    pass
                self.runners.remove(runner)
                os.waitpid(runner.pid, 0)

    def _tell_all_to_end(self) -> None:
        for runner in self.runners:
            with suppress(*_GONE):
                runner.connection.send([])

    def _heed(self, runner: _Runner, kind: str, said: Any) -> None:
        hook, config = self.session.config.hook, self.session.config
        if kind == "next":
            group = self.left.popleft() if self.left and not self.over else []
            runner.given.extend(group)
            runner.connection.send(group)
        elif kind == "report":
            hook.pytest_runtest_logreport(report=hook.pytest_report_from_serializable(config=config, data=said))
            if self.over:
                self._tell_all_to_end()
        elif kind == "ended":
            runner.given.popleft()
            item = self.session.items[said]
            hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        elif kind == "warning":
            hook.pytest_warning_recorded.call_historic(kwargs=said)
        else:
            runner.broken = said

    def _ended(self, runner: _Runner) -> None:
        """It has nothing more to do; or it has ended in a test, which failed: another runs the rest of its group."""
        self.runners.remove(runner)
        _, status = os.waitpid(runner.pid, 0)
        if not runner.given or self.over:
            return
        item = self.session.items[runner.given.popleft()]
        how = f"The process that ran this test ended with {os.waitstatus_to_exitcode(status)}.\n{runner.broken}"
        self.session.config.hook.pytest_runtest_logreport(
            report=pytest.TestReport(item.nodeid, item.location, {}, "failed", how, "call")
        )
        if runner.given and not self.over:
            self.left.appendleft(list(runner.given))
        if self.left and not self.over:
            self.fork()


def _received(connection: Connection[Any, Any]) -> tuple[str, Any] | None:
    """What came next by a runner's pipe; None once the runner has ended."""
    try:
        said: tuple[str, Any] = connection.recv()
    except _GONE:
        return None
    return said


class _Silent:
    """In the place of what writes to the terminal: of it, others only ask for the writer."""

    def __init__(self, config: pytest.Config) -> None:
        self._tw = create_terminal_writer(config, StringIO())


@dataclass(frozen=True, slots=True)
class _Sender:
    """The plugin of a runner that sends what it sees to the process that forked it."""

    config: pytest.Config
    connection: Connection[Any, Any]

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Send it."""
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.connection.send(("report", data))

    def pytest_warning_recorded(
        self, warning_message: Any, when: str, nodeid: str, location: tuple[str, int, str] | None
    ) -> None:
        """Send it; its text, since the objects that it names may not be sent."""
        warning_message.message = UserWarning(str(warning_message.message))
        warning_message.category, warning_message.source = UserWarning, None
        self.connection.send(
            (
                "warning",
                {"warning_message": warning_message, "when": when, "nodeid": nodeid, "location": location},
            )
        )


def _run_as_told(session: pytest.Session, connection: Connection[Any, Any]) -> None:
    """What a runner does. Does not return."""
    code = 0
    try:
        with _apart(session.config, connection):
            try:
                for item, following in _told(session, connection):
                    session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            finally:
                session._setupstate.teardown_exact(None)
    except _GONE:
        code = 1
    # Its parent reports it, whatever it is.
    except BaseException:  # noqa: BLE001
        code = 1
        with suppress(*_GONE):
            connection.send(("broken", traceback.format_exc()))
    finally:
        # Without the end of the process that forked it: that one's lock files and its exit handlers are its own.
        os._exit(code)


@contextmanager
def _apart(config: pytest.Config, connection: Connection[Any, Any]) -> Iterator[None]:
    """The forked pytest writes nothing to the terminal, and captures into files of its own."""
    plugins = config.pluginmanager
    plugins.unregister(name="terminalreporter")
    plugins.register(_Silent(config), "terminalreporter")
    plugins.register(_Sender(config, connection))
    capture: Any = plugins.getplugin("capturemanager")
    capture.stop_global_capturing()
    capture.start_global_capturing()
    capture.suspend_global_capture()
    yield


def _told(
    session: pytest.Session, connection: Connection[Any, Any]
) -> Iterator[tuple[pytest.Item, pytest.Item | None]]:
    """Each test that this runner is given, with the one after it."""

    def next_group() -> deque[int]:
        connection.send(("next", None))
        return deque(connection.recv())

    group = next_group()
    while group:
        index = group.popleft()
        group = group or next_group()
        yield session.items[index], session.items[group[0]] if group else None
        connection.send(("ended", index))
        # What comes without being asked for: an end.
        if session.shouldfail or session.shouldstop or connection.poll():
            return
