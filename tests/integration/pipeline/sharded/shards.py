"""The servers that have a database's rows: each shard where it is sharded, else the one that answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from config.values.stack_settings import StackSettings

#: For what one server is asked about itself.
ONE_SERVER = pytest.mark.skipif(StackSettings().sharded, reason="MongoDB is sharded here")
Found = Database[dict[str, Any]]


@contextmanager
def at_each_server(db: Found) -> Iterator[dict[str, Found]]:
    """The database at each of its servers, by the shard's name; what a router does not tell, as a profile, they do."""
    if db.client.admin.command("hello").get("msg") != "isdbgrid":
        yield {"": db}
        return
    with ExitStack() as clients:
        found = {}
        for shard in db.client.admin.command("listShards")["shards"]:
            _, _, address = shard["host"].partition("/")
            client = clients.enter_context(MongoClient[dict[str, Any]](f"mongodb://{address}/", directConnection=True))
            found[shard["_id"]] = client[db.name]
        yield found
