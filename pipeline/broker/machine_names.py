"""What machines call themselves (`SLUICE_WORKER_NAME`), for Flower and other pages; cached for some minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

import structlog
from pymongo.errors import PyMongoError

from protocol.types import Wallet

log = structlog.get_logger(__name__)

#: Seconds until a name is read again; until then a machine that signed in with another name is shown with the old one.
KEPT_SECONDS = 600.0
#: Names kept, as many as Flower keeps machines; beyond that all are read again.
MOST_KEPT = 10_000


class MachineNames:
    """Each machine's own name, by its wallet. Safe to share between threads."""

    def __init__(
        self,
        read: Callable[[Collection[Wallet]], Mapping[Wallet, str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read`: looks names up in the store, and may raise PyMongoError. `clock`: monotonic seconds."""
        self._read, self._clock = read, clock
        #: The name, and when it was read.
        self._kept: dict[Wallet, tuple[str, float]] = {}

    def learn(self, names: Mapping[Wallet, str]) -> None:
        """Remember names that the caller has read anyway."""
        if len(self._kept) + len(names) > MOST_KEPT:
            self._kept.clear()
        self._kept.update({wallet: (name, self._clock()) for wallet, name in names.items()})

    def of(self, wallets: Collection[Wallet]) -> dict[Wallet, str]:
        """The names of those machines that ever signed in; of those that are remembered if the store does not answer.
        Raises nothing.
        """
        newest = self._clock() - KEPT_SECONDS
        known = {wallet: kept for wallet in wallets if (kept := self._kept.get(wallet)) is not None}
        missing = [wallet for wallet in dict.fromkeys(wallets) if wallet not in known or known[wallet][1] < newest]
        found: Mapping[Wallet, str] = {}
        if missing:
            try:
                found = self._read(missing)
            except PyMongoError as error:
                log.info("Names of machines could not be read.", action="names_unread", why=str(error))
            self.learn(found)
        return {wallet: name for wallet, (name, _) in known.items()} | dict(found)
