"""Hundreds of machines that join, work and leave at random: is every task completed, and every machine told its tasks?

    signs in ──► takes tasks from its queues, votes on chain, brings results ──► signs off, or is just gone
        ▲                                                                                │
        └──────────────────────── later, by its plan               ◄────────────────────┘

Real sign-in, broker and chain, no containers: what a task's app would leave is known. A machine that comes back reveals
and brings what it still owes. The machines share this one's processors with the pool.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from bench.chaos.following import Following, not_ended
from bench.rig.bench_pool import BenchPool, BrokenPromise, prepared_pool
from bench.rig.figures import percentile
from bench.rig.fresh_wallets import PING_SECONDS
from bench.rig.strangers import Kind, Stranger, funded, made, signed_in_and_working
from config.connections.mongodb import client
from ops.market.match import Matched
from pipeline.domain.records import Replicate
from pipeline.store.task.tasks import Tasks
from protocol.errors import PoolUnavailable, Refused
from protocol.poco.view import TaskStatus
from protocol.types import TaskId, Wallet

BLOCK_TIME = 1.0
#: Mean seconds that a machine stays and is away, and the least of each.
STAY_SECONDS, AWAY_SECONDS, LEAST_SECONDS = 60.0, 15.0, 5.0
#: A deal is bought every so many seconds, of trust 1 and 3 in turn, with one task for so many machines.
DEAL_SECONDS, MACHINES_PER_TASK, TRUSTS = 20.0, 10, (1, 3)
#: Seconds of the deals' category: a vote whose machine left before it revealed holds its task up for twice that time.
CATEGORY_SECONDS = 60
#: Seconds after the last purchase for all tasks to end: all deadlines of the category.
END_SECONDS = 10.0 * CATEGORY_SECONDS
#: Seconds between two checks of who has joined.
LOOK_SECONDS = 0.1
#: Sign-ins at a time.
AT_ONCE = 16
#: A machine that stayed for so many seconds after a task was sent to it and never got the message was not woken.
WAKE_SECONDS = 30.0
#: Milliseconds within which 95 % of the machines are to know of a task that they were given.
MOST_ASSIGN_P95_MS = 50.0
#: No limits that a crowd behind one address would meet.
UNLIMITED = {
    "SLUICE_ENROLMENT_MOST_MACHINES": "0",
    "SLUICE_ENROLMENT_MOST_PER_ADDRESS": "0",
    "SLUICE_RATE_SIGN_IN": "100000/minute",
    "SLUICE_RATE_SIGN_IN_WALLET": "100000/minute",
    "SLUICE_RATE_REQUESTS": "100000/second",
    "SLUICE_API_CONNECTIONS_PER_ADDRESS": "4096",
}


@dataclass(frozen=True, slots=True)
class Visit:
    """One stay of a machine: seconds after the beginning at which it joins and leaves, and whether it signs off."""

    joins: float
    leaves: float
    signs_off: bool


def make_visits(seed: int, machines: int, seconds: float) -> tuple[tuple[Visit, ...], ...]:
    """The visits of each machine; the last one of each lasts until the end. All join at once at the beginning."""
    return tuple(_visits(random.Random(f"{seed} {number}"), seconds) for number in range(machines))


def _visits(draw: random.Random, seconds: float) -> tuple[Visit, ...]:
    """When a machine comes and goes, at random."""
    visits: list[Visit] = []
    at = 0.0
    while True:
        leaves = at + LEAST_SECONDS + draw.expovariate(1 / STAY_SECONDS)
        back = leaves + LEAST_SECONDS + draw.expovariate(1 / AWAY_SECONDS)
        if back >= seconds:
            return (*visits, Visit(at, seconds, signs_off=True))
        visits.append(Visit(at, leaves, signs_off=draw.random() < 0.5))
        at = back


@dataclass
class Presence:
    """What the machines did: stays as they were (Unix seconds; None: still there), and sign-ins that were refused."""

    stays: dict[str, list[tuple[float, float | None]]] = field(default_factory=dict)
    refused: int = 0

    def was_there(self, wallet: str, since: float, seconds: float) -> bool:
        """Whether the machine was there from `since` on for so many seconds."""
        return any(
            came <= since and (went is None or went >= since + seconds) for came, went in self.stays.get(wallet, ())
        )


def run(*, machines: int, minutes: float, seed: int, any_speed: bool = False) -> Iterator[str]:
    """One line of JSON. Raises BrokenPromise, in words, if a task has not ended well, a machine was not told of a task,
    or, unless `any_speed`, not soon.
    """
    with prepared_pool(block_time=BLOCK_TIME, workers=0, env=UNLIMITED) as bench_pool:
        bench_pool.pool.start_scheduler()
        keys = funded(bench_pool, machines)
        category = bench_pool.new_category(CATEGORY_SECONDS)
        with made(bench_pool, keys, [Kind.HONEST] * machines) as strangers:
            visits = make_visits(seed, machines, minutes * 60)
            line, wrong = _measure(bench_pool, strangers, visits, category=category, seconds=minutes * 60)
    yield json.dumps(line)
    wrong += broken(line, any_speed=any_speed)
    if wrong:
        raise BrokenPromise(what="The crowd", why="\n".join(wrong))


def _measure(
    bench_pool: BenchPool,
    strangers: Sequence[Stranger],
    visits: Sequence[Sequence[Visit]],
    *,
    category: int,
    seconds: float,
) -> tuple[dict[str, Any], list[str]]:
    """The figures of the machines' comings and goings, and a sentence for each task that is not COMPLETED."""
    presence, over, enrolling = Presence(), threading.Event(), threading.BoundedSemaphore(AT_ONCE)
    began = time.monotonic()
    with ThreadPoolExecutor(len(strangers) + 1, thread_name_prefix="machine") as threads:
        lives = [
            threads.submit(_live, bench_pool, stranger, mine, presence, enrolling, began, over)
            for stranger, mine in zip(strangers, visits, strict=True)
        ]
        threads.submit(_ping, strangers, over)
        try:
            first = _await_all(presence, len(strangers), began, seconds)
            deals = _buy(bench_pool, len(strangers), category, began + seconds)
            with Following(bench_pool, deals).running() as following:
                following.over.wait(END_SECONDS)
                took = time.monotonic() - began
        finally:
            over.set()
        for life in lives:
            life.result()
    lost, waits = _figures(bench_pool, deals, strangers, presence)
    completed = following.count(TaskStatus.COMPLETED)
    line = {
        "machines": len(strangers),
        "joined": sum(map(len, presence.stays.values())),
        "left": sum(went is not None for stays in presence.stays.values() for _, went in stays),
        "refused": presence.refused,
        "tasks": len(following.tasks),
        "completed": completed,
        "failed_claimed": following.count(TaskStatus.FAILED),
        "lost_wake_ups": lost,
        "assign_p95_ms": round(1000 * percentile(waits, 0.95), 1) if waits else None,
        "enrolments_per_second": round(len(strangers) / first, 1),
        "seconds": round(took, 1),
    }
    return line, not_ended(following)


