"""What MongoDB must guarantee: conditional updates under races, nothing counted twice, reorgs marked and undone."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect

from pipeline.domain.decide import frees_slot
from pipeline.domain.records import (
    MOST_NEWCOMERS,
    Outcome,
    Replicate,
    ReplicateState,
    Standing,
    Submission,
    TaskRecord,
    TaskStage,
)
from pipeline.domain.replicas import UPLOAD_SECONDS
from pipeline.flow.ingest import task_records
from pipeline.flow.machines.new_pool import decided_by
from pipeline.store.client import Store
from pipeline.store.task.tasks import NewReplicates
from protocol.types import (
    NRlc,
    TaskId,
    Timestamp,
    Wallet,
)
from protocol.wire import Mode, ResultLink, Step
from tests.integration.pipeline.rows import ALICE, BOB, DEAL, NO_TAG, NOW, deal, enrol, held, prove, some_tasks
from tests.integration.pipeline.sharded.shards import ONE_SERVER


def given_to(store: Store, wallet: Wallet, **fields: Any) -> TaskRecord:
    """One task with one replicate."""
    task = some_tasks(store, 1)[0]
    replicate = Replicate(wallet, Mode.SOLO, 2, NOW, **fields)
    assert store.tasks.assign([NewReplicates(task, (replicate,), 0, 2, 0)], NOW, NOW) == {task.task_id}
    (changed,) = store.tasks.load_tasks([task.task_id])
    return changed


# -- tasks -------------------------------------------------------------------------------------------------------------


def test_a_task_comes_back_as_it_was_stored(store: Store) -> None:
    assert some_tasks(store) == task_records(deal())


def test_tasks_are_inserted_once(store: Store) -> None:
    assert store.tasks.insert_new(task_records(deal(2))) == 2
    assert store.tasks.insert_new(task_records(deal(3))) == 1


def test_a_save_is_refused_after_another_process_saved(store: Store) -> None:
    task = some_tasks(store)[0]
    assert store.tasks.save([replace(task, wants=1)])
    assert not store.tasks.save([replace(task, wants=2)])
    (stored,) = store.tasks.load_tasks([task.task_id])
    assert (stored.wants, stored.version) == (1, 1)


def test_a_save_that_is_cut_off_in_the_middle_tells_which_tasks_were_stored(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = some_tasks(store, 3)
    whole = Collection.bulk_write

    def cut_off(rows: Collection[dict[str, Any]], writes: Sequence[Any], **options: Any) -> None:
        whole(rows, writes[:1], **options)
        raise AutoReconnect("the primary steps down")

    monkeypatch.setattr(Collection, "bulk_write", cut_off)
    # The first two change alike and are one update, which the driver would not repeat.
    changes = [replace(first, wants=1), replace(second, wants=1), replace(third, wants=2)]
    known = {task.task_id: task for task in (first, second, third)}
    assert store.tasks.save(changes, known) == {first.task_id, second.task_id}


def test_of_racing_assignments_of_one_task_one_is_taken(store: Store) -> None:
    task = some_tasks(store, 1)[0]

    def assign(number: int) -> bool:
        replicate = Replicate(Wallet(f"0x{number:040x}"), Mode.SOLO, 2, NOW)
        return bool(store.tasks.assign([NewReplicates(task, (replicate,), 0, 2, 0)], NOW, NOW))

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(assign, range(8))) == 1
    assert len(store.tasks.load_tasks([task.task_id])[0].replicates) == 1


def test_a_report_counts_once_and_moves_the_replicate_forward_only(store: Store) -> None:
    task = given_to(store, ALICE).task_id
    assert store.tasks.record_report(task, ALICE, Step.COMPUTED, NOW, None, 0)
    assert not store.tasks.record_report(task, ALICE, Step.COMPUTED, NOW, None, 0)
    assert not store.tasks.record_report(task, ALICE, Step.STARTED, NOW, None, None)
    (stored,) = store.tasks.load_tasks([task])
    assert stored.replicates[0].state is ReplicateState.COMPUTED


def test_a_report_frees_a_slot_in_the_database_where_the_rule_says_so(store: Store) -> None:
    before = [
        Replicate(ALICE, mode, 2, NOW, state=state, holds_slot=holds, standing=standing)
        for mode in Mode
        for standing in Standing
        for holds in (True, False)
        for state in (ReplicateState.ASSIGNED, ReplicateState.LOST)
    ]
    reports = [(Step.COMPUTED, None), (Step.COMPUTED, "APP_FAILED"), (Step.STARTED, None)]
    cases = [(replicate, *report) for replicate in before for report in reports]
    told = {}
    for task, (replicate, step, cause) in zip(some_tasks(store, len(cases)), cases, strict=True):
        store.tasks.assign([NewReplicates(task, (replicate,), 0, 2, 0)], NOW, NOW)
        told[task.task_id] = (
            store.tasks.record_report(task.task_id, ALICE, step, NOW, cause, None),
            replicate,
            step,
            cause,
        )
    freed = 0
    for task in store.tasks.load_tasks(told):
        noted, replicate, step, cause = told[task.task_id]
        frees = noted is not None and frees_slot(replicate, step, cause)
        freed += frees
        stored = task.replicates[0]
        assert (stored.holds_slot, stored.pledged) == ((False, True) if frees else (replicate.holds_slot, False))
    assert freed == 1


def test_a_wallet_cannot_report_for_another(store: Store) -> None:
    task = given_to(store, ALICE).task_id
    assert not store.tasks.record_report(task, BOB, Step.COMPUTED, NOW, None, None)
    link = ResultLink(storage="ipfs", location="/ipfs/x")
    assert not store.tasks.record_upload(task, BOB, link, NO_TAG, None, NOW)


def test_a_silent_workers_live_replicates_are_lost_and_a_late_word_is_welcome(store: Store) -> None:
    task = given_to(store, ALICE).task_id
    assert store.tasks.lose_worker(ALICE) == [task]
    assert store.tasks.lose_worker(ALICE) == []
    assert store.tasks.record_report(task, ALICE, Step.COMPUTED, NOW, None, None)
    assert store.tasks.load_tasks([task])[0].replicates[0].state is ReplicateState.COMPUTED


def test_a_failed_transaction_is_counted_once(store: Store) -> None:
    task = some_tasks(store, 1)[0]
    store.tasks.save([replace(task, sent={"finalize": Submission(0, NOW)})])
    for _ in range(2):
        store.tasks.record_failed_intents([(task.task_id, "finalize", 0, "finalize", "reverted")])
    (stored,) = store.tasks.load_tasks([task.task_id])
    assert stored.failed == {"finalize": 1}
    assert stored.sent == {}


def test_a_ping_tells_what_is_over_and_what_to_stop(store: Store) -> None:
    running = given_to(store, ALICE)
    ended, aborted = TaskId("0x" + "11" * 32), TaskId("0x" + "22" * 32)
    replicate = Replicate(ALICE, Mode.SOLO, 2, NOW)
    store.tasks.insert_new(
        [
            replace(running, task_id=ended, index=7, open=False, stage=TaskStage.COMPLETED),
            replace(running, task_id=aborted, index=8, replicates=(replace(replicate, state=ReplicateState.ABORTED),)),
        ]
    )
    assert store.tasks.verdicts_for_ping([running.task_id, ended, aborted], ALICE) == ([ended], [aborted], [])


def test_what_a_lost_database_does_not_know_any_more_is_neither_aborted_nor_forgotten(store: Store) -> None:
    running, unknown = given_to(store, ALICE), TaskId("0x" + "33" * 32)
    assert store.tasks.verdicts_for_ping([running.task_id, unknown], BOB) == ([], [], [running.task_id, unknown])


# -- workers -----------------------------------------------------------------------------------------------------------


def test_racing_reservations_never_exceed_the_slots(store: Store) -> None:
    enrol(store, ALICE, slots=3)
    prove(store, ALICE)
    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(lambda number: store.workers.reserve(ALICE, [held(number)]), range(10))) == 3
    worker = store.workers.get_worker(ALICE)
    assert worker is not None
    assert worker.free == 0
    assert store.workers.with_free_slots(0.0, 10) == []


def test_slots_are_taken_all_or_none_and_given_back_once(store: Store) -> None:
    enrol(store, ALICE, slots=2)
    assert not store.workers.reserve(ALICE, [held(1), held(2), held(3)])
    assert store.workers.reserve(ALICE, [held(1), held(2)])
    assert not store.workers.reserve(ALICE, [held(1)])
    slot = (ALICE, held(1).task_id)
    assert store.workers.release([slot, slot]) == 1
    assert [item.task_id for item in store.census.all_workers()[0].held] == [held(2).task_id]


def test_a_new_login_keeps_what_the_machine_holds(store: Store) -> None:
    enrol(store, ALICE, slots=1)
    prove(store, ALICE)
    store.workers.reserve(ALICE, [held(1)])
    enrol(store, ALICE, slots=4)
    (worker,) = store.census.all_workers()
    assert (worker.name, worker.free, len(worker.held)) == ("$name", 3, 1)


def test_a_worker_that_pings_in_time_is_not_lost(store: Store) -> None:
    enrol(store, ALICE)
    assert store.workers.silent_workers(NOW + 60, 10) == [ALICE]
    store.workers.mark_seen(ALICE, NOW + 70)
    assert not store.workers.set_lost(ALICE, NOW + 60)


def test_a_lost_worker_whose_work_was_not_replaced_yet_is_found_again(store: Store) -> None:
    enrol(store, ALICE)
    assert store.workers.set_lost(ALICE, NOW + 60)
    assert store.workers.silent_workers(NOW + 60, 10) == [ALICE]
    store.workers.mark_replaced(ALICE)
    assert store.workers.silent_workers(NOW + 60, 10) == []


def test_a_stake_stays_promised_after_the_slot_is_free_and_too_many_take_the_slots_away(store: Store) -> None:
    enrol(store, ALICE, slots=1)
    for number in (1, 2):
        assert store.workers.reserve(ALICE, [held(number)])
        store.workers.pledge([(ALICE, held(number).task_id)] * 2)
    (worker,) = store.workers.load_workers([ALICE])
    assert ([item.stake for item in worker.pledged], worker.held, worker.free) == ([30, 30], (), 0)
    assert not store.workers.reserve(ALICE, [held(3)])
    assert store.workers.release([(ALICE, held(1).task_id)]) == 1
    assert store.workers.reserve(ALICE, [held(3)])


def test_a_worker_that_fails_again_and_again_rests_longer_and_longer_until_it_votes(store: Store) -> None:
    enrol(store, ALICE, slots=1)
    prove(store, ALICE)

    def fail(times: int, outcome: Outcome = Outcome.FAILED) -> list[bool]:
        for number in range(times):
            store.workers.reserve(ALICE, [held(number)])
            for _ in range(2):
                store.workers.release([(ALICE, held(number).task_id)], outcome, NOW)
        return [bool(store.workers.with_free_slots(0.0, 10, NOW + later)) for later in (0, 5, 10, 600)]

    assert fail(1) == [True] * 4
    assert fail(1) == [False, True, True, True]
    assert fail(1) == [False, False, True, True]
    assert fail(20) == [False, False, False, True]
    assert fail(1, Outcome.VOTED) == [True] * 4


def test_who_withheld_a_result_rests_longest_though_it_holds_nothing_any_more(store: Store) -> None:
    enrol(store, ALICE, slots=1)
    prove(store, ALICE)
    store.workers.release([(ALICE, held(1).task_id)], Outcome.WITHHELD, NOW)
    assert [bool(store.workers.with_free_slots(0.0, 10, NOW + later)) for later in (0, 599, 600)] == [
        False,
        False,
        True,
    ]


def test_who_is_late_with_its_vote_rests_as_who_failed_and_its_stake_stays_promised(store: Store) -> None:
    enrol(store, ALICE, slots=2)
    for number in (1, 2):
        assert store.workers.reserve(ALICE, [held(number)])
        store.workers.pledge([(ALICE, held(number).task_id)])
    store.workers.count_outcomes([(ALICE, Outcome.LATE)] * 2, NOW)
    (worker,) = store.workers.load_workers([ALICE])
    assert (worker.failures, worker.rest_until, len(worker.pledged)) == (2, NOW + 5, 2)


def busy_proven(store: Store, seen_after: float = NOW) -> list[Wallet]:
    return [worker.wallet for worker in store.workers.busy_proven(seen_after, NOW)]


def test_proven_machines_that_are_busy_are_found_and_no_others(store: Store) -> None:
    for wallet in (ALICE, BOB):
        enrol(store, wallet, slots=1)
        prove(store, wallet)
    assert busy_proven(store) == []
    assert store.workers.reserve(ALICE, [held(1)])
    assert busy_proven(store) == [ALICE]
    assert busy_proven(store, NOW + 1) == []
    store.workers.set_banned(ALICE, banned=True)
    assert busy_proven(store) == []


def test_proven_machines_that_cool_down_count_as_busy_so_that_newcomers_do_not_decide_meanwhile(store: Store) -> None:
    """A requester whose deals fail on every machine had all of them cool down, and newcomers decide others' tasks."""
    enrol(store, ALICE, slots=4)
    prove(store, ALICE)
    store.workers.count_outcomes([(ALICE, Outcome.FAILED)] * 2, NOW)
    (worker,) = store.workers.load_workers([ALICE])
    assert worker.free
    assert worker.rest_until > NOW
    assert busy_proven(store) == [ALICE]
    (low,) = (replace(task, trust=4, newcomers=0, worker_stake=NRlc(0)) for task in some_tasks(store, 1))
    assert decided_by(store.workers, [low], NOW) == [low]
    assert decided_by(store.workers, [low], worker.rest_until)[0].newcomers == MOST_NEWCOMERS


