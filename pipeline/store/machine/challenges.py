"""Collection `challenges`: sign-in challenges that were answered, until they expire, so that each works once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pymongo import ASCENDING, IndexModel
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from protocol.types import Hash32, Timestamp

#: Seconds an answered challenge is remembered beyond its expiry: clocks of API machines differ a little.
MARGIN_SECONDS = 60

INDEXES = [IndexModel([("expires_at", ASCENDING)], name="forget", expireAfterSeconds=MARGIN_SECONDS)]


class Challenges:
    """Queries on `challenges`."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db["challenges"]

    def ensure_indexes(self) -> None:
        """Create the indexes."""
        self._rows.create_indexes(INDEXES)

    def use(self, nonce: Hash32, expires_at: Timestamp) -> bool:
        """Take a challenge as answered. False: it was before."""
        try:
            self._rows.insert_one({"_id": nonce, "expires_at": datetime.fromtimestamp(expires_at, UTC)})
        except DuplicateKeyError:
            return False
        return True
