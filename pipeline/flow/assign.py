"""Give waiting tasks to workers: match, take slots, write replicates, publish the compute segments.

    match ─► reserve slots, one update a worker ─► add replicates, one update a task ─► publish
             refused: another process was faster    refused: give the slot back

A crash between two of these leaves a slot or a message too few; the sweep finds both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import structlog

from config.metrics import ASSIGNMENTS_REFUSED
from pipeline.broker import segments
from pipeline.broker.segments import Segment
from pipeline.domain import match as matching
from pipeline.domain.enclaves import lacks_challenge
from pipeline.domain.match import Capacity, Match
from pipeline.domain.records import ChainFacts, DealRecord, Replicate, Reservation, TaskRecord, WorkerRecord
from pipeline.domain.replicas import waits
from pipeline.flow import isolate
from pipeline.flow.machines import unmatched
from pipeline.flow.machines.new_pool import decided_by
from pipeline.scheduler import Scheduler
from pipeline.store.machine.ready import Round
from pipeline.store.task.tasks import NewReplicates
from protocol.assignment import sign_assignment
from protocol.errors import BadMessage, RpcError, RpcUnavailable
from protocol.gas import gas_for_task
from protocol.poco import weights
from protocol.poco.authorization import sign_authorization
from protocol.poco.tags import fits
from protocol.types import Hash32, Wallet, Wei
from protocol.wire import Assignment, Mode

log = structlog.get_logger(__name__)

#: Waiting tasks read at once, and pages of them in one round.
TASKS, PAGES = 400, 6
#: Free workers up to which they are simply all read.
FEW = 32
#: Tasks read beyond the few free slots in a round's first pages: some workers had some of them before, mostly none.
BESIDE = (8, FEW)
#: Tasks read together with the machines at the beginning of a round: enough for two free slots, the usual case.
AT_BEGIN = BESIDE[0] + 2
#: Most workers read for tasks of one kind, and how many more than the tasks want, beside as many as had one of them
#: before: fresh facts rule some out.
WORKERS, SPARE = 1000, 20
#: Kinds of machine (tags) looked for at once; requesters choose tags, and others wait for the next page.
TAGS = 8
#: Seconds for which tasks that no worker could take are not matched again, and those whose tag no free worker offers: a
#: hundred thousand of them must not be read again before all others.
PASS_SECONDS, PASS_UNSERVED_SECONDS = 3.0, 30.0
#: Seconds that weight, stake and balance of a worker are used before they are read again: an old weight costs extra
#: votes. A worker that works alone votes with no weight and no stake: then only its balance may have become too low.
FACTS_SECONDS, ALONE_SECONDS = 10.0, 30.0
#: Matching rounds while fresh facts show that a chosen worker cannot take its task.
ROUNDS = 4
#: Workers without native token whose balance is read again in one round: each is three calls, and signing in is free.
UNFUNDED = 100
#: Workers without a known success whose facts are read again in one round for tasks that only proven ones get, those
#: with most at stake first.
PROSPECTS = 20


def assign(scheduler: Scheduler, *, check_unfunded: bool = True) -> int:
    """One round of matching; returns how many replicates were given out: none while the pool holds. Raises PyMongoError
    or an Unavailable.

    Goes on to less urgent tasks, a few pages, while slots stay free that none of the most urgent ones can use.
    `check_unfunded`: also read the balance of some workers that had none; the sweep does.
    """
    given = 0
    for number in range(PAGES):
        now = scheduler.clock()
        begun = _begin(scheduler, now, number)
        if check_unfunded and not number and not begun.begins.holds and _read_unfunded(scheduler, now):
            begun = _begin(scheduler, now, number)
        if not begun.free or begun.begins.holds:
            break
        count, more = _page(scheduler, begun, now, number)
        given += count
        if not more:
            break
    return given


def _begin(scheduler: Scheduler, now: float, number: int) -> Round:
    """The waiting tasks and free workers that the round, or its `number`th page, begins with."""
    tasks = 0 if number else AT_BEGIN
    return scheduler.store.rounds.begin(_seen_after(scheduler, now), FEW + 1, now, tasks=tasks)


def _page(scheduler: Scheduler, begun: Round, now: float, number: int) -> tuple[int, bool]:
    """Match the most urgent tasks with these machines, the best that are free, or more if there are many; how many
    replicates were given out, and whether to read the next page.

    The first pages have about as many tasks as slots are free: mostly it is one slot, and others are behind hundreds.
    """
    free = begun.free
    few, slots = len(free) <= FEW, sum(worker.free for worker in free)
    limit = min(TASKS, slots + BESIDE[number]) if few and number < len(BESIDE) else TASKS
    waiting = _waiting(scheduler, begun, now, number, limit)
    tasks = decided_by(scheduler.store.workers, _with_deal(scheduler, waiting, now), now)
    if not tasks:
        return 0, len(waiting) == limit
    tags = list(dict.fromkeys(task.tag for task in tasks))
    # Nobody is looked for who offers the other tags: the next page starts with them.
    served = tasks if few else [task for task in tasks if task.tag in tags[:TAGS]]
    workers = free if few else _candidates(scheduler, served, free, now)
    matches = _match(scheduler, tasks, workers, now)
    unmatched.count(served, matches, workers)
    given = _give(scheduler, _reserve(scheduler, matches, now), now)
    if len(waiting) < limit and len(served) == len(tasks):
        return given, False
    if given == slots if few else not _any_free(scheduler, now):
        return given, False
    if limit == TASKS:
        taken = {found.task.task_id for found in matches}
        _pass_over(scheduler, [task for task in served if task.task_id not in taken], workers, now)
    return given, True


def _waiting(scheduler: Scheduler, begun: Round, now: float, number: int, limit: int) -> list[TaskRecord]:
    """The `limit` most urgent tasks; while the pool is paused, only those that were begun before."""
    tasks, paused = scheduler.store.tasks, begun.begins.paused
    if number == 0 and (limit <= AT_BEGIN or len(begun.waiting) < AT_BEGIN) and not paused:
        # As many as are wanted, or all there are.
        return tasks.read(begun.waiting[:limit])
    return tasks.tasks_wanting_workers(now, limit, begun=paused)


def _with_deal(scheduler: Scheduler, tasks: Sequence[TaskRecord], now: float) -> list[TaskRecord]:
    """Tasks whose deal can be read; the others are deferred, so that they hold no slot that another could use."""
    deals = scheduler.deals(tasks)
    without = [task.task_id for task in tasks if task.deal_id not in deals]
    if without:
        ASSIGNMENTS_REFUSED.labels("deal_missing").inc(len(without))
        log.warning("Tasks wait for a deal that cannot be read.", action="deal_missing", tasks=len(without))
        scheduler.store.tasks.defer_matching(without, now + PASS_UNSERVED_SECONDS)
    return [task for task in tasks if task.deal_id in deals]


def _pass_over(scheduler: Scheduler, tasks: Sequence[TaskRecord], workers: Sequence[WorkerRecord], now: float) -> None:
    """Defer tasks that no worker could take although a slot is free, so that the next page has others."""
    offered = {task.tag for task in tasks if any(fits(task.tag, worker.tag) for worker in workers)}
    unserved = {task.task_id for task in tasks if task.tag not in offered or lacks_challenge(task)}
    for seconds, some in (
        (PASS_SECONDS, [task.task_id for task in tasks if task.task_id not in unserved]),
        (PASS_UNSERVED_SECONDS, sorted(unserved)),
    ):
        if some:
            scheduler.store.tasks.defer_matching(some, now + seconds)


def _any_free(scheduler: Scheduler, now: float) -> bool:
    """Whether any machine has a free slot."""
    return bool(scheduler.store.workers.with_free_slots(_seen_after(scheduler, now), 1, now))


def _seen_after(scheduler: Scheduler, now: float) -> float:
    """Unix time; workers not seen since count as lost."""
    return now - scheduler.settings.worker_lost_seconds


def _candidates(
    scheduler: Scheduler, tasks: Sequence[TaskRecord], best: Sequence[WorkerRecord], now: float
) -> list[WorkerRecord]:
    """The best workers for these tasks: for each tag, those that offer it, with stake for the smallest vote if need be.

    Queried separately, so that workers that cannot take a task never displace those that can; `best`, the best of all,
    are enough for a few tasks that ask for nothing.
    """
    wanted: dict[tuple[Hash32, bool], list[TaskRecord]] = defaultdict(list)
    for task in tasks:
        wanted[task.tag, matching.stake_locked(task) > 0].append(task)
    found: dict[Wallet, WorkerRecord] = {}
    for (tag, _), kind in wanted.items():
        before = max(len(task.replicates) for task in kind)
        limit = min(WORKERS, SPARE + before + sum(task.wants for task in kind))
        stake = min(matching.stake_locked(task) for task in kind)
        if not stake and not int(tag, 16) and limit <= len(best):
            found |= {worker.wallet: worker for worker in best}
            continue
        seen_after = _seen_after(scheduler, now)
        workers = scheduler.store.workers.with_free_slots(seen_after, limit, now, tag=tag, stake=stake)
        found |= {worker.wallet: worker for worker in workers}
    return list(found.values())


def _match(
    scheduler: Scheduler, tasks: Sequence[TaskRecord], workers: Sequence[WorkerRecord], now: float
) -> list[Match]:
    """Match tasks with workers, reading the chain facts of the chosen workers anew where they are old.

    Old facts are used while the node does not answer; a worker without any is left out.
    """
    known = {worker.wallet: worker for worker in workers}
    for _ in range(ROUNDS):
        matches = matching.match(tasks, list(known.values()))
        chosen = dict.fromkeys(
            worker.wallet
            for found in matches
            for worker in found.workers
            if _is_old(worker, now, ALONE_SECONDS if found.task.mode is Mode.SOLO else FACTS_SECONDS)
        )
        old = [*chosen, *_prospects(tasks, matches, list(known.values()), now)]
        if not old:
            return matches
        if not _refresh(scheduler, old, now):
            known = {wallet: worker for wallet, worker in known.items() if worker.checked_at}
            break
        fresh = {worker.wallet: worker for worker in scheduler.store.workers.load_workers(old)}
        known = {wallet: fresh.get(wallet, worker) for wallet, worker in known.items()}
    else:
        known = {wallet: worker for wallet, worker in known.items() if not _is_old(worker, now)}
    return matching.match(tasks, list(known.values()))


def _is_old(worker: WorkerRecord, now: float, seconds: float = FACTS_SECONDS) -> bool:
    """Whether a worker's facts are to be read again: after `seconds`, or if a clock that was wrong has dated them."""
    return not worker.checked_at or not waits(worker.checked_at, seconds, now)


