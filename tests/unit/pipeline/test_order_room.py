"""What still fits on machines: against a flow that knows nothing of how slots are taken."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from config.order_policy import TAGS
from pipeline.domain.order_room import Demand, Room
from protocol.poco.tags import make_tag
from protocol.types import Hash32, NRlc
from tests.unit.pipeline.builders import NO_TAG, worker
from tests.unit.pipeline.offering import can_serve

GPU = make_tag(TAGS["gpu"])
MACHINES = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([NO_TAG, GPU])), max_size=5)
DEMANDS = st.lists(st.tuples(st.sampled_from([NO_TAG, GPU]), st.integers(1, 3), st.integers(0, 6)), max_size=4)


@settings(max_examples=300, deadline=None)
@given(MACHINES, DEMANDS)
def test_what_was_put_can_be_served(machines: list[tuple[int, Hash32]], demands: list[tuple[Hash32, int, int]]) -> None:
    records = [worker(n, slots=slots, tag=tag, solos=9) for n, (slots, tag) in enumerate(machines, 1)]
    room = Room(records)
    put = []
    for tag, count, tasks in demands:
        put += [(tag, count)] * room.put(Demand(tag, count), tasks)
    assert can_serve(records, put)
    assert room.free == sum(record.free for record in records) - sum(count for _, count in put)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=5), st.integers(1, 3))
def test_of_one_kind_as_many_are_put_as_can_be_served(slots: list[int], count: int) -> None:
    records = [worker(n, slots=each, solos=9) for n, each in enumerate(slots, 1)]
    found = Room(records).put(Demand(NO_TAG, count), 100)
    assert can_serve(records, [(NO_TAG, count)] * found)
    assert not can_serve(records, [(NO_TAG, count)] * (found + 1))


def test_all_fit_or_none_is_put() -> None:
    room = Room([worker(1, slots=2)])
    assert not room.fits(Demand(NO_TAG), 3)
    assert room.free == 2
    assert room.fits(Demand(NO_TAG), 2)
    assert room.free == 0


def test_machines_with_more_to_offer_are_left_to_those_who_demand_it() -> None:
    room = Room([worker(1, slots=2, tag=GPU), worker(2, slots=2)])
    room.put(Demand(NO_TAG), 2)
    assert room.put(Demand(GPU), 2) == 2


def test_stake_bounds_a_machines_votes_and_what_is_promised_counts() -> None:
    room = Room([worker(1, slots=2, stake=70)])
    assert room.put(Demand(NO_TAG, stake=NRlc(30)), 1) == 1
    assert room.put(Demand(NO_TAG, stake=NRlc(41)), 1) == 0
    assert room.put(Demand(NO_TAG, stake=NRlc(40)), 1) == 1
