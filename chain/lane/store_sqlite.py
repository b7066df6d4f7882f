"""The lane's memory in one SQLite file: a worker machine's. Several processes may use the file.

    intents   key · lane, state, created_at · fence · document
    nonces    lane + nonce · state, block · fence · document
    carried   intent key ─► lane + nonce     one row while a nonce carries it: the guard against two nonces
    leases    lane · holder, fence, until, halted

WAL with synchronous=FULL: a commit that returned survives `kill -9` and power loss. Every method is one transaction
that takes the write lock first, so that reading, checking the fence and writing are one step.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from chain.lane.documents import intent_document, intent_from, record_document, record_from
from chain.lane.intent import UNENDED, Intent, IntentState, LaneId
from chain.lane.lease import Lease, gone
from chain.lane.nonce import UNSETTLED, NonceMove, NonceRecord, NonceState, apply, nonces_of
from chain.lane.store import IntentMove
from protocol.errors import LeaseLost
from protocol.types import BlockNumber, Nonce, Wei

#: Seconds to wait for another process's transaction; each takes a few milliseconds.
_BUSY_SECONDS = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS intents (
    key TEXT PRIMARY KEY, lane TEXT NOT NULL, state TEXT NOT NULL, created_at REAL NOT NULL,
    fence INTEGER NOT NULL DEFAULT 0, document TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS intents_by_state ON intents (lane, state, created_at, key);
CREATE TABLE IF NOT EXISTS nonces (
    lane TEXT NOT NULL, nonce INTEGER NOT NULL, state TEXT NOT NULL, block INTEGER,
    fence INTEGER NOT NULL, document TEXT NOT NULL, PRIMARY KEY (lane, nonce)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS nonces_by_state ON nonces (lane, state, nonce);
CREATE TABLE IF NOT EXISTS carried (key TEXT PRIMARY KEY, lane TEXT NOT NULL, nonce INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
    lane TEXT PRIMARY KEY, holder TEXT NOT NULL, fence INTEGER NOT NULL, until REAL NOT NULL,
    halted TEXT) WITHOUT ROWID;
"""


