"""Work that a request must not wait for: a bounded queue, and one thread that delivers its items in batches.

put ──► [ oldest … newest ] ──► thread: deliver(all that is there) ── BrokerUnavailable ──► keep, try again shortly
         full: the oldest is dropped and counted                    ── any other error ──► each alone; what fails alone
                                                                                           is dropped and counted

Only for messages that may be lost: all state is in the database, and the sweep repeats them. Batches form by
themselves: what arrives while one delivery is under way goes out together in the next. Items that nobody waits for
may also be held back for `gather` seconds, to form larger batches; those put as `paced` go out at once after a pause,
and else together, `pace` seconds after the delivery before.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import structlog

from config.metrics import BACKGROUND_DROPPED, BACKGROUND_FAILURES
from protocol.errors import BrokerUnavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")
#: Seconds until a failed delivery is tried again: a broker restart takes 8-9 s, the sweep comes every 5.
RETRY_SECONDS = 0.5
#: Items kept while the broker is away, and at most this many in one delivery.
CAPACITY, BATCH = 10_000, 200


class Background(Generic[T]):
    """Delivers items in order on a daemon thread of its own. The first item starts it (so after any fork), and if the
    thread has died, the next item starts it again.

    `deliver` gets 1 to `batch` items and raises BrokerUnavailable to have them delivered again. Any other error is
    logged and counted, and ends neither the thread nor the delivery of the other items.
    """

    def __init__(
        self,
        name: str,
        deliver: Callable[[Sequence[T]], None],
        *,
        capacity: int = CAPACITY,
        batch: int = BATCH,
        gather: float = 0.0,
        pace: float = 0.0,
    ) -> None:
        """`gather`: seconds that the first item waits for others to go out with it, unless there is a batch before.
        `pace`: seconds from the begin of one delivery to the next that has only paced items.
        """
        self._name = name
        self._deliver, self._gather, self._pace = deliver, gather, pace
        #: When the last delivery began, by the monotonic clock, and whether an item waits that is not paced.
        self._began, self._hurried = -math.inf, False
        self._capacity, self._batch = capacity, batch
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._busy = False
        #: Calls of `flush` that wait.
        self._flushing = 0
        #: Items that were dropped: the queue was full, or their delivery failed with another error.
        self.dropped = 0

    def put(self, *items: T, paced: bool = False) -> None:
        """Queue `items`. Never waits and never fails: if the queue is full, the oldest items are dropped
        and counted. `paced`: they may wait until `pace` seconds after the delivery before them.
        """
        with self._changed:
            self._hurried = self._hurried or not paced
            for item in items:
                if len(self._items) >= self._capacity:
                    self._items.popleft()
                    self._drop(1)
                self._items.append(item)
            if not self._stopping.is_set() and (self._thread is None or not self._thread.is_alive()):
                if self._thread is not None:
                    log.error("The background thread had ended and is started again.", action="background_restarted")
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until all queued items are delivered; returns whether they are."""
        with self._changed:
            self._flushing += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: not self._items and not self._busy, timeout)
            finally:
                self._flushing -= 1

    def stop(self, timeout: float) -> None:
        """Deliver what is queued, within `timeout` seconds, then end the thread."""
        self.flush(timeout)
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _run(self) -> None:
        """The thread: deliver batches until `stop`."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._stopping.is_set())
                self._changed.wait_for(self._is_due, self._held_back())
                if self._stopping.is_set():
                    return
                batch = [self._items.popleft() for _ in range(min(self._batch, len(self._items)))]
                # Of what is left it is not known.
                self._hurried = bool(self._items)
                self._busy, self._began = True, time.monotonic()
            rest: Sequence[T] = ()
            try:
                rest = self._try(batch)
            finally:
                with self._changed:
                    self._busy = False
                    room = self._capacity - len(self._items)
                    self._drop(max(0, len(rest) - room))
                    self._items.extendleft(reversed(rest[-room:] if room > 0 else []))
                    self._changed.notify_all()
            if rest:
                self._stopping.wait(RETRY_SECONDS)

    def _held_back(self) -> float:
        """Seconds that the items which wait are held back, unless they become due before."""
        paced = 0.0 if self._hurried else self._began + self._pace - time.monotonic()
        return max(self._gather, paced, 0.0)

    def _is_due(self) -> bool:
        """Whether to deliver before the time for which items are held back is over."""
        if self._stopping.is_set() or self._flushing > 0 or len(self._items) >= self._batch:
            return True
        return self._hurried and not self._gather

    def _try(self, batch: Sequence[T]) -> Sequence[T]:
        """Deliver; returns what to deliver again."""
        try:
            self._deliver(batch)
        except BrokerUnavailable as error:
            log.warning(
                "Could not deliver, trying again shortly.",
                action="background_retry",
                name=self._name,
                items=len(batch),
                why=str(error),
            )
            return batch
        except Exception:
            BACKGROUND_FAILURES.labels(self._name).inc()
            log.exception("Could not deliver.", action="background_failed", name=self._name, items=len(batch))
            if len(batch) == 1:
                with self._changed:
                    self._drop(1)
                return ()
            for place, item in enumerate(batch):
                if self._try([item]):
                    return batch[place:]
        return ()

    def _drop(self, items: int) -> None:
        """Count items as dropped."""
        self.dropped += items
        if items:
            BACKGROUND_DROPPED.labels(self._name).inc(items)
