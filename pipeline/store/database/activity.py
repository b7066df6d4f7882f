"""The rows of `cursors` that a running scheduler changes, on any host: they tell another one whether it runs."""

from __future__ import annotations

from typing import Any

import bson
from pymongo.database import Database

from chain.lane.store.documents import lane_from
from chain.lane.store.mongo import LEASES
from pipeline.store.sweeps import SWEEP, WATCH
from protocol.types import Wallet

#: Rows of the sweep and the watcher by name, and of the lanes by how their names begin.
_OF_PROCESSES = {"$or": [{"_id": {"$in": [SWEEP, WATCH]}}, {"_id": {"$regex": f"^{LEASES}"}}]}


class Activity:
    """Reads these rows. If two readings differ, a scheduler runs; times in them are by other hosts' clocks."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._cursors = db["cursors"]

    def marks(self) -> dict[str, bytes]:
        """The rows as they are now, by name."""
        return {row["_id"]: bson.encode(row) for row in self._cursors.find(_OF_PROCESSES)}

    def leases_end_in(self) -> float:
        """Seconds until the last lease of a lane ends that is held now, by the server's clock; 0: none is held."""
        left = {"$max": {"$subtract": ["$until", "$$NOW"]}}
        held: list[dict[str, Any]] = [
            {"$match": {"_id": {"$regex": f"^{LEASES}"}}},
            {"$group": {"_id": None, "milliseconds": left}},
        ]
        return max([0.0, *(float(row["milliseconds"]) / 1000 for row in self._cursors.aggregate(held))])

    def wallets(self) -> list[Wallet]:
        """Wallets that have had a lane here."""
        rows = self._cursors.find({"_id": {"$regex": f"^{LEASES}"}}, {"_id": 1})
        return sorted({lane_from(row["_id"].removeprefix(LEASES)).wallet for row in rows})
