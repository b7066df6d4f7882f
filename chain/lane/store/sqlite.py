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

from chain.lane.model.intent import ENDED, UNENDED, Intent, IntentState, LaneId
from chain.lane.model.nonce import IN_A_BLOCK, UNSETTLED, NonceMove, NonceRecord, NonceState, apply, nonces_of
from chain.lane.store import sqlite_queries as sql
from chain.lane.store.documents import intent_document, intent_from, record_document, record_from
from chain.lane.store.lease import LaneLease, holder_is_dead
from chain.lane.store.port import IntentMove
from chain.lane.store.spent import DaySum, Fee
from config.connections.sqlite import write_ahead, write_transaction
from config.processes.per_process import PerProcess
from protocol.errors import LeaseLost
from protocol.types import BlockNumber, Nonce, Wei

#: Seconds to wait for another process's transaction; each takes a few milliseconds.
_BUSY_SECONDS = 10.0
#: Seconds after which what has ended may be deleted: ten times the longest task there is (category XL, 100 hours in
#: all), so that no action can still be asked for again.
_KEEP_SECONDS = 1000 * 3600.0
#: Newest nonces that are kept whatever their age, for reorgs and for operators' commands.
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
        """Store intents whose key is new; put those that are DONE back to QUEUED. The number of both."""
        added = 0
        with self._write_transaction() as db:
            for intent in intents:
                row = db.execute(sql.INTENT, (intent.key,)).fetchone()
                known = None if row is None else _intent_from_json(row[0])
                if known is not None and known.state is not IntentState.DONE:
                    continue
                queued = intent if known is None else replace(known, state=IntentState.QUEUED, reason="")
                document = _to_json(intent_document(queued))
                db.execute(sql.PUT_INTENT, (queued.key, str(queued.lane), queued.state, queued.created_at, document))
                added += 1
        return added

    def intents(self, keys: Sequence[str]) -> list[Intent]:
        """The intents of these keys that exist, in any order."""
        rows = self._connection().execute(sql.INTENTS, (_to_json(list(keys)),))
        return [_intent_from_json(row[0]) for row in rows]

    def queued(self, lane: LaneId, limit: int, skip: int = 0) -> list[Intent]:
        """The lane's QUEUED intents, oldest first."""
        rows = self._connection().execute(sql.INTENTS_IN_STATE, (str(lane), IntentState.QUEUED, limit, skip))
        return [_intent_from_json(row[0]) for row in rows]

    def in_state(self, lane: LaneId, states: Sequence[IntentState], limit: int) -> list[Intent]:
        """The lane's intents in these states, oldest first."""
        with self._read_transaction() as db:
            rows = [row for state in states for row in db.execute(sql.INTENTS_IN_STATE, (str(lane), state, limit, 0))]
        found = [_intent_from_json(row[0]) for row in rows]
        return sorted(found, key=lambda intent: (intent.created_at, intent.key))[:limit]

    def count(self, lane: LaneId, states: Sequence[IntentState]) -> int:
        """Number of the lane's intents in these states."""
        (number,) = self._connection().execute(sql.COUNT_INTENTS, (str(lane), *sql.pad_states(states))).fetchone()
        return int(number)

    def busy(self, lane: LaneId) -> bool:
        """Whether a run could find anything to do: an intent that has not ended, or a nonce that is not FINAL."""
        with self._read_transaction() as db:
            (intent,) = db.execute(sql.ANY_INTENT, (str(lane), *sql.pad_states(UNENDED))).fetchone()
            (nonce,) = db.execute(sql.ANY_NONCE, (str(lane), *sql.pad_states(UNSETTLED))).fetchone()
        return bool(intent or nonce)

    # -- the lease -----------------------------------------------------------------------------------------------------

    def take_lease(self, lane: LaneId, holder: str, seconds: float) -> LaneLease | None:
        """Take the lane's lease for `seconds`, under the next higher fence. None: another living process holds an
        unexpired lease.
        """
        self._delete_old(lane)
        with self._write_transaction() as db:
            row = db.execute(sql.LEASE, (str(lane),)).fetchone()
            if row is not None and row[2] > time.time() and not holder_is_dead(row[0]):
                return None
            fence = 1 if row is None else row[1] + 1
            db.execute(sql.TAKE_LEASE, (str(lane), holder, fence, time.time() + seconds))
        return LaneLease(lane, holder, fence, *((None, None) if row is None else row[3:]))

    def renew_lease(self, lease: LaneLease, seconds: float) -> None:
        """Extend the lease to `seconds` from now. Raises LeaseLost."""
        with self._write_transaction() as db:
            renewed = db.execute(sql.RENEW_LEASE, (time.time() + seconds, str(lease.lane), lease.fence))
            if renewed.rowcount == 0:
                raise LeaseLost(wallet=lease.lane.wallet, fence=lease.fence)

    def give_back(self, lease: LaneLease) -> None:
        """End the lease before its time, so that another process can take it."""
        with self._write_transaction() as db:
            db.execute(sql.RENEW_LEASE, (0, str(lease.lane), lease.fence))

    def halt(self, lane: LaneId, why: str | None, lease: LaneLease | None = None) -> None:
        """Halt the lane until an operator decides (None: end the halt). Raises LeaseLost."""
        with self._write_transaction() as db:
            if lease is not None:
                self._check_fence(db, lease)
            db.execute(sql.HALT, (str(lane), why))

    def halted(self, lane: LaneId) -> str | None:
        """Why the lane is halted; None if it is not."""
        row = self._connection().execute(sql.LEASE, (str(lane),)).fetchone()
        return None if row is None else row[3]

    def set_waiting(self, lease: LaneLease, why: str | None) -> None:
        """Record what the lane waits for and cannot repair (None: nothing). Raises LeaseLost."""
        with self._write_transaction() as db:
            self._check_fence(db, lease)
            db.execute(sql.WAIT, (why, str(lease.lane)))

    def waiting(self, lane: LaneId) -> str | None:
        """What the lane waits for and cannot repair; None if nothing."""
        row = self._connection().execute(sql.LEASE, (str(lane),)).fetchone()
        return None if row is None else row[4]

    # -- nonces --------------------------------------------------------------------------------------------------------

    def records(
        self, lane: LaneId, states: Sequence[NonceState], up_to: BlockNumber | None = None
    ) -> list[NonceRecord]:
        """Records in these states, lowest nonce first; with `up_to` only those mined in that block or below."""
        values = (str(lane), *sql.pad_states(states), up_to, up_to)
        found = [_record_from_json(row[0]) for row in self._connection().execute(sql.NONCES_IN_STATES, values)]
        return sorted(found, key=lambda record: record.nonce)

    def record(self, lane: LaneId, nonce: Nonce) -> NonceRecord | None:
        """The record of this nonce; None if there is none."""
        return self._find_record(sql.NONCE, str(lane), nonce)

    def newest(self, lane: LaneId, states: Sequence[NonceState], limit: int, below: Nonce | None) -> list[NonceRecord]:
        """Records in these states, highest nonce first; with `below` only those under it."""
        top = _ABOVE_ALL if below is None else below
        with self._read_transaction() as db:
            rows = [row for state in states for row in db.execute(sql.NEWEST_IN_STATE, (str(lane), state, top, limit))]
        return sorted((_record_from_json(row[0]) for row in rows), key=lambda record: -record.nonce)[:limit]

    def highest_nonce(self, lane: LaneId) -> Nonce | None:
        """The highest nonce that the lane ever claimed."""
        (highest,) = self._connection().execute(sql.HIGHEST_NONCE, (str(lane),)).fetchone()
        return None if highest is None else Nonce(highest)

    def holding(self, lane: LaneId, key: str) -> NonceRecord | None:
        """The record of the nonce that this intent (by its key) is sent with now; None if it has no nonce."""
        return self._find_record(sql.HOLDING, key, str(lane))

    def spent_since(self, lane: LaneId, since: float) -> Wei:
        """Fees in wei of nonces claimed at Unix time `since` or later and mined."""
        with self._read_transaction() as db:
            return Wei(self._sums.setdefault(lane, DaySum()).since(since, _LaneFees(db, str(lane))))

    def claim(self, lease: LaneLease, records: Sequence[NonceRecord]) -> None:
        """Insert the records of new nonces, all or none (one transaction). Raises LeaseLost, also for a nonce or an
        intent that has a record already.
        """
        with self._write_transaction() as db:
            self._check_fence(db, lease)
            try:
                for record in records:
                    _insert_record(db, lease, record)
            except sqlite3.IntegrityError as error:
                raise LeaseLost(wallet=lease.lane.wallet, fence=lease.fence) from error

    def move(self, lease: LaneLease, intents: Sequence[IntentMove], nonces: Sequence[NonceMove]) -> None:
        """Write the moves, all of them or none. Raises LeaseLost."""
        with self._write_transaction() as db:
            self._check_fence(db, lease)
            for intent_move in intents:
                _move_intents(db, lease, intent_move)
            for nonce_move in nonces:
                _move_nonces(db, lease, nonce_move)

    def _delete_old(self, lane: LaneId) -> None:
        """Delete a bounded number of rows that ended long ago, at most once in `_DELETE_SECONDS`."""
        if time.monotonic() - self._deleted < _DELETE_SECONDS:
            return
        self._deleted = time.monotonic()
        before = time.time() - _KEEP_SECONDS
        with self._write_transaction() as db:
            (highest,) = db.execute(sql.HIGHEST_NONCE, (str(lane),)).fetchone()
            below = (highest or 0) - _KEEP_NONCES
            settled = (NonceState.FINAL, NonceState.FOREIGN)
            old = db.execute(sql.OLD_NONCES, (str(lane), before, below, *settled, _DELETED_AT_ONCE)).fetchall()
            for nonce, text in old:
                db.executemany(sql.CARRY_NO_MORE, [(key,) for key in _record_from_json(text).intents])
                db.execute(sql.DELETE_NONCE, (str(lane), nonce))
            for state in ENDED:
                db.execute(sql.DELETE_OLD_INTENTS, (str(lane), state, before, _DELETED_AT_ONCE))

    # -- connection ----------------------------------------------------------------------------------------------------

    def _find_record(self, query: str, *values: object) -> NonceRecord | None:
        """The record that a query of one column finds; None if there is none."""
        row = self._connection().execute(query, values).fetchone()
        return None if row is None else _record_from_json(row[0])

    @staticmethod
    def _check_fence(db: sqlite3.Connection, lease: LaneLease) -> None:
        """Raise LeaseLost unless `lease` has the lane's last fence. Called inside of each write transaction."""
        row = db.execute(sql.LEASE, (str(lease.lane),)).fetchone()
        if row is None or row[1] != lease.fence:
            raise LeaseLost(wallet=lease.lane.wallet, fence=row[1] if row else 0)

    @contextmanager
    def _read_transaction(self) -> Iterator[sqlite3.Connection]:
        """A read transaction: all queries inside see one state of the file."""
        db = self._connection()
        db.execute("BEGIN")
        try:
            yield db
        finally:
            db.execute("COMMIT")

    @contextmanager
    def _write_transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction, undone if its body raises."""
        db = self._connection()
        with write_transaction(db):
            yield db

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection; a forked child opens its own, as SQLite demands."""
        local = self._local.get()
        held: sqlite3.Connection | None = getattr(local, "connection", None)
        if held is not None:
            return held
        db = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
        write_ahead(db, _BUSY_SECONDS)
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
    """Add the columns that a file of an earlier release lacks. Several processes may do so at the same time."""
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
        """The lowest nonce claimed at Unix time `since` or later."""
        row = self._db.execute(sql.FIRST_SINCE, (self._lane, since)).fetchone()
        return None if row is None else Nonce(row[0])

    def lowest_unsettled(self) -> Nonce | None:
        """The lowest nonce that is OPEN or MINED."""
        rows = [self._db.execute(sql.LOWEST_IN_STATE, (self._lane, state)).fetchone() for state in UNSETTLED]
        return min((Nonce(row[0]) for row in rows if row is not None), default=None)

    def fees(self, first: Nonce) -> list[Fee]:
        """Fees of the mined nonces from `first` on, by nonce."""
        rows = self._db.execute(sql.FEES_FROM, (self._lane, first, *IN_A_BLOCK))
        return [Fee(Nonce(nonce), created_at, int(fee)) for nonce, created_at, fee in rows]


