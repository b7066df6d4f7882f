"""What database, chain, RabbitMQ and IPFS say of one pool, compared with each other. Pure.

    database ─┬─ chain      tasks, votes, deals, events, transactions, the stake that the hub locks
              ├─ itself     stages, replicates and slots, transactions that tasks have handed over
              ├─ RabbitMQ   machines' users and queues
              └─ IPFS       results that are kept

A view that could not be read is None, and nothing is reported about it: unknown is not no. A whole page is read at one
block, the last one that the watcher has followed, so that a task that goes on meanwhile is no difference.
"""

from __future__ import annotations

from collections.abc import Iterator

from chain.contracts.views import Deal
from chain.lane.audit import LaneFinding
from chain.lane.model.intent import IntentState
from chain.watch.audit import Audit
from config import topology
from pipeline.domain.audit.findings import (
    Difference,
    FreeSlot,
    KeepResult,
    LookAgain,
    ReadDeal,
    ReadEvents,
    RemoveUser,
    SignInAgain,
)
from pipeline.domain.audit.views import BrokerView, DatabaseView, PoolOnChain, StorageView, StoredTask
from pipeline.domain.machines.slots import forgotten_slots
from pipeline.domain.records import DealRecord, TaskRecord, TaskStage
from protocol.counts import count
from protocol.poco.money import POOL_STAKE_RATIO
from protocol.poco.view import ChainView, ContributionStatus, TaskStatus
from protocol.types import ZERO_ADDRESS, BlockNumber, NRlc, Wallet

#: A slot that was taken less than so many seconds ago may still be on its way into its task's record.
SLOT_SECONDS = 30.0


def compare(
    database: DatabaseView, chain: PoolOnChain | None, broker: BrokerView | None, storage: StorageView | None = None
) -> list[Difference]:
    """Every difference on one page. A view that is None could not be read: nothing is said about it."""
    found = [*_within(database)]
    if chain is not None:
        found += _tasks(database, chain)
        found += _deals(database, chain)
        found += [difference for one in chain.events for difference in _of_events(one)]
        found += [_of_lane(finding) for finding in chain.lane if finding.kind != "no_answer"]
        found += _stake(database, chain)
    if broker is not None:
        found += _machines(database, broker)
    if storage is not None:
        found += _results(database, storage)
    return found


# -- tasks -------------------------------------------------------------------------------------------------------------

_STATUS_OF = {
    TaskStage.RECEIVED: TaskStatus.UNSET,
    TaskStage.INITIALIZED: TaskStatus.ACTIVE,
    TaskStage.RUNNING: TaskStatus.ACTIVE,
    TaskStage.CONSENSUS_REACHED: TaskStatus.REVEALING,
    TaskStage.AT_LEAST_ONE_REVEALED: TaskStatus.REVEALING,
    TaskStage.RESULT_UPLOADED: TaskStatus.REVEALING,
    TaskStage.FINALIZING: TaskStatus.REVEALING,
    TaskStage.COMPLETED: TaskStatus.COMPLETED,
    TaskStage.FAILED: TaskStatus.FAILED,
}
_SWEEP = "The next sweep looks at it; `sluice audit --fix` has it look at once"


def _tasks(database: DatabaseView, chain: PoolOnChain) -> Iterator[Difference]:
    """Where a task's stored events differ from the contract's state."""
    for stored in database.tasks:
        task, view = stored.record, chain.tasks.get(stored.record.task_id)
        if view is None or task.orphaned or _facts(view) == _facts(stored.view):
            continue
        yield Difference(
            "task_events",
            task.task_id,
            f"its stored events say {_words(stored.view)}; the contract says {_words(view)}",
            f"`sluice audit --fix`, or `sluice chain replay --from {task.matched_block}`: events are missing or wrong.",
            ReadEvents(task.matched_block),
        )


def _facts(view: ChainView) -> object:
    """The facts that both events and contract give of a task: votes only while it is open."""
    if view.status in (TaskStatus.COMPLETED, TaskStatus.FAILED):
        return view.status, view.results
    votes = {(vote.worker, vote.result_hash, vote.status) for vote in view.contributions}
    return view.status, view.consensus, votes


def _words(view: ChainView) -> str:
    """A task's state on chain in words."""
    votes = count(len(view.contributions), "vote")
    return f"{view.status.name} with {votes}, {len(view.revealed)} revealed"


