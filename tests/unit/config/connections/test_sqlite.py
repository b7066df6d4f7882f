"""A write to a SQLite file that fails leaves its connection fit for the next one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from config.connections.sqlite import write_transaction


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
