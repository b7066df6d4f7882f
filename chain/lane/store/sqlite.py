"""The lane's memory in one SQLite file: a worker machine's. Several processes may use the file.

    intents   key · lane, state, created_at · fence · document
    nonces    lane + nonce · state, block · fence · document
    carried   intent key ─► lane + nonce     one row while a nonce carries it: the guard against two nonces
    leases    lane · holder, fence, until, halted, waiting

The queries are in `sqlite_queries`. Rows that have ended are deleted when they are old and many: a task's deadlines
have long passed then.

WAL with synchronous=FULL: a commit that returned survives `kill -9` and power loss. Every method is one transaction
that takes the write lock first, so that reading, checking the fence and writing are one step.
"""

from __future__ import annotations

import json
import math
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from chain.lane.model.intent import ENDED, UNENDED, Intent, IntentState, LaneId
from chain.lane.model.nonce import IN_A_BLOCK, UNSETTLED, NonceMove, NonceRecord, NonceState, apply, nonces_of
from chain.lane.store import sqlite_queries as sql
from chain.lane.store.documents import intent_document, intent_from, record_document, record_from
from chain.lane.store.lease import LaneLease, gone
from chain.lane.store.port import IntentMove
from chain.lane.store.spent import DaySum, Fee
from config.per_process import PerProcess
from protocol.errors import LeaseLost
from protocol.types import BlockNumber, Nonce, Wei

#: Seconds to wait for another process's transaction; each takes a few milliseconds.
_BUSY_SECONDS = 10.0
#: Seconds after which what has ended may be deleted: ten times the longest task there is (category XL, 100 hours in
#: all), so that no action can still be asked for again.
_KEEP_SECONDS = 1000 * 3600.0
#: Newest nonces that stay whatever their age, for reorgs and for people who look.
_KEEP_NONCES = 4096
#: Rows deleted in one go, and seconds between two goes of one process: a few milliseconds each.
_DELETED_AT_ONCE, _DELETE_SECONDS = 500, 600.0


#: Above every nonce.
_ABOVE_ALL = 2**63 - 1