def broken(line: Mapping[str, Any], *, any_speed: bool = False) -> Iterator[str]:
    """A sentence for each promise that a run with these figures broke. `any_speed`: the machine may be busy."""
    if line["completed"] != line["tasks"]:
        yield f"{line['completed']} of {line['tasks']} tasks are COMPLETED."
    if line["lost_wake_ups"]:
        yield f"{line['lost_wake_ups']} machines were never told of a task that they were given."
    if line["refused"]:
        yield f"{line['refused']} sign-ins were refused."
    p95 = line["assign_p95_ms"]
    if p95 is None:
        yield "No machine was told of a task."
    elif p95 > MOST_ASSIGN_P95_MS and not any_speed:
        yield f"assign: 95 % took up to {p95:g} ms, more than {MOST_ASSIGN_P95_MS:g}."


def _live(
    bench_pool: BenchPool,
    stranger: Stranger,
    visits: Sequence[Visit],
    presence: Presence,
    enrolling: threading.BoundedSemaphore,
    began: float,
    over: threading.Event,
) -> None:
    """All visits of one machine; the last ends when all is over."""
    for number, visit in enumerate(visits):
        over.wait(max(0.0, began + visit.joins - time.monotonic()))
        if over.is_set():
            return
        _visit(bench_pool, stranger, visit, presence, enrolling, over, None if number + 1 == len(visits) else began)