def _prospects(
    tasks: Sequence[TaskRecord], matches: Sequence[Match], workers: Sequence[WorkerRecord], now: float
) -> list[Wallet]:
    """Workers that may have become proven since their facts were read, if a task waits for a proven one."""
    served = {found.task.task_id for found in matches}
    if all(task.task_id in served for task in tasks if matching.for_proven(task)):
        return []
    unproven = [item for item in workers if not item.successes and _is_old(item, now)]
    return [item.worker.wallet for item in sorted(map(Capacity.of, unproven))[:PROSPECTS]]


def _read_unfunded(scheduler: Scheduler, now: float) -> bool:
    """Read the facts of some workers that had no native token when last read, in turn. False: there are none, or the
    node does not answer.
    """
    wallets = scheduler.store.workers.wallets_to_check(now, UNFUNDED)
    return bool(wallets) and _refresh(scheduler, wallets, now)


def resend(scheduler: Scheduler, replicates: Sequence[tuple[TaskRecord, Wallet]]) -> list[Segment]:
    """The compute segments of replicates that are stored in their tasks."""
    deals = scheduler.deals([task for task, _ in replicates])
    return [
        segment
        for task, wallet in replicates
        if task.deal_id in deals
        for segment in _segment(scheduler, task, deals[task.deal_id], wallet)
    ]


