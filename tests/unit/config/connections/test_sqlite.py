"""SQLite files that several processes open at once, and writes that fail, which leave their connection fit for the next
one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chain.lane.store.sqlite import SqliteStore
from config.connections.sqlite import write_ahead, write_transaction
from sms.store.sqlite import SqliteSecretStore
from workers.task.journal import Journal


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.execute("PRAGMA foreign_keys = ON")
    made.execute("CREATE TABLE deals (id INTEGER PRIMARY KEY)")
    made.execute("CREATE TABLE tasks (deal INTEGER REFERENCES deals (id) DEFERRABLE INITIALLY DEFERRED)")
    yield made
    made.close()


def _write(db: sqlite3.Connection, deal: int) -> None:
    with write_transaction(db):
        db.execute("INSERT INTO deals VALUES (?)", (deal,))


def test_a_commit_that_is_refused_is_undone_and_the_next_write_succeeds(db: sqlite3.Connection) -> None:
    # A deal that is not there is noticed at the end alone.
    with pytest.raises(sqlite3.IntegrityError), write_transaction(db):
        db.execute("INSERT INTO tasks VALUES (7)")
    _write(db, 1)
    assert db.execute("SELECT count(*) FROM tasks").fetchone() == (0,)


def test_an_error_after_which_sqlite_has_undone_all_by_itself_is_told_as_it_is(db: sqlite3.Connection) -> None:
    _write(db, 1)
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"), write_transaction(db):
        db.execute("INSERT OR ROLLBACK INTO deals VALUES (1)")
    _write(db, 2)


def _lane(path: Path) -> None:
    store = SqliteStore(path)
    assert store.intents(["none"]) == []
    store.close()


def _journal(path: Path) -> None:
    Journal(path).close()


def _secrets(path: Path) -> None:
    SqliteSecretStore(path).ready()


@pytest.mark.parametrize("begin", [_lane, _journal, _secrets])
def test_a_new_file_that_another_process_is_just_making_is_waited_for(
    begin: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE made_first (id INTEGER)")
    monkeypatch.setattr("config.connections.sqlite.sleep", lambda _: other.execute("COMMIT"))
    begin(path)
    assert not other.in_transaction
    other.close()


def test_a_file_that_stays_locked_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    db = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        write_ahead(db, 0.0)
    db.close()
    other.close()