class SqliteStore:
    """`LaneStore` in the file `path`, made if absent."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        path.parent.mkdir(parents=True, exist_ok=True)

    # -- callers -------------------------------------------------------------------------------------------------------

    def add(self, intents: Sequence[Intent]) -> int:
        """Store those whose key is new; put those that are DONE back to QUEUED."""
        added = 0
        with self._transaction() as db:
            for intent in intents:
                row = db.execute("SELECT document FROM intents WHERE key = ?", (intent.key,)).fetchone()
                known = None if row is None else _intent(row[0])
                if known is not None and known.state is not IntentState.DONE:
                    continue
                queued = intent if known is None else replace(known, state=IntentState.QUEUED, reason="")
                db.execute(
                    "INSERT INTO intents (key, lane, state, created_at, document) VALUES (?, ?, ?, ?, ?)"
                    " ON CONFLICT (key) DO UPDATE SET state = excluded.state, document = excluded.document",
                    (queued.key, str(queued.lane), queued.state, queued.created_at, _text(intent_document(queued))),
                )
                added += 1
        return added

    def intents(self, keys: Sequence[str]) -> list[Intent]:
        """Those that exist."""
        db = self._connection()
        rows = [db.execute("SELECT document FROM intents WHERE key = ?", (key,)).fetchone() for key in keys]
        return [_intent(row[0]) for row in rows if row is not None]

    def queued(self, lane: LaneId, limit: int, skip: int = 0) -> list[Intent]:
        """QUEUED ones, oldest first."""
        rows = self._connection().execute(
            "SELECT document FROM intents WHERE lane = ? AND state = ? ORDER BY created_at, key LIMIT ? OFFSET ?",
            (str(lane), IntentState.QUEUED, limit, skip),
        )
        return [_intent(row[0]) for row in rows]

    def in_state(self, lane: LaneId, states: Sequence[IntentState], limit: int) -> list[Intent]:
        """Intents in these states, oldest first."""
        rows = self._connection().execute(
            "SELECT document FROM intents WHERE lane = ? AND state IN (SELECT value FROM json_each(?))"
            " ORDER BY created_at, key LIMIT ?",
            (str(lane), json.dumps(states), limit),
        )
        return [_intent(row[0]) for row in rows]

    def count(self, lane: LaneId, states: Sequence[IntentState]) -> int:
        """How many intents are in these states."""
        query = "SELECT COUNT(*) FROM intents WHERE lane = ? AND state IN (SELECT value FROM json_each(?))"
        (number,) = self._connection().execute(query, (str(lane), json.dumps(states))).fetchone()
        return int(number)

    def busy(self, lane: LaneId) -> bool:
        """Whether a run could find anything to do."""
        query = (
            "SELECT EXISTS (SELECT 1 FROM intents WHERE lane = ? AND state IN (SELECT value FROM json_each(?)))"
            " OR EXISTS (SELECT 1 FROM nonces WHERE lane = ? AND state IN (SELECT value FROM json_each(?)))"
        )
        values = (str(lane), json.dumps(UNENDED), str(lane), json.dumps(UNSETTLED))
        (found,) = self._connection().execute(query, values).fetchone()
        return bool(found)

    # -- the lease -----------------------------------------------------------------------------------------------------

    def take_lease(self, lane: LaneId, holder: str, seconds: float) -> Lease | None:
        """The lease under a new fence; None while a living holder has it."""
        with self._transaction() as db:
            row = db.execute("SELECT holder, fence, until, halted FROM leases WHERE lane = ?", (str(lane),)).fetchone()
            if row is not None and row[2] > time.time() and not gone(row[0]):
                return None
            fence = 1 if row is None else row[1] + 1
            db.execute(
                "INSERT INTO leases (lane, holder, fence, until) VALUES (?, ?, ?, ?) ON CONFLICT (lane)"
                " DO UPDATE SET holder = excluded.holder, fence = excluded.fence, until = excluded.until",
                (str(lane), holder, fence, time.time() + seconds),
            )
        return Lease(lane, holder, fence, None if row is None else row[3])

    def renew_lease(self, lease: Lease, seconds: float) -> None:
        """Have it for `seconds` from now."""
        with self._transaction() as db:
            renewed = db.execute(
                "UPDATE leases SET until = ? WHERE lane = ? AND fence = ?",
                (time.time() + seconds, str(lease.lane), lease.fence),
            )
            if renewed.rowcount == 0:
                raise LeaseLost(wallet=lease.lane.wallet, fence=lease.fence)

    def give_back(self, lease: Lease) -> None:
        """Let others take it at once."""
        with self._transaction() as db:
            db.execute("UPDATE leases SET until = 0 WHERE lane = ? AND fence = ?", (str(lease.lane), lease.fence))

    def halt(self, lane: LaneId, why: str | None) -> None:
        """Stop the lane; None lets it go on."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO leases (lane, holder, fence, until, halted) VALUES (?, '', 0, 0, ?)"
                " ON CONFLICT (lane) DO UPDATE SET halted = excluded.halted",
                (str(lane), why),
            )

    def halted(self, lane: LaneId) -> str | None:
        """Why the lane stands still."""
        row = self._connection().execute("SELECT halted FROM leases WHERE lane = ?", (str(lane),)).fetchone()
        return None if row is None else row[0]

    # -- nonces --------------------------------------------------------------------------------------------------------

    def records(
        self, lane: LaneId, states: Sequence[NonceState], up_to: BlockNumber | None = None
    ) -> list[NonceRecord]:
        """Records in these states by nonce."""
        rows = self._connection().execute(
            "SELECT document FROM nonces WHERE lane = ? AND state IN (SELECT value FROM json_each(?))"
            " AND (? IS NULL OR block <= ?) ORDER BY nonce",
            (str(lane), json.dumps(states), up_to, up_to),
        )
        return [_record(row[0]) for row in rows]

    def record(self, lane: LaneId, nonce: Nonce) -> NonceRecord | None:
        """One record."""
        return self._one("SELECT document FROM nonces WHERE lane = ? AND nonce = ?", str(lane), nonce)

    def newest(self, lane: LaneId, states: Sequence[NonceState], limit: int, below: Nonce | None) -> list[NonceRecord]:
        """Records in these states, highest nonce first."""
        rows = self._connection().execute(
            "SELECT document FROM nonces WHERE lane = ? AND state IN (SELECT value FROM json_each(?))"
            " AND (? IS NULL OR nonce < ?) ORDER BY nonce DESC LIMIT ?",
            (str(lane), json.dumps(states), below, below, limit),
        )
        return [_record(row[0]) for row in rows]

    def highest_nonce(self, lane: LaneId) -> Nonce | None:
        """The highest nonce ever claimed."""
        (highest,) = self._connection().execute("SELECT MAX(nonce) FROM nonces WHERE lane = ?", (str(lane),)).fetchone()
        return None if highest is None else Nonce(highest)

    def holding(self, lane: LaneId, key: str) -> NonceRecord | None:
        """The record that carries this intent now."""
        query = "SELECT document FROM nonces JOIN carried USING (lane, nonce) WHERE lane = ? AND key = ?"
        return self._one(query, str(lane), key)

    def spent_since(self, lane: LaneId, since: float) -> Wei:
        """Fees of records claimed since then and mined."""
        rows = self._connection().execute(
            "SELECT document FROM nonces WHERE lane = ? AND state IN (?, ?)"
            " AND json_extract(document, '$.created_at') >= ?",
            (str(lane), NonceState.MINED, NonceState.FINAL, since),
        )
        return Wei(sum(mined.fee for row in rows if (mined := _record(row[0]).mined)))

    def claim(self, lease: Lease, records: Sequence[NonceRecord]) -> None:
        """Insert records, ordered by nonce: all of them or none, since one transaction holds them."""
        with self._transaction() as db:
            self._check_fence(db, lease)
            try:
                for record in records:
                    _insert(db, lease, record)
            except sqlite3.IntegrityError as error:
                raise LeaseLost(wallet=lease.lane.wallet, fence=lease.fence) from error

    def move(self, lease: Lease, intents: Sequence[IntentMove], nonces: Sequence[NonceMove]) -> None:
        """Write the moves, all or none."""
        with self._transaction() as db:
            self._check_fence(db, lease)
            for intent_move in intents:
                _move_intents(db, lease, intent_move)
            for nonce_move in nonces:
                _move_nonces(db, lease, nonce_move)

    # -- connection ----------------------------------------------------------------------------------------------------

    def _one(self, query: str, *values: object) -> NonceRecord | None:
        row = self._connection().execute(query, values).fetchone()
        return None if row is None else _record(row[0])

    @staticmethod
    def _check_fence(db: sqlite3.Connection, lease: Lease) -> None:
        row = db.execute("SELECT fence FROM leases WHERE lane = ?", (str(lease.lane),)).fetchone()
        if row is None or row[0] != lease.fence:
            raise LeaseLost(wallet=lease.lane.wallet, fence=row[0] if row else 0)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._connection()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection; a forked child opens its own, as SQLite demands."""
        held: tuple[int, sqlite3.Connection] | None = getattr(self._local, "held", None)
        if held is not None and held[0] == os.getpid():
            return held[1]
        db = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(_SCHEMA)
        self._local.held = (os.getpid(), db)
        return db

    def close(self) -> None:
        """Close this thread's connection; the next call opens another."""
        held: tuple[int, sqlite3.Connection] | None = getattr(self._local, "held", None)
        if held is not None:
            held[1].close()
            self._local.held = None


