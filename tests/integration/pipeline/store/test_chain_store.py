"""What MongoDB must remember of the chain: events and deals that a reorg takes back or moves; what a replay repairs."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect

from chain.watch.audit import Audit
from chain.watch.watcher import Reorg
from pipeline.domain import progress
from pipeline.domain.decide import ORPHAN_TIMEOUT, decide
from pipeline.domain.records import TaskStage
from pipeline.domain.replicas import Timeouts
from pipeline.flow.ingest import AT_ONCE, task_records
from pipeline.store.blocks import CURSOR, GAP_SECONDS, KEEP_REORGS
from pipeline.store.client import Store
from pipeline.store.deals import Deals
from pipeline.store.task.tasks import Tasks
from protocol.poco import events
from protocol.poco.events import BlockRef, Seen
from protocol.poco.view import ChainView
from protocol.types import BlockHash, BlockNumber, Hash32, NRlc, TaskId, Timestamp, TxHash
from tests.integration.pipeline.rows import ALICE, DEAL, POOL, deal, some_tasks
from tests.integration.pipeline.sharded.shards import ONE_SERVER

NOW = 1_700_000_000.0
WON = Hash32("0x" + "77" * 32)


def block(number: int, branch: str = "aa") -> BlockRef:
    name = BlockHash("0x" + branch * 2 + f"{number:060x}")
    return BlockRef(BlockNumber(number), name, BlockHash("0x" + branch * 2 + f"{number - 1:060x}"), Timestamp(number))


def log(event: events.Event, at: BlockRef, index: int = 0) -> Seen:
    return Seen(event, at.number, at.hash, at.timestamp, TxHash("0x" + "1" * 64), index)


def test_a_reorg_marks_logs_and_the_new_branch_counts(store: Store) -> None:
    task = some_tasks(store, 1)[0].task_id
    old = block(11)
    store.chain.commit([block(10), old], [log(events.TaskInitialize(task, POOL), old)])
    assert len(store.chain.logs.of_tasks([task])[task]) == 1
    assert store.chain.orphan(BlockNumber(10)) == [task]
    assert store.chain.logs.of_tasks([task]) == {}
    assert store.chain.cursor() == block(10)
    assert store.chain.block(BlockNumber(11)) is None
    new = block(11, "bb")
    store.chain.commit([new], [log(events.TaskInitialize(task, POOL), new)])
    (seen,) = store.chain.logs.of_tasks([task])[task]
    assert seen.block_hash == new.hash


def voted_alone(task: TaskId, at: BlockRef, first: int = 0) -> list[Seen]:
    """The events of one transaction by which a machine votes, reveals and finalizes."""
    happened: list[events.Event] = [
        events.TaskContribute(task, ALICE, WON),
        events.TaskConsensus(task, WON),
        events.TaskReveal(task, ALICE, WON),
        events.TaskFinalize(task, "0x"),
    ]
    return [log(event, at, index) for index, event in enumerate(happened, first)]


def rows(store: Store) -> int:
    return store._db["logs"].count_documents({"_id": {"$gt": ""}})


def test_what_happens_to_a_task_in_one_block_is_one_row_and_read_as_it_happened(store: Store) -> None:
    one, other = (task.task_id for task in some_tasks(store, 2))
    seen = {one: voted_alone(one, block(11)), other: voted_alone(other, block(11), 4)}
    begun = log(events.TaskInitialize(one, POOL), block(10))
    for _ in range(2):
        store.chain.commit([block(10), block(11)], [begun, *seen[one], *seen[other]])
    assert rows(store) == 3
    assert store.chain.logs.of_tasks(seen) == {one: [begun, *seen[one]], other: seen[other]}
    assert set(store.chain.logs_between(BlockNumber(11), BlockNumber(11))) == {*seen[one], *seen[other]}
    assert set(store.chain.orphan(BlockNumber(10))) == {one, other}
    assert store.chain.logs.of_tasks(seen) == {one: [begun]}


def test_of_events_in_one_row_those_that_are_not_on_the_chain_go_alone_whenever_a_replay_is_cut_off(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task,) = (task.task_id for task in some_tasks(store, 1))
    at = block(11)
    seen = voted_alone(task, at)
    store.chain.commit([at], seen)

    def end(*_: object, **__: object) -> None:
        raise AutoReconnect

    with monkeypatch.context() as patch, pytest.raises(AutoReconnect):
        patch.setattr(Collection, "update_many", end)
        store.chain.logs.orphan([seen[1]])
    assert store.chain.logs.of_tasks([task]) == {task: seen}, "each once, whatever rows have it"

    store.chain.logs.orphan([seen[1]])
    assert store.chain.logs.of_tasks([task]) == {task: [seen[0], *seen[2:]]}
    store.chain.repair(Audit(at.number, at, missing=(seen[1],)))
    assert store.chain.logs.of_tasks([task]) == {task: seen}


def test_a_row_of_which_every_event_is_not_on_the_chain_goes_as_a_whole(store: Store) -> None:
    one, other = (task.task_id for task in some_tasks(store, 2))
    at = block(11)
    stays, goes = voted_alone(one, at), voted_alone(other, at, 4)
    store.chain.commit([at], [*stays, *goes])
    store.chain.repair(Audit(at.number, at, extra=tuple(goes)))
    assert store.chain.logs.of_tasks([one, other]) == {one: stays}


@pytest.mark.parametrize(
    "damage",
    [
        {"$unset": {"before.0.event.worker": ""}},
        {"$set": {"before": None}},
        {"$set": {"before.0": 5}},
        {"$unset": {"block_hash": "", "log_index": ""}},
    ],
)
def test_a_row_that_cannot_be_read_is_stored_again_with_all_its_events(store: Store, damage: dict[str, Any]) -> None:
    (task,) = (task.task_id for task in some_tasks(store, 1))
    at = block(11)
    seen = voted_alone(task, at)
    store.chain.commit([at], seen)
    store._db["logs"].update_one({"event.task_id": task}, damage)
    assert store.chain.logs_between(at.number, at.number) == []
    store.chain.repair(Audit(at.number, at, missing=tuple(seen)))
    assert store.chain.logs.of_tasks([task]) == {task: seen}


def test_an_event_that_is_stored_otherwise_than_it_happened_is_repaired_and_the_others_of_its_row_stay(
    store: Store,
) -> None:
    (task,) = (task.task_id for task in some_tasks(store, 1))
    at = block(11)
    seen = voted_alone(task, at)
    store.chain.commit([at], [*seen[:3], log(events.TaskFinalize(task, "0xbad0"), at, 3)])
    store.chain.repair(Audit(at.number, at, missing=(seen[3],)))
    assert store.chain.logs.of_tasks([task]) == {task: seen}


@ONE_SERVER
@pytest.mark.parametrize("damage", [{"$unset": {"event.task_id": ""}}, {"$set": {"event": "gone"}}])
def test_an_event_whose_row_tells_no_task_any_more_is_stored_again(store: Store, damage: dict[str, Any]) -> None:
    (task,) = (task.task_id for task in some_tasks(store, 1))
    at = block(11)
    begun, *voted = seen = [log(events.TaskInitialize(task, POOL), at), *voted_alone(task, at, 1)]
    store.chain.commit([block(10), at], seen)
    assert store._db["logs"].update_many({"event.task_id": task}, damage).modified_count == 2
    store.chain.commit([at], [begun])
    store.chain.repair(Audit(at.number, at, missing=tuple(voted)))
    assert store.chain.logs.of_tasks([task]) == {task: seen}
    assert rows(store) == 2


def test_a_reorg_puts_an_ended_task_before_the_sweep_again(store: Store) -> None:
    task = some_tasks(store, 1)[0]
    store.tasks.save([replace(task, open=False, stage=TaskStage.COMPLETED, next_visit=NOW)])
    at = block(11)
    store.chain.commit([block(10), at], [log(events.TaskFinalize(task.task_id, "0x"), at)])
    assert store.tasks.tasks_due(NOW, 10) == []
    store.chain.orphan(BlockNumber(10))
    assert [due.task_id for due in store.tasks.tasks_due(NOW, 10)] == [task.task_id]


def test_a_task_is_ours_by_its_row_or_by_its_initialization_while_these_are_on_the_chain(store: Store) -> None:
    row, *_ = (task.task_id for task in some_tasks(store, 1))
    begun, foreign = TaskId("0x" + "b1" * 32), TaskId("0x" + "f0" * 32)
    store.chain.commit([block(9)], [])
    store.chain.commit([block(10)], [log(events.SchedulerNotice(POOL, DEAL), block(10))])
    store.chain.commit([block(11)], [log(events.TaskInitialize(begun, POOL), block(11))])
    assert store.chain.known([row, begun, foreign]) == {row, begun}
    store.chain.orphan(BlockNumber(10))
    assert store.chain.known([row, begun, foreign]) == {row}
    store.chain.orphan(BlockNumber(9))
    assert store.chain.known([row, begun, foreign]) == set()


def test_the_last_reorgs_are_kept_and_no_more(store: Store) -> None:
    reorgs = [Reorg(block(number), block(number + 2, "bb"), tasks=number) for number in range(KEEP_REORGS + 3)]
    assert store.chain.reorgs() == []
    for reorg in reorgs:
        store.chain.note(reorg)
    assert store.chain.reorgs() == reorgs[-KEEP_REORGS:]


def test_blocks_read_again_do_not_move_the_cursor_back(store: Store) -> None:
    store.chain.commit([block(10), block(11)], [])
    store.chain.commit([block(9), block(10)], [])
    assert store.chain.cursor() == block(11)


def test_a_deal_is_new_until_all_of_it_is_stored_and_new_again_in_another_block(store: Store) -> None:
    at = block(10)
    notice = log(events.SchedulerNotice(POOL, DEAL), at)
    store.chain.commit([at], [notice])
    assert store.deals.deals_to_ingest(10) == [DEAL]
    lease = store.deals.lease_and_store(deal(), NOW)
    assert lease is not None
    assert store.deals.mark_ingested(lease)
    assert store.deals.deals_to_ingest(10) == []
    store.chain.commit([at], [notice])
    assert store.deals.deals_to_ingest(10) == [], "read again in the same block"
    store.chain.orphan(BlockNumber(9))
    assert store.deals.deals_to_ingest(10) == []
    store.chain.commit([block(10, "bb")], [log(events.SchedulerNotice(POOL, DEAL), block(10, "bb"))])
    assert store.deals.deals_to_ingest(10) == [DEAL]
    assert store.deals.get_deal(DEAL) == deal()


def test_when_blocks_are_seen_again_after_a_while_without_any_is_remembered(store: Store) -> None:
    """What could not be done on chain meanwhile is held against no machine, also when blocks come again."""
    cursors = store._db["cursors"]
    for number in (1, 2):
        store.chain.commit([block(number)], [])
    assert store.sweeps.outages(NOW, 0.0).blocks_again_at == 0.0, "one follows on the other"
    for before in (GAP_SECONDS + 5.0, 0.0):
        # As if the last one had been stored so much longer ago.
        cursors.update_one({"_id": CURSOR}, [{"$set": {"stored_at": {"$subtract": ["$stored_at", before]}}}])
        store.chain.commit([block(3)], [])
        again_at = store.sweeps.outages(NOW, 0.0).blocks_again_at
        assert again_at > 0
        store.chain.commit([block(4)], [])
        store.chain.orphan(BlockNumber(2))
        assert store.sweeps.outages(NOW, 0.0).blocks_again_at == again_at


def test_tasks_of_a_deal_that_left_the_chain_wait(store: Store) -> None:
    some_tasks(store, 2)
    at = block(10)
    store.chain.commit([at], [log(events.SchedulerNotice(POOL, DEAL), at)])
    store.chain.orphan(BlockNumber(9))
    assert all(task.orphaned for task in store.tasks.of_deal(DEAL))
    store.tasks.bring_back(deal(2))  # as if the process had died just before its tasks were told
    store.chain.orphan(BlockNumber(9))
    assert all(task.orphaned for task in store.tasks.of_deal(DEAL))
    assert store.deals.orphaned_among([DEAL]) == [DEAL]
    store.tasks.bring_back(deal(2))
    assert not any(task.orphaned for task in store.tasks.of_deal(DEAL))


@pytest.mark.parametrize("last_step", [(Deals, "orphan"), (Tasks, "orphan")])
def test_a_replay_cut_short_leaves_a_deal_extra_until_its_tasks_are_published(
    store: Store, last_step: tuple[type, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    some_tasks(store, 2)
    at = block(10)
    store.chain.commit([at], [log(events.SchedulerNotice(POOL, DEAL), at)])

    def replay() -> None:
        extra = store.chain.deals_between(at.number, at.number)
        store.chain.repair(Audit(at.number, at, extra_deals=tuple(extra)))

    def end(*_: object, **__: object) -> None:
        raise AutoReconnect

    with monkeypatch.context() as patch, pytest.raises(AutoReconnect):
        patch.setattr(*last_step, end)
        replay()
    replay()

    assert store.chain.deals_between(at.number, at.number) == []
    assert all(task.orphaned for task in store.tasks.of_deal(DEAL))


def test_every_task_of_a_deal_that_a_reorg_takes_and_brings_back_is_worked_on_again(store: Store) -> None:
    """The sweep comes in between. Tasks beyond the first are only found by what looks for tasks as they begin."""
    store.tasks.insert_new(task_records(deal(AT_ONCE + 5)))
    at = block(10)
    store.chain.commit([at], [log(events.SchedulerNotice(POOL, DEAL), at)])
    store.chain.orphan(BlockNumber(9))
    swept(store, time.time())
    assert all(task.open and task.stage is TaskStage.RECEIVED for task in store.tasks.of_deal(DEAL)), "away just now"
    swept(store, time.time() + ORPHAN_TIMEOUT + 1)
    assert not any(task.open for task in store.tasks.of_deal(DEAL)), "away for good"
    store.tasks.bring_back(deal(AT_ONCE + 5))
    back = store.tasks.of_deal(DEAL)
    assert all(task.open and not task.orphaned and task.why is None for task in back)
    assert len(store.tasks.uninitialized(1000.0, 1000)) == len(back)
    assert len(store.tasks.tasks_due(1000.0, 1000)) == len(back)


@pytest.mark.parametrize("away", [1.0, ORPHAN_TIMEOUT + 1])
def test_a_deal_that_comes_back_with_other_orders_has_its_new_terms_and_no_more_tasks_than_it_has_now(
    store: Store, away: float
) -> None:
    """Its id is of its request alone. Another buyer's match came first this time, and took a part of the pool's order:
    what is left of the deal can never be initialized, and each try would cost gas, for ever.
    """
    some_tasks(store, 5)
    at = block(10)
    store.chain.commit([at], [log(events.SchedulerNotice(POOL, DEAL), at)])
    store.chain.orphan(BlockNumber(9))
    swept(store, time.time() + away)
    tag = Hash32("0x" + "0" * 61 + "100")
    back = replace(deal(3, block=11), start_time=Timestamp(1010), contribution_deadline=Timestamp(1080), tag=tag)
    store.tasks.bring_back(replace(back, final_deadline=Timestamp(1110), worker_stake=NRlc(7)))
    tasks = store.tasks.of_deal(DEAL)
    assert [task.orphaned for task in tasks] == [False] * 3 + [True] * 2
    terms = {(it.contribution_deadline, it.final_deadline, it.matched_at, it.tag, it.worker_stake) for it in tasks[:3]}
    assert terms == {(1080, 1110, 1010, tag, 7)}
    assert store.tasks.uninitialized(1000.0, 1000) == [task.task_id for task in tasks[:3]]
    swept(store, time.time() + ORPHAN_TIMEOUT + 1)
    assert [task.open for task in store.tasks.of_deal(DEAL)] == [True] * 3 + [False] * 2
    assert store.lists.tasks_of_deals([back]) == {DEAL: 3}, "the audit misses none and has none too many"


def test_a_task_that_had_ended_before_its_deal_left_is_looked_at_again_once_that_is_back(store: Store) -> None:
    done, refused = (replace(task, open=False, stage=TaskStage.COMPLETED) for task in some_tasks(store, 2))
    refused = replace(refused, stage=TaskStage.FAILED, why="It was refused.")
    store.tasks.save([done, refused])
    store.tasks.orphan([DEAL])
    store.tasks.bring_back(deal(2))
    back = store.tasks.of_deal(DEAL)
    assert [(task.open, task.stage, task.why) for task in back] == [
        (True, TaskStage.COMPLETED, None),
        (True, TaskStage.FAILED, "It was refused."),
    ]


def swept(store: Store, now: float) -> None:
    """Decide each of the deal's tasks as the sweep does, seen by a node that knows of none of them."""
    for task in store.tasks.of_deal(DEAL):
        nothing = ChainView(task.task_id)
        actions = decide(task, nothing, now, Timeouts(1))
        store.tasks.save([progress.after(task, nothing, actions, now, Timeouts(1))])
