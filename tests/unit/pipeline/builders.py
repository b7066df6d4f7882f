"""Tasks, replicates and chain events for tests of pure decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.domain.actions import Action, Method, Submit
from pipeline.domain.decide import decide
from pipeline.domain.progress import after
from pipeline.domain.records import ChainFacts, Replicate, ReplicateState, Reservation, TaskRecord, WorkerRecord
from pipeline.domain.replicas import Timeouts
from protocol.poco import events
from protocol.poco.seal import result_hash
from protocol.poco.view import ChainView, fold
from protocol.types import (
    ZERO_ADDRESS,
    BlockHash,
    BlockNumber,
    Contract,
    DealId,
    Hash32,
    NRlc,
    TaskId,
    Timestamp,
    TxHash,
    Wallet,
    Wei,
)
from protocol.wire import Mode, ResultLink, Step

TASK, DEAL = TaskId("0x" + "7a" * 32), DealId("0x" + "de" * 32)
POOL = Contract("0x" + "50" * 20)
NO_TAG = Hash32("0x" + "0" * 64)
TRUTH, LIE = Hash32("0x" + "ab" * 32), Hash32("0x" + "cd" * 32)
LINK = ResultLink(storage="ipfs", location="/ipfs/QmResult")
#: A deal at time 1000 of a category of 10 s: contributions until 1070, the end at 1100.
START, SECONDS = 1000, 10
CONTRIBUTE_UNTIL, FINAL = START + 70, START + 100
PACE = Timeouts(1.0)


def wallet(number: int) -> Wallet:
    return Wallet(f"0x{number:040x}")


def task(*, trust: int = 5, replicates: Sequence[Replicate] = (), **fields: object) -> TaskRecord:
    record = TaskRecord(
        task_id=TASK,
        deal_id=DEAL,
        index=0,
        requester=wallet(99),
        trust=trust,
        tag=NO_TAG,
        category_seconds=SECONDS,
        contribution_deadline=Timestamp(CONTRIBUTE_UNTIL),
        final_deadline=Timestamp(FINAL),
        worker_stake=NRlc(30),
        callback=ZERO_ADDRESS,
        matched_block=BlockNumber(1),
        matched_at=Timestamp(START),
        replicates=tuple(replicates),
        changed_at=START,
    )
    return replace(record, **fields)  # type: ignore[arg-type]  # tests name fields freely


def replicate(
    number: int, state: ReplicateState = ReplicateState.COMPUTED, *, at: float = START + 1, **fields: object
) -> Replicate:
    steps = {
        ReplicateState.ASSIGNED: {},
        ReplicateState.STARTED: {Step.STARTED: at},
    }.get(state, {Step.STARTED: at, Step.COMPUTED: at})
    item = Replicate(
        wallet(number),
        Mode.VOTE,
        2,
        at,
        state,
        published_at=at,
        steps=steps,
        holds_slot=state
        in (
            ReplicateState.ASSIGNED,
            ReplicateState.STARTED,
        ),
    )
    return replace(item, **fields)  # type: ignore[arg-type]  # tests name fields freely


def uploaded(number: int, digest: Hash32 = TRUTH, *, callback_data: str | None = None) -> Replicate:
    return replicate(number, link=LINK, digest=digest, callback_data=callback_data)


def worker(number: int, *, slots: int = 1, weight: int = 2, stake: int = 100, **fields: object) -> WorkerRecord:
    record = WorkerRecord(
        wallet=wallet(number),
        name=f"worker-{number}",
        version="1",
        slots=slots,
        cpus=1,
        memory_bytes=2**30,
        tag=NO_TAG,
        enrolled_at=START,
        seen_at=START,
        facts=ChainFacts(weight, NRlc(stake), Wei(10**18), funded=True),
        checked_at=START,
    )
    return replace(record, **fields)  # type: ignore[arg-type]  # tests name fields freely


def held(number: int, stake: int = 0) -> Reservation:
    return Reservation(TaskId(f"0x{number:064x}"), START, NRlc(stake))


# -- the chain ---------------------------------------------------------------------------------------------------------


def initialized() -> events.Event:
    return events.TaskInitialize(TASK, POOL)


def voted(number: int, digest: Hash32 = TRUTH) -> events.Event:
    return events.TaskContribute(TASK, wallet(number), result_hash(TASK, digest))


def agreed(digest: Hash32 = TRUTH) -> events.Event:
    return events.TaskConsensus(TASK, result_hash(TASK, digest))


def revealed(number: int) -> events.Event:
    return events.TaskReveal(TASK, wallet(number), TRUTH)


def reopened() -> events.Event:
    return events.TaskReopen(TASK)


def finalized() -> events.Event:
    return events.TaskFinalize(TASK, "0x")


def claimed() -> events.Event:
    return events.TaskClaimed(TASK)


def view(*happened: events.Event, at: int = START + 2) -> ChainView:
    """The view after these events, all of them at block time `at`."""
    return fold(TASK, [seen(event, index, at) for index, event in enumerate(happened)], category_seconds=SECONDS)


def seen(event: events.Event, block: int, at: int) -> events.Seen:
    return events.Seen(
        event, BlockNumber(block), BlockHash(f"0x{block:064x}"), Timestamp(at), TxHash("0x" + "1" * 64), 0
    )


#: Three workers agree on the truth.
#: Three machines that were given a task.
VOTERS = (replicate(1), replicate(2), replicate(3))
CONSENSUS = (initialized(), voted(1), voted(2), voted(3), agreed())


def decided(record: TaskRecord, chain: ChainView, now: float = START + 3) -> list[Action]:
    return decide(record, chain, now, PACE)


def moved(record: TaskRecord, chain: ChainView, now: float = START + 3) -> TaskRecord:
    """The record after deciding once."""
    return after(record, chain, decided(record, chain, now), now, PACE)


def submits(actions: Sequence[object]) -> list[tuple[Method, int]]:
    """What is handed to the lane: method and generation."""
    return [(action.method, action.generation) for action in actions if isinstance(action, Submit)]
