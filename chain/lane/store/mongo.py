"""The lane's memory in MongoDB: the scheduler's.

    intents   _id = key                     index (lane, state, created_at, _id)
    nonces    _id = <chain>:<wallet>:<n>    unique indexes (lane, nonce) and on the elements of `intents`;
                                            indexes (lane, state, nonce) and (lane, created_at)
    cursors   _id = lane:<chain>:<wallet>   the lease: holder, fence, until, halted, waiting

No transactions: a nonce is claimed by inserting its `_id`, an intent by the unique index, everything else is an update
whose filter holds the fence. Writes wait for a majority and the journal. The lease ends by the server's clock, so that
machines need not agree on the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel, InsertOne, UpdateMany, UpdateOne, WriteConcern
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError

from chain.lane.model.intent import UNENDED, Intent, IntentState, LaneId
from chain.lane.model.nonce import (
    IN_A_BLOCK,
    UNSETTLED,
    Consumed,
    Disowned,
    Finalised,
    NonceMove,
    NonceRecord,
    NonceState,
    Reclaimed,
    Released,
    Repriced,
    Sent,
    Unmined,
    nonces_of,
)
from chain.lane.store.documents import (
    Document,
    attempt_document,
    intent_document,
    intent_from,
    mined_document,
    record_document,
    record_from,
    record_id,
)
from chain.lane.store.lease import LaneLease, holder_is_dead
from chain.lane.store.port import IntentMove
from chain.lane.store.spent import DaySum, Fee
from protocol.errors import LeaseLost
from protocol.types import BlockNumber, Nonce, Wei

#: Prefix of the `_id` of a lane's lease.
LEASES = "lane:"
_INTENTS = "intents"
_DUPLICATE_KEY = 11000
_LONG_AGO = datetime.fromtimestamp(0, UTC)
_DURABLE = WriteConcern(w="majority", j=True)
#: Operations in one bulk write: below the server's limit, and small enough to keep a message under a megabyte or two.
_BULK = 2000
#: Moves `intents` into `released`; a second time changes nothing.
_LET_GO: Document = {"released": {"$concatArrays": ["$released", "$intents"]}, "intents": []}


class MongoStore:
    """`LaneStore` in a database; call `ensure_indexes` once per start."""

    def __init__(self, database: Database[Document]) -> None:
        self._intents: Collection[Document] = database.get_collection(_INTENTS, write_concern=_DURABLE)
        self._nonces: Collection[Document] = database.get_collection("nonces", write_concern=_DURABLE)
        self._cursors: Collection[Document] = database.get_collection("cursors", write_concern=_DURABLE)
        self._sums: dict[LaneId, DaySum] = {}

    def ensure_indexes(self) -> None:
        """Create the indexes that are missing."""
        by_state = [("lane", ASCENDING), ("state", ASCENDING)]
        self._intents.create_indexes(
            [IndexModel([*by_state, ("created_at", ASCENDING), ("_id", ASCENDING)], name="lane_by_state")]
        )
        self._nonces.create_indexes(
            [
                IndexModel([*by_state, ("nonce", ASCENDING)], name="lane_by_state"),
                IndexModel([("lane", ASCENDING), ("nonce", ASCENDING)], name="lane_by_nonce", unique=True),
                # For the daily cap, which must not read the whole past in every run.
                IndexModel([("lane", ASCENDING), ("created_at", ASCENDING)], name="lane_by_time"),
                # Partial: an empty array would count as one more value, and only one record could have it.
                IndexModel(
                    [("intents", ASCENDING)],
                    name="intent_at_one_nonce",
                    unique=True,
                    partialFilterExpression={"intents.0": {"$exists": True}},
                ),
            ]
        )

    # -- callers -------------------------------------------------------------------------------------------------------

    def add(self, intents: Sequence[Intent]) -> int:
        """Store intents whose key is new; put those that are DONE back to QUEUED. The number of both."""
        if not intents:
            return 0
        requests = [InsertOne(intent_document(intent) | {"fence": 0}) for intent in intents]
        try:
            return self._intents.bulk_write(requests, ordered=False).inserted_count
        except BulkWriteError as error:
            details = error.details or {}
            problems = details["writeErrors"]
            if any(problem["code"] != _DUPLICATE_KEY for problem in problems) or details.get("writeConcernErrors"):
                raise
            known = [intents[problem["index"]].key for problem in problems]
            again = self._intents.update_many(
                {"_id": {"$in": known}, "state": IntentState.DONE.value},
                {"$set": {"state": IntentState.QUEUED.value, "reason": ""}},
            )
            return int(details["nInserted"]) + again.modified_count

    def intents(self, keys: Sequence[str]) -> list[Intent]:
        """The intents of these keys that exist, in any order."""
        return [intent_from(found) for found in self._intents.find({"_id": {"$in": list(keys)}})]

    def queued(self, lane: LaneId, limit: int, skip: int = 0) -> list[Intent]:
        """The lane's QUEUED intents, oldest first."""
        found = self._intents.find({"lane": str(lane), "state": IntentState.QUEUED.value})
        return [intent_from(item) for item in found.sort([("created_at", 1), ("_id", 1)]).skip(skip).limit(limit)]

    def in_state(self, lane: LaneId, states: Sequence[IntentState], limit: int) -> list[Intent]:
        """The lane's intents in these states, oldest first."""
        found = self._intents.find({"lane": str(lane), "state": {"$in": [state.value for state in states]}})
        return [intent_from(item) for item in found.sort([("created_at", 1), ("_id", 1)]).limit(limit)]

    def count(self, lane: LaneId, states: Sequence[IntentState]) -> int:
        """Number of the lane's intents in these states."""
        wanted = {"lane": str(lane), "state": {"$in": [state.value for state in states]}}
        return self._intents.count_documents(wanted)

    def busy(self, lane: LaneId) -> bool:
        """Whether a run could find anything to do: an intent that has not ended, or a nonce that is not FINAL."""
        own = {"lane": str(lane)}
        unended = own | {"state": {"$in": [state.value for state in UNENDED]}}
        unsettled = own | {"state": {"$in": [state.value for state in UNSETTLED]}}
        return bool(self._intents.find_one(unended, {"_id": 1}) or self._nonces.find_one(unsettled, {"_id": 1}))

    # -- the lease -----------------------------------------------------------------------------------------------------

    def take_lease(self, lane: LaneId, holder: str, seconds: float) -> LaneLease | None:
        """Take the lane's lease for `seconds`, under the next higher fence. None: another living process holds an
        unexpired lease.
        """
        expired: Document = {"_id": _lease_key(lane), "$expr": {"$lte": ["$until", "$$NOW"]}}
        taken = self._take(expired, holder, seconds)
        if taken is None and (left := self._left_lease(lane, expired)) is not None:
            taken = self._take(left, holder, seconds)
        return None if taken is None else LaneLease(lane, holder, taken["fence"], taken["halted"], taken.get("waiting"))

    def _take(self, free: Document, holder: str, seconds: float) -> Document | None:
        """The lease document after `holder` took the lease, if it was as `free` says; else None."""
        change = {"holder": holder, "fence": {"$add": ["$fence", 1]}, "until": _expiry(seconds)}
        return self._cursors.find_one_and_update(free, [{"$set": change}], return_document=True)

    def _left_lease(self, lane: LaneId, expired: Document) -> Document | None:
        """The query by which a lease that has not expired can still be taken: one that nobody ever had, or one whose
        holder is dead. None: a living process holds it.
        """
        key = _lease_key(lane)
        held = self._cursors.find_one({"_id": key})
        if held is not None:
            return {"_id": key, "fence": held["fence"]} if holder_is_dead(held["holder"]) else None
        try:
            self._cursors.insert_one({"_id": key, "holder": "", "fence": 0, "until": _LONG_AGO, "halted": None})
        except DuplicateKeyError:
            # Another process inserted the document concurrently and is about to take the lease.
            return None
        return expired

    def renew_lease(self, lease: LaneLease, seconds: float) -> None:
        """Extend the lease to `seconds` from now. Raises LeaseLost."""
        mine = {"_id": _lease_key(lease.lane), "fence": lease.fence}
        if self._cursors.update_one(mine, [{"$set": {"until": _expiry(seconds)}}]).matched_count == 0:
            raise LeaseLost(wallet=lease.lane.wallet, fence=lease.fence)

    def give_back(self, lease: LaneLease) -> None:
        """End the lease before its time, so that another process can take it."""
        mine = {"_id": _lease_key(lease.lane), "fence": lease.fence}
        self._cursors.update_one(mine, {"$set": {"until": _LONG_AGO}})

    def halt(self, lane: LaneId, why: str | None, lease: LaneLease | None = None) -> None:
        """Halt the lane until an operator decides (None: end the halt). Raises LeaseLost."""
        if lease is not None:
            self._set_note(lease, "halted", why)
            return
        founded = {"holder": "", "fence": 0, "until": _LONG_AGO}
        self._cursors.update_one(
            {"_id": _lease_key(lane)}, {"$set": {"halted": why}, "$setOnInsert": founded}, upsert=True
        )

    def halted(self, lane: LaneId) -> str | None:
        """Why the lane is halted; None if it is not."""
        return self._get_note(lane, "halted")

    def notes(self, lane: LaneId) -> tuple[str | None, str | None, str]:
        """What `halted` and `waiting` say, and who held the lane's lease last, empty for none: in one query."""
        found = self._cursors.find_one({"_id": _lease_key(lane)}) or {}
        return found.get("halted"), found.get("waiting"), found.get("holder") or ""

    def set_waiting(self, lease: LaneLease, why: str | None) -> None:
        """Record what the lane waits for and cannot repair (None: nothing). Raises LeaseLost."""
        self._set_note(lease, "waiting", why)

    def waiting(self, lane: LaneId) -> str | None:
        """What the lane waits for and cannot repair; None if nothing."""
        return self._get_note(lane, "waiting")

    def _set_note(self, lease: LaneLease, name: str, why: str | None) -> None:
        """Set one field of the lane's lease document (`halted`, `waiting`). Raises LeaseLost."""
        mine = {"_id": _lease_key(lease.lane), "fence": lease.fence}
        if self._cursors.update_one(mine, {"$set": {name: why}}).matched_count == 0:
            raise LeaseLost(wallet=lease.lane.wallet, fence=lease.fence)

    def _get_note(self, lane: LaneId, name: str) -> str | None:
        """One field of the lane's lease document."""
        found = self._cursors.find_one({"_id": _lease_key(lane)}, {name: 1})
        return None if found is None else found.get(name)

    # -- nonces --------------------------------------------------------------------------------------------------------

    def records(
        self, lane: LaneId, states: Sequence[NonceState], up_to: BlockNumber | None = None
    ) -> list[NonceRecord]:
        """Records in these states, lowest nonce first; with `up_to` only those mined in that block or below."""
        wanted: Document = {"lane": str(lane), "state": {"$in": [state.value for state in states]}}
        if up_to is not None:
            wanted["mined.block"] = {"$lte": up_to}
        return [record_from(found) for found in self._nonces.find(wanted).sort("nonce", ASCENDING)]

    def record(self, lane: LaneId, nonce: Nonce) -> NonceRecord | None:
        """The record of this nonce; None if there is none."""
        return _record_or_none(self._nonces.find_one({"_id": record_id(lane, nonce)}))

    def newest(self, lane: LaneId, states: Sequence[NonceState], limit: int, below: Nonce | None) -> list[NonceRecord]:
        """Records in these states, highest nonce first; with `below` only those under it."""
        wanted: Document = {"lane": str(lane), "state": {"$in": [state.value for state in states]}}
        if below is not None:
            wanted["nonce"] = {"$lt": below}
        return [record_from(found) for found in self._nonces.find(wanted).sort("nonce", DESCENDING).limit(limit)]

    def highest_nonce(self, lane: LaneId) -> Nonce | None:
        """The highest nonce that the lane ever claimed."""
        found = self._nonces.find_one({"lane": str(lane)}, {"nonce": 1}, sort=[("nonce", DESCENDING)])
        return None if found is None else Nonce(found["nonce"])

    def holding(self, lane: LaneId, key: str) -> NonceRecord | None:
        """The record of the nonce that this intent (by its key) is sent with now; None if it has no nonce."""
        return _record_or_none(
            self._nonces.find_one({"intents": key, "intents.0": {"$exists": True}, "lane": str(lane)})
        )

    def spent_since(self, lane: LaneId, since: float) -> Wei:
        """Fees in wei of nonces claimed at Unix time `since` or later and mined."""
        return Wei(self._sums.setdefault(lane, DaySum()).since(since, _LaneFees(self._nonces, str(lane))))

    def claim(self, lease: LaneLease, records: Sequence[NonceRecord]) -> None:
        """Insert the records of new nonces, lowest first. Raises LeaseLost at the first whose nonce or intent has a
        record already; those before it stay.
        """
        documents = [record_document(record) | {"fence": lease.fence} for record in records]
        for start in range(0, len(documents), _BULK):
            try:
                self._nonces.insert_many(documents[start : start + _BULK], ordered=True)
            except BulkWriteError as error:
                if any(problem["code"] != _DUPLICATE_KEY for problem in (error.details or {})["writeErrors"]):
                    raise
                raise LeaseLost(wallet=lease.lane.wallet, fence=lease.fence) from error

    def move(self, lease: LaneLease, intents: Sequence[IntentMove], nonces: Sequence[NonceMove]) -> None:
        """Write the moves, intents first. Raises LeaseLost if a later fence wrote any of them."""
        fence = {"fence": {"$lte": lease.fence}}
        if intents:
            updates = [_intent_update(move, lease.fence, fence) for move in intents]
            self._write_fenced(lease, self._intents, updates, sum(len(set(move.keys)) for move in intents))
        if nonces:
            changes = [_nonce_update(move, lease, fence) for move in nonces]
            self._write_fenced(lease, self._nonces, changes, sum(len(nonces_of(move)) for move in nonces))

    @staticmethod
    def _write_fenced(
        lease: LaneLease, collection: Collection[Document], updates: Sequence[UpdateOne | UpdateMany], expected: int
    ) -> None:
        """Write the updates. Raises LeaseLost if fewer than `expected` documents match: a later fence wrote some."""
        matched = 0
        for start in range(0, len(updates), _BULK):
            matched += collection.bulk_write(updates[start : start + _BULK], ordered=True).matched_count
        if matched != expected:
            raise LeaseLost(wallet=lease.lane.wallet, fence=lease.fence)


