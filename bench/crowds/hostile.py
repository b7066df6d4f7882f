"""Four honest machines beside strangers that harm each in its own way (`strangers`) and fifty fresh wallets that claim
256 slots each and do no work (`fresh_wallets`): the same deals with and without them, and what became of results and
stakes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from bench.rig.bench_pool import BenchPool, BrokenPromise, open_bench_pool
from bench.rig.fresh_wallets import signed_in
from bench.rig.strangers import CAST, at_work, deeds, funded, wrong_results
from ops.market.match import Matched
from ops.pool.on_chain import XS
from protocol.poco.view import ChainView, TaskStatus
from protocol.types import TaskId, Wallet
from protocol.wire import SLOTS_LIMIT

#: Honest machines, and containers of each at once.
HONEST, SLOTS = 4, 2
#: Seconds between blocks.
BLOCK_TIME = 1.0
#: Trust of the deals with a vote: one newcomer more than those who collude and one who copies them.
VOTE_TRUST = 9
#: How many times the undisturbed seconds the deals may take.
MOST_RATIO = 2.0
#: Seconds for all deals to end: a vote that is not revealed holds its task up for twice its category's 300 s.
TIMEOUT = 1500.0


def run(*, wallets: int, tasks: int, category: int = XS) -> Iterator[str]:
    """One line of JSON: `tasks` at trust 1 and half as many at VOTE_TRUST, without strangers and with them.

    `wallets`: how many of them are fresh and do no work. `category`: of the deals; 0 is XS, of 300 s.

    Raises BrokenPromise, after that line, with a sentence for each promise that was broken.
    """
    env = {"SLUICE_WORKER_MOST_SLOTS": str(SLOTS_LIMIT)}
    with open_bench_pool(block_time=BLOCK_TIME, workers=HONEST, slots=SLOTS, env=env) as bench_pool:
        bench_pool.timeout = TIMEOUT
        found = compare(bench_pool, wallets=wallets, tasks=tasks, category=category)
    yield json.dumps(found)
    if wrong := list(broken(found)):
        raise BrokenPromise(what="The pool among strangers", why="\n".join(wrong))


def broken(found: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each promise that a run with these figures broke."""
    if found["completed"] != found["tasks"]:
        yield f"{found['completed']} of {found['tasks']} tasks are COMPLETED."
    for name in ("wrong_results", "honest_stake_lost", "honest_stake_locked"):
        if found[name]:
            yield f"{name}: {found[name]}, not 0."
    if found["ratio"] > MOST_RATIO:
        yield f"The deals took {found['ratio']:g} times the undisturbed seconds, more than {MOST_RATIO:g}."


def compare(bench_pool: BenchPool, *, wallets: int, tasks: int, category: int = XS) -> dict[str, object]:
    """The figures of `run` for a pool of HONEST machines."""
    honest = [wallet.key.wallet for wallet in bench_pool.pool.on_chain.workers]
    keys = funded(bench_pool, len(CAST))
    members = [*honest, *(key.wallet for key in keys)]
    # Every honest machine has been right on chain before.
    bench_pool.wait([bench_pool.buy(trust=5, volume=HONEST), bench_pool.buy(trust=1, volume=HONEST * SLOTS)])
    before = bench_pool.hub.accounts(members)
    undisturbed, _, _ = _timed(bench_pool, tasks, category)
    with at_work(bench_pool, keys) as cast, signed_in(bench_pool, wallets) as crowd:
        seconds, deals, views = _timed(bench_pool, tasks, category)
    after = bench_pool.hub.accounts(members)
    lost = [max(0, was.stake + was.locked - now.stake - now.locked) for was, now in zip(before, after, strict=True)]
    return {
        "wallets": wallets,
        "strangers": deeds(cast, views),
        "tasks": len(views),
        "completed": sum(view.status is TaskStatus.COMPLETED for view in views.values()),
        "wrong_results": wrong_results(deals, views),
        "by_honest_machines_only": _winners(views) <= set(honest),
        "given_to_fresh_wallets": sum(len(wallet.given) for wallet in crowd),
        "honest_stake_lost": sum(lost[:HONEST]),
        "honest_stake_locked": sum(account.locked for account in after[:HONEST]),
        "strangers_stake_lost": sum(lost[HONEST:]),
        "seconds": round(seconds, 1),
        "undisturbed_seconds": round(undisturbed, 1),
        "ratio": round(seconds / undisturbed, 2),
    }


def _timed(bench_pool: BenchPool, tasks: int, category: int) -> tuple[float, list[Matched], Mapping[TaskId, ChainView]]:
    """Seconds for the votes, then for the tasks of trust 1: whoever is at a task without a vote has no time to vote."""
    started = time.monotonic()
    deals: list[Matched] = []
    views: dict[TaskId, ChainView] = {}
    for trust, volume in ((VOTE_TRUST, max(1, tasks // 2)), (1, tasks)):
        deals.append(bench_pool.buy(trust=trust, volume=volume, category=category))
        views |= bench_pool.wait(deals[-1:])
    return time.monotonic() - started, deals, views


def _winners(views: Mapping[TaskId, ChainView]) -> set[Wallet]:
    """Wallets that voted for the result of any of the tasks."""
    return {vote.worker for view in views.values() for vote in view.winners}
