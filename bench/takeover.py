"""The scheduler is killed and its database dropped in the middle of a bag of mixed trust: does every task end well?

buy ──► a third is COMPLETED ──► scheduler killed, database dropped ──► sluice scheduler adopt ──► scheduler started
    ──► all are COMPLETED?  nothing paid twice?  stakes free?  nonces whole?  does `sluice audit` find nothing?
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from bench.faults import nonce_gaps, stake_locked
from bench.rig.bench_pool import BenchPool, BrokenPromise, open_bench_pool
from bench.rig.payments import payments
from config.connections.mongodb import client
from ops.market.match import Matched
from protocol.poco.view import TaskStatus

#: Trusts of the deals, in turn, and the share of the tasks that each has. Votes come first, so that some are under way.
TRUSTS = {5: 0.2, 3: 0.4, 1: 0.4}
#: What each container does: long enough that tasks are at every step when the database is lost.
WORK = "sleep 1"
MACHINES, SLOTS = 3, 2
#: Seconds for a command, and for the scheduler to hear of the last tasks' ends.
COMMAND_SECONDS, SETTLE_SECONDS = 300.0, 120.0


def run(*, tasks: int, timeout: float = 1500.0) -> Iterator[str]:
    """One line of JSON about `tasks` tasks of trust 1, 3 and 5. Raises BrokenPromise, after that line, with a sentence
    for each promise that was broken.
    """
    with open_bench_pool(block_time=1.0, workers=MACHINES, slots=SLOTS) as bench_pool:
        bench_pool.timeout = timeout
        found = lose_and_adopt(bench_pool, tasks)
    yield json.dumps(found)
    if wrong := list(broken(found)):
        raise BrokenPromise(what="The adopted pool", why="\n".join(wrong))


def broken(found: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each promise that a run with these figures broke."""
    completed = found["ended"].get(TaskStatus.COMPLETED.name, 0)
    if completed != found["of"]:
        yield f"{completed} of {found['of']} tasks are COMPLETED."
    for name in ("stake_locked", "nonce_gaps", "database_differs"):
        if found[name]:
            yield f"{name}: {found[name]}, not 0."
    for name in ("paid_twice", "not_paid"):
        yield from found[name]
    yield from (f"sluice audit: {said}" for said in found["audit"])
    yield from (
        f"sluice audit could not ask {unasked['what']}: {unasked['why']}" for unasked in found["audit_not_asked"]
    )


def lose_and_adopt(bench_pool: BenchPool, tasks: int) -> dict[str, Any]:
    """The figures of `run`."""
    deals = buy_mixed(bench_pool, tasks)
    number, stop = sum(len(deal.tasks) for deal in deals), threading.Event()
    for views in bench_pool.watch(deals, stop):
        if sum(view.status is TaskStatus.COMPLETED for view in views.values()) >= number // 3:
            break
    pool, lost = bench_pool.pool, time.monotonic()
    pool.running["scheduler"].kill()
    client(bench_pool.servers.mongodb_uri).drop_database(bench_pool.names.database)
    adopted = _sluice(bench_pool, "scheduler", "adopt", "--yes")
    found = time.monotonic()
    pool.restart("scheduler")
    views = bench_pool.wait(deals)
    ended = time.monotonic()
    compared = [bench_pool.compare(deal, SETTLE_SECONDS) for deal in deals]
    audited, paid = _sluice(bench_pool, "audit"), payments(bench_pool, deals)
    completed = [task for task, view in views.items() if view.status is TaskStatus.COMPLETED]
    return {
        "of": number,
        "adopted": {name: adopted[name] for name in ("deals", "tasks", "votes", "to_reveal", "nonce", "pending")},
        "ended": dict(Counter(view.status.name for view in views.values())),
        "seconds_to_adopt": round(found - lost, 1),
        "seconds_to_end": round(ended - found, 1),
        "stake_locked": stake_locked(bench_pool),
        "nonce_gaps": nonce_gaps(bench_pool),
        "database_differs": sum(map(sum, compared)),
        "finalized": sum(paid.finalized.values()),
        "rewards": sum(paid.rewarded.values()),
        "paid_twice": paid.twice(),
        "not_paid": paid.unpaid(completed),
        "audit": [f"{item['kind']} {item['subject']}: {item['says']}" for item in audited["differences"]],
        "audit_not_asked": audited["not_asked"],
    }


def buy_mixed(bench_pool: BenchPool, tasks: int) -> list[Matched]:
    """A deal for each trust, of about `tasks` tasks together."""
    return [
        bench_pool.buy(trust=trust, volume=max(1, round(share * tasks)), args=WORK) for trust, share in TRUSTS.items()
    ]


def _sluice(bench_pool: BenchPool, *words: str) -> dict[str, Any]:
    """The JSON that a command prints on the scheduler's machine, whatever its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "ops.cli", *words, "--json"],
        env={**os.environ, **bench_pool.pool.programs["scheduler"].env},
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    return dict(json.loads(done.stdout or done.stderr.splitlines()[-1]))