def test_a_large_result_on_its_way_is_noted_once(store: Store) -> None:
    task = given_to(store, ALICE)
    for moment in (NOW, NOW + 1):
        store.uploads.record_begun(task.task_id, ALICE, moment)
    (found,) = store.tasks.load_tasks([task.task_id])
    assert (found.replicates[0].upload_begun_at, found.version) == (NOW, task.version + 1)


def test_the_last_moment_at_which_a_result_was_coming_is_kept_and_when_it_began(store: Store) -> None:
    task = given_to(store, ALICE)
    for moment in (NOW, NOW + 1):
        store.uploads.record_coming(task.task_id, ALICE, moment)
    (found,) = store.tasks.load_tasks([task.task_id])
    assert (found.replicates[0].upload_begun_at, found.replicates[0].upload_coming_at) == (NOW, NOW + 1)


def test_a_large_result_that_was_on_its_way_when_another_was_awaited_is_found(store: Store) -> None:
    task, other = given_to(store, ALICE), TaskId("0x" + "0" * 64)

    def uploading(since: float, wallet: Wallet = ALICE, but: TaskId = other) -> bool:
        return store.uploads.under_way(wallet, since, but=but)

    assert not uploading(NOW)
    store.uploads.record_begun(task.task_id, ALICE, NOW)
    assert uploading(NOW + 1)
    assert not uploading(NOW + 1, but=task.task_id)
    assert not uploading(NOW + 1, BOB)
    assert not uploading(NOW + UPLOAD_SECONDS), "broken off for good"
    link = ResultLink(storage="ipfs", location="/ipfs/Qm")
    store.tasks.record_upload(task.task_id, ALICE, link, NO_TAG, None, NOW + 30)
    assert uploading(NOW + 1), "until later"
    assert not uploading(NOW + 31)


