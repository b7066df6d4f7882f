"""What the database says of the wallets whose tokens were just used, for a moment: a machine at work asks several times
a second, and each request would read the same row.

A ban or an end of tokens by this process holds at once; one by another process within TERMS_SECONDS. What a machine can
do in that time it could have done before it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from protocol.types import Wallet

#: Seconds for which what was read of a wallet is used again.
TERMS_SECONDS = 2.0
#: Wallets remembered at a time: more than ask within that time.
MOST = 10_000

#: Whether a wallet is banned, and the Unix time before which its tokens end; None: it has never signed in.
Terms = tuple[bool, float] | None


class RecentTerms:
    """Terms by wallet, for any thread. `read`: asks the database."""

    def __init__(self, read: Callable[[Wallet], Terms], clock: Callable[[], float] = time.monotonic) -> None:
        self._read, self._clock = read, clock
        self._guard = threading.Lock()
        self._known: dict[Wallet, tuple[float, Terms]] = {}
        #: Counts the changes that were told, so that nothing read before one is kept after it.
        self._changes = 0

    def of(self, wallet: Wallet) -> Terms:
        """The terms of a wallet, no older than TERMS_SECONDS. Raises PyMongoError."""
        now = self._clock()
        with self._guard:
            known, changes = self._known.get(wallet), self._changes
        if known is not None and now < known[0] + TERMS_SECONDS:
            return known[1]
        terms = self._read(wallet)
        with self._guard:
            if changes == self._changes and terms is not None:
                if len(self._known) >= MOST:
                    self._known.clear()
                self._known[wallet] = now, terms
        return terms

    def changed(self) -> None:
        """Read all of them anew: this process has changed some."""
        with self._guard:
            self._changes += 1
            self._known.clear()