def one_pending(lane: LaneId) -> Document:
    """A `$unionWith` that adds one row to those of another query, if an intent of the lane is to be sent or mined."""
    pending = {"$in": [IntentState.QUEUED.value, IntentState.SENT.value]}
    stages = [{"$match": {"lane": str(lane), "state": pending}}, {"$limit": 1}, {"$project": {"_id": 1}}]
    return {"$unionWith": {"coll": _INTENTS, "pipeline": stages}}


class _LaneFees:
    """One lane's fees, for the running sum."""

    def __init__(self, nonces: Collection[Document], lane: str) -> None:
        self._nonces = nonces
        self._lane = lane

    def first_since(self, since: float) -> Nonce | None:
        """The lowest nonce claimed at Unix time `since` or later."""
        wanted = {"lane": self._lane, "created_at": {"$gte": since}}
        return self._nonce_of(self._nonces.find_one(wanted, {"nonce": 1}, sort=[("created_at", ASCENDING)]))

    def lowest_unsettled(self) -> Nonce | None:
        """The lowest nonce that is OPEN or MINED."""
        wanted = {"lane": self._lane, "state": {"$in": [state.value for state in UNSETTLED]}}
        return self._nonce_of(self._nonces.find_one(wanted, {"nonce": 1}, sort=[("nonce", ASCENDING)]))

    def fees(self, first: Nonce) -> Iterator[Fee]:
        """Fees of the mined nonces from `first` on, by nonce."""
        wanted = {
            "lane": self._lane,
            "nonce": {"$gte": first},
            "state": {"$in": [state.value for state in IN_A_BLOCK]},
        }
        fields = {"nonce": 1, "created_at": 1, "mined.fee": 1}
        for found in self._nonces.find(wanted, fields).sort("nonce", ASCENDING):
            yield Fee(Nonce(found["nonce"]), found["created_at"], int(found["mined"]["fee"]))

    @staticmethod
    def _nonce_of(found: Document | None) -> Nonce | None:
        """The nonce of a document found; None if there is none."""
        return None if found is None else Nonce(found["nonce"])


