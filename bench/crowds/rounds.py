"""How long one round of matching takes in a pool of thousands of machines: the call that a `pipeline` process makes.

    read free machines and waiting tasks ─► match ─► reserve ─► store the replicates ─► sign ─► publish, each confirmed

Measured around `assign`, alone in a process without a chain: what the chain says of the machines was read less than ten
seconds ago. Database and RabbitMQ are real, and so are the queues of the machines that are given the tasks. What comes
before the call, the wake-up's way through RabbitMQ, is not in it (workerdrop measures that).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bench.flat import SMALL_ENDED, PastPool, open_past_pool
from bench.rig.bench_pool import BrokenPromise
from bench.rig.figures import percentile
from bench.rig.past import machine_wallet
from pipeline.broker.segments import Segment
from pipeline.flow.assign import assign
from pipeline.scheduler import Scheduler

#: Tasks that wait at the beginning of a round: mostly it is one, of a small deal some.
TASKS = (1, 10)
#: Rounds before those that are measured.
WARM = 5
#: Machines that have queues: those that are free, equal to the others and first by lot, so that they are chosen.
WITH_QUEUES = 64
#: Milliseconds that 95 % of the rounds may take.
MOST_P95_MS = 50.0


@dataclass(slots=True)
class _Spent:
    """Seconds of each round, in all and for its messages, and CPU seconds of this process."""

    whole: list[float] = field(default_factory=list)
    publishing: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


class _Timed(Scheduler):
    """A scheduler that notes how long its messages took."""

    def publish(self, messages: Sequence[Segment]) -> None:
        """Send them."""
        began = time.perf_counter()
        super().publish(messages)
        PUBLISHING.append(time.perf_counter() - began)


#: What `_Timed` has noted.
PUBLISHING: list[float] = []


def run(*, workers: int, connected: int, rounds: int, any_speed: bool = False) -> Iterator[str]:
    """A line of JSON for each of TASKS. Raises BrokenPromise if a task was not given out, or, unless `any_speed`, a
    round took too long.
    """
    wrong: list[str] = []
    with open_past_pool(SMALL_ENDED, workers, connected, scheduler_type=_Timed) as pool:
        for number in range(min(WITH_QUEUES, connected)):
            pool.services.broker.enrol(machine_wallet(number), new=True)
        for tasks in TASKS:
            spent = _measure(pool, tasks, rounds)
            p95 = 1000 * percentile(spent.whole, 0.95)
            line = {
                "what": "assign",
                "enrolled": workers,
                "connected": connected,
                "tasks": tasks,
                "rounds": rounds,
                "median_ms": round(1000 * percentile(spent.whole, 0.5), 1),
                "p95_ms": round(p95, 1),
                "publish_median_ms": round(1000 * percentile(spent.publishing, 0.5), 1),
                "cpu_median_ms": round(1000 * percentile(spent.cpu, 0.5), 1),
            }
            yield json.dumps(line)
            if p95 > MOST_P95_MS:
                wrong.append(f"{tasks} tasks: 95 % of the rounds took up to {p95:.0f} ms, more than {MOST_P95_MS:g}.")
    if wrong and not any_speed:
        raise BrokenPromise(what="A round of matching", why="\n".join(wrong))


def _measure(pool: PastPool, tasks: int, rounds: int) -> _Spent:
    """What so many rounds took. Raises BrokenPromise."""
    spent = _Spent()
    for number in range(WARM + rounds):
        pool.new_tasks(computed=False, count=tasks)
        PUBLISHING.clear()
        began, cpu = time.perf_counter(), time.process_time()
        given = assign(pool.scheduler)
        whole, cpu = time.perf_counter() - began, time.process_time() - cpu
        pool.clear()
        if given != tasks:
            raise BrokenPromise(what="A round of matching", why=f"{given} of {tasks} tasks were given out.")
        if number >= WARM:
            spent.whole.append(whole)
            spent.publishing.append(sum(PUBLISHING))
            spent.cpu.append(cpu)
    return spent
