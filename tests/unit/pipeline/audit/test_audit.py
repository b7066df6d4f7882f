"""What an audit calls a difference, and what it does not: each pair of views with the one thing that differs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chain.contracts.views import Deal
from chain.lane.audit import LaneFinding
from chain.lane.model.intent import IntentState
from chain.watch.audit import Audit
from config import topology
from pipeline.domain.audit.compare import SLOT_SECONDS, compare, counts_as_open, stake_of
from pipeline.domain.audit.findings import (
    Difference,
    FreeSlot,
    KeepResult,
    LookAgain,
    ReadDeal,
    ReadEvents,
    RemoveUser,
    Repair,
    SignInAgain,
    lasting,
)
from pipeline.domain.audit.views import (
    BrokerView,
    DatabaseView,
    DealRow,
    KeptResult,
    PoolOnChain,
    StorageView,
    StoredTask,
    WaitingDeal,
)
from pipeline.domain.records import DealRecord, ReplicateState, Reservation, TaskRecord, TaskStage
from protocol.poco.events import BlockRef
from protocol.poco.view import ChainView, TaskStatus
from protocol.types import BlockHash, BlockNumber, Contract, NRlc, TaskId, Timestamp
from tests.unit.pipeline import builders
from tests.unit.pipeline.builders import CONSENSUS, DEAL, POOL, START, TASK, replicate, wallet, worker

NOW = START + 5.0
BLOCK = BlockNumber(9)
OWNER = wallet(77)
VOTED = builders.view(*CONSENSUS)
RECORD = builders.task(
    replicates=[replicate(number, holds_slot=False) for number in (1, 2, 3)], stage=TaskStage.CONSENSUS_REACHED
)
ON_CHAIN = Deal(
    deal_id=DEAL,
    app=Contract("0x" + "0a" * 20),
    app_owner=wallet(90),
    app_price=NRlc(0),
    dataset=None,
    dataset_owner=wallet(0),
    dataset_price=NRlc(0),
    workerpool=POOL,
    workerpool_owner=OWNER,
    workerpool_price=NRlc(100),
    trust=5,
    category=0,
    tag=builders.NO_TAG,
    requester=wallet(99),
    beneficiary=wallet(99),
    callback=None,
    params="{}",
    start_time=Timestamp(START),
    bot_first=0,
    bot_size=1,
    worker_stake=NRlc(30),
    scheduler_reward_ratio=1,
    sponsor=wallet(99),
)
STORED_DEAL = DealRecord(
    deal_id=DEAL,
    app=ON_CHAIN.app,
    image="hello:1",
    image_checksum=builders.TRUTH,
    dataset=None,
    workerpool=POOL,
    requester=ON_CHAIN.requester,
    beneficiary=ON_CHAIN.beneficiary,
    callback=Contract("0x" + "0" * 40),
    params=ON_CHAIN.params,
    trust=ON_CHAIN.trust,
    tag=ON_CHAIN.tag,
    category_seconds=builders.SECONDS,
    start_time=ON_CHAIN.start_time,
    bot_first=0,
    bot_size=1,
    worker_stake=ON_CHAIN.worker_stake,
    contribution_deadline=Timestamp(builders.CONTRIBUTE_UNTIL),
    final_deadline=Timestamp(builders.FINAL),
    matched_block=BlockNumber(1),
)
LAST = BlockRef(BLOCK, BlockHash("0x1"), BlockHash("0x0"), Timestamp(START))


def page(record: TaskRecord = RECORD, view: ChainView = VOTED, **fields: Any) -> DatabaseView:
    tasks = [StoredTask(record, view, fields.pop("handed_over", {}))]
    machines = {wallet(number): worker(number) for number in (1, 2, 3)}
    return replace(DatabaseView(BLOCK, NOW, tasks, machines=machines), **fields)


def on_chain(view: ChainView = VOTED, **fields: Any) -> PoolOnChain:
    return replace(PoolOnChain({TASK: view}), **fields)


def found(
    database: DatabaseView,
    chain: PoolOnChain | None = None,
    broker: BrokerView | None = None,
    storage: StorageView | None = None,
) -> tuple[str, Repair | None]:
    """Kind and repair of the one difference; there must be just one."""
    (difference,) = compare(database, chain, broker, storage)
    assert difference.says
    assert difference.fix
    return difference.kind, difference.repair


def machine_queues(*numbers: int) -> frozenset[str]:
    names = (topology.compute_queue_name, topology.tx_queue_name)
    return frozenset(name(wallet(number)) for number in numbers for name in names)


def held(task: TaskId, since: float) -> Reservation:
    return Reservation(task, since, NRlc(0))


def test_a_pool_whose_parts_agree_has_no_difference() -> None:
    row = {wallet(1): worker(1)}
    database = page(
        deals=[DealRow(STORED_DEAL, 1)],
        with_queues=row,
        results=[KeptResult(TASK, "Qm1", 1.0)],
        stake=(OWNER, NRlc(30)),
        holding=[worker(1, held=(held(TASK, 0.0),))],
        held={TASK: replace(RECORD, replicates=(replicate(1, ReplicateState.STARTED),))},
        handed_over={"initialize": IntentState.DONE},
    )
    chain = on_chain(deals={DEAL: ON_CHAIN}, locked=NRlc(30))
    broker = BrokerView(frozenset(row), machine_queues(1))
    assert compare(database, chain, broker, StorageView({"Qm1": True})) == []


def test_nothing_is_said_of_what_could_not_be_asked() -> None:
    database = page(
        view=builders.view(builders.initialized()),
        record=builders.task(stage=TaskStage.INITIALIZED),
        deals=[DealRow(STORED_DEAL, 1)],
        with_queues={wallet(1): worker(1)},
        results=[KeptResult(TASK, "Qm1", 1.0)],
        stake=(OWNER, NRlc(1)),
    )
    assert compare(database, None, None, None) == []
    assert compare(database, PoolOnChain(), None, StorageView({})) == [], "a node that told nothing of these"


@pytest.mark.parametrize(
    "real",
    [
        builders.view(*CONSENSUS, builders.revealed(1)),
        builders.view(*CONSENSUS, *(builders.revealed(number) for number in (1, 2, 3)), builders.finalized()),
        builders.view(*CONSENSUS[:3]),
        builders.view(*CONSENSUS, builders.claimed()),
        ChainView(TASK),
        builders.view(builders.initialized(), *(builders.voted(n, builders.LIE) for n in (1, 2, 3)), CONSENSUS[-1]),
    ],
    ids=["a reveal more", "completed", "votes less", "claimed", "never initialized", "other votes"],
)
def test_stored_events_that_are_not_the_contracts_state_are_read_again(real: ChainView) -> None:
    kind, repair = found(page(), on_chain(real))
    assert (kind, repair) == ("task_events", ReadEvents(RECORD.matched_block))


def test_votes_of_a_task_that_is_over_do_not_matter_but_its_results_do() -> None:
    over = builders.view(*CONSENSUS, builders.finalized())
    record = replace(RECORD, stage=TaskStage.COMPLETED, open=False)
    assert compare(page(record, over), on_chain(replace(over, contributions=())), None) == []
    kind, _ = found(page(record, over), on_chain(replace(over, results="0x12")))
    assert kind == "task_events"


@pytest.mark.parametrize("stage", [TaskStage.RECEIVED, TaskStage.RUNNING, TaskStage.COMPLETED, TaskStage.FAILED])
def test_a_record_behind_its_own_events_is_looked_at_again(stage: TaskStage) -> None:
    record = replace(RECORD, stage=stage, open=stage not in (TaskStage.COMPLETED, TaskStage.FAILED))
    assert found(page(record), on_chain()) == ("task_stage", LookAgain(TASK))


def test_a_task_that_was_never_initialized_may_have_failed_and_an_orphaned_one_is_on_no_chain() -> None:
    never = replace(RECORD, stage=TaskStage.FAILED, open=False, replicates=())
    assert compare(page(never, ChainView(TASK)), on_chain(ChainView(TASK)), None) == []
    assert compare(page(replace(never, orphaned=True)), on_chain(ChainView(TASK)), None) == []


def test_a_vote_of_a_worker_that_the_record_does_not_know_is_a_difference() -> None:
    record = replace(RECORD, replicates=RECORD.replicates[:2])
    assert found(page(record), on_chain()) == ("vote_unknown", LookAgain(TASK))


@pytest.mark.parametrize("state", [None, IntentState.FAILED])
def test_a_transaction_that_the_lane_lost_or_gave_up_is_a_difference(state: IntentState | None) -> None:
    assert found(page(handed_over={"finalize": state})) == ("transaction_lost", LookAgain(TASK))
    over = replace(RECORD, stage=TaskStage.COMPLETED, open=False)
    assert compare(page(over, builders.view(builders.finalized()), handed_over={"finalize": state}), None, None) == []


def test_a_slot_that_nothing_holds_is_given_back_unless_it_was_just_taken() -> None:
    old, new = NOW - SLOT_SECONDS - 1, NOW - SLOT_SECONDS + 1
    for since, kinds in ((old, ["slot_of_nothing"]), (new, [])):
        database = page(holding=[worker(1, held=(held(TASK, since),))], held={TASK: RECORD})
        differences = compare(database, None, None)
        assert [item.kind for item in differences] == kinds
    assert found(page(holding=[worker(1, pledged=(held(TASK, old),))])) == (
        "slot_of_nothing",
        FreeSlot(wallet(1), TASK),
    )


def test_a_replicate_whose_machine_has_no_slot_for_it_is_a_difference() -> None:
    begun = replicate(1, ReplicateState.STARTED, at=NOW - SLOT_SECONDS - 1)
    record = builders.task(replicates=[begun], stage=TaskStage.RUNNING)
    active = builders.view(builders.initialized())
    assert found(page(record, active), on_chain(active)) == ("replicate_without_slot", None)
    row = {wallet(1): worker(1, held=(held(TASK, 0.0),))}
    assert compare(page(record, active, machines=row), on_chain(active), None) == []


def test_a_deal_with_missing_tasks_or_other_terms_is_read_again() -> None:
    assert found(page(deals=[DealRow(replace(STORED_DEAL, bot_size=3), 2)])) == ("deal_tasks", ReadDeal(DEAL))
    terms = page(deals=[DealRow(replace(STORED_DEAL, trust=1), 1)])
    assert found(terms, on_chain(deals={DEAL: ON_CHAIN})) == ("deal_terms", ReadDeal(DEAL))
    gone = page(deals=[DealRow(STORED_DEAL, 1)])
    assert found(gone, on_chain(deals={DEAL: None})) == ("deal_gone", ReadEvents(STORED_DEAL.matched_block))
    younger = replace(STORED_DEAL, matched_block=BlockNumber(BLOCK + 1))
    assert compare(page(deals=[DealRow(younger, 1)]), on_chain(deals={DEAL: None}), None) == []


def test_a_deal_that_gets_on_between_two_readings_does_not_wait() -> None:
    first, second = (compare(page(waiting=[WaitingDeal(DEAL, BLOCK, n)]), None, None) for n in (1000, 2000))
    assert [item.kind for item in first] == ["deal_waiting"]
    assert lasting(first, first) == first
    assert lasting(first, second) == []


def test_what_two_readings_find_is_the_same_whatever_is_done_about_it() -> None:
    first = [Difference("stake", OWNER, "says", "one way")]
    again = Difference("stake", OWNER, "says", "another way", LookAgain(TASK))
    assert lasting(first, [again, Difference("stake", OWNER, "says more", "")]) == [again]


@pytest.mark.parametrize(("locked", "word"), [(60, "sluice chain replay"), (0, "over on chain")])
def test_stake_that_the_open_tasks_do_not_explain_is_a_difference(locked: int, word: str) -> None:
    (difference,) = compare(page(stake=(OWNER, NRlc(30))), on_chain(locked=NRlc(locked)), None)
    assert (difference.kind, difference.subject) == ("stake", OWNER)
    assert word in difference.fix
    assert compare(page(stake=(OWNER, NRlc(30))), on_chain(locked=None), None) == []


def test_a_task_locks_the_pools_stake_until_it_is_over_and_that_of_a_vote_of_its_own() -> None:
    assert stake_of(ChainView(TASK), ON_CHAIN, OWNER) == 30
    assert stake_of(VOTED, ON_CHAIN, OWNER) == 30
    assert stake_of(VOTED, replace(ON_CHAIN, workerpool_owner=wallet(1)), wallet(1)) == 60
    assert stake_of(VOTED, ON_CHAIN, wallet(2)) == 30, "a voter that is not the owner"
    bought = replace(ON_CHAIN, sponsor=OWNER, app_price=NRlc(7), dataset_price=NRlc(3))
    assert stake_of(VOTED, bought, OWNER) == 30 + 110, "an owner who buys from the own pool, to try it"
    for status in (TaskStatus.COMPLETED, TaskStatus.FAILED):
        assert stake_of(replace(VOTED, status=status), bought, OWNER) == 0


def test_events_of_blocks_and_transactions_that_are_not_the_chains_are_differences() -> None:
    seen = builders.seen(builders.initialized(), 5, START)
    both = Audit(BlockNumber(3), LAST, missing=(seen,), extra=(seen, seen))
    differences = compare(page(), on_chain(events=[both]), None)
    assert [(item.subject, item.repair) for item in differences] == [("blocks 3 to 9", ReadEvents(BlockNumber(3)))] * 2
    gap = LaneFinding("gap", None, None, "has no transaction")
    assert found(page(), on_chain(lane=[gap])) == ("lane_gap", None)
    unknown = LaneFinding("no_answer", None, None, "the node cannot say")
    assert compare(page(), on_chain(lane=[unknown]), None) == []


def test_users_and_queues_of_machines_are_compared_with_their_rows() -> None:
    row = {wallet(1): worker(1)}
    strange = BrokerView(frozenset({wallet(1), wallet(2)}), machine_queues(1, 2))
    assert found(page(with_queues=row), broker=strange) == ("user_without_machine", RemoveUser(wallet(2)))
    one_less = machine_queues(1) - {topology.tx_queue_name(wallet(1))}
    for broker in (BrokerView(frozenset(), machine_queues(1)), BrokerView(frozenset(row), one_less)):
        assert found(page(with_queues=row), broker=broker) == ("machine_without_queues", SignInAgain(wallet(1)))


@pytest.mark.parametrize("how", ["lost", "away", "banned"])
def test_a_machine_that_is_gone_or_was_cut_off_needs_no_queues(how: str) -> None:
    row = {wallet(1): worker(1, **{how: True})}
    assert compare(page(with_queues=row), None, BrokerView(frozenset(), frozenset())) == []


def test_a_result_that_the_node_may_drop_is_pinned_again() -> None:
    database = page(results=[KeptResult(TASK, "Qm1", 1.0), KeptResult(TASK, "Qm2", 2.0)])
    kind, repair = found(database, storage=StorageView({"Qm1": True, "Qm2": False}))
    assert (kind, repair) == ("result_not_pinned", KeepResult(TASK, "Qm2", 2.0))


def test_the_stake_of_what_begins_or_ends_while_the_audit_reads_is_that_of_the_block_it_reads_at() -> None:
    unset, ended = builders.view(), ChainView(TASK, TaskStatus.COMPLETED)
    closed = replace(RECORD, open=False, stage=TaskStage.COMPLETED)
    assert counts_as_open(RECORD, VOTED, BLOCK)
    assert counts_as_open(RECORD, None, BLOCK), "not told: then the stake is not known"
    assert not counts_as_open(replace(RECORD, matched_block=BlockNumber(BLOCK + 1)), unset, BLOCK)
    assert counts_as_open(closed, VOTED, BLOCK), "it ended after that block"
    assert not counts_as_open(closed, ended, BLOCK)
    assert not counts_as_open(closed, unset, BLOCK), "given up, and its stake is locked: that must not look explained"
    assert not counts_as_open(replace(RECORD, orphaned=True), unset, BLOCK)
