"""The store in one SQLite file: for a service on one machine, whose processes may share it. The tables are MongoDB's
collections (`mongo`).

WAL with synchronous=FULL: a commit that returned survives `kill -9` and power loss. What is deleted is overwritten.
What may be forgotten goes when the next such row comes, a challenge or a session, since no server cleans up here.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from config.connections.sqlite import write_ahead, write_transaction
from config.processes.per_process import PerProcess
from protocol.errors import Unavailable
from protocol.types import TaskId, Wallet
from sms.store.port import OpenSession, Row
from sms.vault import Sealed

#: Seconds to wait for another's transaction; each takes a few milliseconds.
_BUSY_SECONDS: Final = 10.0
#: Rows that are forgotten at a time.
_FORGOTTEN: Final = 500
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS secrets (
    place TEXT PRIMARY KEY, key_id TEXT NOT NULL, content BLOB NOT NULL, address TEXT, ends_at REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS secrets_forget ON secrets (ends_at) WHERE ends_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS secrets_by_key ON secrets (key_id);
CREATE TABLE IF NOT EXISTS sessions (
    task_id TEXT NOT NULL, wallet TEXT NOT NULL, session_id TEXT NOT NULL, challenge TEXT NOT NULL,
    ends_at REAL NOT NULL, PRIMARY KEY (task_id, wallet)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sessions_forget ON sessions (ends_at);
CREATE INDEX IF NOT EXISTS sessions_by_id ON sessions (session_id);
CREATE TABLE IF NOT EXISTS chain (one INTEGER PRIMARY KEY CHECK (one = 1), chain_id INTEGER NOT NULL);
"""
_FORGET: Final = (
    "DELETE FROM secrets WHERE place IN (SELECT place FROM secrets WHERE ends_at < ? LIMIT ?)",
    "DELETE FROM sessions WHERE session_id IN (SELECT session_id FROM sessions WHERE ends_at < ? LIMIT ?)",
)
_ROW: Final = "SELECT place, key_id, content, address, ends_at FROM secrets"


class SqliteSecretStore:
    """The secrets in the file `path`, made if absent, for its owner alone. `clock`: Unix seconds."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._local = PerProcess(threading.local)

    def ready(self) -> None:
        """Make the file."""
        with self._answering():
            pass

    def bound_chain(self, chain_id: int) -> int:
        """The chain that the secrets are of: `chain_id` from the first call on, of whatever process."""
        with self._answering() as db:
            db.execute("INSERT OR IGNORE INTO chain VALUES (1, ?)", (chain_id,))
            (bound,) = db.execute("SELECT chain_id FROM chain").fetchone()
            return int(bound)

    def add(self, row: Row) -> bool:
        """Store a row; False, and nothing is changed, if its place is taken."""
        values = (row.place, row.sealed.key_id, row.sealed.content, row.address, row.ends_at)
        with self._answering() as db:
            if row.ends_at is not None:
                # A service whose sessions are attested elsewhere stores none here.
                self._forget(db)
            return db.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?, ?, ?, ?)", values).rowcount == 1

    def replace(self, place: str, sealed: Sealed, was: Sealed | None = None) -> bool:
        """Put another value in the place; False if it is empty, or holds another than `was`, if that is given."""
        change, values = "UPDATE secrets SET key_id = ?, content = ? WHERE place = ?", (sealed.key_id, sealed.content)
        with self._answering() as db:
            if was is None:
                return db.execute(change, (*values, place)).rowcount == 1
            known = (was.key_id, was.content)
            return db.execute(f"{change} AND key_id = ? AND content = ?", (*values, place, *known)).rowcount == 1

    def has(self, place: str) -> bool:
        """Whether something is stored there."""
        with self._answering() as db:
            return db.execute("SELECT 1 FROM secrets WHERE place = ?", (place,)).fetchone() is not None

    def find(self, places: Sequence[str]) -> Mapping[str, Row]:
        """What is stored at these places."""
        with self._answering() as db:
            found = [db.execute(f"{_ROW} WHERE place = ?", (place,)).fetchone() for place in places]
        return {row.place: row for row in map(_row, filter(None, found))}

    def sealed_otherwise(self, key_id: str, limit: int) -> list[Row]:
        """Some of the rows that are encrypted with another key than this one."""
        with self._answering() as db:
            return [_row(found) for found in db.execute(f"{_ROW} WHERE key_id <> ? LIMIT ?", (key_id, limit))]

    def uses(self, key_id: str) -> bool:
        """Whether a row is encrypted with this key."""
        with self._answering() as db:
            return db.execute("SELECT 1 FROM secrets WHERE key_id = ? LIMIT 1", (key_id,)).fetchone() is not None

    def add_session(self, session: OpenSession) -> None:
        """Store a session, in place of what the worker had for the task before."""
        values = (session.task_id, session.wallet, session.session_id, session.challenge, session.ends_at)
        with self._answering() as db:
            db.execute("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?)", values)
            self._forget(db)

    def session(self, session_id: str) -> OpenSession | None:
        """A session; None if it was taken, replaced, or never there."""
        wanted = "SELECT task_id, wallet, challenge, ends_at FROM sessions WHERE session_id = ?"
        with self._answering() as db:
            found = db.execute(wanted, (session_id,)).fetchone()
        if found is None:
            return None
        task_id, wallet, challenge, ends_at = found
        return OpenSession(session_id, TaskId(task_id), Wallet(wallet), Wallet(challenge), float(ends_at))

    def take_session(self, session_id: str) -> bool:
        """Remove a session; False if it is not there: of several that take it at once, one does."""
        with self._answering() as db:
            return db.execute("DELETE FROM sessions WHERE session_id = ?", (session_id,)).rowcount == 1

    def close(self) -> None:
        """Close this thread's connection; the next call opens another."""
        local = self._local.get()
        held: sqlite3.Connection | None = getattr(local, "connection", None)
        if held is not None:
            held.close()
            local.connection = None

    def _forget(self, db: sqlite3.Connection) -> None:
        """Delete some of the rows whose time is over: at most _FORGOTTEN of each kind."""
        for forget in _FORGET:
            db.execute(forget, (self._clock(), _FORGOTTEN))

    @contextmanager
    def _answering(self) -> Iterator[sqlite3.Connection]:
        """A transaction that has the write lock, undone if its body raises. SQLite's errors are raised as Unavailable,
        without what they quote.
        """
        try:
            db = self._connection()
            with write_transaction(db):
                yield db
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(what="SQLite", why=type(error).__name__) from None

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection; a forked child opens its own, as SQLite demands."""
        local = self._local.get()
        held: sqlite3.Connection | None = getattr(local, "connection", None)
        if held is not None:
            return held
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # SQLite gives its other files the mode of this one.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
        write_ahead(db, _BUSY_SECONDS)
        db.execute("PRAGMA secure_delete = ON")
        db.executescript(_SCHEMA)
        local.connection = db
        return db


def _row(found: tuple[str, str, bytes, str | None, float | None]) -> Row:
    """A row of the table as the port has it."""
    place, key_id, content, address, ends_at = found
    return Row(place, Sealed(key_id, content), None if address is None else Wallet(address), ends_at)
