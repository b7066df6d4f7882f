"""Work that a request must not wait for: a bounded queue, and one thread that delivers whatever has gathered in it.

put ──► [ oldest … newest ] ──► thread: deliver(all that is there) ── BrokerUnavailable ──► keep, try again shortly
         full: the oldest is dropped and counted

Only for messages that may be lost (rule 1: the database is the truth, a message is a wake-up). Batches form by
themselves: what arrives while one delivery is under way goes out together in the next.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import structlog

from protocol.errors import BrokerUnavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")
#: Seconds until a failed delivery is tried again: a broker restart takes 8-9 s, the sweep comes every 5.
RETRY_SECONDS = 0.5
#: Items kept while the broker is away, and at most this many in one delivery.
CAPACITY, BATCH = 10_000, 200


class Background(Generic[T]):
    """Delivers items in order on its own daemon thread, which starts with the first item (so after any fork), and with
    the next one should it have died.

    `deliver` gets 1 to `batch` items and raises BrokerUnavailable to have them delivered again; whatever else it raises
    drops them.
    """

    def __init__(
        self, name: str, deliver: Callable[[Sequence[T]], None], *, capacity: int = CAPACITY, batch: int = BATCH
    ) -> None:
        self._name = name
        self._deliver = deliver
        self._capacity, self._batch = capacity, batch
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._busy = False
        #: Items dropped because the queue was full.
        self.dropped = 0

    def put(self, *items: T) -> None:
        """Queue `items`; never waits and never fails."""
        with self._changed:
            for item in items:
                if len(self._items) >= self._capacity:
                    self._items.popleft()
                    self.dropped += 1
                self._items.append(item)
            if (self._thread is None or not self._thread.is_alive()) and not self._stopping.is_set():
                if self._thread is not None:
                    log.error("A background thread has died, starting it again.", action="thread_died", name=self._name)
                    self._busy = False
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until all is delivered, at most `timeout` seconds; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._items and not self._busy, timeout)

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
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._stopping.is_set())
                if self._stopping.is_set():
                    return
                batch = [self._items.popleft() for _ in range(min(self._batch, len(self._items)))]
                self._busy = True
            delivered = self._try(batch)
            with self._changed:
                self._busy = False
                if not delivered:
                    room = self._capacity - len(self._items)
                    self.dropped += max(0, len(batch) - room)
                    self._items.extendleft(reversed(batch[-room:] if room > 0 else []))
                self._changed.notify_all()
            if not delivered:
                self._stopping.wait(RETRY_SECONDS)

    def _try(self, batch: Sequence[T]) -> bool:
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
            return False
        except Exception:  # whatever it is: the items may be lost, the thread may not
            self.dropped += len(batch)
            log.exception("Could not deliver, dropped.", action="background_failed", name=self._name, items=len(batch))
        return True
