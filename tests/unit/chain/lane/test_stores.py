from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from chain.lane.store import LaneStore
from chain.lane.store_sqlite import SqliteStore
from chain.lane.testing import MemoryStore
from protocol.errors import LeaseLost
from tests.lane_store_contract import LANE, LaneStoreContract, intent, record


class TestMemoryStore(LaneStoreContract):
    @pytest.fixture
    def store(self) -> LaneStore:
        return MemoryStore()


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


def _claim_all(path: Path, name: str) -> int:
    """How many of 20 nonces this process got."""
    from chain.lane.lease import Lease

    store, wins = SqliteStore(path), 0
    for nonce in range(20):
        try:
            store.claim(Lease(LANE, "elsewhere", 1), [record(nonce, f"{name}{nonce}")])
        except LeaseLost:
            continue
        wins += 1
    return wins
