"""Injects the faults of a plan into one pool: each in a thread of its own, no two on one target at a time."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace

import structlog

from bench.chaos.following import Following
from bench.chaos.plan import CHAIN, SCHEDULER, Kind, Strike
from bench.chaos.relay import Relays, members
from bench.rig.bench_pool import BenchPool
from bench.rig.reorg import reorganise
from chain.rpc.client import Rpc
from ops.pool.servers import crash, own_process
from ops.stack.parts import StackPart
from protocol.errors import SluiceError
from tests.faulty.answers import behind, honest
from tests.faulty.node import FaultyNode

log = structlog.get_logger(__name__)

#: Strikes at a time: the longest (a server's restart on a busy machine) takes less than so many times the pace.
AT_ONCE = 12
#: Seconds between two checks for due strikes and for programs that have ended.
LOOK_SECONDS = 0.5
#: What a machine, and the scheduler, reach through a relay each.
MACHINE_REACHES = ("api", "rabbitmq", CHAIN)


@dataclass
class Injector:
    """One pool, its relays and its node, and how many faults of each kind have struck it."""

    bench_pool: BenchPool
    relays: Relays
    node: FaultyNode
    struck: Counter[Kind] = field(default_factory=Counter)
    #: Strikes that failed themselves, in words.
    failed: list[str] = field(default_factory=list)
    _busy: set[str] = field(default_factory=set)
    _begun: list[Future[None]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)

    def carry_out(self, plan: Sequence[Strike], following: Following, *, until: float, limit: float) -> None:
        """Strike as planned until `until` (a share, 0 to 1) of the tasks have ended, and restart programs that end.

        Returns once all tasks have ended and all faults are over, or after `limit` seconds.

        From the main thread: a program of the pool ends with the thread that started it.
        """
        begun, left = time.monotonic(), list(plan)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="strike") as threads:
            while time.monotonic() - begun < limit and (self._busy or not following.over.is_set()):
                if len(following.ended) >= until * len(following.tasks):
                    left.clear()
                while left and left[0].at <= time.monotonic() - begun:
                    self._begin(threads, left.pop(0))
                self.start_ended()
                self._over.wait(LOOK_SECONDS)
            self._over.set()
        self.start_ended()
        for future in self._begun:
            future.result()

    def start_ended(self) -> None:
        """Start each program of the pool again that has ended, by a strike or by itself."""
        for name, process in list(self.bench_pool.pool.running.items()):
            if not process.alive():
                self.bench_pool.pool.restart(name)

    def _begin(self, threads: ThreadPoolExecutor, strike: Strike) -> None:
        """Carry out a strike on a thread of its own, unless its target is still struck."""
        place = _place(strike)
        with self._lock:
            if place in self._busy:
                return
            self._busy.add(place)
        self._begun.append(threads.submit(self._carry_out, strike, place))

    def _carry_out(self, strike: Strike, place: str) -> None:
        """Carry out a strike and count it."""
        try:
            if self._strike(strike):
                self.struck[strike.kind] += 1
        except SluiceError as error:
            self.failed.append(f"{strike.kind} of {strike.target}: {error}")
        finally:
            with self._lock:
                self._busy.discard(place)

    def _strike(self, strike: Strike) -> bool:
        """Inject the fault, wait for its length and end it. False if its target is not running now."""
        log.warning(
            "Fault.",
            action="fault",
            kind=str(strike.kind),
            target=strike.target,
            lasts=strike.lasts,
            blocks=strike.blocks,
            returned=strike.returned,
        )
        match strike.kind:
            case Kind.KILL_PROCESS | Kind.STOP_PROCESS:
                pid = self._child(strike.target)
                if pid is None:
                    return False
                self._signal([pid], strike)
            case Kind.KILL_PROGRAM | Kind.RESTART_PROGRAM | Kind.STOP_PROGRAM:
                self._strike_program(strike)
            case Kind.KILL_SERVER:
                crash(StackPart(strike.target))
            case Kind.STOP_SERVER:
                of_node = strike.target == CHAIN
                process = self.bench_pool.node.process if of_node else own_process(StackPart(strike.target))
                self._signal(members(process.pid), strike)
            case Kind.PARTITION_MACHINE:
                self._partition(strike.target, MACHINE_REACHES, strike.lasts)
            case Kind.PARTITION_SCHEDULER:
                self._partition(SCHEDULER, (strike.target,), strike.lasts)
            case Kind.LAG_NODE:
                self.node.fault = behind(strike.blocks)
                self._over.wait(strike.lasts)
                self.node.fault = honest
            case Kind.REORG:
                with Rpc(self.bench_pool.chain.rpc_url) as rpc:
                    reorganise(replace(self.bench_pool, rpc=rpc), strike.blocks, returned=strike.returned)
        return True

    def _strike_program(self, strike: Strike) -> None:
        """Kill, restart or stop one program."""
        process = self.bench_pool.pool.running[strike.target]
        match strike.kind:
            case Kind.KILL_PROGRAM:
                process.kill()
            case Kind.RESTART_PROGRAM:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)
            case _:
                self._signal(members(process.pid), strike)

    def _child(self, target: str) -> int | None:
        """Pid of a supervised process; None if its program is just starting."""
        program, process = target.split("/")
        try:
            return self.bench_pool.pool.child_pid(program, process)
        except ValueError:
            return None

    def _signal(self, pids: Sequence[int], strike: Strike) -> None:
        """Kill processes, or stop them (SIGSTOP) for the strike's length."""
        if strike.kind is Kind.KILL_PROCESS:
            _send(pids, signal.SIGKILL)
            return
        _send(pids, signal.SIGSTOP)
        try:
            self._over.wait(strike.lasts)
        finally:
            _send(pids, signal.SIGCONT)

    def _partition(self, program: str, servers: tuple[str, ...], seconds: float) -> None:
        """Cut a program off from servers for some seconds."""
        for server in servers:
            self.relays.hold(program, server)
        self._over.wait(seconds)
        for server in servers:
            self.relays.release(program, server)


def _send(pids: Sequence[int], number: signal.Signals) -> None:
    """Send a signal to processes that still run."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _place(strike: Strike) -> str:
    """The key under which a strike excludes others: its target, or the target's connections for a partition."""
    partition = strike.kind in (Kind.PARTITION_MACHINE, Kind.PARTITION_SCHEDULER)
    return f"connections of {strike.target}" if partition else strike.target