def _insert(db: sqlite3.Connection, lease: Lease, record: NonceRecord) -> None:
    where = (str(record.lane), record.nonce)
    db.execute(
        "INSERT INTO nonces (lane, nonce, state, fence, document) VALUES (?, ?, ?, ?, ?)",
        (*where, record.state, lease.fence, _text(record_document(record))),
    )
    db.executemany("INSERT INTO carried (key, lane, nonce) VALUES (?, ?, ?)", [(key, *where) for key in record.intents])


def _move_intents(db: sqlite3.Connection, lease: Lease, move: IntentMove) -> None:
    for key in move.keys:
        (text,) = db.execute("SELECT document FROM intents WHERE key = ?", (key,)).fetchone()
        known = _intent(text)
        generation = known.generation if move.generation is None else move.generation
        moved = replace(known, state=move.state, block=move.block, reason=move.reason, generation=generation)
        db.execute(
            "UPDATE intents SET state = ?, fence = ?, document = ? WHERE key = ?",
            (moved.state, lease.fence, _text(intent_document(moved)), key),
        )


def _move_nonces(db: sqlite3.Connection, lease: Lease, move: NonceMove) -> None:
    for nonce in nonces_of(move):
        where = (str(lease.lane), nonce)
        (text,) = db.execute("SELECT document FROM nonces WHERE lane = ? AND nonce = ?", where).fetchone()
        before = _record(text)
        after = apply(before, move)
        db.execute(
            "UPDATE nonces SET state = ?, block = ?, fence = ?, document = ? WHERE lane = ? AND nonce = ?",
            (after.state, after.mined and after.mined.block, lease.fence, _text(record_document(after)), *where),
        )
        if before.intents and not after.intents:
            db.execute("DELETE FROM carried WHERE lane = ? AND nonce = ?", where)


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))


def _intent(text: str) -> Intent:
    return intent_from(json.loads(text))


def _record(text: str) -> NonceRecord:
    return record_from(json.loads(text))