class SqliteStore:
    """`LaneStore` in the file `path`, made if absent."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = PerProcess(threading.local)
        self._sums: dict[LaneId, DaySum] = {}
        #: `time.monotonic` of the last deletion of old rows.
        self._deleted = -math.inf
        path.parent.mkdir(parents=True, exist_ok=True)

    # -- callers -------------------------------------------------------------------------------------------------------

    def add(self, intents: Sequence[Intent]) -> int:
        """Store those whose key is new; put those that are DONE back to QUEUED."""
        added = 0
        with self._transaction() as db:
            for intent in intents:
                row = db.execute(sql.INTENT, (intent.key,)).fetchone()
                known = None if row is None else _intent(row[0])
                if known is not None and known.state is not IntentState.DONE:
                    continue
                queued = intent if known is None else replace(known, state=IntentState.QUEUED, reason="")
                document = _text(intent_document(queued))
                db.execute(sql.PUT_INTENT, (queued.key, str(queued.lane), queued.state, queued.created_at, document))
                added += 1
        return added

    def intents(self, keys: Sequence[str]) -> list[Intent]:
        """Those that exist."""
        db = self._connection()
        rows = [db.execute(sql.INTENT, (key,)).fetchone() for key in keys]
        return [_intent(row[0]) for row in rows if row is not None]

    def queued(self, lane: LaneId, limit: int, skip: int = 0) -> list[Intent]:
        """QUEUED ones, oldest first."""
        rows = self._connection().execute(sql.INTENTS_IN_STATE, (str(lane), IntentState.QUEUED, limit, skip))
        return [_intent(row[0]) for row in rows]

    def in_state(self, lane: LaneId, states: Sequence[IntentState], limit: int) -> list[Intent]:
        """Intents in these states, oldest first."""
        with self._snapshot() as db:
            rows = [row for state in states for row in db.execute(sql.INTENTS_IN_STATE, (str(lane), state, limit, 0))]
        found = [_intent(row[0]) for row in rows]
        return sorted(found, key=lambda intent: (intent.created_at, intent.key))[:limit]

    def count(self, lane: LaneId, states: Sequence[IntentState]) -> int:
        """How many intents are in these states."""
        (number,) = self._connection().execute(sql.COUNT_INTENTS, (str(lane), *sql.states(states))).fetchone()
        return int(number)

    def busy(self, lane: LaneId) -> bool:
        """Whether a run could find anything to do."""
        with self._snapshot() as db:
            (intent,) = db.execute(sql.ANY_INTENT, (str(lane), *sql.states(UNENDED))).fetchone()
            (nonce,) = db.execute(sql.ANY_NONCE, (str(lane), *sql.states(UNSETTLED))).fetchone()
        return bool(intent or nonce)

    # -- the lease -----------------------------------------------------------------------------------------------------

    def take_lease(self, lane: LaneId, holder: str, seconds: float) -> LaneLease | None:
        """The lease under a new fence; None while a living holder has it."""
        self._delete_old(lane)
        with self._transaction() as db:
            row = db.execute(sql.LEASE, (str(lane),)).fetchone()
            if row is not None and row[2] > time.time() and not gone(row[0]):
                return None
            fence = 1 if row is None else row[1] + 1
            db.execute(sql.TAKE_LEASE, (str(lane), holder, fence, time.time() + seconds))
        return LaneLease(lane, holder, fence, *((None, None) if row is None else row[3:]))

    def renew_lease(self, lease: LaneLease, seconds: float) -> None:
        """Have it for `seconds` from now."""
        with self._transaction() as db:
            renewed = db.execute(sql.RENEW_LEASE, (time.time() + seconds, str(lease.lane), lease.fence))
            if renewed.rowcount == 0:
                raise LeaseLost(wallet=lease.lane.wallet, fence=lease.fence)

    def give_back(self, lease: LaneLease) -> None:
        """Let others take it at once."""
        with self._transaction() as db:
            db.execute(sql.RENEW_LEASE, (0, str(lease.lane), lease.fence))

    def halt(self, lane: LaneId, why: str | None, lease: LaneLease | None = None) -> None:
        """Stop the lane; None lets it go on."""
        with self._transaction() as db:
            if lease is not None:
                self._check_fence(db, lease)
            db.execute(sql.HALT, (str(lane), why))

    def halted(self, lane: LaneId) -> str | None:
        """Why the lane stands still."""
        row = self._connection().execute(sql.LEASE, (str(lane),)).fetchone()
        return None if row is None else row[3]

    def wait(self, lease: LaneLease, why: str | None) -> None:
        """Tell what the lane waits for."""
        with self._transaction() as db:
            self._check_fence(db, lease)
            db.execute(sql.WAIT, (why, str(lease.lane)))

    def waiting(self, lane: LaneId) -> str | None:
        """What the lane waits for."""
        row = self._connection().execute(sql.LEASE, (str(lane),)).fetchone()
        return None if row is None else row[4]

    # -- nonces --------------------------------------------------------------------------------------------------------

    def records(
        self, lane: LaneId, states: Sequence[NonceState], up_to: BlockNumber | None = None
    ) -> list[NonceRecord]:
        """Records in these states by nonce."""
        values = (str(lane), *sql.states(states), up_to, up_to)
        found = [_record(row[0]) for row in self._connection().execute(sql.NONCES_IN_STATES, values)]
        return sorted(found, key=lambda record: record.nonce)

    def record(self, lane: LaneId, nonce: Nonce) -> NonceRecord | None:
        """One record."""
        return self._one(sql.NONCE, str(lane), nonce)

    def newest(self, lane: LaneId, states: Sequence[NonceState], limit: int, below: Nonce | None) -> list[NonceRecord]:
        """Records in these states, highest nonce first."""
        top = _ABOVE_ALL if below is None else below
        with self._snapshot() as db:
            rows = [row for state in states for row in db.execute(sql.NEWEST_IN_STATE, (str(lane), state, top, limit))]
        return sorted((_record(row[0]) for row in rows), key=lambda record: -record.nonce)[:limit]

    def highest_nonce(self, lane: LaneId) -> Nonce | None:
        """The highest nonce ever claimed."""
        (highest,) = self._connection().execute(sql.HIGHEST_NONCE, (str(lane),)).fetchone()
        return None if highest is None else Nonce(highest)

    def holding(self, lane: LaneId, key: str) -> NonceRecord | None:
        """The record that carries this intent now."""
        return self._one(sql.HOLDING, key, str(lane))

    def spent_since(self, lane: LaneId, since: float) -> Wei:
        """Fees of records claimed since then and mined."""
        with self._snapshot() as db:
            return Wei(self._sums.setdefault(lane, DaySum()).since(since, _LaneFees(db, str(lane))))

    def claim(self, lease: LaneLease, records: Sequence[NonceRecord]) -> None:
        """Insert records, ordered by nonce: all of them or none, since one transaction holds them."""
        with self._transaction() as db:
            self._check_fence(db, lease)
            try:
                for record in records:
                    _insert(db, lease, record)
            except sqlite3.IntegrityError as error:
                raise LeaseLost(wallet=lease.lane.wallet, fence=lease.fence) from error

    def move(self, lease: LaneLease, intents: Sequence[IntentMove], nonces: Sequence[NonceMove]) -> None:
        """Write the moves, all or none."""
        with self._transaction() as db:
            self._check_fence(db, lease)
            for intent_move in intents:
                _move_intents(db, lease, intent_move)
            for nonce_move in nonces:
                _move_nonces(db, lease, nonce_move)

    def _delete_old(self, lane: LaneId) -> None:
        """Delete some of what ended long ago, now and then."""
        if time.monotonic() - self._deleted < _DELETE_SECONDS:
            return
        self._deleted = time.monotonic()
        before = time.time() - _KEEP_SECONDS
        with self._transaction() as db:
            (highest,) = db.execute(sql.HIGHEST_NONCE, (str(lane),)).fetchone()
            below = (highest or 0) - _KEEP_NONCES
            settled = (NonceState.FINAL, NonceState.FOREIGN)
            old = db.execute(sql.OLD_NONCES, (str(lane), before, below, *settled, _DELETED_AT_ONCE)).fetchall()
            for nonce, text in old:
                db.executemany(sql.CARRY_NO_MORE, [(key,) for key in _record(text).intents])
                db.execute(sql.DELETE_NONCE, (str(lane), nonce))
            for state in ENDED:
                db.execute(sql.DELETE_OLD_INTENTS, (str(lane), state, before, _DELETED_AT_ONCE))

    # -- connection ----------------------------------------------------------------------------------------------------

    def _one(self, query: str, *values: object) -> NonceRecord | None:
        row = self._connection().execute(query, values).fetchone()
        return None if row is None else _record(row[0])

    @staticmethod
    def _check_fence(db: sqlite3.Connection, lease: LaneLease) -> None:
        row = db.execute(sql.LEASE, (str(lease.lane),)).fetchone()
        if row is None or row[1] != lease.fence:
            raise LeaseLost(wallet=lease.lane.wallet, fence=row[1] if row else 0)

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """Several questions about one state of the file."""
        db = self._connection()
        db.execute("BEGIN")
        try:
            yield db
        finally:
            db.execute("COMMIT")

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
        local = self._local.get()
        held: sqlite3.Connection | None = getattr(local, "connection", None)
        if held is not None:
            return held
        db = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(sql.SCHEMA)
        _add_columns(db)
        local.connection = db
        return db

    def close(self) -> None:
        """Close this thread's connection; the next call opens another."""
        local = self._local.get()
        held: sqlite3.Connection | None = getattr(local, "connection", None)
        if held is not None:
            held.close()
            local.connection = None


