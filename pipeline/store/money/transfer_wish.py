"""Collection `pool`, row `transfer`: the one deposit or withdrawal of the scheduler's stake that is under way.

    wish stored ──► intent in the lane ──► wish marked ──► block ──► reported to the operator ──► wish deleted

Whatever is killed in between, a repeated request for the same finds the wish and continues it: it is sent once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from chain.lane.model.intent import READY_MADE, UNENDED, UNTIL, Intent, LaneId
from chain.lane.transfer import Direction, Transfer
from protocol.types import Contract, NRlc, Wei

#: Seconds after which a transfer is not sent any more: a client that waits for it has asked again by then, or has gone.
WISH_SECONDS = 3600.0
_ROW = {"_id": "transfer"}


@dataclass(frozen=True, slots=True)
class TransferWish:
    """A transfer that the operator has confirmed. `begun_at`: Unix seconds."""

    direction: Direction
    amount: NRlc
    begun_at: float
    to: Contract
    #: Calldata, `0x` hex.
    data: str
    value: Wei
    gas: int
    #: Whether the lane has had it: then only the lane can say what became of it.
    handed: bool = False

    @classmethod
    def of(cls, transfer: Transfer, now: float) -> TransferWish:
        """The wish to make this transfer. `now`: Unix seconds."""
        return cls(transfer.direction, transfer.amount, now, transfer.to, transfer.data, transfer.value, transfer.gas)

    def intent(self, lane: LaneId) -> Intent:
        """The intent for the lane: always the same one for the same wish, so that the lane sends it once."""
        args: dict[str, object] = {"to": self.to, "gas": self.gas, "data": self.data, "value": str(self.value)}
        args[UNTIL] = self.begun_at + WISH_SECONDS
        subject, occasion = f"{self.direction}-{self.amount}", int(self.begun_at * 1000)
        return Intent.new(lane.chain_id, lane.wallet, READY_MADE, subject, args, self.begun_at, occasion=occasion)


class TransferWishes:
    """Queries on the wish."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db["pool"]

    def pending(self) -> TransferWish | None:
        """The wish that is under way, or whose outcome was not reported yet; None if there is none."""
        row = self._rows.find_one(_ROW)
        return None if row is None else _wish(row)

    def begin(self, wish: TransferWish) -> bool:
        """Store the wish, unless there is one already. Whether it was stored."""
        row = {
            "direction": wish.direction,
            "amount": wish.amount,
            "begun_at": wish.begun_at,
            "to": wish.to,
            "data": wish.data,
            # Wei is kept as text: it outgrows the 64-bit integers of BSON.
            "value": str(wish.value),
            "gas": wish.gas,
            "handed": wish.handed,
        }
        try:
            self._rows.insert_one({**_ROW, **row})
        except DuplicateKeyError:
            return False
        return True

    def mark_handed(self, wish: TransferWish) -> None:
        """Note that the lane has it."""
        self._rows.update_one({**_ROW, "begun_at": wish.begun_at}, {"$set": {"handed": True}})

    def finish(self, wish: TransferWish) -> bool:
        """Delete the wish; the operator knows its outcome. Whether it was there."""
        return self._rows.delete_one({**_ROW, "begun_at": wish.begun_at}).deleted_count == 1


def give_up(rows: Collection[dict[str, Any]], intents: Collection[dict[str, Any]]) -> bool:
    """Drop a transfer that the rows of a restored backup still ask for: it may have been made since. One that has a
    nonce already keeps it, and is sent with that one only. `rows`, `intents`: the collections `pool` and `intents`.
    Returns whether there was one.
    """
    unended = {"method": READY_MADE, "state": {"$in": [state.value for state in UNENDED]}}
    ended = intents.update_many(unended, {"$set": {f"args.{UNTIL}": 0}}).modified_count
    return bool(rows.delete_one(_ROW).deleted_count) or bool(ended)


def _wish(row: Mapping[str, Any]) -> TransferWish:
    """The wanted deposit or withdrawal in a stored row."""
    return TransferWish(
        direction="deposit" if row["direction"] == "deposit" else "withdraw",
        amount=NRlc(int(row["amount"])),
        begun_at=float(row["begun_at"]),
        to=Contract(row["to"]),
        data=str(row["data"]),
        value=Wei(int(row["value"])),
        gas=int(row["gas"]),
        handed=bool(row["handed"]),
    )