def _segment(scheduler: Scheduler, task: TaskRecord, deal: DealRecord, wallet: Wallet) -> list[Segment]:
    """The compute segment of a replicate; none for a task that no assignment can be made of, which is quarantined."""
    try:
        return [segments.compute(scheduler.pool, assignment(scheduler, task, deal, wallet))]
    except Exception as error:
        if isolate.is_transient(error):
            raise
        log.exception("No assignment can be made of this task.", action="unassignable", task=task.task_id)
        scheduler.store.tasks.reader.quarantine(task.task_id, f"no assignment can be made of it ({error!r})")
        return []


def assignment(scheduler: Scheduler, task: TaskRecord, deal: DealRecord, wallet: Wallet) -> Assignment:
    """All that a worker needs, with the PoCo authorization and the signature over the whole."""
    unsigned = Assignment(
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
        authorization=sign_authorization(scheduler.key, wallet, task.task_id, task.challenge),
        enclave_challenge=task.challenge,
    )
    return sign_assignment(scheduler.key, unsigned, scheduler.settings.chain_id, scheduler.workerpool)


def _refresh(scheduler: Scheduler, wallets: Sequence[Wallet], now: float) -> bool:
    """Read and store what the chain says of these wallets; False while the node does not answer."""
    hub = scheduler.hub
    try:
        head = hub.head()
        scores, accounts = hub.scores(wallets, head), hub.accounts(wallets, head)
        balances = hub.balances(wallets, head)
        needed = gas_for_task(hub.gas_price())
    except (RpcUnavailable, RpcError, BadMessage) as error:
        log.warning("Worker facts not read.", action="facts_stale", workers=len(wallets), why=str(error))
        return False
    scheduler.store.workers.store_facts(
        [
            (wallet, ChainFacts(weights.weight(score), account.stake, Wei(balance), balance >= needed, score))
            for wallet, score, account, balance in zip(wallets, scores, accounts, balances, strict=True)
        ],
        now,
    )
    return True