def _visit(
    bench_pool: BenchPool,
    stranger: Stranger,
    visit: Visit,
    presence: Presence,
    enrolling: threading.BoundedSemaphore,
    over: threading.Event,
    began: float | None,
) -> None:
    """Join, stay and leave; `began`: of the run, None to stay until all is over."""
    wallet = stranger.key.wallet
    with ExitStack() as stay:
        try:
            with enrolling:
                stay.enter_context(signed_in_and_working(bench_pool, stranger, f"machine-{wallet[2:10]}"))
        except (PoolUnavailable, Refused):
            presence.refused += 1
            return
        stays = presence.stays.setdefault(wallet, [])
        stays.append((time.time(), None))
        over.wait(None if began is None else max(0.0, began + visit.leaves - time.monotonic()))
        stays[-1] = (stays[-1][0], time.time())
        if visit.signs_off:
            with suppress(PoolUnavailable, Refused):
                stranger.api.leave(stranger.token)


def _ping(strangers: Sequence[Stranger], over: threading.Event) -> None:
    """The thread: have the machines that are there ping until it is over."""
    while not over.wait(PING_SECONDS):
        for stranger in strangers:
            if stranger.token and not stranger.stop.is_set():
                stranger.ping()


def _await_all(presence: Presence, machines: int, began: float, seconds: float) -> float:
    """Seconds until every machine has joined once, `seconds` at most."""
    pause = threading.Event()
    while len(presence.stays) < machines and time.monotonic() - began < seconds:
        pause.wait(LOOK_SECONDS)
    return time.monotonic() - began


def _buy(bench_pool: BenchPool, machines: int, category: int, until: float) -> list[Matched]:
    """A deal every DEAL_SECONDS until then, at least one."""
    deals: list[Matched] = []
    pause = threading.Event()
    while not deals or time.monotonic() < until:
        trust, volume = TRUSTS[len(deals) % len(TRUSTS)], max(1, machines // MACHINES_PER_TASK)
        deals.append(bench_pool.buy(trust=trust, volume=volume, category=category))
        pause.wait(DEAL_SECONDS)
    return deals


def told(
    replicates: Sequence[tuple[TaskId, Replicate]], given_at: Mapping[tuple[TaskId, Wallet], float], presence: Presence
) -> tuple[int, list[float]]:
    """(machines that stayed and were never told of a task that they were given, seconds until the others were told)."""
    lost, seconds = 0, []
    for task, item in replicates:
        if not presence.was_there(item.wallet, item.assigned_at, WAKE_SECONDS):
            continue
        at = given_at.get((task, item.wallet))
        if at is None:
            lost += 1
        else:
            seconds.append(max(0.0, at - item.assigned_at))
    return lost, seconds


def _figures(
    bench_pool: BenchPool, deals: Sequence[Matched], strangers: Sequence[Stranger], presence: Presence
) -> tuple[int, list[float]]:
    """How many tasks were given to machines that had gone, and how long each took to be noticed."""
    tasks = Tasks(client(bench_pool.servers.mongodb_uri)[bench_pool.names.database])
    replicates = [
        (task.task_id, item) for deal in deals for task in tasks.of_deal(deal.deal_id) for item in task.replicates
    ]
    given_at = {(task, stranger.key.wallet): at for stranger in strangers for task, at in stranger.given_at.items()}
    return told(replicates, given_at, presence)
