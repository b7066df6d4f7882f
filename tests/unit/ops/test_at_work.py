"""Whether a scheduler works: by what changes while one looks on, never by what its clock says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import pytest

from config.settings import read_settings
from ops import adopt, at_work
from pipeline.store.database.activity import Activity
from protocol.errors import NotPossible
from protocol.types import Wallet

WALLET = Wallet("0x" + "aa" * 20)


class Clock:
    """Time that only sleeping takes."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Rows:
    """`Activity` of a scheduler that changes a row at a moment, and holds a lease that ends."""

    def __init__(self, clock: Clock, row: str = "sweep", at: float | None = None, lease: float = 0.0) -> None:
        self.clock, self.row, self.at, self.lease = clock, row, at, lease

    def marks(self) -> dict[str, bytes]:
        worked = self.at is not None and self.clock.now >= self.at
        # An hour old by this clock, or an hour ahead: what a row says of time is another host's.
        return {"sweep": b"long ago", "lane:1:0xaa": b"long ago", self.row: b"now" if worked else b"long ago"}

    def leases_end_in(self) -> float:
        return self.lease


def look(rows: Rows) -> None:
    settings = read_settings(sweep_seconds=5.0)
    at_work.require_stopped(cast("Activity", rows), settings, [WALLET], clock=rows.clock, sleep=rows.clock.sleep)


@pytest.fixture
def consumed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queues that have a consumer at RabbitMQ."""
    queues: list[str] = []

    def asked(_: object, wanted: Sequence[str]) -> list[str]:
        return [queue for queue in wanted if queue in queues]

    monkeypatch.setattr(at_work, "_consumed", asked)
    return queues


@pytest.mark.parametrize("row", ["sweep", "watch", "lane:1:0xaa"])
@pytest.mark.parametrize("at", [0.5, 4.0, 9.5])
@pytest.mark.usefixtures("consumed")
def test_a_scheduler_that_writes_within_two_sweeps_is_at_work_however_old_its_last_sweep(row: str, at: float) -> None:
    with pytest.raises(NotPossible, match=f"It writes {row} in `cursors`"):
        look(Rows(Clock(), row, at))


@pytest.mark.usefixtures("consumed")
def test_one_that_writes_nothing_for_two_sweeps_is_stopped() -> None:
    clock = Clock()
    look(Rows(clock))
    assert 10.0 <= clock.now < 11.0


@pytest.mark.usefixtures("consumed")
def test_a_lease_that_is_held_is_waited_for() -> None:
    clock = Clock()
    look(Rows(clock, lease=30.0))
    assert clock.now >= 30.0
    with pytest.raises(NotPossible, match="lane:1:0xaa"):
        look(Rows(Clock(), "lane:1:0xaa", at=25.0, lease=30.0))


def test_a_host_that_only_waits_for_its_lane_is_seen_at_rabbitmq(consumed: list[str]) -> None:
    consumed.append(f"lane.{WALLET}")
    with pytest.raises(NotPossible, match=f"RabbitMQ has a consumer of the queue lane.{WALLET}"):
        look(Rows(Clock()))


def counting(clock: Clock, at: float | None) -> Callable[[], tuple[int, int]]:
    """The wallet's nonces, one more from a moment on."""
    return lambda: (7, 1 if at is not None and clock.now >= at else 0)


def test_an_adoption_waits_for_a_few_blocks_in_which_the_wallet_sends_nothing() -> None:
    clock = Clock()
    assert adopt.require_quiet(counting(clock, None), 5.0, clock=clock, sleep=clock.sleep) == 7
    assert clock.now >= 15.0
    clock = Clock()
    with pytest.raises(NotPossible, match="its nonce went from 7 to 8"):
        adopt.require_quiet(counting(clock, 14.0), 5.0, clock=clock, sleep=clock.sleep)
