"""The store in MongoDB: collections `secrets`, `sessions`, and `chain`, of one row, which says whose secrets these are.

Times are kept as dates, which MongoDB's own clean-up reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from pymongo import ASCENDING, IndexModel, ReturnDocument
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError, PyMongoError

from protocol.errors import Unavailable
from protocol.types import TaskId, Wallet
from sms.store.port import OpenSession, Row
from sms.vault import Sealed

INDEXES = {
    "secrets": [
        IndexModel([("ends_at", ASCENDING)], name="forget", expireAfterSeconds=0),
        IndexModel([("key_id", ASCENDING)], name="by_key"),
    ],
    "sessions": [
        IndexModel([("ends_at", ASCENDING)], name="forget", expireAfterSeconds=0),
        IndexModel([("session_id", ASCENDING)], name="by_id"),
    ],
}


@contextmanager
def _answering() -> Iterator[None]:
    """Within the block, raise the driver's errors as Unavailable, without the statement that they quote."""
    try:
        yield
    except PyMongoError as error:
        raise Unavailable(what="MongoDB", why=type(error).__name__) from None


class MongoSecretStore:
    """The secrets in one database."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._secrets, self._sessions = db["secrets"], db["sessions"]
        self._db = db

    @_answering()
    def ready(self) -> None:
        """Create the indexes."""
        for name, indexes in INDEXES.items():
            self._db[name].create_indexes(indexes)

    @_answering()
    def bound_chain(self, chain_id: int) -> int:
        """The chain that the secrets are of: `chain_id` from the first call on, of whatever process."""
        own = {"_id": "of these secrets"}
        self._db["chain"].update_one(own, {"$setOnInsert": {"chain_id": chain_id}}, upsert=True)
        bound = self._db["chain"].find_one(own)
        return chain_id if bound is None else int(bound["chain_id"])

    @_answering()
    def add(self, row: Row) -> bool:
        """Store a row; False, and nothing is changed, if its place is taken."""
        document = {"_id": row.place, **_sealed_fields(row.sealed)}
        if row.address is not None:
            document["address"] = row.address
        if row.ends_at is not None:
            document["ends_at"] = datetime.fromtimestamp(row.ends_at, UTC)
        try:
            self._secrets.insert_one(document)
        except DuplicateKeyError:
            return False
        return True

    @_answering()
    def replace(self, place: str, sealed: Sealed, was: Sealed | None = None) -> bool:
        """Put another value in the place; False if it is empty, or holds another than `was`, if that is given."""
        wanted = {"_id": place, **(_sealed_fields(was) if was else {})}
        return bool(self._secrets.update_one(wanted, {"$set": _sealed_fields(sealed)}).matched_count)

    @_answering()
    def has(self, place: str) -> bool:
        """Whether something is stored there."""
        return self._secrets.find_one({"_id": place}, {"_id": 1}) is not None

    @_answering()
    def find(self, places: Sequence[str]) -> Mapping[str, Row]:
        """What is stored at these places."""
        return {row.place: row for row in map(_row, self._secrets.find({"_id": {"$in": list(places)}}))}

    @_answering()
    def sealed_otherwise(self, key_id: str, limit: int) -> list[Row]:
        """Some of the rows that are encrypted with another key than this one."""
        return [_row(document) for document in self._secrets.find({"key_id": {"$ne": key_id}}).limit(limit)]

    @_answering()
    def uses(self, key_id: str) -> bool:
        """Whether a row is encrypted with this key."""
        return self._secrets.find_one({"key_id": key_id}, {"_id": 1}) is not None

    @_answering()
    def add_session(self, session: OpenSession) -> None:
        """Store a session, in place of what the worker had for the task before."""
        fields = {
            "session_id": session.session_id,
            "challenge": session.challenge,
            "ends_at": datetime.fromtimestamp(session.ends_at, UTC),
        }
        key = {"task_id": session.task_id, "wallet": session.wallet}
        self._sessions.find_one_and_replace(
            {"_id": key}, fields, upsert=True, return_document=ReturnDocument.AFTER, projection={"_id": 1}
        )

    @_answering()
    def take_session(self, session_id: str) -> bool:
        """Remove a session; False if it is not there: of several that take it at once, one does."""
        return bool(self._sessions.delete_one({"session_id": session_id}).deleted_count)

    @_answering()
    def session(self, session_id: str) -> OpenSession | None:
        """A session; None if it was taken, replaced, or never there."""
        found = self._sessions.find_one({"session_id": session_id})
        if found is None:
            return None
        key = found["_id"]
        return OpenSession(
            session_id,
            TaskId(key["task_id"]),
            Wallet(key["wallet"]),
            Wallet(found["challenge"]),
            found["ends_at"].timestamp(),
        )


def _sealed_fields(sealed: Sealed) -> dict[str, Any]:
    """Encrypted content as fields of a row."""
    return {"key_id": sealed.key_id, "content": sealed.content}


def _row(document: dict[str, Any]) -> Row:
    """A document as a row."""
    ends_at = document.get("ends_at")
    return Row(
        document["_id"],
        Sealed(document["key_id"], bytes(document["content"])),
        document.get("address"),
        None if ends_at is None else ends_at.timestamp(),
    )