def _within(database: DatabaseView) -> Iterator[Difference]:
    """Where the database contradicts itself."""
    for stored in database.tasks:
        yield from _record_and_events(stored)
        yield from _handed_over(stored)
        yield from _unreserved(stored.record, database)
    for deal in database.deals:
        if deal.tasks != deal.record.bot_size:
            yield Difference(
                "deal_tasks",
                deal.record.deal_id,
                f"it has {count(deal.record.bot_size, 'task')}, of which {deal.tasks} are stored",
                "`sluice audit --fix` stores those that are missing.",
                ReadDeal(deal.record.deal_id),
            )
    for waiting in database.waiting:
        yield Difference(
            "deal_waiting",
            waiting.deal_id,
            f"it was matched in block {waiting.block} and is not ingested; tasks stored so far: {waiting.stored}",
            "The sweep reads it again every few seconds: see the log of the process `pipeline` for `deal_unread`.",
        )
    forgotten, _ = forgotten_slots(database.holding, database.held, database.now - SLOT_SECONDS)
    for wallet, task in forgotten:
        yield Difference(
            "slot_of_nothing",
            wallet,
            f"a slot or stake of it is reserved for task {task}, which does not have it at work",
            f"{_SWEEP}.",
            FreeSlot(wallet, task),
        )


def _record_and_events(stored: StoredTask) -> Iterator[Difference]:
    """Where a task's record is behind its own stored events."""
    task, view = stored.record, stored.view
    if task.orphaned:
        return
    if _STATUS_OF[task.stage] is not view.status and not (task.stage is TaskStage.FAILED and not _begun(view)):
        says = f"it is {task.stage}, and its stored events say {_words(view)}"
        yield Difference("task_stage", task.task_id, says, f"{_SWEEP}.", LookAgain(task.task_id))
    elif task.open:
        for vote in view.contributions:
            if task.replicate(vote.worker) is None:
                says = f"{vote.worker} has voted on chain, and its record does not know that worker"
                yield Difference("vote_unknown", task.task_id, says, f"{_SWEEP}.", LookAgain(task.task_id))


def _begun(view: ChainView) -> bool:
    """Whether the task was ever initialized: one that never was ends as FAILED without an event on chain."""
    return view.status is not TaskStatus.UNSET


def _handed_over(stored: StoredTask) -> Iterator[Difference]:
    """Transactions that a task has handed to the lane, and that the lane does not have or has given up."""
    task = stored.record
    for method, state in stored.handed_over.items():
        if state in (None, IntentState.FAILED) and task.open:
            says = "the lane does not have it" if state is None else "it has failed there, which the task does not know"
            yield Difference(
                "transaction_lost",
                task.task_id,
                f"its {method} was handed to the transaction lane: {says}",
                f"{_SWEEP}.",
                LookAgain(task.task_id),
            )


def _unreserved(task: TaskRecord, database: DatabaseView) -> Iterator[Difference]:
    """Replicates that hold a slot of a machine whose row does not know of it."""
    for item in task.replicates:
        machine = database.machines.get(item.wallet)
        if machine is None or not task.open or not item.holds or item.assigned_at > database.now - SLOT_SECONDS:
            continue
        if task.task_id not in {held.task_id for held in (*machine.held, *machine.pledged)}:
            yield Difference(
                "replicate_without_slot",
                task.task_id,
                f"{item.wallet} works on it without a slot, so that it may get one task more than it offers",
                "Nothing need be done: it ends with the task.",
            )


# -- deals, stake, events, transactions --------------------------------------------------------------------------------


def _deals(database: DatabaseView, chain: PoolOnChain) -> Iterator[Difference]:
    """Deals whose stored terms are not the contract's."""
    for row in database.deals:
        deal = row.record
        # Of a later block than the page's, at which the contract cannot have it.
        if deal.deal_id not in chain.deals or deal.matched_block > database.block:
            continue
        on_chain = chain.deals[deal.deal_id]
        if on_chain is None:
            yield Difference(
                "deal_gone",
                deal.deal_id,
                f"it is stored as matched in block {deal.matched_block}, and the contract does not have it",
                f"`sluice audit --fix`, or `sluice chain replay --from {deal.matched_block}`: a reorg took it.",
                ReadEvents(deal.matched_block),
            )
            continue
        other = sorted(name for name, value in _terms(deal).items() if value != _terms_on_chain(on_chain)[name])
        if other:
            says = f"other than in the contract: {', '.join(other)}"
            fix = "`sluice audit --fix` reads it again."
            yield Difference("deal_terms", deal.deal_id, says, fix, ReadDeal(deal.deal_id))


def _terms(deal: DealRecord) -> dict[str, object]:
    """The terms of a stored deal that are compared, by name."""
    return {
        "app": deal.app,
        "requester": deal.requester,
        "beneficiary": deal.beneficiary,
        "callback": deal.callback,
        "params": deal.params,
        "trust": deal.trust,
        "tag": deal.tag,
        "start": deal.start_time,
        "tasks": (deal.bot_first, deal.bot_size),
        "worker stake": deal.worker_stake,
    }


def _terms_on_chain(deal: Deal) -> dict[str, object]:
    """The terms of the deal on chain that are compared, by name."""
    return {
        "app": deal.app,
        "requester": deal.requester,
        "beneficiary": deal.beneficiary,
        "callback": deal.callback or ZERO_ADDRESS,
        "params": deal.params,
        "trust": max(deal.trust, 1),
        "tag": deal.tag,
        "start": deal.start_time,
        "tasks": (deal.bot_first, deal.bot_size),
        "worker stake": deal.worker_stake,
    }


