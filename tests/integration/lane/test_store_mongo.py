from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from chain.lane.lease import Lease
from chain.lane.store_mongo import MongoStore
from pipeline.store.client import client
from protocol.errors import LeaseLost
from tests.lane_store_contract import LANE, LaneStoreContract, record


class TestMongoStore(LaneStoreContract):
    @pytest.fixture
    def store(self, mongo_store: MongoStore) -> MongoStore:
        return mongo_store

    def test_of_threads_that_claim_the_same_nonces_one_wins_each(self, store: MongoStore) -> None:
        def claim_all(name: str) -> int:
            wins = 0
            for nonce in range(20):
                try:
                    store.claim(Lease(LANE, "elsewhere", 1), [record(nonce, f"{name}{nonce}")])
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

    def test_every_query_of_a_run_uses_an_index(self, store: MongoStore, database: str, mongo_uri: str) -> None:
        store.claim(Lease(LANE, "elsewhere", 1), [record(number, f"n{number}") for number in range(50)])
        nonces = client(mongo_uri)[database]["nonces"]
        lane = {"lane": str(LANE)}
        for query in (
            lane | {"state": {"$in": ["open"]}},
            {"intents": record(1, "n1").intents[0], "intents.0": {"$exists": True}} | lane,
        ):
            plan = nonces.find(query).explain()["queryPlanner"]["winningPlan"]
            assert "COLLSCAN" not in str(plan)
            assert "IXSCAN" in str(plan)