def _add_columns(db: sqlite3.Connection) -> None:
    """Bring a file of an earlier release up to date. Several processes may do so at once."""
    for table, column, kind in sql.ADDED_COLUMNS:
        known = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
        if column not in known:
            try:
                db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
            except sqlite3.OperationalError as error:
                # Another process was faster.
                if "duplicate column" not in str(error):
                    raise


class _LaneFees:
    """One lane's fees, for the running sum."""

    def __init__(self, db: sqlite3.Connection, lane: str) -> None:
        self._db = db
        self._lane = lane

    def first_since(self, since: float) -> Nonce | None:
        """The lowest nonce claimed then or later."""
        row = self._db.execute(sql.FIRST_SINCE, (self._lane, since)).fetchone()
        return None if row is None else Nonce(row[0])

    def lowest_unsettled(self) -> Nonce | None:
        """The lowest nonce that is OPEN or MINED."""
        rows = [self._db.execute(sql.LOWEST_IN_STATE, (self._lane, state)).fetchone() for state in UNSETTLED]
        return min((Nonce(row[0]) for row in rows if row is not None), default=None)

    def fees(self, first: Nonce) -> list[Fee]:
        """Of mined nonces from `first` on."""
        rows = self._db.execute(sql.FEES_FROM, (self._lane, first, *IN_A_BLOCK))
        return [Fee(Nonce(nonce), created_at, int(fee)) for nonce, created_at, fee in rows]


def _insert(db: sqlite3.Connection, lease: LaneLease, record: NonceRecord) -> None:
    where = (str(record.lane), record.nonce)
    db.execute(sql.PUT_NONCE, (*where, record.state, lease.fence, _text(record_document(record))))
    db.executemany(sql.CARRY, [(key, *where) for key in record.intents])


def _move_intents(db: sqlite3.Connection, lease: LaneLease, move: IntentMove) -> None:
    for key in move.keys:
        (text,) = db.execute(sql.INTENT, (key,)).fetchone()
        known = _intent(text)
        generation = known.generation if move.generation is None else move.generation
        moved = replace(known, state=move.state, block=move.block, reason=move.reason, generation=generation)
        db.execute(sql.MOVE_INTENT, (moved.state, lease.fence, _text(intent_document(moved)), key))


def _move_nonces(db: sqlite3.Connection, lease: LaneLease, move: NonceMove) -> None:
    for nonce in nonces_of(move):
        where = (str(lease.lane), nonce)
        (text,) = db.execute(sql.NONCE, where).fetchone()
        before = _record(text)
        after = apply(before, move)
        block = None if after.mined is None else after.mined.block
        db.execute(sql.MOVE_NONCE, (after.state, block, lease.fence, _text(record_document(after)), *where))
        if before.intents and not after.intents:
            db.executemany(sql.CARRY_NO_MORE, [(key,) for key in before.intents])


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))


def _intent(text: str) -> Intent:
    return intent_from(json.loads(text))


def _record(text: str) -> NonceRecord:
    return record_from(json.loads(text))