def _reserve(scheduler: Scheduler, matches: Sequence[Match], now: float) -> list[Match]:
    """Reserve the slots; a worker whose slots another process has taken meanwhile is left out."""
    wanted: dict[Wallet, list[Reservation]] = defaultdict(list)
    for found in matches:
        for worker in found.workers:
            wanted[worker.wallet].append(_held(found, now))
    refused = wanted.keys() - scheduler.store.workers.reserve_each(wanted)
    if refused:
        ASSIGNMENTS_REFUSED.labels("slot_taken").inc(len(refused))
    granted = [found.without(refused) for found in matches]
    return [found for found in granted if found.workers]


def _held(found: Match, now: float) -> Reservation:
    """The slot that a match takes."""
    return Reservation(found.task.task_id, now, matching.stake_locked(found.task))


def _give(scheduler: Scheduler, granted: Sequence[Match], now: float) -> int:
    """Write the replicates of reserved slots into their tasks, then publish; nothing is signed or sent for a replicate
    that is not stored. Slots of the others are given back.
    """
    deals = scheduler.deals([found.task for found in granted])
    given = [
        NewReplicates(
            found.task,
            tuple(
                Replicate(
                    item.wallet,
                    found.task.mode,
                    item.facts.weight,
                    now,
                    published_at=now,
                    standing=item.standing(found.task.worker_stake),
                )
                for item in found.workers
            ),
            found.wants,
            found.leading,
            found.newcomers,
        )
        for found in granted
        if found.task.deal_id in deals
    ]
    taken = scheduler.store.tasks.assign(given, now, now + scheduler.timeouts.reask)
    refused = [found for found in granted if found.task.task_id not in taken]
    if refused:
        ASSIGNMENTS_REFUSED.labels("task_changed").inc(len(refused))
    scheduler.store.workers.cancel_reservations(
        [(item.wallet, _held(found, now)) for found in refused for item in found.workers]
    )
    messages: list[Segment] = []
    for task, workers in ((found.task, found.workers) for found in granted if found.task.task_id in taken):
        log.info("Task assigned.", action="assigned", task=task.task_id, wallets=[item.wallet for item in workers])
        for item in workers:
            messages += _segment(scheduler, task, deals[task.deal_id], item.wallet)
    scheduler.publish(messages)
    for found in granted:
        if (task := found.task).task_id in taken:
            # Since the match, or since the last change made it want more workers; a block's clock may be ahead of ours.
            scheduler.relay.step("assign", task.task_id, min(max(float(task.matched_at), task.changed_at), now))
    return len(messages)
