"""Workers are not given up because the pool could not hear them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipeline.flow import sweep

SILENCE, PING, SWEEP = 60.0, 10.0, 5.0
MACHINES = 50


class Store:
    """The queries that giving up silent workers makes, in memory."""

    def __init__(self) -> None:
        self.seen = {f"machine {n}": n * PING / MACHINES for n in range(MACHINES)}
        self.lost: list[str] = []
        self.unheard_at = self.swept_at = 0.0

    def heard_since(self, moment: float) -> bool:
        return any(seen >= moment for wallet, seen in self.seen.items() if wallet not in self.lost)

    def silent_workers(self, before: float, most: int) -> list[str]:
        return [wallet for wallet, seen in self.seen.items() if seen < before and wallet not in self.lost][:most]

    def set_lost(self, wallet: str, _: float) -> bool:
        self.lost.append(wallet)
        return True

    def mark_replaced(self, _: str) -> None:
        """Nothing to replace."""

    def record(self, now: float, *, heard: bool, last_after: float, by: str, clock: str) -> float:
        if not heard or self.swept_at < last_after:
            self.unheard_at = now
        self.swept_at = now
        return self.unheard_at


def lost_by(
    until: float,
    *,
    api_away: tuple[float, float] = (0, 0),
    sweeps_away: tuple[float, float] = (0, 0),
    dead: int = 0,
    each: float = SWEEP,
    unheard_at: float = 0.0,
) -> list[str]:
    """The workers that are lost by `until` if all ping but the first `dead`, who end at once. `each`: seconds between
    sweeps; `unheard_at`: what was recorded before.
    """
    store = Store()
    store.unheard_at = unheard_at
    pool = SimpleNamespace(
        settings=SimpleNamespace(worker_lost_seconds=SILENCE, sweep_seconds=each),
        store=SimpleNamespace(workers=store, sweeps=store, tasks=SimpleNamespace(lose_worker=lambda _: [])),
    )
    for second in range(int(until)):
        for number, wallet in enumerate(list(store.seen)):
            due = second % PING == int(number * PING / MACHINES)
            if due and number >= dead and not api_away[0] <= second < api_away[1]:
                store.seen[wallet] = float(second)
        if second % each == 0 and not sweeps_away[0] <= second < sweeps_away[1]:
            pool.clock = lambda now=float(second): now
            sweep.lose_silent_workers(pool)  # type: ignore[arg-type]  # stands in
    return store.lost


@pytest.mark.parametrize("away", [45, 50, 55, 59, 60, 65, 100, 1000])
def test_no_worker_is_lost_by_an_outage_of_the_api(away: int) -> None:
    assert lost_by(1500, api_away=(100, 100 + away)) == []


@pytest.mark.parametrize("away", [30, 61, 100, 1000])
def test_no_worker_is_lost_by_an_outage_of_the_whole_scheduler(away: int) -> None:
    assert lost_by(1500, api_away=(100, 100 + away), sweeps_away=(100, 100 + away)) == []


def test_a_silent_worker_is_lost_while_others_ping() -> None:
    assert lost_by(200, dead=2) == ["machine 0", "machine 1"]


def test_a_worker_that_died_in_an_outage_is_lost_after_it() -> None:
    assert lost_by(300, api_away=(20, 120), dead=1) == ["machine 0"]


def test_a_silent_worker_is_lost_though_sweeps_are_further_apart_than_it_may_be_silent() -> None:
    assert lost_by(1000, dead=1, each=2 * SILENCE) == ["machine 0"]


def test_an_outage_that_a_wrong_clock_recorded_for_later_keeps_no_silent_worker() -> None:
    assert lost_by(200, dead=1, unheard_at=10**9) == ["machine 0"]
