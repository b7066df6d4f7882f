"""Whatever machines, buyers and the market do, no more is offered than can be served, and orders are no flood."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from config.values.order_policy import TAGS
from pipeline.domain.orders.records import (
    End,
    OrderStage,
    Sign,
    Withdraw,
)
from protocol.poco.tags import make_tag
from protocol.types import NRlc, TaskId
from tests.unit.pipeline.builders import NO_TAG, task, worker
from tests.unit.pipeline.offering import FINALITY, Takes, World, can_serve, policy, tasks_of

GPU = make_tag(TAGS["gpu"])
#: Machines as (slots, has a GPU, is proven), and what a pool may go through.
MACHINES = st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.booleans()), max_size=7)
OFFERS: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.sampled_from(
        [
            {"category": 0},
            {"category": 0, "trust": 3, "price": "10 nRLC"},
            {"category": 1, "tag": ["gpu"]},
            {"category": 1, "trust": 5, "most": 2},
            {"category": 3, "trust": 20},
            {"category": 2, "share": 5},
        ]
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda offer: (offer["category"], offer.get("trust")),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("machines"), MACHINES),
        st.tuples(st.just("time"), st.sampled_from([1, 30, 61, 3600, 90_000])),
        st.tuples(st.just("buy"), st.integers(0, 3)),
        st.tuples(st.just("finish"), st.none()),
        st.tuples(st.just("mine"), st.none()),
        st.tuples(st.just("market"), st.booleans()),
        st.tuples(st.just("pause"), st.booleans()),
        st.tuples(st.just("put away"), st.none()),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(OFFERS, STEPS)
def test_whatever_happens_no_more_is_offered_than_can_be_served(
    offers: list[dict[str, Any]], steps: list[tuple[str, object]]
) -> None:
    pool = World(policy(*offers))
    for step in steps:
        take(pool, *step)
        pool.settle()
        offered, sold = tasks_of(pool.live()), waiting(pool)
        assert can_serve(pool.machines, offered)
        # What is sold may have lost its machines since.
        assert can_serve(pool.machines, [*offered, *sold]) or not can_serve(pool.machines, sold)
        if pool.paused or not any(machine.free for machine in pool.machines):
            assert not [found for found in pool.live() if found.remaining]
        # Coming to rest was checked by `settle`; what rests stays at rest.
        assert not [action for action in pool.decide() if isinstance(action, Sign | Withdraw | End)]
    pool.machines = []
    pool.answers = True
    for _ in range(FINALITY + 2):
        pool.settle()
        pool.mine()
    pool.settle()
    assert all(found.stage is OrderStage.ENDED for found in pool.orders.values())


@settings(max_examples=100, deadline=None)
@given(OFFERS, st.lists(st.tuples(MACHINES, st.integers(1, 40)), max_size=40))
def test_without_buyers_each_offer_gets_an_order_per_steady_time_at_most(
    offers: list[dict[str, Any]], steps: list[tuple[list[tuple[int, bool, bool]], int]]
) -> None:
    pool = World(policy(*offers, steady_seconds=60))
    began = pool.now
    for machines, seconds in steps:
        take(pool, "machines", machines)
        take(pool, "mine", None)
        pool.settle()
        pool.now += seconds
    most = 1 + (pool.now - began) / 60
    signed = [action for action in pool.did(Sign) if isinstance(action, Sign)]
    for offer in {(action.category, action.trust, action.tag) for action in signed}:
        assert sum((action.category, action.trust, action.tag) == offer for action in signed) <= most


def take(pool: World, what: str, value: object) -> None:
    match what, value:
        case "machines", list():
            pool.machines = [
                worker(number, slots=slots, solos=100 * right, tag=GPU if gpu else NO_TAG, stake=10**6)
                for number, (slots, gpu, right) in enumerate(value, 1)
            ]
        case "time", int():
            pool.now += value
        case "buy", int():
            listed = [found for found in pool.live() if found.remaining and found.stage is OrderStage.PUBLISHED]
            if listed:
                found = listed[value % len(listed)]
                pool.orders[found.order_hash] = replace(found, consumed=found.consumed + 1)
                (sold,) = tasks_of([replace(found, consumed=found.order.volume - 1)])
                pool.waiting.append(
                    task(
                        task_id=TaskId(f"0x{len(pool.waiting) + 1:064x}"),
                        trust=found.order.trust,
                        tag=sold[0],
                        wants=sold[1],
                        newcomers=sold[1] - sold[2],
                        worker_stake=NRlc(found.order.workerpoolprice * 30 // 100),
                    )
                )
        case "finish", _:
            pool.waiting = []
        case "put away", _:
            pool.dead = {found.order_hash for found in pool.live()}
        case "mine", _:
            pool.mine()
        case "market", bool():
            pool.answers = value
        case "pause", bool():
            pool.paused = value


def waiting(pool: World) -> list[Takes]:
    return [(each.tag, each.wants, each.wants - each.newcomers) for each in pool.waiting]