def stake_of(view: ChainView, deal: Deal, wallet: Wallet) -> NRlc:
    """nRLC that the hub locks of `wallet`, the pool's, for one task in this state: its share of the price until the
    task is over, the price itself if it pays for the task too, and what it locked for a vote of its own.
    """
    if view.status in (TaskStatus.COMPLETED, TaskStatus.FAILED):
        return NRlc(0)
    vote = view.contribution(wallet)
    own = deal.worker_stake if vote is not None and vote.status is not ContributionStatus.UNSET else 0
    pool = deal.workerpool_price * POOL_STAKE_RATIO // 100 if deal.workerpool_owner == wallet else 0
    paid = deal.app_price + deal.dataset_price + deal.workerpool_price if deal.sponsor == wallet else 0
    return NRlc(pool + paid + own)


def counts_as_open(task: TaskRecord, view: ChainView | None, block: BlockNumber) -> bool:
    """Whether the stake of a task is to be explained at `block`: it is open in the database, or has ended since.

    `view`: the task by the contract, at that block. One that was given up without ever being initialized is closed in
    the database, so the stake that the hub still locks for it is a difference.
    """
    if task.matched_block > block or task.orphaned:
        return False
    return task.open or (view is not None and view.status in (TaskStatus.ACTIVE, TaskStatus.REVEALING))


def _stake(database: DatabaseView, chain: PoolOnChain) -> Iterator[Difference]:
    """Whether the open tasks account for the stake that the hub locks; if not, some old task was never ended."""
    if database.stake is None or chain.locked is None or chain.locked == database.stake[1]:
        return
    wallet, explained = database.stake
    more = chain.locked > explained
    yield Difference(
        "stake",
        wallet,
        f"the hub locks {chain.locked} nRLC of it, and the open tasks explain {explained}",
        "A deal is missing: find it by `sluice chain audit` over all blocks, store it by `sluice chain replay`. Unless"
        " this wallet buys tasks of other pools, or votes there."
        if more
        else "Tasks that are stored as open are over on chain: `sluice chain audit` over all blocks names the events.",
    )


def _of_events(found: Audit) -> Iterator[Difference]:
    """What `chain.watch.audit` found in a stretch of blocks."""
    span = f"{found.first} to {found.last.number}"
    parts = {
        "missing": len(found.missing) + len(found.missing_deals),
        "not on the chain": len(found.extra) + len(found.extra_deals),
    }
    for word, number in parts.items():
        if number:
            yield Difference(
                "events",
                f"blocks {span}",
                f"of the stored events and deals of these blocks {number} are {word}",
                f"`sluice audit --fix`, or `sluice chain replay --from {found.first}`.",
                ReadEvents(found.first),
            )


def _of_lane(finding: LaneFinding) -> Difference:
    """What `chain.lane.audit` found of the wallet's transactions."""
    subject = finding.intent or f"nonce {finding.nonce}"
    fix = "The lane's next run repairs it by itself, unless it is halted: see `sluice tx ls`."
    return Difference(f"lane_{finding.kind}", subject, finding.says, fix)


# -- RabbitMQ and IPFS -------------------------------------------------------------------------------------------------


def _machines(database: DatabaseView, broker: BrokerView) -> Iterator[Difference]:
    """Machines' users and queues against their rows. One that is cut off on purpose has a row and no user."""
    for wallet in sorted(broker.users - database.with_queues.keys()):
        yield Difference(
            "user_without_machine",
            wallet,
            "RabbitMQ has a user of it, and no machine of this database has one",
            "`sluice audit --fix` removes it with its queues; a machine that is there signs in again.",
            RemoveUser(wallet),
        )
    for wallet, machine in sorted(database.with_queues.items()):
        if machine.lost or machine.away or machine.banned:
            continue
        names = (topology.compute_queue_name(wallet), topology.tx_queue_name(wallet))
        missing = [*(["its user"] if wallet not in broker.users else []), *sorted(set(names) - broker.queues)]
        if missing:
            yield Difference(
                "machine_without_queues",
                wallet,
                f"RabbitMQ lacks {', '.join(missing)}: no work reaches it",
                "`sluice audit --fix` has it sign in again, which makes them; so does restarting the machine.",
                SignInAgain(wallet),
            )


def _results(database: DatabaseView, storage: StorageView) -> Iterator[Difference]:
    """Results that are stored as kept, and that the IPFS node may drop."""
    for result in database.results:
        if storage.pinned.get(result.cid) is False:
            yield Difference(
                "result_not_pinned",
                result.task,
                f"its result {result.cid} is stored as kept, and the IPFS node has not pinned it",
                "`sluice audit --fix` has it pinned, if the node still has it; else it is lost here.",
                KeepResult(result.task, result.cid, result.stored_at),
            )
