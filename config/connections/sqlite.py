"""One way to write to a SQLite file: what fails, at its end too, leaves no transaction open on the connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def write_transaction(db: sqlite3.Connection) -> Iterator[None]:
    """A transaction that has the write lock, undone if the block or its COMMIT raises. `db`: without transactions of
    Python's own (`isolation_level=None`). Raises sqlite3.Error.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # SQLite has undone it by itself after some errors, as of a full disk.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
