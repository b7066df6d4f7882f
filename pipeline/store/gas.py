"""Collection `nonces` as an account of gas: what each transaction of the scheduler's wallet cost, and what for.

The lane writes it (`chain.lane.store.mongo`); here it is only read, without the signed bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pymongo import ASCENDING
from pymongo.collection import Collection
from pymongo.database import Database

from chain.lane.model.intent import LaneId
from chain.lane.model.nonce import IN_A_BLOCK
from pipeline.domain.gas import NonceCost
from protocol.types import BlockNumber, Nonce, Wei

_IN_A_BLOCK = [state.value for state in IN_A_BLOCK]
_FIELDS = dict.fromkeys(
    ("nonce", "created_at", "value", "intents", "released", "mined", "attempts.hash", "attempts.purpose"), 1
)


@dataclass(frozen=True, slots=True)
class GasBook:
    """Queries on `nonces` of one lane."""

    _db: Database[dict[str, Any]]
    lane: LaneId

    def since(self, moment: float, until: float = math.inf) -> Iterator[NonceCost]:
        """Transactions in a block whose nonce was claimed at Unix time `moment` or later, and before `until`."""
        wanted = {"lane": str(self.lane), "created_at": {"$gte": moment, "$lt": until}, "state": {"$in": _IN_A_BLOCK}}
        return (_cost(row) for row in self._rows.find(wanted, _FIELDS).sort("created_at", ASCENDING))

    def between(self, first: Nonce, until: Nonce) -> list[NonceCost]:
        """Transactions in a block with nonces first … until - 1; those that are not the lane's, or not known to be in a
        block, are missing.
        """
        wanted = {
            "lane": str(self.lane),
            "nonce": {"$gte": first, "$lt": until},
            "state": {"$in": _IN_A_BLOCK},
        }
        return [_cost(row) for row in self._rows.find(wanted, _FIELDS).sort("nonce", ASCENDING)]

    def unsettled(self, first: Nonce, until: Nonce) -> int:
        """How many nonces first … until - 1 the lane holds and does not know to be in a block."""
        wanted = {"lane": str(self.lane), "nonce": {"$gte": first, "$lt": until}, "state": "open"}
        return self._rows.count_documents(wanted)

    def first_block(self) -> BlockNumber | None:
        """Block of the lane's first transaction that is in one."""
        wanted = {"lane": str(self.lane), "state": {"$in": _IN_A_BLOCK}}
        row = self._rows.find_one(wanted, {"mined.block": 1}, sort=[("nonce", ASCENDING)])
        return None if row is None else BlockNumber(int(row["mined"]["block"]))

    def spent(self, since: float) -> tuple[Wei, float | None]:
        """(wei of fees of nonces claimed at Unix time `since` or later, when the first of them was claimed)."""
        match = {"lane": str(self.lane), "created_at": {"$gte": since}, "state": {"$in": _IN_A_BLOCK}}
        # Decimal128 is exact to 34 digits: ten quadrillion of the native token.
        total = {"$sum": {"$toDecimal": "$mined.fee"}}
        group = {"$group": {"_id": None, "fees": total, "first": {"$min": "$created_at"}}}
        row = next(iter(self._rows.aggregate([{"$match": match}, group])), None)
        return (Wei(0), None) if row is None else (Wei(int(row["fees"].to_decimal())), float(row["first"]))

    @property
    def _rows(self) -> Collection[dict[str, Any]]:
        return self._db["nonces"]


def _cost(row: Mapping[str, Any]) -> NonceCost:
    mined = row["mined"]
    purposes = {attempt["hash"]: attempt["purpose"] for attempt in row["attempts"]}
    return NonceCost(
        nonce=Nonce(int(row["nonce"])),
        at=float(row["created_at"]),
        block=BlockNumber(int(mined["block"])),
        fee=Wei(int(mined["fee"])),
        value=Wei(int(row["value"])),
        success=bool(mined["success"]),
        called=purposes.get(mined["hash"], "call") == "call",
        intents=(*row["intents"], *row["released"]),
    )
