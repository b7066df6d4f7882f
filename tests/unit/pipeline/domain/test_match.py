"""Who is asked to work on what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.domain import match as matching
from pipeline.domain.match import match
from pipeline.domain.records import MOST_NEWCOMERS, ChainFacts, ReplicateState, Standing, TaskRecord, WorkerRecord
from protocol.poco.tags import GPU_BIT, make_tag
from protocol.types import Hash32, NRlc, TaskId, Wallet, Wei
from tests.unit.pipeline.builders import NO_TAG, held, replicate, task, wallet, worker


def chosen(tasks: list[TaskRecord], *workers: WorkerRecord) -> list[list[Wallet]]:
    return [[item.wallet for item in found.workers] for found in match(tasks, workers)]


def other(number: int, *, trust: int = 1, tag: Hash32 = NO_TAG) -> TaskRecord:
    return task(trust=trust, task_id=TaskId(f"0x{number:064x}"), wants=1, tag=tag)


def test_a_task_gets_as_many_different_workers_as_it_wants() -> None:
    assert chosen([task(wants=3)], worker(1, slots=5), worker(2), worker(3), worker(4)) == [
        [wallet(1), wallet(2), wallet(3)]
    ]


def test_fewer_workers_do_if_their_votes_weigh_more() -> None:
    assert chosen([task(trust=5, wants=3)], worker(1, weight=5), worker(2), worker(3)) == [[wallet(1)]]


def test_what_others_compute_already_counts() -> None:
    assert len(chosen([task(trust=5, wants=1, leading=4)], worker(1), worker(2))[0]) == 1


def test_a_task_takes_what_there_is_and_goes_on_wanting() -> None:
    (found,) = match([task(trust=5, wants=3)], [worker(1)])
    assert found.wants == 2
    assert found.leading == 2


def test_the_least_busy_of_equals_comes_first() -> None:
    busy = worker(1, slots=4, held=(held(1),))
    assert chosen([task(trust=1, wants=1)], busy, worker(2, slots=2)) == [[wallet(2)]]


def test_claimed_slots_move_no_machine_to_the_front() -> None:
    one = task(trust=1, wants=1)
    assert chosen([one], worker(1, slots=256), worker(2, weight=3)) == [[wallet(2)]]
    assert chosen([one], worker(1, slots=256, stake=0), worker(2, stake=30)) == [[wallet(2)]]
    assert chosen([one], worker(1, slots=256, stake=30), worker(2, stake=31)) == [[wallet(2)]]


def test_who_was_right_on_chain_comes_before_any_stake() -> None:
    one = task(trust=1, wants=1)
    assert chosen([one], worker(1, stake=10**9), worker(2, stake=0, solos=1)) == [[wallet(2)]]
    assert chosen([one], worker(1, stake=10**9), worker(2, stake=0, weight=3, failures=3)) == [[wallet(2)]]


def test_a_newcomer_uses_two_slots_and_two_more_for_each_success() -> None:
    tasks = [other(n) for n in range(1, 20)]
    assert len(chosen(tasks, worker(1, slots=256))) == 2
    assert len(chosen(tasks, worker(1, slots=256, solos=3))) == 8
    assert len(chosen(tasks, worker(1, slots=256, facts=ChainFacts(2, NRlc(0), Wei(1), funded=True, score=1)))) == 4
    assert len(chosen(tasks, worker(1, slots=3, weight=5))) == 3


def test_one_silent_newcomer_with_many_slots_does_not_take_every_task() -> None:
    tasks = [other(n) for n in range(1, 6)]
    given = chosen(tasks, worker(1, slots=256), worker(2, solos=1), worker(3, solos=1))
    assert sorted(given) == [[wallet(1)], [wallet(1)], [wallet(2)], [wallet(3)]]


def test_after_twenty_newcomers_failed_a_task_only_proven_workers_are_asked_for_it() -> None:
    spent = [replicate(n, ReplicateState.FAILED, standing=Standing.STAKED) for n in range(100, 100 + MOST_NEWCOMERS)]
    one = task(trust=1, wants=1, replicates=spent)
    assert chosen([one], worker(1), worker(2)) == []
    assert chosen([one, other(1)], worker(1), worker(2, solos=1)) == [[wallet(2)], [wallet(1)]]


def test_work_is_spread_over_machines() -> None:
    tasks = [other(n, trust=1) for n in range(4)]
    assert sorted(chosen(tasks, worker(1, slots=2), worker(2, slots=2))) == sorted([[wallet(1)], [wallet(2)]] * 2)


def test_no_slot_is_given_twice() -> None:
    tasks = [other(n, trust=1) for n in range(3)]
    assert len(chosen(tasks, worker(1), worker(2))) == 2


def test_a_worker_never_gets_a_task_again() -> None:
    before = task(trust=1, wants=1, replicates=[replicate(1, ReplicateState.FAILED)])
    assert chosen([before], worker(1)) == []


def test_a_worker_must_offer_every_bit_of_the_tag() -> None:
    gpu = task(trust=1, wants=1, tag=make_tag(GPU_BIT))
    assert chosen([gpu], worker(1)) == []
    assert chosen([gpu], worker(1), worker(2, tag=make_tag(GPU_BIT))) == [[wallet(2)]]


def test_a_vote_needs_stake_and_working_alone_needs_none() -> None:
    assert chosen([task(trust=5, wants=3)], worker(1, stake=29)) == []
    assert chosen([task(trust=1, wants=1)], worker(1, stake=0)) == [[wallet(1)]]


def test_stake_promised_to_other_tasks_is_not_spent_again() -> None:
    assert chosen([task(trust=5, wants=1)], worker(1, slots=2, stake=50, held=(held(1, stake=30),))) == []
    assert len(chosen([other(1, trust=5), other(2, trust=5)], worker(1, slots=2, stake=50))) == 1


def test_a_worker_without_gas_money_or_banned_or_lost_gets_nothing() -> None:
    poor = worker(1)
    facts = type(poor.facts)(2, poor.facts.stake, poor.facts.coins, funded=False)
    assert chosen([task(wants=3)], worker(1, facts=facts), worker(2, banned=True), worker(3, lost=True)) == []


def test_a_task_nobody_fits_does_not_hold_up_the_next() -> None:
    gpu = other(1, tag=make_tag(GPU_BIT))
    assert chosen([gpu, other(2)], worker(1)) == [[wallet(1)]]


def test_stake_promised_to_a_vote_not_yet_seen_is_not_spent_again() -> None:
    assert chosen([task(trust=5, wants=1)], worker(1, stake=50, pledged=(held(1, stake=30),))) == []


def test_who_owes_votes_for_twice_its_slots_gets_no_more() -> None:
    assert chosen([other(1)], worker(1, pledged=(held(1),))) == [[wallet(1)]]
    assert chosen([other(1)], worker(1, pledged=(held(1), held(2)))) == []


def test_who_failed_lately_comes_after_all_others() -> None:
    assert chosen([other(1)], worker(1, slots=8, failures=2), worker(2)) == [[wallet(2)]]


def test_newcomers_are_not_gone_through_for_each_task_that_only_proven_workers_may_get(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[str] = []
    real = matching.obstacle

    def counted(wanted: TaskRecord, capacity: matching.Capacity) -> matching.Obstacle | None:
        looked.append(capacity.worker.name)
        return real(wanted, capacity)

    monkeypatch.setattr(matching, "obstacle", counted)
    newcomers = [worker(number, weight=1, slots=2) for number in range(1000)]
    proven = worker(1000, weight=20, slots=50, stake=10**6)
    bag = [replace(task(trust=50, wants=6, newcomers=0), task_id=TaskId(f"0x{n:064x}")) for n in range(20)]
    assert chosen(bag, *newcomers, proven) == [[wallet(1000)]] * len(bag)
    assert looked == [proven.name] * len(bag)