def _intent_update(move: IntentMove, fence: int, guard: Document) -> UpdateMany:
    """The update that makes an intent move, where `guard` (no later fence) holds."""
    values: Document = {"state": move.state.value, "block": move.block, "reason": move.reason, "fence": fence}
    if move.generation is not None:
        values["generation"] = move.generation
    return UpdateMany({"_id": {"$in": list(move.keys)}} | guard, {"$set": values})


def _nonce_update(move: NonceMove, lease: LaneLease, guard: Document) -> UpdateOne | UpdateMany:
    """The update that makes a nonce move, where `guard` (no later fence) holds."""
    ids = [record_id(lease.lane, nonce) for nonce in nonces_of(move)]
    where = ({"_id": ids[0]} if len(ids) == 1 else {"_id": {"$in": ids}}) | guard
    change = _record_change(move, lease.fence)
    return UpdateOne(where, change) if len(ids) == 1 else UpdateMany(where, change)


def _record_change(move: NonceMove, fence: int) -> Document | list[Document]:
    """What a move does to a record: an update, or a pipeline where fields depend on fields."""
    match move:
        case Sent(block=block):
            return {"$set": {"sent_block": block, "fence": fence}}
        case Consumed(mined=mined):
            return {"$set": {"state": NonceState.MINED.value, "mined": mined_document(mined), "fence": fence}}
        case Released(mined=mined):
            settled = {"state": NonceState.MINED.value, "mined": {"$literal": mined_document(mined)}, "fence": fence}
            return [{"$set": settled | _LET_GO}]
        case Reclaimed(mined=mined, intents=back):
            keys: Document = {"$literal": list(back)}
            left = {"$filter": {"input": "$released", "cond": {"$not": [{"$in": ["$$this", keys]}]}}}
            settled = {"state": NonceState.MINED.value, "mined": {"$literal": mined_document(mined)}, "fence": fence}
            return [{"$set": settled | {"intents": {"$concatArrays": ["$intents", keys]}, "released": left}}]
        case Unmined():
            return {"$set": {"state": NonceState.OPEN.value, "mined": None, "sent_block": None, "fence": fence}}
        case Finalised():
            return {"$set": {"state": NonceState.FINAL.value, "fence": fence}}
        case Repriced(attempt=attempt):
            return {"$set": {"sent_block": None, "fence": fence}, "$push": {"attempts": attempt_document(attempt)}}
        case Disowned():
            return [{"$set": {"state": NonceState.FOREIGN.value, "fence": fence} | _LET_GO}]


def _record_or_none(found: Document | None) -> NonceRecord | None:
    """The record in a document found; None if there is none."""
    return None if found is None else record_from(found)


def _lease_key(lane: LaneId) -> str:
    """The `_id` of a lane's lease in the collection `cursors`."""
    return f"{LEASES}{lane}"


def _expiry(seconds: float) -> dict[str, Any]:
    """A MongoDB expression: the time `seconds` from now by the server's clock."""
    return {"$add": ["$$NOW", int(seconds * 1000)]}
