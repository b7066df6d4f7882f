"""What the pool offers on the market: never more than its machines can serve, nothing without machines, no flood."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from config.values.order_policy import TAGS
from pipeline.domain.orders.offers import MOST_LIVE, Book, Supply, decide
from pipeline.domain.orders.records import (
    LOOK_SECONDS,
    Close,
    OrderStage,
    Publish,
    Recheck,
    Sign,
    Unpublish,
    Withdraw,
    Withdrawal,
)
from pipeline.domain.orders.spare_capacity import PoolTerms
from pipeline.domain.records import Reservation, WorkerRecord
from protocol.poco.tags import make_tag
from protocol.types import BlockNumber, Hash32, NRlc
from tests.unit.pipeline.builders import NO_TAG, task, worker
from tests.unit.pipeline.offering import FINALITY, World, order, policy

GPU = make_tag(TAGS["gpu"])
ONE = policy({}, steady_seconds=60)


def proven(number: int, slots: int, tag: Hash32 = NO_TAG) -> WorkerRecord:
    return worker(number, slots=slots, solos=100, tag=tag, stake=10**6)


def world(*slots: int, **fields: object) -> World:
    made = World(ONE, [proven(number, count) for number, count in enumerate(slots, 1)])
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_free_slots_are_offered_as_one_order() -> None:
    pool = world(3, 2)
    pool.settle()
    (found,) = pool.live()
    assert (found.order.volume, found.stage) == (5, OrderStage.PUBLISHED)
    assert pool.decide() == []


def test_without_machines_nothing_is_signed_and_everything_is_withdrawn_unpublished_and_closed() -> None:
    pool = world(2)
    pool.settle()
    pool.machines = []
    pool.settle()
    (found,) = pool.orders.values()
    assert (found.stage, found.why, found.listed) == (OrderStage.WITHDRAWN, Withdrawal.CAPACITY, False)
    assert pool.closing == {found.order_hash}
    for _ in range(FINALITY + 1):
        pool.mine()
        pool.settle()
    assert [each.stage for each in pool.orders.values()] == [OrderStage.ENDED]
    assert len(pool.did(Sign)) == 1


def test_while_machines_cannot_be_heard_their_orders_stay_and_nothing_is_signed_for_them() -> None:
    """A minute in which the database or the API was away took every order off the market, and closed it on chain."""
    pool = world(2)
    pool.settle()
    pool.machines, pool.silent = [], [*pool.machines, proven(2, 3)]
    pool.settle()
    assert pool.offered() == 2
    # One of them has gone, by RabbitMQ's word or its own.
    pool.silent.pop(0)
    pool.silent.pop()
    pool.settle()
    assert not pool.live()


def test_a_pause_withdraws_also_while_machines_cannot_be_heard() -> None:
    pool = world(2)
    pool.settle()
    pool.machines, pool.silent, pool.paused = [], pool.machines, True
    pool.settle()
    assert not pool.live()


@pytest.mark.parametrize("switch", ["paused", "outage", "held"])
def test_a_pool_that_must_not_sell_offers_nothing_until_that_ends(switch: str) -> None:
    pool = world(2)
    pool.settle()
    setattr(pool, switch, True)
    pool.settle()
    assert not pool.live()
    pool.mine()
    pool.settle()
    assert not pool.live()
    setattr(pool, switch, False)
    pool.settle()
    assert pool.offered() == 2


def test_a_partly_bought_order_counts_with_what_is_left_of_it() -> None:
    bought = order(1, volume=4, consumed=3)
    pool = world(1, orders={bought.order_hash: bought})
    assert pool.decide() == []
    pool.orders[bought.order_hash] = replace(bought, consumed=2)
    assert pool.decide()[0] == Withdraw(bought.order_hash, Withdrawal.CAPACITY)


def test_tasks_that_are_sold_and_wait_take_their_slots() -> None:
    pool = world(3, 1, waiting=[task(trust=5, wants=2)])
    pool.settle()
    assert pool.offered() == 2


def test_of_a_waiting_task_each_machine_takes_one_slot() -> None:
    """With a slot on each of two machines taken for it, one machine is left with free slots: too few for another."""
    pool = world(3, 1, policy=policy({"trust": 3}), waiting=[task(trust=3, wants=2)])
    pool.settle()
    assert pool.offered() == 0


def test_a_waiting_task_for_which_machines_are_missing_takes_those_that_there_are() -> None:
    pool = world(3, waiting=[task(trust=5, wants=2)])
    pool.settle()
    assert pool.offered() == 2


def test_a_slot_that_is_taken_for_a_waiting_task_is_counted_once() -> None:
    one = task(trust=1, wants=1)
    pool = world(waiting=[one])
    pool.machines = [replace(worker(1, slots=3, solos=9), held=(Reservation(one.task_id, 1.0, NRlc(0)),))]
    pool.settle()
    assert pool.offered() == 2


def test_more_trust_takes_more_machines_for_a_task() -> None:
    pool = world(4, 4, policy=policy({"trust": 5}))
    pool.settle()
    assert pool.offered() == 0
    pool.machines.append(proven(3, 1))
    pool.settle()
    assert pool.offered() == 1


def test_what_newcomers_may_not_decide_is_offered_only_while_a_proven_machine_is_free() -> None:
    pool = world(policy=policy({"trust": 20}))
    pool.machines = [proven(1, 1), *(worker(number) for number in range(2, 8))]
    pool.settle()
    assert pool.offered() == 1
    # Six slots for five votes are left, and all of them together may not decide.
    pool.machines[0] = replace(pool.machines[0], operator_slots=0)
    pool.settle()
    assert pool.offered() == 0
    pool.now += 100
    pool.mine()
    pool.settle()
    assert pool.offered() == 0
    pool.newcomers_decide = True
    pool.settle()
    assert pool.offered() == 1


def test_machines_without_the_stake_for_a_vote_are_no_capacity_for_a_paid_offer() -> None:
    pool = world(policy=policy({"trust": 2, "price": "100 nRLC"}))
    pool.machines = [worker(1, slots=2, stake=59), worker(2, slots=2, stake=0)]
    pool.settle()
    assert pool.offered() == 1


def test_no_more_is_offered_than_the_owners_stake_covers() -> None:
    pool = world(9, stake=100, policy=policy({"price": "100 nRLC"}))
    pool.settle()
    assert pool.offered() == 3


def test_offers_share_the_slots_and_a_tag_takes_only_machines_that_have_it() -> None:
    pool = world(policy=policy({"share": 3}, {"category": 1}, {"category": 2, "tag": ["gpu"]}))
    pool.machines = [proven(1, 8), proven(2, 2, GPU)]
    pool.settle()
    assert {found.order.category: found.order.volume for found in pool.live()} == {0: 6, 1: 2, 2: 2}


def test_what_is_withdrawn_counts_until_it_is_closed_on_chain() -> None:
    pool = world(4)
    pool.settle()
    pool.machines = [proven(1, 3)]
    pool.now += 100
    pool.settle()
    pool.now += 100
    pool.settle()
    assert pool.offered() == 0
    pool.mine()
    pool.settle()
    assert pool.offered() == 3


def test_without_closing_on_chain_an_order_ends_when_it_is_unpublished_and_costs_no_gas() -> None:
    pool = world(2, policy=policy({}, close_on_chain=False), answers=False)
    pool.settle()
    (found,) = pool.orders.values()
    pool.orders[found.order_hash] = replace(found, stage=OrderStage.PUBLISHED, shown=True, listed=True)
    pool.paused = True
    pool.settle()
    assert [each.stage for each in pool.orders.values()] == [OrderStage.WITHDRAWN]
    pool.answers = True
    pool.settle()
    assert [each.stage for each in pool.orders.values()] == [OrderStage.ENDED]
    assert not pool.did(Close)


def test_an_order_that_was_never_sent_ends_without_the_market_and_without_gas() -> None:
    pool = world(2, answers=False)
    pool.settle()
    pool.machines = []
    pool.settle()
    assert [found.stage for found in pool.orders.values()] == [OrderStage.ENDED]
    assert not pool.did(Close)
    assert not pool.did(Unpublish)


def test_an_old_order_is_renewed_and_one_with_another_price_is_replaced() -> None:
    pool = world(2)
    pool.settle()
    pool.now += 24 * 3600
    pool.settle()
    pool.mine()
    pool.settle()
    assert [found.why for found in pool.orders.values()] == [Withdrawal.EXPIRED, None]
    pool.policy = policy({"price": "1 RLC"})
    pool.settle()
    pool.mine()
    pool.settle()
    assert [found.order.workerpoolprice for found in pool.live()] == [10**9]


def test_a_sold_out_order_ends_when_that_is_final_and_is_replaced_at_once() -> None:
    pool = world(2)
    pool.settle()
    (found,) = pool.live()
    pool.orders[found.order_hash] = replace(found, consumed=2)
    pool.settle()
    assert [each.order.volume for each in pool.live()] == [2, 2]
    for _ in range(FINALITY + 1):
        pool.mine()
    pool.settle()
    assert [each.stage for each in pool.orders.values()] == [OrderStage.ENDED, OrderStage.PUBLISHED]
    assert not pool.did(Withdraw)


def test_an_order_whose_sale_is_reorganised_away_counts_again() -> None:
    sold = order(1, volume=2, consumed=2, spent_block=BlockNumber(99))
    pool = world(2, orders={sold.order_hash: sold}, last=1)
    pool.settle()
    assert pool.offered() == 2
    pool.orders[sold.order_hash] = replace(sold, consumed=0, spent_block=None)
    pool.settle()
    assert pool.offered() == 2


def test_a_task_that_is_bought_while_the_pool_is_read_is_no_capacity_for_a_new_order() -> None:
    bought = order(1, volume=2, consumed=2)
    supply = Supply((worker(1, slots=2),), terms=PoolTerms(NRlc(10**9), 30))
    assert isinstance(decide(ONE, supply, Book((bought,)), 1000.0)[0], Sign)
    assert decide(ONE, supply, Book((bought,), lately={bought.order_hash: 2}), 1000.0) == []
    # For what is withdrawn, it is bought: it may be among the tasks that wait.
    served = replace(supply, waiting=(task(trust=1, wants=1), task(trust=1, wants=1)))
    assert decide(ONE, served, Book((bought,), lately={bought.order_hash: 2}), 1000.0) == []


@pytest.mark.parametrize("unknown", ["settled", "terms", "policy"])
def test_what_is_not_known_signs_nothing_and_withdraws_nothing(unknown: str) -> None:
    kept = order(1, volume=1)
    supply = Supply((worker(1, slots=2),), terms=PoolTerms(NRlc(10**9), 30))
    without: dict[str, dict[str, Any]] = {"settled": {"settled": False}, "terms": {"terms": None}, "policy": {}}
    fields = without[unknown]
    asked = replace(supply, **fields)
    policy_now = None if unknown == "policy" else policy({}, {"category": 1})
    assert decide(policy_now, asked, Book((kept,)), 10.0) == []
    assert decide(policy({}, {"category": 1}), supply, Book((kept,)), 10.0)
    # Machines that are gone are known to be gone.
    assert decide(policy_now, replace(asked, machines=()), Book((kept,)), 10.0)


def test_a_market_that_does_not_answer_is_not_asked_before_its_time_and_nothing_else_is_signed() -> None:
    late = order(1, volume=2, stage=OrderStage.SIGNED, shown=False, listed=False, retry_at=50.0)
    pool = world(2, orders={late.order_hash: late}, now=49.0)
    assert pool.decide() == []
    pool.now = 50.0
    assert pool.decide() == [Publish(late.order_hash)]


def test_a_market_is_not_left_alone_for_an_hour_because_a_clock_was_an_hour_ahead() -> None:
    late = order(1, volume=2, stage=OrderStage.SIGNED, shown=False, listed=False, retry_at=3650.0)
    pool = world(2, orders={late.order_hash: late}, now=49.0)
    assert pool.decide() == [Publish(late.order_hash)]


def test_an_order_is_looked_at_every_five_minutes_and_published_again_if_the_market_lacks_it() -> None:
    pool = world(2)
    pool.settle()
    (found,) = pool.live()
    pool.now += LOOK_SECONDS - 1
    assert pool.decide() == []
    pool.now += 1
    assert pool.decide() == [Recheck(found.order_hash)]
    pool.settle()
    assert len(pool.did(Publish)) == 1
    pool.dead.add(found.order_hash)
    pool.now += LOOK_SECONDS
    pool.settle()
    assert (len(pool.did(Sign)), len(pool.did(Publish)), len(pool.live())) == (1, 2, 1)
    assert not pool.dead


def test_a_published_order_is_not_looked_at_before_its_time_and_not_when_it_is_sold_out() -> None:
    kept = order(1, volume=2, looked_at=0.0, retry_at=1500.0)
    pool = world(2, orders={kept.order_hash: kept}, now=1499.0)
    assert pool.decide() == []
    pool.now = 1500.0
    assert pool.decide() == [Recheck(kept.order_hash)]
    pool.orders[kept.order_hash] = replace(kept, consumed=2)
    assert Recheck(kept.order_hash) not in pool.decide()


def test_there_are_never_more_orders_than_the_market_takes() -> None:
    some = {found.order_hash: found for found in (order(number) for number in range(1, MOST_LIVE + 1))}
    pool = world(MOST_LIVE * 10, orders=some, last=MOST_LIVE)
    pool.settle()
    assert not pool.did(Sign)


def test_an_offer_is_filled_up_in_large_steps_and_not_before_its_time() -> None:
    pool = world(4)
    pool.settle()
    (found,) = pool.live()
    pool.orders[found.order_hash] = replace(found, consumed=1)
    pool.settle()
    assert len(pool.did(Sign)) == 1
    pool.orders[found.order_hash] = replace(found, consumed=2)
    pool.settle()
    assert len(pool.did(Sign)) == 1
    pool.now += 60
    pool.settle()
    assert [each.order.volume for each in pool.live()] == [4, 2]


def test_a_machine_that_comes_and_goes_makes_an_order_a_minute_at_most() -> None:
    pool = world(2)
    for second in range(600):
        pool.now += 1
        pool.machines = [proven(1, 2)] if second % 2 else []
        pool.mine()
        pool.settle()
        assert pool.offered() <= sum(machine.free for machine in pool.machines)
    assert 2 <= len(pool.did(Sign)) <= 11
    assert len(pool.did(Withdraw)) <= len(pool.did(Sign))
