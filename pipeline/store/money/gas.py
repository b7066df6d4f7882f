"""Collection `nonces` as an account of gas: what each transaction of the scheduler's wallet cost, and what for.

nonces      written by the lane (`chain.lane.store.mongo`); here read, without the signed bytes
gas_sums    _id = <lane>:<day>:<what for>    in place of those of a day that is not kept any more (`sum_up`)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from bson import Decimal128
from pymongo import ASCENDING, DESCENDING, IndexModel, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database

from chain.lane.model.intent import LaneId, method_of
from chain.lane.model.nonce import IN_A_BLOCK, NonceState
from pipeline.domain.money.gas import NonceCost
from protocol.types import BlockNumber, Nonce, Wei

_IN_A_BLOCK = [state.value for state in IN_A_BLOCK]
_FIELDS = dict.fromkeys(
    ("nonce", "created_at", "value", "intents", "released", "mined", "attempts.hash", "attempts.purpose"), 1
)
INDEXES = [IndexModel([("lane", ASCENDING), ("at", ASCENDING)], name="by_time")]
#: Seconds of a day.
_DAY = 86_400
#: What a nonce without intents is for.
_NO_METHOD = method_of(())


def ensure_indexes(db: Database[dict[str, Any]]) -> None:
    """Create the indexes of `gas_sums`; those of `nonces` are the lane's."""
    db["gas_sums"].create_indexes(INDEXES)


@dataclass(frozen=True, slots=True)
class GasBook:
    """Queries on `nonces` of one lane."""

    _db: Database[dict[str, Any]]
    lane: LaneId

    def since(self, moment: float, until: float = math.inf) -> Iterator[NonceCost]:
        """Transactions in a block whose nonce was claimed at Unix time `moment` or later, and before `until`; those of
        days that are not kept any more as sums, each with the time of its newest.
        """
        within = {"$gte": moment, "$lt": until}
        wanted = {"lane": str(self.lane), "created_at": within, "state": {"$in": _IN_A_BLOCK}}
        sums = self._sums.find({"lane": str(self.lane), "at": within}).sort("at", ASCENDING)
        single = self._rows.find(wanted, _FIELDS).sort("created_at", ASCENDING)
        return chain(map(_summed_cost, sums), map(_cost, single))

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

    def sum_up(self, before: float, until: Nonce, limit: int) -> int:
        """Put sums by day and purpose in the place of final transactions claimed before `before` (Unix seconds, a day's
        beginning) with nonces below `until`; at most `limit` of the oldest. Returns how many it took.

        The newest in a block stays: by it a run of the lane recognises a node that lags behind. One transaction: each
        is either there or in its sum, whatever is killed. Raises PyMongoError.
        """
        in_a_block = {"lane": str(self.lane), "state": {"$in": _IN_A_BLOCK}}
        newest = self._rows.find_one(in_a_block, {"nonce": 1}, sort=[("nonce", DESCENDING)])
        if newest is None:
            return 0
        until = Nonce(min(until, int(newest["nonce"])))
        wanted = {
            "lane": str(self.lane),
            "created_at": {"$lt": before},
            "nonce": {"$lt": until},
            "state": NonceState.FINAL.value,
        }

        def write(session: ClientSession) -> int:
            """Body of the transaction: add the rows to their sums and delete them; returns how many."""
            rows = list(self._rows.find(wanted, _FIELDS, session=session).sort("created_at", ASCENDING).limit(limit))
            if rows:
                self._sums.bulk_write([self._add(_cost(row)) for row in rows], session=session)
                self._rows.delete_many({"_id": {"$in": [row["_id"] for row in rows]}}, session=session)
            return len(rows)

        with self._db.client.start_session() as session:
            return session.with_transaction(write)

    def _add(self, cost: NonceCost) -> UpdateOne:
        """The update that adds a transaction to the sum of its day."""
        day = int(cost.at // _DAY)
        return UpdateOne(
            {"_id": f"{self.lane}:{day}:{cost.kind}"},
            {
                "$setOnInsert": {
                    "lane": str(self.lane),
                    "success": cost.success,
                    "called": cost.called,
                    "method": method_of(cost.intents),
                },
                "$inc": {"fee": Decimal128(str(cost.fee)), "moved": Decimal128(str(cost.moved)), "count": 1},
                "$max": {"at": cost.at, "block": cost.block, "nonce": cost.nonce},
            },
            upsert=True,
        )

    @property
    def _sums(self) -> Collection[dict[str, Any]]:
        """The collection of costs summed up by day."""
        return self._db["gas_sums"]

    @property
    def _rows(self) -> Collection[dict[str, Any]]:
        """The lane's own collection of nonces."""
        return self._db["nonces"]


def _cost(row: Mapping[str, Any]) -> NonceCost:
    """The cost of one nonce from its row."""
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


def _summed_cost(row: Mapping[str, Any]) -> NonceCost:
    """The summed cost of many nonces from its row."""
    return NonceCost(
        nonce=Nonce(int(row["nonce"])),
        at=float(row["at"]),
        block=BlockNumber(int(row["block"])),
        fee=Wei(int(row["fee"].to_decimal())),
        value=Wei(int(row["moved"].to_decimal())),
        success=bool(row["success"]),
        called=bool(row["called"]),
        # Their subjects, the last part of a key, are not kept.
        intents=(f"{row['lane']}:{row['method']}:",) if row["method"] != _NO_METHOD else (),
        count=int(row["count"]),
    )
