"""How many containers a machine runs at once when its operator names no number."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import read_settings
from protocol.errors import BadSetting, EngineUnavailable
from protocol.wire import MEMORY_PER_SLOT, MOST_SLOTS, SLOTS_LIMIT, PoolConfig
from tests.unit.workers.assignments import WORKER_KEY
from tests.unit.workers.pool.test_complete_settings import POOL
from workers.care.resume import Resumer
from workers.context import Machine
from workers.fitness.status import Status, lines
from workers.pool.api import PoolApi
from workers.sandbox.spec import EngineResources
from workers.slots import RESERVED_BYTES, fitting

GIB = 2**30


def machine(resources: EngineResources | None, **settings: object) -> Machine:
    made = Machine(read_settings(**settings), WORKER_KEY, POOL, PoolApi("http://127.0.0.1:9"))
    if resources is not None:
        made.__dict__["engine_resources"] = resources
    return made


@given(st.integers(1, 4096), st.integers(1, 2**45), st.integers(1, 2**40), st.integers(1, SLOTS_LIMIT))
def test_as_many_slots_as_processors_memory_and_the_pool_hold_and_never_none(
    cpus: int, memory: int, slot: int, most: int
) -> None:
    count = fitting(EngineResources(cpus, memory), slot, most).count

    def fits(slots: int) -> bool:
        return slots <= min(cpus, most) and slots * slot <= memory - RESERVED_BYTES

    assert count == 1 or fits(count)
    assert not fits(count + 1)


@pytest.mark.parametrize(
    ("cpus", "gib", "count", "words"),
    [
        (8, 64, 8, "processors, one each"),
        (8, 9, 4, "the engine's memory"),
        (8, 2, 1, "short for one"),
        (1, 3, 1, "processors, one each"),
        (256, 1024, MOST_SLOTS, "as many as the pool takes"),
    ],
)
def test_what_bounds_the_slots_is_said(cpus: int, gib: int, count: int, words: str) -> None:
    found = fitting(EngineResources(cpus, gib * GIB), MEMORY_PER_SLOT, MOST_SLOTS)
    assert found.count == count
    assert words in found.bound


def test_without_a_number_a_machine_offers_what_fits_its_engine_and_with_one_that() -> None:
    engine = EngineResources(cpus=8, memory_bytes=9 * GIB)
    assert machine(engine).capabilities.slots == 4
    assert machine(engine, slots=7).capabilities.slots == 7
    # Apps get less here than the pool promises: more of them fit.
    assert machine(engine, memory_per_slot=GIB).capabilities.slots == 8


@pytest.mark.parametrize(("most", "count"), [(3, 3), (200, 8)])
def test_without_a_number_a_machine_signs_in_with_no_more_slots_than_its_pool_takes(most: int, count: int) -> None:
    made = machine(EngineResources(cpus=8, memory_bytes=64 * GIB))
    object.__setattr__(made, "pool", POOL.model_copy(update={"most_slots": most}))
    assert made.capabilities.slots == count


def test_a_pool_that_does_not_say_how_many_slots_it_takes_takes_as_many_as_one_of_an_older_release() -> None:
    assert PoolConfig.model_validate(POOL.model_dump(exclude={"most_slots"})).most_slots == MOST_SLOTS


def test_what_is_no_number_of_slots_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("0", "-1", "two", "2.5", "", "257", "999999999", "9999999999"):
        monkeypatch.setenv("SLUICE_SLOTS", wrong)
        with pytest.raises(BadSetting, match="SLUICE_SLOTS is wrong: give a number from 1 to 256, or auto"):
            read_settings()


@pytest.mark.parametrize("slots", ["1", "256", "0256"])
def test_every_number_of_slots_that_is_read_can_be_signed_in_with(monkeypatch: pytest.MonkeyPatch, slots: str) -> None:
    monkeypatch.setenv("SLUICE_SLOTS", slots)
    assert machine(EngineResources(cpus=8, memory_bytes=9 * GIB)).capabilities.slots == int(slots)


def test_a_machine_whose_engine_is_gone_still_ends_its_votes(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> Any:
        raise EngineUnavailable(what="Docker", why="gone")

    monkeypatch.setattr("workers.context.Engine", lambda _: SimpleNamespace(info=gone, close=lambda: None))
    assert Resumer(machine(None))._free._value == 1


@pytest.mark.parametrize(
    ("usable", "words"),
    [
        (2, "1 of 2 slots in use; more of its 8 once its votes were right"),
        (8, "1 slots in use"),
        (None, "1 slots in use"),
    ],
)
def test_status_says_that_a_newcomer_gets_fewer_slots_than_it_has(usable: int | None, words: str) -> None:
    found = Status("0x1", "m", True, "auto", (), 1.0, signed_in_slots=8, usable=usable, busy=1)
    assert lines(found)[2].endswith(f"it reports: {words}")
