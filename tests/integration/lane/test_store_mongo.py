"""The lane's store in MongoDB, by the contract of all stores, and what only several threads and processes show."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from chain.lane.store.lease import LaneLease
from chain.lane.store.mongo import MongoStore
from config.connections.mongodb import client
from protocol.errors import LeaseLost
from tests.integration.pipeline.sharded.shards import ONE_SERVER
from tests.lane_store_contract import LANE, LaneStoreContract, intent, past, queries_of_a_run, record


class TestMongoStore(LaneStoreContract):
    @pytest.fixture
    def store(self, mongo_store: MongoStore) -> MongoStore:
        return mongo_store

    def test_of_threads_that_claim_the_same_nonces_one_wins_each(self, store: MongoStore) -> None:
        def claim_all(name: str) -> int:
            wins = 0
            for nonce in range(20):
                try:
                    store.claim(LaneLease(LANE, "elsewhere", 1), [record(nonce, f"{name}{nonce}")])
                except LeaseLost:
                    continue
                wins += 1
            return wins

        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(claim_all, "abcd")) == 20
        assert store.highest_nonce(LANE) == 19

    def test_of_threads_that_take_the_lease_one_wins(self, store: MongoStore) -> None:
        with ThreadPoolExecutor(8) as threads:
            leases = list(threads.map(lambda number: store.take_lease(LANE, f"elsewhere|{number}", 60.0), range(8)))
        assert sum(lease is not None for lease in leases) <= 1
        assert store.take_lease(LANE, "elsewhere|9", 60.0) is None or not any(leases)

    @ONE_SERVER
    def test_every_query_of_a_run_finds_what_it_looks_for_by_an_index_and_reads_no_past(
        self, store: MongoStore, emptied_database: str, mongo_uri: str
    ) -> None:
        lease = store.take_lease(LANE, "elsewhere|1|1|a", 600.0)
        assert lease is not None
        past(store, lease, range(500))
        store.add([intent("open")])
        store.claim(lease, [record(500, "open")])
        # The first question after a start sums the day up.
        store.spent_since(LANE, 5.0)
        db = client(mongo_uri)[emptied_database]
        for name, ask in queries_of_a_run(store).items():
            db.command("profile", 2)
            ask()
            db.command("profile", 0)
            asked = [
                entry
                for entry in db["system.profile"].find()
                if entry["op"] in ("query", "command") and ".system." not in entry["ns"] and "planSummary" in entry
            ]
            db["system.profile"].drop()
            assert asked, name
            for entry in asked:
                assert "COLLSCAN" not in entry["planSummary"], (name, entry["planSummary"])
                assert entry.get("docsExamined", 0) <= 2, (name, entry["planSummary"], entry["docsExamined"])
                assert entry.get("keysExamined", 0) <= 8, (name, entry["planSummary"], entry["keysExamined"])
