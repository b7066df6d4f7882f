"""Shard keys and indexes: a unique index on a sharded collection must begin with its key, or nothing is unique."""

from __future__ import annotations

import pytest

from pipeline.store import deals, ended, logs
from pipeline.store.database import sharding
from pipeline.store.task import lists, outputs, tasks

INDEXES = {
    "tasks": [*tasks.INDEXES, *lists.INDEXES, *ended.TASK_INDEXES],
    "deals": [*deals.INDEXES, *ended.DEAL_INDEXES],
    "logs": logs.INDEXES,
    "outputs": outputs.INDEXES,
}


@pytest.mark.parametrize("collection", INDEXES)
def test_no_sharded_collection_has_a_unique_index_beside_its_id(collection: str) -> None:
    assert not [index.document["name"] for index in INDEXES[collection] if index.document.get("unique")]


def test_a_collection_is_either_sharded_or_says_why_not() -> None:
    assert not {each.collection for each in sharding.SHARDED} & sharding.ON_ONE_SHARD.keys()
    assert [name for name, *_ in sharding.table()] == [
        *(each.collection for each in sharding.SHARDED),
        *sharding.ON_ONE_SHARD,
    ]
