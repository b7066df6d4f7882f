"""Whether a machine's token is still good, as its row in `workers` says; remembered for a moment.

A machine makes several requests for each task that it has. Requests about such a task may use terms that are some
seconds old, since they decide nothing that a ban is meant to prevent. All other requests read them anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pymongo.collection import Collection

from protocol.types import Wallet

#: Seconds for which a good answer is used again where that is enough: a busy machine asks several times in that time.
KEPT_SECONDS = 5.0
#: Answers kept; beyond that all are read again.
MOST_KEPT = 10_000


class TokenTerms(NamedTuple):
    """Whether the worker is banned, and the Unix time before which its tokens end."""

    banned: bool
    not_before: float


class RecentTerms:
    """The terms of each wallet, read from `rows`. `clock`: monotonic seconds. Safe to share between threads."""

    def __init__(self, rows: Collection[dict[str, Any]], clock: Callable[[], float] = time.monotonic) -> None:
        self._rows, self._clock = rows, clock
        #: Good terms, and when they were read. A change replaces the dict, so that a thread that read before it stores
        #: its answer in the old one, which is not used any more.
        self._kept: dict[Wallet, tuple[float, TokenTerms]] = {}

    def of(self, wallet: Wallet, *, kept_seconds: float = 0.0) -> TokenTerms | None:
        """The terms of a wallet, at most so many seconds old; None if it has never signed in."""
        asked, kept = self._clock(), self._kept
        found = kept.get(wallet)
        if found is not None and asked < found[0] + kept_seconds:
            return found[1]
        row = self._rows.find_one({"_id": wallet}, {"banned": 1, "not_before": 1})
        if row is None:
            return None
        terms = TokenTerms(bool(row.get("banned")), float(row.get("not_before") or 0.0))
        if not terms.banned:
            if len(kept) >= MOST_KEPT:
                kept.clear()
            kept[wallet] = (asked, terms)
        return terms

    def change(self, wallet: Wallet, fields: Mapping[str, Any]) -> bool:
        """Set fields of a wallet's row, and ask anew for all terms from then on. False: it has never signed in."""
        try:
            return self._rows.update_one({"_id": wallet}, {"$set": dict(fields)}).matched_count == 1
        finally:
            self._kept = {}