def _insert_record(db: sqlite3.Connection, lease: LaneLease, record: NonceRecord) -> None:
    """Insert one nonce record, and mark its intents as carried by it."""
    where = (str(record.lane), record.nonce)
    db.execute(sql.PUT_NONCE, (*where, record.state, lease.fence, _to_json(record_document(record))))
    db.executemany(sql.CARRY, [(key, *where) for key in record.intents])


def _move_intents(db: sqlite3.Connection, lease: LaneLease, move: IntentMove) -> None:
    """Make one intent move: read each intent, change it, write it."""
    for key in move.keys:
        (text,) = db.execute(sql.INTENT, (key,)).fetchone()
        known = _intent_from_json(text)
        generation = known.generation if move.generation is None else move.generation
        moved = replace(known, state=move.state, block=move.block, reason=move.reason, generation=generation)
        db.execute(sql.MOVE_INTENT, (moved.state, lease.fence, _to_json(intent_document(moved)), key))


def _move_nonces(db: sqlite3.Connection, lease: LaneLease, move: NonceMove) -> None:
    """Make one nonce move: read each record, change it, write it."""
    for nonce in nonces_of(move):
        where = (str(lease.lane), nonce)
        (text,) = db.execute(sql.NONCE, where).fetchone()
        before = _record_from_json(text)
        after = apply(before, move)
        block = None if after.mined is None else after.mined.block
        db.execute(sql.MOVE_NONCE, (after.state, block, lease.fence, _to_json(record_document(after)), *where))
        db.executemany(sql.CARRY_NO_MORE, [(key,) for key in before.intents if key not in after.intents])
        db.executemany(sql.CARRY, [(key, *where) for key in after.intents if key not in before.intents])


def _to_json(document: object) -> str:
    """The document as compact JSON, as the file keeps it."""
    return json.dumps(document, separators=(",", ":"))


def _intent_from_json(text: str) -> Intent:
    """The intent in a row's JSON."""
    return intent_from(json.loads(text))


def _record_from_json(text: str) -> NonceRecord:
    """The nonce record in a row's JSON."""
    return record_from(json.loads(text))
