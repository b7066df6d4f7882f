"""The secret service's store in MongoDB, by the contract of all stores."""

from __future__ import annotations

import pytest
from pymongo.database import Database

from config.connections.mongodb import client
from ops.stack.stack import Stack
from sms.store.mongo import INDEXES, MongoSecretStore
from tests.secret_store_contract import ROW, SecretStoreContract


class TestMongo(SecretStoreContract):
    @pytest.fixture
    def store(self, stack: Stack, emptied_database: str) -> MongoSecretStore:
        store = MongoSecretStore(client(stack.settings["SLUICE_MONGODB_URI"])[emptied_database])
        store.ready()
        return store

    def test_rows_hold_nothing_but_what_is_named_and_are_found_by_an_index(self, store: MongoSecretStore) -> None:
        store.add(ROW)
        db: Database[dict[str, object]] = store._db
        assert db["secrets"].find_one({}, {"_id": 0}) == {"key_id": ROW.sealed.key_id, "content": ROW.sealed.content}
        for name, indexes in INDEXES.items():
            assert {index.document["name"] for index in indexes} < set(db[name].index_information())
