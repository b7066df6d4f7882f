"""What MongoDB must guarantee: conditional updates under races, nothing counted twice, reorgs marked and undone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from pipeline.domain.due import Turn
from pipeline.domain.records import (
    ChainFacts,
    Outcome,
    Replicate,
    ReplicateState,
    Reservation,
    Submission,
    TaskRecord,
    TaskStage,
)
from pipeline.flow.ingest import task_records
from pipeline.store.client import Store
from pipeline.store.deals import LEASE_SECONDS
from pipeline.store.tasks import NewReplicates
from pipeline.store.uploads import UPLOAD_SECONDS
from protocol.poco.tags import GPU_BIT, make_tag
from protocol.types import (
    BlockHash,
    DealId,
    NRlc,
    TaskId,
    Timestamp,
    Wallet,
    Wei,
)
from protocol.wire import Capabilities, Mode, ResultLink, Step
from tests.integration.pipeline.rows import ALICE, BOB, DEAL, NO_TAG, deal, some_tasks

NOW = 1_700_000_000.0


def given_to(store: Store, wallet: Wallet, **fields: Any) -> TaskRecord:
    """One task with one replicate."""
    task = some_tasks(store, 1)[0]
    replicate = Replicate(wallet, Mode.SOLO, 2, NOW, **fields)
    assert store.tasks.assign([NewReplicates(task, (replicate,), 0, 2, 0)], NOW, NOW) == {task.task_id}
    (changed,) = store.tasks.load_tasks([task.task_id])
    return changed


def enrol(store: Store, wallet: Wallet, slots: int = 2) -> None:
    store.workers.enrol(
        wallet, Capabilities(name="$name", version="1", slots=slots, cpus=1, memory_bytes=0, tag=NO_TAG), NOW
    )


def prove(store: Store, wallet: Wallet, *, score: int = 100, stake: int = 1000) -> None:
    """Store chain facts: native token, stake and a score."""
    store.workers.store_facts([(wallet, ChainFacts(2, NRlc(stake), Wei(1), funded=True, score=score))], NOW)


def held(number: int) -> Reservation:
    return Reservation(TaskId(f"0x{number:064x}"), NOW, NRlc(30))


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
        store.tasks.record_failed_intents([(task.task_id, "finalize", 0, "reverted")])
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
    return [worker.wallet for worker in store.workers.busy_proven(seen_after)]


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


def test_the_last_moment_at_which_nobody_could_be_heard_is_kept(store: Store) -> None:
    assert store.sweeps.unheard_at() == 0.0
    store.sweeps.record(NOW, heard=False, last_after=NOW - 60)
    store.sweeps.record(NOW + 5, heard=True, last_after=NOW - 55)
    assert store.sweeps.unheard_at() == NOW


def test_a_large_result_on_its_way_is_noted_once(store: Store) -> None:
    task = given_to(store, ALICE)
    for moment in (NOW, NOW + 1):
        store.uploads.record_begun(task.task_id, ALICE, moment)
    (found,) = store.tasks.load_tasks([task.task_id])
    assert (found.replicates[0].upload_begun_at, found.version) == (NOW, task.version + 1)


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


# -- who is looked at for work -----------------------------------------------------------------------------------------


def many(store: Store, first: int, count: int, facts: ChainFacts | None) -> list[Wallet]:
    """Workers that signed in; `facts`: what the chain says of each, if it was asked."""
    wallets = [Wallet(f"0x{number:040x}") for number in range(first, first + count)]
    for wallet in wallets:
        enrol(store, wallet, slots=8)
    if facts is not None:
        store.workers.store_facts([(wallet, facts) for wallet in wallets], NOW)
    return wallets


def test_the_best_workers_are_looked_at_not_the_first(store: Store) -> None:
    strangers = many(store, 1, 30, ChainFacts(2, NRlc(0), Wei(1), funded=True))
    staked = many(store, 100, 2, ChainFacts(2, NRlc(2**70), Wei(1), funded=True))
    proven = many(store, 200, 2, ChainFacts(2, NRlc(0), Wei(1), funded=True, score=4))
    unfunded = many(store, 300, 5, ChainFacts(9, NRlc(9), Wei(0), funded=False))
    many(store, 400, 5, None)
    best = [worker.wallet for worker in store.workers.with_free_slots(0.0, 8)]
    assert set(best[:2]) == set(proven)
    assert set(best[2:4]) == set(staked)
    assert set(best[4:]) < set(strangers)
    assert not set(unfunded) & {worker.wallet for worker in store.workers.with_free_slots(0.0, 1000)}


def test_workers_with_the_stake_or_the_tag_are_found_behind_better_ones_without(store: Store) -> None:
    gpu = make_tag(GPU_BIT)
    many(store, 1, 30, ChainFacts(2, NRlc(0), Wei(1), funded=True, score=9))
    (rich,) = many(store, 100, 1, ChainFacts(2, NRlc(2**70), Wei(1), funded=True))
    store.workers.enrol(
        ALICE, Capabilities(name="g", version="1", slots=1, cpus=1, memory_bytes=0, tag=make_tag(GPU_BIT, 2)), NOW
    )
    prove(store, ALICE, score=0, stake=0)
    assert [worker.wallet for worker in store.workers.with_free_slots(0.0, 5, stake=NRlc(2**70))] == [rich]
    assert [worker.wallet for worker in store.workers.with_free_slots(0.0, 5, tag=gpu)] == [ALICE]
    assert len(store.workers.with_free_slots(0.0, 100, tag=NO_TAG)) == 32


def test_wallets_without_coins_are_looked_at_again_in_turn(store: Store) -> None:
    poor = ChainFacts(2, NRlc(0), Wei(0), funded=False)
    wallets = many(store, 1, 5, None)
    first = store.workers.wallets_to_check(NOW, 3)
    assert first == wallets[:3]
    store.workers.store_facts([(wallet, poor) for wallet in first], NOW)
    assert store.workers.wallets_to_check(NOW, 10) == wallets[3:]
    assert set(store.workers.wallets_to_check(NOW + 10, 10)) == set(wallets)
    store.workers.store_facts([(wallet, poor) for wallet in wallets], NOW + 60)
    assert store.workers.wallets_to_check(NOW + 119, 10) == []
    enrol(store, wallets[0])
    assert store.workers.wallets_to_check(NOW + 60, 10) == [wallets[0]], "it signed in anew"


def test_the_store_counts_free_slots_as_the_record_does(store: Store) -> None:
    for number, (slots, score, weight, held_now) in enumerate(
        [(1, 0, 2, 0), (8, 0, 2, 1), (8, 1, 2, 0), (64, 0, 5, 2), (3, 50, 9, 3), (8, 3, 2, 8)]
    ):
        wallet = Wallet(f"0x{number:040x}")
        enrol(store, wallet, slots=slots)
        store.workers.store_facts([(wallet, ChainFacts(weight, NRlc(1), Wei(1), funded=True, score=score))], NOW)
        for task in range(held_now):
            assert store.workers.reserve(wallet, [held(task)])
        (row,) = store.workers._rows.find({"_id": wallet})
        (record,) = store.workers.load_workers([wallet])
        assert (row["free"], row["successes"]) == (record.free, record.successes)


def test_a_task_done_alone_and_paid_earns_slots_and_blame_does_not_rest_a_machine(store: Store) -> None:
    enrol(store, ALICE, slots=8)
    prove(store, ALICE, score=0)
    for number in range(10):
        assert store.workers.reserve(ALICE, [held(number)])
        store.workers.release([(ALICE, held(number).task_id)], Outcome.BLAMED, NOW)
    (worker,) = store.workers.with_free_slots(0.0, 10, NOW)
    assert (worker.failures, worker.blamed, worker.free) == (0, 10, 2)
    assert store.workers.reserve(ALICE, [held(1)])
    store.workers.release([(ALICE, held(1).task_id)], Outcome.PAID, NOW)
    (worker,) = store.workers.with_free_slots(0.0, 10, NOW)
    assert (worker.solos, worker.blamed, worker.free) == (1, 0, 4)


def test_slots_taken_long_ago_are_found_page_by_page(store: Store) -> None:
    wallets = many(store, 1, 7, ChainFacts(2, NRlc(100), Wei(1), funded=True))
    for wallet in wallets:
        store.workers.reserve(wallet, [held(1)])
    found: list[Wallet] = []
    while page := store.workers.holding_since(NOW + 1, 3, found[-1] if found else None):
        found += [worker.wallet for worker in page]
    assert found == wallets


def test_a_small_deal_behind_a_bag_gets_its_share_of_the_initializes(store: Store) -> None:
    bag, small = deal(40), replace(deal(3), deal_id=DealId("0x" + "ff" * 32))
    store.tasks.insert_new([*task_records(bag), *task_records(small)])
    for after in ("", bag.deal_id, small.deal_id):
        found = store.tasks.uninitialized(1000.0, 10, after)
        assert len(found) in (8, 10)
        assert {task.task_id for task in task_records(small)} <= set(found)


@pytest.mark.parametrize(("now", "turn"), [(1000.0, Turn.EARLY), (float(10**10), Turn.EXPIRED)])
def test_a_due_task_is_found_behind_a_bag_whose_tasks_are_all_due_for_longer(
    store: Store, now: float, turn: Turn
) -> None:
    bag, small = deal(40), replace(deal(1), deal_id=DealId("0x" + "ff" * 32))
    (behind,) = task_records(small)
    store.tasks.insert_new(
        [*(replace(task, next_visit=0.0) for task in task_records(bag)), replace(behind, next_visit=5.0)]
    )
    found = {task.task_id: task for task in store.tasks.tasks_due(now, 10)}
    assert found[behind.task_id].turn(now) is turn
    assert len(found) <= 3 * 2 * 10


def test_a_bag_is_stored_by_one_process_at_a_time_and_goes_on_where_another_left_off(store: Store) -> None:
    bag = deal(30)
    store.deals.noticed([(bag.deal_id, bag.matched_block, BlockHash("0x" + "b1" * 32))])
    store.deals.store_for_later(bag)
    with ThreadPoolExecutor(8) as threads:
        leases = [lease for lease in threads.map(lambda _: store.deals.lease_next(NOW), range(8)) if lease]
    (lease,) = leases
    assert store.deals.progress(lease, 10, NOW + LEASE_SECONDS, again=False)
    assert store.deals.lease_next(NOW) is None
    later = store.deals.lease_next(NOW + LEASE_SECONDS + 1)
    assert later is not None
    assert (later.deal, later.stored) == (bag, 10)
    assert not store.deals.progress(lease, 20, NOW, again=False), "its lease was taken over"
    assert not store.deals.mark_ingested(lease)
    assert store.deals.mark_ingested(later)
