"""A worker machine's process that does one replicate from its assignment to its end, and stops at an exact point of it.

    assignment ─► compute, vote ─► block ─► reveal is asked for ─► block ─► upload is asked for ─► over, and forgotten

The point is an operation of one of the machine's parts, and whether the machine stops before or after it. `kill -9`
leaves nothing to tidy up with. A clean stop is what the supervisor makes of SIGTERM: the step under way is ended, the
next is not begun; a step that does not end in time is cut off where it is.

A machine that starts again is sent each message once more that it has not come to the end of.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from chain.lane.model.intent import IntentState
from config.processes.supervisor import Supervisor
from config.settings import Settings
from protocol.ethereum.signing import Key
from protocol.types import TaskId
from protocol.wire import Assignment
from tests.integration.workers.conftest import open_bench
from tests.waiting import until
from workers.care.resume import Resumer
from workers.care.upkeep import Upkeep
from workers.context import WorkerContext
from workers.task import chain, steps

#: Blocks within which all has happened that will.
MANY_BLOCKS = 20
#: Written once the point is reached, and with each message that is done.
REACHED, DONE = "reached", "done"


class Stop(StrEnum):
    """How a machine stops."""

    KILL = "kill -9"
    #: SIGTERM, and the step under way ends in time.
    CLEAN = "clean"
    #: SIGTERM, and the step under way gets no further before its time is over.
    CUT = "clean, cut off"


@dataclass(frozen=True, slots=True)
class Point:
    """An operation, as `engine.create`; the how-maniest one; whether the machine stops before or after it."""

    at: str
    when: str = "after"
    times: int = 1


@dataclass(frozen=True, slots=True)
class Orders:
    """The machine, what it is to do, and where it stops; `point` None: nowhere."""

    settings: Settings
    private_key: str
    #: What the pool's `/config` says.
    pool: dict[str, object]
    assignment: Assignment
    point: Point | None = None
    stop: Stop = Stop.KILL

    @property
    def reached(self) -> Path:
        """The file that says that the point was reached."""
        return self.settings.home / REACHED

    @property
    def done(self) -> Path:
        """A file with a letter for each message that the machine has come to the end of."""
        return self.settings.home / DONE

    def begin(self) -> None:
        """No message is done yet."""
        self.settings.home.mkdir(parents=True, exist_ok=True)
        self.done.write_text("")


class Watched:
    """A part of the machine; when `point` names its operation, `strike` is called before or after it."""

    def __init__(self, part: Any, name: str, point: Point | None, strike: Callable[[], None]) -> None:
        self._part, self._name, self._point, self._strike = part, name, point, strike
        self._count = 0

    def __getattr__(self, operation: str) -> Any:
        value = getattr(self._part, operation)
        point = self._point
        if point is None or not callable(value) or point.at.partition(".")[0] != self._name:
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            due = self._due(operation, args)
            if due and point.when == "before":
                self._strike()
            answer = value(*args, **kwargs)
            if due and point.when == "after":
                self._strike()
            return answer

        return call

    def _due(self, operation: str, args: tuple[Any, ...]) -> bool:
        assert self._point is not None
        names = {operation}
        if operation in ("call", "batch"):
            # Of a node what counts is what it was asked for.
            names = {args[0]} if operation == "call" else {method for method, _ in args[0]}
        self._count += self._point.at.partition(".")[2] in names
        return self._count == self._point.times and self._point.at.partition(".")[2] in names


def main(orders: Orders) -> None:
    """Do the replicate, or stop at the point. Ends with code 0 unless it was killed, or could not end the replicate."""
    if orders.point is None or orders.stop is Stop.KILL:
        _work(orders, _die)
        return
    clean = orders.stop is Stop.CLEAN
    Supervisor(
        {"work": partial(_work, orders, _ask_to_stop if clean else _ask_to_stop_and_hang)},
        pid_dir=orders.settings.home / "run",
        grace=3600.0 if clean else 0.0,
        resumable=frozenset({"work"}),
    ).run()


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


_stopping = threading.Event()


def _ask_to_stop() -> None:
    """Send SIGTERM to the supervisor, and go on once it has reached this process."""
    os.kill(os.getppid(), signal.SIGTERM)
    until("SIGTERM to come back from the supervisor", _stopping.is_set)


def _ask_to_stop_and_hang() -> NoReturn:
    """Send SIGTERM to the supervisor, and do nothing more until it kills this process."""
    os.kill(os.getppid(), signal.SIGTERM)
    while True:
        signal.pause()


def _work(orders: Orders, strike: Callable[[], None]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: _stopping.set())

    def at_the_point() -> None:
        orders.reached.touch()
        strike()

    context = open_bench(orders.settings, Key.from_hex(orders.private_key), **orders.pool)
    opened = context.__dict__
    for name in ("journal", "engine", "pool", "rpc", "lane_store"):
        opened[name] = Watched(getattr(context, name), name, orders.point, at_the_point)
    for step in _steps(context, orders):
        if _stopping.is_set():
            break
        step()
    context.close()
    if orders.stop is not Stop.KILL and orders.point is not None and not orders.reached.exists():
        # Else the supervisor would start this again and again.
        os.kill(os.getppid(), signal.SIGKILL)


def _steps(context: WorkerContext, orders: Orders) -> Iterator[Callable[[], object]]:
    """What the machine does, one message or timer after the other."""
    task_id = TaskId(orders.assignment.task_id)
    upkeep = Upkeep(context, Resumer(context.machine))
    messages: tuple[Callable[[], object], ...] = (
        partial(chain.do_assignment, context, orders.assignment),
        partial(steps.reveal, context, task_id),
        partial(steps.upload, context, task_id),
    )
    yield upkeep.delete_leftovers
    for number, message in enumerate(messages):
        if number == len(orders.done.read_text()):
            yield partial(_take, message, orders.done)
        yield partial(_until_mined, context)
    yield upkeep.run_once


def _take(message: Callable[[], object], done: Path) -> None:
    """Do what a message asks for, then acknowledge it, as Celery does with `acks_late`."""
    message()
    with done.open("a") as file:
        file.write(".")


def _until_mined(context: WorkerContext) -> None:
    for _ in range(MANY_BLOCKS):
        steps.run_lane(context)
        if not context.lane_store.count(context.lane.id, (IntentState.QUEUED, IntentState.SENT)):
            return
        context.rpc.call("evm_mine")
    raise AssertionError("the lane does not get its transactions mined")