def test_no_worker_counts_as_silent_while_the_api_was_away(store: Store) -> None:
    enrol(store, ALICE)
    assert not store.workers.heard_since(NOW + 1)
    store.workers.mark_seen(ALICE, NOW + 2)
    assert store.workers.heard_since(NOW + 1)


def test_tasks_passed_over_make_room_for_others_for_a_while(store: Store) -> None:
    tasks = some_tasks(store, 3)
    store.tasks.save([replace(task, wants=1) for task in tasks])
    first = store.tasks.tasks_wanting_workers(1000.0, 2)
    store.tasks.defer_matching([task.task_id for task in first], 1003.0)
    assert len(store.tasks.tasks_wanting_workers(1000.0, 2)) == 1
    assert len(store.tasks.tasks_wanting_workers(1003.0, 3)) == 3


@ONE_SERVER
def test_tasks_that_were_begun_are_found_behind_many_that_were_not_without_a_look_at_those(store: Store) -> None:
    first, *others = some_tasks(store, 200)
    begun = replace(first, wants=1, contribution_deadline=Timestamp(first.contribution_deadline + 1))
    begun = replace(begun, replicates=(Replicate(ALICE, Mode.VOTE, 2, NOW, ReplicateState.FAILED),))
    store.tasks.save([begun, *(replace(task, wants=1) for task in others)])
    store._db.command("profile", 2)
    try:
        found = store.tasks.tasks_wanting_workers(1000.0, 10, begun=True)
        (seen,) = store._db["system.profile"].find({"op": "query", "ns": f"{store._db.name}.tasks"})
    finally:
        store._db.command("profile", 0)
        store._db["system.profile"].drop()
    assert [task.task_id for task in found] == [begun.task_id]
    assert (seen["docsExamined"], seen["keysExamined"], seen.get("hasSortStage")) == (1, 1, None)
    assert first.task_id not in {task.task_id for task in store.tasks.tasks_wanting_workers(1000.0, 199)}
    assert store.tasks.tasks_wanting_workers(1071.0, 10, begun=True) == [], "no vote could come any more"


def test_tasks_whose_initialize_was_put_off_are_found(store: Store) -> None:
    first, *others = some_tasks(store, 3)
    store.tasks.save([replace(first, sent={"initialize": Submission(0, NOW)})])
    assert set(store.tasks.uninitialized(1000.0, 10)) == {task.task_id for task in others}
    assert store.tasks.uninitialized(1070.0, 10) == [], "no vote could come any more"


def test_ended_tasks_are_not_counted_and_a_deal_is_read_in_pages(store: Store) -> None:
    tasks = some_tasks(store, 3)
    store.tasks.save([replace(tasks[0], stage=TaskStage.COMPLETED, open=False)])
    assert store.lists.count_by_stage()[TaskStage.RECEIVED].count == 2
    assert TaskStage.COMPLETED not in store.lists.count_by_stage()
    assert [task.index for task in store.tasks.of_deal(DEAL, 1, 1)] == [1]
