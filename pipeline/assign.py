"""Give waiting tasks to workers: match, take slots, write replicates, publish the compute segments.

    match ─► reserve slots, one update a worker ─► add replicates, one update a task ─► publish
             refused: another process was faster    refused: give the slot back

A crash between two of these leaves a slot or a message too few; the sweep finds both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import structlog

from pipeline import match as matching
from pipeline import segments
from pipeline.match import Match
from pipeline.records import ChainFacts, DealRecord, Held, Replicate, TaskRecord, WorkerRecord
from pipeline.scheduler import Scheduler
from pipeline.segments import Segment
from pipeline.store.tasks import Given
from protocol import weights
from protocol.authorization import sign_authorization
from protocol.errors import RpcError, RpcUnavailable
from protocol.types import ZERO_ADDRESS, Wallet, Wei
from protocol.wire import Assignment

log = structlog.get_logger(__name__)

#: Workers looked at in one round, and least number of waiting tasks.
WORKERS, TASKS = 1000, 200
#: Pages of waiting tasks looked at in one round, and seconds that tasks which nobody could take stand back.
PAGES, PASS_SECONDS = 5, 3.0
#: Seconds that weight, stake and coins of a worker are believed: three calls a worker and 10 s cost next to nothing,
#: and an old weight makes votes superfluous.
FACTS_SECONDS = 10.0
#: Gas a worker spends on one task: contributeAndFinalize 0.52 M, contribute and reveal 0.48 M; a third on top.
GAS_PER_TASK = 700_000


def assign(scheduler: Scheduler) -> int:
    """One round of matching; returns how many replicates were given out. Raises PyMongoError or an Unavailable.

    Goes on to less urgent tasks, a few pages, while slots stay free that none of the most urgent ones can use.
    """
    given = 0
    for _ in range(PAGES):
        count, more = _page(scheduler)
        given += count
        if not more:
            break
    return given


def _page(scheduler: Scheduler) -> tuple[int, bool]:
    """Match the most urgent tasks; how many replicates were given out, and whether a look at others is worth while."""
    now = scheduler.clock()
    workers = scheduler.store.workers.with_free_slots(now - scheduler.settings.worker_lost_seconds, WORKERS, now)
    if not workers:
        return 0, False
    most = max(TASKS, 2 * sum(worker.free for worker in workers))
    tasks = scheduler.store.tasks.waiting(now, most)
    if not tasks:
        return 0, False
    able = _with_facts(scheduler, workers, now)
    matches = matching.match(tasks, able)
    granted = _reserve(scheduler, matches, now)
    given = _give(scheduler, granted, now)
    if len(tasks) < most or not matching.slots_left(able, matches):
        return given, False
    taken = {found.task.task_id for found in matches}
    scheduler.store.tasks.passed_over([t.task_id for t in tasks if t.task_id not in taken], now + PASS_SECONDS)
    return given, True


def resend(scheduler: Scheduler, replicates: Sequence[tuple[TaskRecord, Wallet]]) -> list[Segment]:
    """The compute segments of replicates that are stored in their tasks."""
    deals = scheduler.deals({task.deal_id for task, _ in replicates})
    return [
        segments.compute(scheduler.pool, assignment(scheduler, task, deals[task.deal_id], wallet))
        for task, wallet in replicates
        if task.deal_id in deals
    ]


def assignment(scheduler: Scheduler, task: TaskRecord, deal: DealRecord, wallet: Wallet) -> Assignment:
    """All a worker needs, with the pool's permission signed."""
    return Assignment(
        task_id=task.task_id,
        deal_id=task.deal_id,
        index=task.index,
        mode=task.mode,
        trust=task.trust,
        tag=task.tag,
        wallet=wallet,
        app=deal.app,
        image=deal.image,
        image_checksum=deal.image_checksum,
        dataset=deal.dataset,
        params=deal.params,
        callback=deal.callback,
        bot_first=deal.bot_first,
        bot_size=deal.bot_size,
        category_seconds=task.category_seconds,
        contribution_deadline=task.contribution_deadline,
        final_deadline=task.final_deadline,
        authorization=sign_authorization(scheduler.key, wallet, task.task_id),
        enclave_challenge=ZERO_ADDRESS,
    )


def _with_facts(scheduler: Scheduler, workers: Sequence[WorkerRecord], now: float) -> list[WorkerRecord]:
    """Workers with fresh chain facts. Old facts will do while the node is silent, none at all will not."""
    old = [worker.wallet for worker in workers if worker.checked_at < now - FACTS_SECONDS]
    if not old:
        return list(workers)
    try:
        _refresh(scheduler, old, now)
    except (RpcUnavailable, RpcError) as error:
        log.warning("Worker facts not read.", action="facts_stale", why=str(error))
        return [worker for worker in workers if worker.checked_at]
    return scheduler.store.workers.load([worker.wallet for worker in workers])


def _refresh(scheduler: Scheduler, wallets: Sequence[Wallet], now: float) -> None:
    hub = scheduler.hub
    head = hub.head()
    scores, accounts = hub.scores(wallets, head), hub.accounts(wallets, head)
    balances = hub.balances(wallets, head)
    needed = hub.gas_price() * GAS_PER_TASK
    scheduler.store.workers.checked(
        [
            (wallet, ChainFacts(weights.weight(score), account.stake, Wei(balance), balance >= needed))
            for wallet, score, account, balance in zip(wallets, scores, accounts, balances, strict=True)
        ],
        now,
    )


def _reserve(scheduler: Scheduler, matches: Sequence[Match], now: float) -> list[Match]:
    """Take the slots; a worker that cannot hold its share any more, or was faster for another process, is left out."""
    wanted: dict[Wallet, list[Held]] = defaultdict(list)
    for found in matches:
        for worker in found.workers:
            wanted[worker.wallet].append(_held(found, now))
    refused = wanted.keys() - scheduler.store.workers.reserve_each(wanted)
    granted = [found.without(refused) for found in matches]
    return [found for found in granted if found.workers]


def _held(found: Match, now: float) -> Held:
    return Held(found.task.task_id, now, matching.stake_locked(found.task))


def _give(scheduler: Scheduler, granted: Sequence[Match], now: float) -> int:
    """Write the replicates of reserved slots into their tasks, then publish; nothing is signed or sent for a replicate
    that is not stored. Slots of the others are given back.
    """
    deals = scheduler.deals({found.task.deal_id for found in granted})
    given = [
        Given(
            found.task,
            tuple(
                Replicate(item.wallet, found.task.mode, item.facts.weight, now, published_at=now)
                for item in found.workers
            ),
            found.wants,
            found.leading,
        )
        for found in granted
        if found.task.deal_id in deals
    ]
    taken = scheduler.store.tasks.assign(given, now, now + scheduler.pace.reask)
    refused = [found for found in granted if found.task.task_id not in taken]
    scheduler.store.workers.give_back([(item.wallet, _held(found, now)) for found in refused for item in found.workers])
    messages = []
    for task, workers in ((found.task, found.workers) for found in granted if found.task.task_id in taken):
        log.info("Task assigned.", action="assigned", task=task.task_id, wallets=[item.wallet for item in workers])
        for item in workers:
            order = assignment(scheduler, task, deals[task.deal_id], item.wallet)
            messages.append(segments.compute(scheduler.pool, order))
    scheduler.publish(messages)
    return len(messages)
