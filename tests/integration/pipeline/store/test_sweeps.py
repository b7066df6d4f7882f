"""What one sweep tells the next, whichever process and host runs it."""

from __future__ import annotations

from pipeline.domain.condition.hearing import Hearing
from pipeline.domain.records import CLOCKS_APART
from pipeline.store.client import Store
from pipeline.store.sweeps import CLOCK_SECONDS
from tests.integration.pipeline.rows import NOW


def test_the_last_moment_at_which_nobody_could_be_heard_is_kept(store: Store) -> None:
    assert store.sweeps.unheard_at() == 0.0
    store.sweeps.record(NOW, heard=False, last_after=NOW - 60)
    store.sweeps.record(NOW + 5, heard=True, last_after=NOW - 55)
    assert store.sweeps.unheard_at() == NOW


def test_a_clock_that_was_set_back_is_told_once_and_another_hosts_clock_is_none(store: Store) -> None:
    """With two hosts 20 s apart, each sweep of the slower one had every open task of the pool looked at."""

    def swept(at: float, clock: str) -> bool:
        back = store.sweeps.clock_was_set_back(at, clock)
        store.sweeps.record(at, heard=True, last_after=0.0, clock=clock)
        return back

    assert not swept(NOW, "fast")
    assert swept(NOW - 20, "slow"), "it may be the same one under another name"
    for after in range(5, 60, 5):
        assert not swept(NOW + after, "fast")
        assert not swept(NOW - 20 + after, "slow")
    assert not swept(NOW + 55 - CLOCKS_APART, "fast")
    assert not swept(NOW + 60, "fast")
    assert swept(NOW, "fast"), "set back"
    assert not swept(NOW + 1, "fast")
    assert not swept(NOW + 36, "slow")


def test_hosts_that_sweep_no_more_are_forgotten(store: Store) -> None:
    for number in range(5):
        store.sweeps.record(NOW + number * CLOCK_SECONDS, heard=True, last_after=0.0, clock=f"container {number}")
    row = store.sweeps._cursors.find_one({"_id": "sweep"}) or {}
    assert [item["clock"] for item in row["clocks"]] == ["container 4"]


def test_a_scheduler_that_has_not_swept_yet_after_an_outage_knows_of_it_by_the_last_sweep(store: Store) -> None:
    """What a report or an event has it decide then holds no silence against a machine."""
    assert store.sweeps.outages(NOW, NOW - 60).unheard_at == 0.0, "a new database"
    store.sweeps.record(NOW, heard=True, last_after=0.0)
    assert store.sweeps.outages(NOW + 59, NOW - 1).unheard_at == 0.0
    assert store.sweeps.outages(NOW + 61, NOW + 1).unheard_at == NOW + 61


def test_the_first_of_the_sweeps_in_a_row_that_heard_nobody_is_kept(store: Store) -> None:
    def swept(after: float, *, heard: bool) -> tuple[float, float]:
        store.sweeps.record(NOW + after, heard=heard, last_after=NOW + after - 60)
        found = store.sweeps.hearing()
        assert found.swept_at == NOW + after
        return found.unheard_since, found.unheard_at

    assert store.sweeps.hearing() == Hearing()
    assert swept(0, heard=True) == (NOW, NOW), "none ran before"
    assert swept(5, heard=True) == (NOW, NOW)
    assert swept(10, heard=False) == (NOW + 10, NOW + 10)
    assert swept(15, heard=False) == (NOW + 10, NOW + 15)
    assert swept(20, heard=True) == (NOW + 10, NOW + 15)
    assert swept(25, heard=False) == (NOW + 25, NOW + 25)
    assert swept(500, heard=False) == (NOW + 500, NOW + 500), "none ran in between"
