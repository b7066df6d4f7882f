"""What still fits on machines: against a flow that knows nothing of how slots are taken."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from config.values.order_policy import MOST_TRUST, TAGS
from pipeline.domain.orders.spare_capacity import Demand, SpareCapacity
from pipeline.domain.records import Reservation
from protocol.poco.tags import make_tag
from protocol.types import Hash32, NRlc
from tests.unit.pipeline.builders import NO_TAG, task, worker
from tests.unit.pipeline.offering import can_serve, order, proven_needed

GPU = make_tag(TAGS["gpu"])
#: Machines as (slots, tag, whether proven); one that is not has earned two slots at most.
MACHINES = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([NO_TAG, GPU]), st.booleans()), max_size=5)
#: What tasks take (see `Takes`), and how many there are.
DEMANDS = st.lists(
    st.tuples(st.sampled_from([NO_TAG, GPU]), st.integers(1, 3), st.integers(0, 1), st.integers(0, 6)), max_size=4
)


@settings(max_examples=300, deadline=None)
@given(MACHINES, DEMANDS)
def test_what_was_put_can_be_served(
    machines: list[tuple[int, Hash32, bool]], demands: list[tuple[Hash32, int, int, int]]
) -> None:
    records = [worker(n, slots=slots, tag=tag, solos=9 * right) for n, (slots, tag, right) in enumerate(machines, 1)]
    capacity = SpareCapacity(records)
    put = []
    for tag, count, proven, tasks in demands:
        put += [(tag, count, proven)] * capacity.put(Demand(tag, count, proven=proven), tasks)
    assert can_serve(records, put)
    assert capacity.free == sum(record.free for record in records) - sum(count for _, count, _ in put)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=5), st.integers(1, 3), st.integers(0, 1))
def test_of_one_kind_as_many_are_put_as_can_be_served(slots: list[tuple[int, bool]], count: int, proven: int) -> None:
    records = [worker(n, slots=each, solos=9 * right) for n, (each, right) in enumerate(slots, 1)]
    found = SpareCapacity(records).put(Demand(NO_TAG, count, proven=proven), 100)
    assert can_serve(records, [(NO_TAG, count, proven)] * found)
    assert not can_serve(records, [(NO_TAG, count, proven)] * (found + 1))


@settings(max_examples=200, deadline=None)
@given(MACHINES, st.integers(1, 4), st.integers(1, 3), DEMANDS)
def test_what_is_put_beside_waiting_tasks_of_one_kind_can_be_served_with_them(
    machines: list[tuple[int, Hash32, bool]], sold: int, wants: int, demands: list[tuple[Hash32, int, int, int]]
) -> None:
    records = [worker(n, slots=slots, tag=tag, solos=9 * right) for n, (slots, tag, right) in enumerate(machines, 1)]
    capacity = SpareCapacity.beside(records, [task(trust=1, wants=wants, newcomers=wants)] * sold)
    put, waiting = [], [(NO_TAG, wants, 0)] * sold
    for tag, count, proven, tasks in demands:
        put += [(tag, count, proven)] * capacity.put(Demand(tag, count, proven=proven), tasks)
    assert can_serve(records, put)
    # A waiting task may lack machines: then nothing can be served beside it in this sense.
    assert can_serve(records, [*waiting, *put]) or not can_serve(records, waiting)


@given(st.integers(0, MOST_TRUST))
def test_an_order_demands_proven_machines_by_the_rule_that_gives_tasks_to_machines(trust: int) -> None:
    terms = replace(order(1).order, trust=trust)
    assert Demand.of(terms, 30).proven == proven_needed(trust)


def test_slots_of_proven_machines_are_left_to_tasks_that_newcomers_may_not_decide() -> None:
    capacity = SpareCapacity([worker(1, slots=2, solos=9), worker(2, slots=2), worker(3, slots=2)])
    capacity.put(Demand(NO_TAG), 2)
    assert capacity.put(Demand(NO_TAG, 2, proven=1), 9) == 2


def test_of_a_waiting_task_only_what_newcomers_may_not_do_takes_a_proven_machine() -> None:
    machines = [worker(1, solos=9), *(worker(number) for number in range(2, 6))]
    one = Demand(NO_TAG, proven=1)
    waits = task(trust=20, wants=3, newcomers=3)
    assert SpareCapacity.beside(machines, [waits]).put(one, 9) == 1
    assert SpareCapacity.beside(machines, [replace(waits, newcomers=2)]).put(one, 9) == 0
    assert SpareCapacity.beside(machines, [replace(waits, wants=1, backup=True)]).put(one, 9) == 0
    # The proven machine's slot is taken for it already.
    machines[0] = replace(machines[0], slots=2, held=(Reservation(waits.task_id, 1.0, NRlc(0)),))
    assert SpareCapacity.beside(machines, [replace(waits, newcomers=2)]).put(one, 9) == 1


def test_all_fit_or_none_is_put() -> None:
    capacity = SpareCapacity([worker(1, slots=2)])
    assert not capacity.fits(Demand(NO_TAG), 3)
    assert capacity.free == 2
    assert capacity.fits(Demand(NO_TAG), 2)
    assert capacity.free == 0


def test_machines_with_more_to_offer_are_left_to_those_who_demand_it() -> None:
    capacity = SpareCapacity([worker(1, slots=2, tag=GPU), worker(2, slots=2)])
    capacity.put(Demand(NO_TAG), 2)
    assert capacity.put(Demand(GPU), 2) == 2


def test_stake_bounds_a_machines_votes_and_what_is_promised_counts() -> None:
    capacity = SpareCapacity([worker(1, slots=2, stake=70)])
    assert capacity.put(Demand(NO_TAG, stake=NRlc(30)), 1) == 1
    assert capacity.put(Demand(NO_TAG, stake=NRlc(41)), 1) == 0
    assert capacity.put(Demand(NO_TAG, stake=NRlc(40)), 1) == 1
