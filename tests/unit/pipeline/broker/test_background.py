"""The queue from which one thread publishes: order, batches, failures, a full queue."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from pipeline.broker.background import Background
from protocol.errors import BrokerUnavailable

#: Seconds a test waits at most for a thread.
WAIT_SECONDS = 50.0


def test_items_arrive_in_order_and_gather_while_a_delivery_is_under_way() -> None:
    gate, first = threading.Event(), threading.Event()
    batches: list[list[int]] = []

    def deliver(batch: Sequence[int]) -> None:
        first.set()
        gate.wait(WAIT_SECONDS)
        batches.append(list(batch))

    background = Background("test", deliver)
    background.put(1)
    assert first.wait(WAIT_SECONDS)
    background.put(2, 3)
    background.put(4)
    gate.set()
    assert background.flush(WAIT_SECONDS)
    background.stop(WAIT_SECONDS)
    assert batches == [[1], [2, 3, 4]]


def test_what_nobody_waits_for_gathers_until_there_is_a_batch_or_somebody_waits() -> None:
    batches: list[list[int]] = []
    full = threading.Event()

    def deliver(batch: Sequence[int]) -> None:
        batches.append(list(batch))
        full.set()

    background = Background("test", deliver, batch=3, gather=10 * WAIT_SECONDS)
    background.put(1)
    background.put(2)
    background.put(3)
    assert full.wait(WAIT_SECONDS)
    background.put(4)
    assert background.flush(WAIT_SECONDS)
    background.stop(WAIT_SECONDS)
    assert batches == [[1, 2, 3], [4]]


def test_paced_items_go_out_at_once_after_a_pause_then_together_or_with_one_that_is_not_paced() -> None:
    batches: list[list[int]] = []
    delivered = threading.Semaphore(0)

    def deliver(batch: Sequence[int]) -> None:
        batches.append(list(batch))
        delivered.release()

    background = Background("test", deliver, pace=10 * WAIT_SECONDS)
    background.put(1, paced=True)
    assert delivered.acquire(timeout=WAIT_SECONDS)
    background.put(2, paced=True)
    background.put(3, paced=True)
    background.put(4)
    assert delivered.acquire(timeout=WAIT_SECONDS)
    background.put(5, paced=True)
    assert background.flush(WAIT_SECONDS)
    background.stop(WAIT_SECONDS)
    assert batches == [[1], [2, 3, 4], [5]]


def test_paced_items_go_out_by_themselves_once_their_time_has_come() -> None:
    batches: list[list[int]] = []
    delivered = threading.Semaphore(0)

    def deliver(batch: Sequence[int]) -> None:
        batches.append(list(batch))
        delivered.release()

    background = Background("test", deliver, pace=0.001)
    for item in (1, 2):
        background.put(item, paced=True)
        assert delivered.acquire(timeout=WAIT_SECONDS)
    background.stop(WAIT_SECONDS)
    assert batches == [[1], [2]]


def test_a_failed_delivery_is_repeated() -> None:
    batches: list[list[int]] = []

    def deliver(batch: Sequence[int]) -> None:
        batches.append(list(batch))
        if len(batches) == 1:
            raise BrokerUnavailable(what="test", why="it is away")

    background = Background("test", deliver)
    background.put(1, 2)
    assert background.flush(WAIT_SECONDS)
    background.stop(WAIT_SECONDS)
    assert batches == [[1, 2], [1, 2]]


def test_a_full_queue_drops_the_oldest_and_never_blocks() -> None:
    gate, first = threading.Event(), threading.Event()
    seen: list[int] = []

    def deliver(batch: Sequence[int]) -> None:
        first.set()
        gate.wait(WAIT_SECONDS)
        seen.extend(batch)

    background = Background("test", deliver, capacity=3)
    background.put(0)
    assert first.wait(WAIT_SECONDS)
    background.put(1, 2, 3, 4, 5)
    gate.set()
    assert background.flush(WAIT_SECONDS)
    background.stop(WAIT_SECONDS)
    assert (seen, background.dropped) == ([0, 3, 4, 5], 2)


def test_stopping_gives_up_on_a_broker_that_stays_away() -> None:
    def deliver(_: Sequence[int]) -> None:
        raise BrokerUnavailable(what="test", why="it is away")

    background = Background("test", deliver)
    background.put(1)
    background.stop(0.2)
    assert not background.flush(0.0)


def test_nothing_starts_before_the_first_item() -> None:
    before = threading.active_count()
    Background("test", lambda _: None).stop(0.1)
    assert threading.active_count() == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit()], ids=["error", "end of the thread"])
def test_whatever_a_delivery_raises_the_next_items_are_delivered(error: BaseException) -> None:
    batches: list[list[int]] = []

    def deliver(batch: Sequence[int]) -> None:
        if batch == [1]:
            raise error
        batches.append(list(batch))

    background = Background("test", deliver)
    background.put(1)
    assert background._thread is not None
    if isinstance(error, SystemExit):
        background._thread.join(WAIT_SECONDS)
    assert isinstance(error, SystemExit) or background.flush(WAIT_SECONDS)
    background.put(2)
    assert background.flush(WAIT_SECONDS)
    background.stop(WAIT_SECONDS)
    assert batches == [[2]]
