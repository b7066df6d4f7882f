"""Collection `workers`: enrolled machines, their slots and the chain facts that matching needs."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel, ReturnDocument, UpdateOne
from pymongo.collection import Collection
from pymongo.database import Database

from pipeline.domain.records import ChainFacts, Outcome, Reservation, WorkerRecord
from pipeline.store.machine.documents import FACTS, NOTHING_KNOWN, WORKERS
from pipeline.store.machine.ready import BEST_FIRST, READY, ready
from pipeline.store.machine.terms import RecentTerms, TokenTerms
from pipeline.store.machine.updates import (
    SET_FREE,
    SET_SUCCESSES,
    cancellation,
    outcome_changes,
    pledges,
    releases,
    reservation,
)
from pipeline.store.quarantine import Quarantine, Reader
from protocol.types import Hash32, NRlc, TaskId, Wallet
from protocol.wire import Capabilities

_NEWCOMERS_QUEUES = {"queues": True, "successes": 0}
_PRESENT = {"lost": False, "away": False, "replacing": False}
_SEEN = [("seen_at", ASCENDING)]

INDEXES = [
    IndexModel(BEST_FIRST, name="ready", partialFilterExpression=READY),
    IndexModel([("check_at", ASCENDING)], name="unfunded", partialFilterExpression={"facts.funded": False}),
    # Both fields are in it, so that machines can be counted by it alone.
    IndexModel([("lost", ASCENDING), *_SEEN], name="there", partialFilterExpression={"lost": False}),
    IndexModel(_SEEN, name="replacing", partialFilterExpression={"replacing": True}),
    IndexModel(_SEEN, name="proven", partialFilterExpression={"successes": {"$gt": 0}}),
    IndexModel(_SEEN, name="busy_proven", partialFilterExpression={"successes": {"$gt": 0}, "free": {"$lte": 0}}),
    IndexModel([("address", ASCENDING)], name="at_address", partialFilterExpression={"lost": False}),
    IndexModel(_SEEN, name="with_queues", partialFilterExpression={"queues": True}),
    IndexModel(_SEEN, name="queues_of_newcomers", partialFilterExpression=_NEWCOMERS_QUEUES),
    IndexModel([("held.since", ASCENDING)], name="holding"),
    IndexModel([("pledged.since", ASCENDING)], name="pledging"),
]

#: Seconds until the balance of a worker that had none is read again: as long as it has been enrolled, within these.
SOONEST_CHECK, LATEST_CHECK = 10.0, 120.0
#: Seconds after which a ping outweighs RabbitMQ's event that a machine's consumer went: that of its return may be lost.
DISCONNECTED_SECONDS = 60.0
#: Busy machines that are read: more than any one task asks for.
BUSY_LIMIT = 50


class Workers:
    """Queries on `workers`."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db["workers"]
        self.reader = Reader(self._rows, WORKERS, Quarantine(db), lambda until: {"rest_until": until})
        self._terms = RecentTerms(self._rows)

    def ensure_indexes(self) -> None:
        """Create the indexes."""
        self._rows.create_indexes(INDEXES)

    def enrol(
        self, wallet: Wallet, offer: Capabilities, now: float, *, machine: str | None = None, address: str = ""
    ) -> WorkerRecord:
        """Insert or update a machine at its sign-in, and return its row.

        Slots in use, outcomes and a ban are kept; its chain facts become due to be read. `now`: Unix seconds;
        `machine`: id of its installation; `address`: the IP address that it signs in from.

        Raises InQuarantine.
        """
        row = self._rows.find_one_and_update(
            {"_id": wallet},
            [
                {
                    "$set": {
                        "name": {"$literal": offer.name},
                        "version": {"$literal": offer.version},
                        "slots": offer.slots,
                        "cpus": offer.cpus,
                        "memory_bytes": offer.memory_bytes,
                        "tag": offer.tag,
                        "enrolled_at": {"$ifNull": ["$enrolled_at", now]},
                        "seen_at": now,
                        **_PRESENT,
                        "disconnected_at": None,
                        "machine": machine,
                        "address": {"$literal": address},
                        "queues": True,
                        **{name: {"$ifNull": [f"${name}", []]} for name in ("held", "pledged")},
                        **{name: {"$ifNull": [f"${name}", 0]} for name in ("failures", "blamed", "solos")},
                        "rest_until": {"$ifNull": ["$rest_until", 0.0]},
                        "tag_bits": bytes.fromhex(offer.tag[2:]),
                        "banned": {"$ifNull": ["$banned", False]},
                        "facts": {"$ifNull": ["$facts", {"$literal": NOTHING_KNOWN}]},
                        # a machine signs in anew after it was given stake or gas: read both again
                        "checked_at": 0.0,
                        "check_at": now,
                    }
                },
                SET_SUCCESSES,
                SET_FREE,
            ],
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        worker = self.reader.one(row)
        assert worker is not None  # an upsert that returns the document after it always has one
        return worker

    def mark_seen(self, wallet: Wallet, now: float, machine: str | None = None) -> str | None:
        """Record a ping, and return the machine's name. `machine`: id of its installation, if it says.

        None: that wallet never enrolled, or another machine signed in with it since.
        """
        told = "$disconnected_at"
        lasting = {"$cond": [{"$gt": [told, now - DISCONNECTED_SECONDS]}, told, None]}
        changes = _PRESENT | {"seen_at": now, "disconnected_at": lasting}
        same = {} if machine is None else {"machine": {"$in": [None, machine]}}
        row = self._rows.find_one_and_update({"_id": wallet, **same}, [{"$set": changes}], {"name": 1})
        return None if row is None else str(row.get("name"))

    def mark_connected(self, connected: Mapping[Wallet, bool], now: float) -> tuple[int, int]:
        """Store whether machines are connected to RabbitMQ; returns how many are no longer, and how many are again."""
        gone = [
            UpdateOne({"_id": wallet, "disconnected_at": None}, {"$set": {"disconnected_at": now}})
            for wallet, here in connected.items()
            if not here
        ]
        back = [
            UpdateOne({"_id": wallet, "disconnected_at": {"$gt": 0}}, {"$set": {"disconnected_at": None}})
            for wallet, here in connected.items()
            if here
        ]
        return self.reader.write(gone)[1], self.reader.write(back)[1]

    def present(self, limit: int) -> list[Wallet]:
        """Machines that are not lost, at most `limit`, those heard of last."""
        rows = self._rows.find({"lost": False}, {"_id": 1}).sort("seen_at", DESCENDING).limit(limit)
        return [Wallet(row["_id"]) for row in rows]

    def mark_leaving(self, wallet: Wallet) -> bool:
        """Assign no new task to a machine that stops; it keeps its replicates until it counts as silent. False: it had
        stopped before.
        """
        return self._rows.update_one({"_id": wallet}, {"$set": {"away": True}}).modified_count == 1

    def get_worker(self, wallet: Wallet) -> WorkerRecord | None:
        """One worker; None if it has never signed in. Raises InQuarantine."""
        return self.reader.one(self._rows.find_one({"_id": wallet}))

    def token_terms(self, wallet: Wallet, *, kept_seconds: float = 0.0) -> TokenTerms | None:
        """Whether its token is good, as of so many seconds ago at most; None if it has never signed in."""
        return self._terms.of(wallet, kept_seconds=kept_seconds)

    def load_workers(self, wallets: Iterable[Wallet]) -> list[WorkerRecord]:
        """The stored workers with these wallets, in no order."""
        return self.reader.each(self._rows.find({"_id": {"$in": list(wallets)}}))

    def names(self, wallets: Iterable[Wallet]) -> dict[Wallet, str]:
        """The names that these workers gave themselves, by wallet; without those that never signed in."""
        rows = self._rows.find({"_id": {"$in": list(wallets)}}, {"name": 1})
        return {Wallet(row["_id"]): str(row["name"]) for row in rows if "name" in row}

    def set_banned(self, wallet: Wallet, *, banned: bool) -> bool:
        """Ban a worker from new tasks, or take it back. False: unknown wallet."""
        return self._terms.change(wallet, {"banned": banned})

    def end_tokens(self, wallet: Wallet, now: float) -> bool:
        """Refuse tokens that were issued before `now`, and assign no task until it is back. False: unknown wallet."""
        return self._terms.change(wallet, {"not_before": now, "away": True})

    def count_present(self, limit: int, *, but: Wallet, address: str | None = None, proven: bool = False) -> int:
        """Count machines but `but`, neither lost nor banned, up to `limit`. `address`, `proven`: only such ones."""
        query: dict[str, Any] = {"lost": False, "banned": False, "_id": {"$ne": but}}
        # Each the key of an index of the machines that are not lost.
        query |= {"seen_at": {"$gte": 0.0}} if address is None else {"address": address}
        query |= {"successes": {"$gt": 0}} if proven else {}
        return self._rows.count_documents(query, limit=max(limit, 1))

    def any_proven(self, seen_after: float) -> bool:
        """Whether a machine that was right on chain, and is neither banned nor drained, was heard of since
        `seen_after`.
        """
        return self._rows.find_one(_proven(seen_after), {"_id": 1}) is not None

    def busy_proven(self, seen_after: float, now: float) -> list[WorkerRecord]:
        """Proven machines that are there, not drained, and are busy or cool down at `now`; BUSY_LIMIT of either."""
        there, later = _proven(seen_after) | _PRESENT, ({"free": {"$lte": 0}}, {"rest_until": {"$gt": max(now, 0.0)}})
        found = (row for query in later for row in self._rows.find(there | query).limit(BUSY_LIMIT))
        return self.reader.each({row["_id"]: row for row in found}.values())

    def count_with_queues(self, limit: int, *, but: Wallet) -> int:
        """Machines other than `but` that have a user and queues at the broker, counted up to `limit`."""
        return self._rows.count_documents({"queues": True, "seen_at": {"$gte": 0.0}, "_id": {"$ne": but}}, limit=limit)

    def with_queues(self) -> list[Wallet]:
        """Machines that have a user and queues at the broker."""
        return [Wallet(row["_id"]) for row in self._rows.find({"queues": True}, {"_id": 1}).sort("seen_at", ASCENDING)]

    def idle(self, newcomers_before: float, all_before: float, limit: int) -> list[Wallet]:
        """Machines with queues at the broker that have no work and were not heard of since `all_before`, or since
        `newcomers_before` if they were never right on chain; silent longest first.
        """
        empty = {"queues": True, "held": [], "pledged": []}
        never = empty | _NEWCOMERS_QUEUES | {"seen_at": {"$lt": newcomers_before}}
        rows = list(self._rows.find(never, {"_id": 1}).sort("seen_at", ASCENDING).limit(limit))
        others = self._rows.find({**empty, "seen_at": {"$lt": all_before}}, {"_id": 1})
        rows += others.sort("seen_at", ASCENDING).limit(limit)
        return [Wallet(wallet) for wallet in dict.fromkeys(row["_id"] for row in rows)]

    def count_outcomes(self, counted: Sequence[tuple[Wallet, Outcome]], now: float) -> None:
        """Count these outcomes for or against workers, whose slots and stakes stay reserved. `now`: Unix seconds."""
        self.reader.write([UpdateOne({"_id": who}, outcome_changes(outcome, now)) for who, outcome in counted])

    def mark_without_queues(self, wallet: Wallet, before: float) -> bool:
        """Record that a machine has no queues at the broker. False: it was heard of since `before`."""
        query = {"_id": wallet, "seen_at": {"$lt": before}}
        return self._rows.update_one(query, {"$set": {"queues": False}}).matched_count == 1

    # -- matching -------------------------------------------------------------------------------------------------

    def with_free_slots(
        self,
        seen_after: float,
        limit: int,
        now: float = float("inf"),
        *,
        tag: Hash32 | None = None,
        stake: NRlc | None = None,
    ) -> list[WorkerRecord]:
        """The best `limit` workers heard of since `seen_after` that can take one more task (`ready.ready`).

        `tag`: only those that offer its bits; `stake`: only those that have as much in all, promised or not.
        """
        query = ready(seen_after, now)
        if tag is not None and int(tag, 16):
            query["tag_bits"] = {"$bitsAllSet": bytes.fromhex(tag[2:])}
        if stake:
            query["worth"] = {"$gte": float(stake)}
        return self.reader.each(self._rows.find(query).sort(BEST_FIRST).limit(limit))

    def nearest(self, tag: Hash32, stake: NRlc, limit: int) -> list[WorkerRecord]:
        """Workers nearest to taking a task with this tag and stake, then others: at most a few times `limit`."""
        rows: dict[str, Any] = {}
        offer = {"tag_bits": {"$bitsAllSet": bytes.fromhex(tag[2:])}} if int(tag, 16) else {}
        backed = {"worth": {"$gte": float(stake)}} if stake else {}
        able = {"facts.funded": True, "lost": False, "banned": False}
        for query in (READY | offer | backed, able | offer | backed, able | offer, {"lost": False} | offer, offer, {}):
            rows |= {row["_id"]: row for row in self._rows.find(query).limit(limit)}
        return self.reader.each(rows.values())

    def wallets_to_check(self, now: float, limit: int) -> list[Wallet]:
        """Workers without native token for gas when last read, whose balance is due to be read again; in turn."""
        query = {"facts.funded": False, "lost": False, "banned": False, "check_at": {"$not": {"$gt": now}}}
        rows = self._rows.find(query, {"_id": 1}).sort("check_at", ASCENDING).limit(limit)
        return [Wallet(row["_id"]) for row in rows]

    def store_facts(self, facts: Sequence[tuple[Wallet, ChainFacts]], now: float) -> None:
        """Store what was read from the chain."""
        age = {"$subtract": [now, "$enrolled_at"]}
        writes = [
            UpdateOne(
                {"_id": wallet},
                [
                    {
                        "$set": {
                            "facts": {"$mergeObjects": ["$facts", {"$literal": FACTS.to_document(item)}]},
                            "worth": float(item.stake),
                            "lot": random.random(),  # noqa: S311 - fairness, not secrecy
                            "checked_at": now,
                            "check_at": {"$add": [now, {"$max": [SOONEST_CHECK, {"$min": [LATEST_CHECK, age]}]}]},
                        }
                    },
                    SET_SUCCESSES,
                    SET_FREE,
                ],
            )
            for wallet, item in facts
        ]
        self.reader.write(writes)

    def reserve(self, wallet: Wallet, held: Sequence[Reservation]) -> bool:
        """Take a slot per entry, all or none. False: too few free slots, or it has one of the tasks already."""
        return wallet in self.reserve_each({wallet: held})

    def reserve_each(self, wanted: Mapping[Wallet, Sequence[Reservation]]) -> set[Wallet]:
        """Take slots of many workers, for each all or none; returns the workers that gave them, in one bulk write."""
        if not wanted:
            return set()
        writes = [reservation(wallet, held) for wallet, held in wanted.items()]
        matched, _ = self.reader.write(writes)
        if matched in (0, len(writes)):
            return set(wanted) if matched else set()
        # A bulk write counts what it changed but does not say which. A task is held at most once by a worker, and
        # `since` tells whose reservation it is.
        rows = self._rows.find({"_id": {"$in": list(wanted)}}, {"held": 1})
        stored = {row["_id"]: {(each["task"], each["since"]) for each in row.get("held") or ()} for row in rows}
        return {
            wallet
            for wallet, held in wanted.items()
            if {(item.task_id, item.since) for item in held} <= stored.get(wallet, set())
        }

    def cancel_reservations(self, reserved: Sequence[tuple[Wallet, Reservation]]) -> None:
        """Give back the slots of these reservations, but no slot that another process reserved since."""
        self.reader.write([cancellation(wallet, item) for wallet, item in reserved])

    def pledge(self, slots: Sequence[tuple[Wallet, TaskId]]) -> None:
        """Give slots of computed replicates back and keep their stakes for the votes; repeating it changes nothing."""
        self.reader.write(pledges(slots))

    def release(
        self, slots: Sequence[tuple[Wallet, TaskId]], outcome: Outcome = Outcome.NEUTRAL, now: float = 0.0
    ) -> int:
        """Give slots and stakes back and return how many rows changed; one given back before changes nothing, unless
        the outcome is one that is known at another moment (Outcome.apart_from_slot).

        A failure counts against the worker, blame makes it come after others, a completed task clears both counts.
        """
        return self.reader.write(releases(slots, outcome, now))[1]

    def mark_without_queue(self, wallet: Wallet) -> None:
        """Make a worker without a queue count as silent; its next ping undoes that."""
        self._rows.update_one({"_id": wallet}, {"$set": {"seen_at": 0.0}})

    # -- the sweep ------------------------------------------------------------------------------------------------

    def silent_workers(self, seen_before: float, limit: int) -> list[Wallet]:
        """Workers not heard of since `seen_before` and not yet marked lost, or whose work is still to be replaced."""
        rows = self._rows.find({"$or": _silent(seen_before)}, {"_id": 1}).limit(limit)
        return [Wallet(row["_id"]) for row in rows]

    def set_lost(self, wallet: Wallet, seen_before: float) -> bool:
        """Mark a worker lost unless it was heard of meanwhile; `mark_replaced` notes that its work was given away."""
        result = self._rows.update_one(
            {"_id": wallet, "$or": _silent(seen_before)}, {"$set": {"lost": True, "replacing": True}}
        )
        return result.matched_count == 1

    def mark_replaced(self, wallet: Wallet) -> None:
        """Note that everything a lost worker had is marked lost."""
        self._rows.update_one({"_id": wallet}, {"$set": {"replacing": False}})

    def holding_since(self, before: float, limit: int, after: Wallet | None = None) -> list[WorkerRecord]:
        """Workers with a slot or stake taken before `before`, to be compared with their tasks: a page of `limit` by
        wallet, those behind `after`.
        """
        query: dict[str, Any] = {"$or": [{"held.since": {"$lt": before}}, {"pledged.since": {"$lt": before}}]}
        if after is not None:
            query["_id"] = {"$gt": after}
        return self.reader.each(self._rows.find(query).sort("_id", ASCENDING).limit(limit))

    def heard_since(self, moment: float) -> bool:
        """Whether any worker was heard of since `moment` (Unix seconds)."""
        return self._rows.find_one({"lost": False, "seen_at": {"$gte": moment}}, {"_id": 1}) is not None


def _proven(seen_after: float) -> dict[str, Any]:
    """The query for machines that were right on chain and that the operator has neither banned nor drained."""
    return {"successes": {"$gt": 0}, "seen_at": {"$gte": seen_after}, "banned": False, "operator_slots": {"$ne": 0}}


def _silent(seen_before: float) -> list[dict[str, Any]]:
    """The queries for machines not heard of since a moment whose tasks are not with others yet."""
    return [{mark: value, "seen_at": {"$lt": seen_before}} for mark, value in (("lost", False), ("replacing", True))]
