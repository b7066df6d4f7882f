"""What sharding asks of a database that is not sharded."""

from __future__ import annotations

import pytest
from pymongo import ASCENDING

from pipeline.store.client import Store
from pipeline.store.database import sharding
from protocol.errors import NotPossible
from tests.integration.pipeline.sharded.shards import ONE_SERVER


@ONE_SERVER
def test_without_a_router_nothing_is_sharded_and_the_command_says_why(store: Store) -> None:
    with pytest.raises(NotPossible, match="SLUICE_MONGODB_URI does not lead to a router"):
        sharding.shard(store._db)


@ONE_SERVER
def test_the_unique_index_of_older_releases_which_forbids_sharding_goes_at_a_start(store: Store) -> None:
    store._db["tasks"].create_index([("deal", ASCENDING), ("index", ASCENDING)], name="by_deal", unique=True)
    store._db["cursors"].update_one({"_id": "schema"}, {"$set": {"version": 5}}, upsert=True)
    store.ensure_indexes()
    assert {"of_deal", "by_deal"} & store._db["tasks"].index_information().keys() == {"of_deal"}
