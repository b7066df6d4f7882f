"""The chain's own time, by which contracts judge deadlines, where this machine's clock disagrees with it.

    newest block stored ─► agrees with this clock ─────────────────────────────────► the clock
                        └► does not ─► newest block of the node ─► agrees ─────────► the clock; the watcher is behind
                                                                └► does not, or
                                                                   no answer ──────► that block's time

So a clock that is off by an hour ends no task too early or too late, and while the chain is away no deadline passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from chain.contracts.decode import block_ref
from chain.rpc.answers import Known, decode_reply
from chain.rpc.client import JsonRpc
from pipeline.domain.condition.health import CLOCK_SECONDS, STALE_BLOCKS, STALE_SECONDS
from protocol.errors import RpcUnavailable
from protocol.poco.events import BlockRef
from protocol.types import Timestamp

log = structlog.get_logger(__name__)

#: Seconds between two checks while the clock is right, and between two requests to the node while it is not.
LOOK_SECONDS, ASK_SECONDS = 5.0, 5.0
#: Seconds for which a node that gave no answer is not asked again: each question may take the process its time limit
#: (SLUICE_RPC_TIMEOUT, 5 s), and what waits behind it needs no node. The watcher's next block counts at once.
SILENT_SECONDS = 30.0


class ChainTime:
    """One process's answer; `cursor`: the last block whose logs are stored, `block_time`: seconds."""

    def __init__(
        self,
        rpc: JsonRpc,
        cursor: Callable[[], BlockRef | None],
        block_time: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rpc, self._cursor, self._monotonic = rpc, cursor, monotonic
        self._stale = max(STALE_SECONDS, STALE_BLOCKS * block_time)
        #: When the clock last agreed, by that clock.
        self._agreed_at: float | None = None
        #: What the node said last, and until when it is not asked again: monotonic seconds.
        self._asked: tuple[float, Timestamp | None] | None = None

    def read(self, now: float) -> Timestamp | None:
        """The time of the newest block known; None while `now` (Unix seconds by this machine's clock) agrees with it.

        Raises PyMongoError.
        """
        if self._agreed_at is not None and 0 <= now - self._agreed_at < LOOK_SECONDS:
            return None
        stored = self._cursor()
        if stored is None or self._agrees(stored.timestamp, now):
            self._agreed_at = now
            return None
        newest = self._newest()
        if newest is not None and self._agrees(newest, now):
            self._agreed_at = now
            return None
        self._agreed_at = None
        return stored.timestamp if newest is None else max(stored.timestamp, newest)

    def _agrees(self, block: Timestamp, now: float) -> bool:
        """Whether this machine's clock fits a block's time."""
        return -CLOCK_SECONDS <= now - block <= self._stale

    def _newest(self) -> Timestamp | None:
        """The time of the node's newest block, as of the last question to it; None: it did not answer."""
        if self._asked is None or self._monotonic() >= self._asked[0]:
            found = self._ask()
            # From the answer on, which may have taken as long as the pause.
            self._asked = (self._monotonic() + (SILENT_SECONDS if found is None else ASK_SECONDS), found)
        return self._asked[1]

    def _ask(self) -> Timestamp | None:
        """The newest block's time by the node; None if it does not answer."""
        try:
            (answer,) = self._rpc.batch([("eth_getBlockByNumber", ("latest", False))])
        except RpcUnavailable as error:
            log.info("The chain's time is not known.", action="chain_time_unknown", why=str(error))
            return None
        found = decode_reply(answer, block_ref)
        return found.value.timestamp if isinstance(found, Known) else None
