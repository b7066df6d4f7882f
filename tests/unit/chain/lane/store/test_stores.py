"""The lane's stores in memory and in SQLite, by the contract of all stores, and SQLite's own files and processes."""

from __future__ import annotations

import multiprocessing
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chain.lane.model.nonce import NonceState
from chain.lane.store import sqlite_queries as queries
from chain.lane.store.port import LaneStore
from chain.lane.store.sqlite import SqliteStore
from chain.lane.testing import MemoryStore
from protocol.errors import LeaseLost
from tests.lane_store_contract import LANE, LaneStoreContract, intent, past, queries_of_a_run, record


class TestMemoryStore(LaneStoreContract):
    @pytest.fixture
    def store(self) -> LaneStore:
        return MemoryStore()


#: How SQLite calls reading what a query was given.
_ASKED = ("SCAN CONSTANT ROW", "SCAN json_each ")


class TestSqliteStore(LaneStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> LaneStore:
        return SqliteStore(tmp_path / "deep" / "lane.db")

    def test_a_second_process_sees_what_the_first_wrote(self, tmp_path: Path) -> None:
        path = tmp_path / "lane.db"
        SqliteStore(path).add([intent("a")])
        assert SqliteStore(path).intents([intent("a").key]) == [intent("a")]

    def test_of_processes_that_claim_the_same_nonces_one_wins_each(self, tmp_path: Path) -> None:
        path = tmp_path / "lane.db"
        store = SqliteStore(path)
        assert store.take_lease(LANE, "elsewhere", 60.0)
        with multiprocessing.get_context("spawn").Pool(3) as pool:
            wins = pool.starmap(_claim_all, [(path, name) for name in "abc"])
        assert sum(wins) == 20
        assert store.highest_nonce(LANE) == 19

    def test_commits_reach_the_disk_before_they_return(self, tmp_path: Path) -> None:
        store = SqliteStore(tmp_path / "lane.db")
        store.add([intent("a")])
        (level,) = store._connection().execute("PRAGMA synchronous").fetchone()
        (mode,) = store._connection().execute("PRAGMA journal_mode").fetchone()
        assert (level, mode) == (2, "wal")

    def test_a_file_that_is_no_database_is_said_to_be_none(self, tmp_path: Path) -> None:
        (tmp_path / "lane.db").write_text("not a database, but long enough to be one" * 50)
        with pytest.raises(sqlite3.DatabaseError):
            SqliteStore(tmp_path / "lane.db").queued(LANE, 1)

    def test_every_named_query_finds_its_rows_by_an_index(self, tmp_path: Path) -> None:
        db = SqliteStore(tmp_path / "lane.db")._connection()
        named = {name: text for name, text in vars(queries).items() if name.isupper() and isinstance(text, str)}
        asking = {name: text for name, text in named.items() if name != "SCHEMA" and not name.startswith("_")}
        assert len(asking) > 20
        for name, text in asking.items():
            plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {text}", [None] * text.count("?"))]
            # What is asked for is read whole: the row of parameters, and the list of keys.
            scans = [step for step in plan if step.startswith("SCAN") and not step.startswith(_ASKED)]
            assert not scans, (name, plan)
            # Fees are read from the lowest unsettled nonce on, all others by exactly what they look for.
            assert name == "FEES_FROM" or not any("nonce>?" in step and "state" not in step for step in plan), name

    def test_a_run_asks_as_little_of_a_long_past_as_of_a_short_one(self, tmp_path: Path) -> None:
        store = SqliteStore(tmp_path / "lane.db")
        lease = store.take_lease(LANE, "elsewhere", 600.0)
        assert lease is not None
        past(store, lease, range(100))
        asked = queries_of_a_run(store)
        before = {name: _steps(store, ask) for name, ask in asked.items()}
        past(store, lease, range(100, 3_100))
        # The first question after a start sums the day up.
        store.spent_since(LANE, 5.0)
        after = {name: _steps(store, ask) for name, ask in asked.items()}
        assert {name: steps for name, steps in after.items() if steps > before[name] + 100} == {}

    def test_a_file_of_an_earlier_release_is_brought_up_to_date(self, tmp_path: Path) -> None:
        with sqlite3.connect(tmp_path / "lane.db") as db:
            db.execute(
                "CREATE TABLE leases (lane TEXT PRIMARY KEY, holder TEXT NOT NULL, fence INTEGER NOT NULL,"
                " until REAL NOT NULL, halted TEXT) WITHOUT ROWID"
            )
            db.execute("INSERT INTO leases VALUES (?, 'elsewhere', 3, 0, 'why')", (str(LANE),))
        store = SqliteStore(tmp_path / "lane.db")
        lease = store.take_lease(LANE, "elsewhere", 60.0)
        assert lease is not None
        assert (lease.fence, lease.halted, lease.waiting) == (4, "why", None)

    def test_what_ended_long_ago_is_deleted_and_what_is_new_or_open_stays(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("chain.lane.store.sqlite._KEEP_NONCES", 10)
        store = SqliteStore(tmp_path / "lane.db")
        lease = store.take_lease(LANE, "elsewhere", 600.0)
        assert lease is not None
        past(store, lease, range(50))
        past(store, lease, range(50, 70), at=time.time())
        store.claim(lease, [record(70, "open")])
        store.add([intent("open"), intent("waits")])
        other = SqliteStore(tmp_path / "lane.db")
        assert other.take_lease(LANE, "elsewhere", 60.0) is None
        kept = [item.nonce for item in other.newest(LANE, list(NonceState), 1000, None)]
        assert kept == list(range(70, 49, -1))
        assert other.holding(LANE, intent("past 3").key) is None
        assert other.holding(LANE, intent("open").key) is not None
        assert other.intents([intent("past 3").key]) == []
        assert len(other.intents([intent("past 60").key, intent("open").key, intent("waits").key])) == 3
        assert other.highest_nonce(LANE) == 70


def _steps(store: SqliteStore, ask: Callable[[], object]) -> int:
    """Instructions of SQLite's machine that a question takes: what it costs, on any computer."""
    steps = [0]

    def count() -> int:
        steps[0] += 1
        return 0

    store._connection().set_progress_handler(count, 1)
    try:
        ask()
    finally:
        store._connection().set_progress_handler(None, 1)
    return steps[0]


def _claim_all(path: Path, name: str) -> int:
    """How many of 20 nonces this process got."""
    from chain.lane.store.lease import LaneLease

    store, wins = SqliteStore(path), 0
    for nonce in range(20):
        try:
            store.claim(LaneLease(LANE, "elsewhere", 1), [record(nonce, f"{name}{nonce}")])
        except LeaseLost:
            continue
        wins += 1
    return wins
