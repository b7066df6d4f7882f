"""The whole database as raw documents, for backups: read at one moment, or put in place of what is stored.

    read    one snapshot session: every collection as it was when the first one was read, while the scheduler writes
    write   documents ─► collections `restore.<name>` ─► each renamed into its place, in one step of the server
            meanwhile    `restore.under.way` is there from before the first change in place until after the last

A collection that is made, or an index that is built, in the middle of reading ends a snapshot on MongoDB 6:
`Disturbed` is raised then, and whoever reads begins anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure

from config.connections.mongodb import exclusively
from pipeline.store.database.migrations import VERSION
from protocol.errors import SluiceError, Unavailable

#: Prefix of the names of collections that are being filled.
STAGE = "restore."
#: The collection that is there while what is stored is part old, part new.
_MARK = f"{STAGE}under.way"
#: MongoDB's codes: the catalog changed while a snapshot was read; the snapshot is older than what is kept.
_SNAPSHOT_UNAVAILABLE, _SNAPSHOT_TOO_OLD = 246, 239
#: Bytes of documents written at a time, below the 48 MB of one message.
_BATCH_BYTES = 8 << 20
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)


class Disturbed(SluiceError):
    """The database's collections changed while it was read: begin anew."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All collections at one moment."""

    _db: Database[dict[str, Any]]
    _session: ClientSession
    names: tuple[str, ...]

    def documents(self, name: str) -> Iterator[bytes]:
        """A collection's documents as BSON, in the server's order. Raises Disturbed, Unavailable, PyMongoError."""
        collection = self._db.with_options(_RAW)[name]
        try:
            for document in collection.find({}, session=self._session):
                yield bytes(document.raw)
        except OperationFailure as error:
            if error.code == _SNAPSHOT_UNAVAILABLE:
                raise Disturbed from error
            if error.code == _SNAPSHOT_TOO_OLD:
                why = "it keeps no moment for as long as reading takes: raise minSnapshotHistoryWindowInSeconds"
                raise Unavailable(what="MongoDB", why=why) from error
            raise


class Copies:
    """Reads and replaces all of a database."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._db = db

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """All collections at the moment when the first is read. Raises Disturbed, PyMongoError."""
        names = self._names()
        with self._db.client.start_session(snapshot=True) as session:
            yield Snapshot(self._db, session, names)
        # One that was made between the list and the first read would be missing.
        if self._names() != names:
            raise Disturbed

    def size(self) -> tuple[int, int]:
        """(documents, bytes of them), about: as the server keeps count."""
        found = self._db.command("dbStats")
        return int(found["objects"]), int(found["dataSize"])

    def is_empty(self) -> bool:
        """Whether nothing is stored except the schema version, which a start writes."""
        return not any(
            self._db[name].find_one({"_id": {"$ne": VERSION}} if name == "cursors" else {}) for name in self._names()
        )

    def stage(self, name: str, documents: Iterable[bytes]) -> int:
        """Store documents in the collection's stage, which is emptied first; returns their number."""
        target = self._db.get_collection(STAGE + name, codec_options=_RAW)
        with exclusively():
            target.drop()
        batch: list[RawBSONDocument] = []
        size = count = 0
        for document in documents:
            batch.append(RawBSONDocument(document, _RAW))
            size, count = size + len(document), count + 1
            if size >= _BATCH_BYTES:
                target.insert_many(batch, ordered=False)
                batch, size = [], 0
        if batch:
            target.insert_many(batch, ordered=False)
        return count

    def staged(self, name: str) -> Collection[dict[str, Any]]:
        """The collection's stage, to change what must not be put in place as it is."""
        return self._db[STAGE + name]

    def put_in_place(self) -> None:
        """Replace all that is stored by what is staged. A replacement that was cut off is finished by staging
        everything again.
        """
        self._db[_MARK].insert_one({})
        staged = self._staged()
        kept = {name.removeprefix(STAGE) for name in staged}
        for name in set(self._names()) - kept:
            with exclusively():
                self._db[name].drop()
        # The cursors last: they say how far everything else is.
        for name in sorted(staged, key=lambda name: (name == f"{STAGE}cursors", name)):
            with exclusively():
                self._db[name].rename(name.removeprefix(STAGE), dropTarget=True)
        self._db[_MARK].drop()

    def forget_stage(self) -> None:
        """Drop what an earlier attempt staged. The note that it was cut off stays until all is in place."""
        for name in self._staged():
            with exclusively():
                self._db[name].drop()

    def cut_off(self) -> str:
        """A sentence about what an unfinished restore has left and what to do; empty if there is none."""
        names = self._db.list_collection_names()
        again = "A restore was cut off: give the same command again with --replace"
        if _MARK in names:
            return f"{again}."
        if any(name.startswith(STAGE) for name in names):
            return f"{again}, or drop the collections `{STAGE}*` to keep what was there before."
        return ""

    def is_half_replaced(self) -> bool:
        """Whether a restore was cut off after it had begun to put things in place: part is old then, part new."""
        return _MARK in self._db.list_collection_names()

    def _staged(self) -> list[str]:
        """The collections of a restore that was not finished."""
        return [name for name in self._db.list_collection_names() if name.startswith(STAGE) and name != _MARK]

    def _names(self) -> tuple[str, ...]:
        """The collections that a backup holds."""
        names = self._db.list_collection_names(filter={"type": "collection"})
        return tuple(sorted(name for name in names if not name.startswith((STAGE, "system."))))


def split(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """BSON documents that were written one after the other, from pieces cut anywhere. Raises ValueError for bytes that
    are none.
    """
    rest = b""
    for piece in pieces:
        rest, start = rest + piece, 0
        while len(rest) - start >= _LEAST:
            size = int.from_bytes(rest[start : start + 4], "little")
            if size < _LEAST:
                raise ValueError(f"a document of {size} bytes")
            if len(rest) - start < size:
                break
            yield rest[start : start + size]
            start += size
        rest = rest[start:]
    if rest:
        raise ValueError(f"{len(rest)} bytes at its end are no document")


#: Bytes of an empty document.
_LEAST = len(bson.encode({}))
