"""One way to open a SQLite file and to write to it: a commit that returned is on the disk, and what fails, at its end
too, leaves no transaction open on the connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep

#: Seconds between two tries to switch a file to its write-ahead log, which takes another process some milliseconds.
_PAUSE = 0.01


def write_ahead(db: sqlite3.Connection, seconds: float) -> None:
    """Switch the file of `db` to a write-ahead log that is synced at each commit (WAL, synchronous=FULL): a commit that
    returned survives `kill -9` and power loss.

    SQLite itself does not wait where another process writes to a new file, as at a machine's first start: it is asked
    again for so many seconds. Raises sqlite3.Error.
    """
    until = monotonic() + seconds
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic() >= until:
                raise
        sleep(_PAUSE)
    db.execute("PRAGMA synchronous = FULL")


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
