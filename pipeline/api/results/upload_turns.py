"""Who may upload at the same time, and how slowly: so that no wallet keeps the others from storing their results.

receive   one body per wallet and task, two per wallet, each at a least rate      nobody waits for another wallet
          a further one waits for a turn of its wallet, a few seconds             what is quick is sent once
verify    a few at a time in all, each as fast as our own disk                    a turn is never held by a network
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from protocol.errors import BadMessage, RoomTaken, StorageUnavailable, TooSlow, Unavailable, UnderWay
from protocol.types import TaskId, Wallet

#: Bodies received at a time from one wallet: a machine uploads with one process per slot and one spare.
PER_WALLET = 2
#: Seconds for which a further one waits: small results, of a machine with many slots, need no second request. Less than
#: a machine waits for the begin of an answer, and than it takes to be noted as coming (`arrivals.NOTE_SECONDS`).
TURN_SECONDS = 3.0
#: Bytes per second an upload must bring on average: a line of 1 Mbit/s, so 256 MiB may take half an hour.
LEAST_RATE = 2**17
#: Seconds before the least rate is enforced: connections start slowly, and a busy machine pauses.
GRACE_SECONDS = 15.0
#: Seconds without any byte after which an upload is ended: its connection is taken for dead, and the worker may resume.
STALL_SECONDS = 60.0
#: Uploads verified and stored at a time: each unpacks on one processor.
VERIFIED_AT_ONCE = 8
#: Bytes free of the disk below which it is full, whatever machines claim: the largest result that a pool takes by
#: default (256 MiB) asks for as much.
LEAST_FREE = 2**30


class UploadTurns:
    """Bodies being received by this process. For one event loop."""

    def __init__(self) -> None:
        self._bodies: set[tuple[Wallet, TaskId]] = set()
        self._by_wallet: Counter[Wallet] = Counter()
        #: Set once one of the wallet's uploads has ended; only while others wait for that.
        self._awaited: dict[Wallet, asyncio.Event] = {}
        #: Bytes of disk promised to bodies under way; what they have written already counts twice, on the safe side.
        self._promised = 0
        #: Of these, bytes promised to machines that were never right on chain.
        self._unproven = 0

    @contextmanager
    def receiving(self, wallet: Wallet, task_id: TaskId) -> Iterator[None]:
        """Count an upload until the block ends. Raises UnderWay if this wallet is sending this very result already,
        Unavailable if it is sending too many others: it may try again.
        """
        body = (wallet, task_id)
        if body in self._bodies:
            raise UnderWay(what="An upload of this result", why="this wallet is sending it")
        if self._by_wallet[wallet] >= PER_WALLET:
            raise Unavailable(what="a further upload", why=f"this wallet is sending {PER_WALLET} results already")
        self._bodies.add(body)
        self._by_wallet[wallet] += 1
        try:
            yield
        finally:
            self._bodies.discard(body)
            self._by_wallet[wallet] -= 1
            if not self._by_wallet[wallet]:
                del self._by_wallet[wallet]
            if wallet in self._awaited:
                self._awaited.pop(wallet).set()

    async def has_turn(self, wallet: Wallet, task_id: TaskId, seconds: float = TURN_SECONDS) -> bool:
        """Whether `receiving` lets this result in, or says that it is being sent already; False if the wallet goes on
        to send as many others as it may for `seconds`. Those who wait are asked in the order in which they came.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._sends_others(wallet, task_id):
                    await self._awaited.setdefault(wallet, asyncio.Event()).wait()
        return not self._sends_others(wallet, task_id)

    def _sends_others(self, wallet: Wallet, task_id: TaskId) -> bool:
        """Whether a wallet sends as many other results as it may, so that this one has to wait."""
        return (wallet, task_id) not in self._bodies and self._by_wallet[wallet] >= PER_WALLET

    @contextmanager
    def room(
        self,
        folder: Path,
        size: int,
        free_up: Callable[[], None] = lambda: None,
        *,
        proven: bool = True,
        processes: int = 1,
    ) -> Iterator[None]:
        """Reserve `size` bytes of the disk of `folder` until the block ends. `processes`: how many reserve there, each
        by its own count (SLUICE_API_PROCESSES).

        Raises StorageUnavailable if the disk is almost full even after `free_up` has removed what can be spared, and
        RoomTaken if it would get too full, counting what other uploads have reserved: those sizes are machines'
        claims, which say nothing about the disk. Machines that are not `proven` (never right on chain) together
        reserve at most half of what is free: new wallets cost nothing, and their bodies may take half an hour.
        """
        sharing = 0 if proven else processes
        if not self._fits(folder, size, sharing):
            free_up()
        if not self._fits(folder, size, sharing):
            if shutil.disk_usage(folder).free < LEAST_FREE:
                raise StorageUnavailable(what="the pool's disk", why="it is almost full")
            raise RoomTaken(what="the pool's disk", why=f"{size} bytes are wanted")
        unproven = 0 if proven else size
        self._promised += size
        self._unproven += unproven
        try:
            yield
        finally:
            self._promised -= size
            self._unproven -= unproven

    def _fits(self, folder: Path, size: int, sharing: int) -> bool:
        """Whether the disk has space for a result beside those that are being received. `sharing`: for a newcomer's,
        how many processes share the half of it that newcomers get; 0: it is a proven machine's.
        """
        free = shutil.disk_usage(folder).free
        return free >= self._promised + 2 * size and free >= 2 * sharing * (self._unproven + size)


async def receive(
    chunks: AsyncIterator[bytes],
    path: Path,
    *,
    first: int = 0,
    most: int | None = None,
    rate: float = LEAST_RATE,
    grace: float = GRACE_SECONDS,
    stall: float = STALL_SECONDS,
) -> None:
    """Write `chunks` to `path` from byte `first` on, in place of what is there. Raises TooSlow if they bring less than
    `rate` bytes/s after `grace` seconds or nothing for `stall` seconds, and BadMessage if more than `most` bytes come.
    """
    clock = asyncio.get_running_loop().time
    began, received = clock(), 0
    try:
        with path.open("ab") as file:
            file.truncate(first)
            async with asyncio.timeout_at(began + grace) as limit:
                async for chunk in chunks:
                    received += len(chunk)
                    if most is not None and received > most:
                        raise BadMessage(why=f"the body has more than the {most} bytes that it was to have")
                    file.write(chunk)
                    limit.reschedule(min(began + grace + received / rate, clock() + stall))
    except TimeoutError as error:
        raise TooSlow(why=f"the least is {rate:g} bytes a second, and some every {stall:g} seconds") from error
