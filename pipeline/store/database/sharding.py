"""Which collections a sharded MongoDB spreads over its shards, by which key, and why the others stay on one.

    tasks, deals, intents   by their `_id`       what is done to one row goes to the shard that has it
    logs                    by their task        a task's events are together, and beside it
    outputs                 by their task

Ids are hashes, so any range of them would do; MongoDB's own hash of them is taken since a collection that is empty is
then spread over all shards at once. Rows that belong together have no common key: a deal may be a bag of 100,000 tasks,
and would fill one shard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import HASHED, IndexModel
from pymongo.database import Database

from config.connections.mongodb import exclusively, while_indexing
from pipeline.store.database.migrations import drop_unique_index
from protocol.errors import NotPossible

#: Field → "hashed", or 1 for a range.
Key = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Sharding:
    """A collection and its shard key."""

    collection: str
    key: Key
    #: For people.
    why: str


SHARDED = (
    Sharding("tasks", {"_id": HASHED}, "read and written one by one, by id"),
    Sharding("deals", {"_id": HASHED}, "read and written one by one, by id; may be as many as tasks"),
    Sharding("intents", {"_id": HASHED}, "two or more a task, moved by id"),
    # The deals' own notices are of no task: by the second field they are still many pieces.
    Sharding("logs", {"event.task_id": HASHED, "_id": 1}, "ten or more a task, always asked for by task"),
    Sharding("outputs", {"task": HASHED}, "the largest rows, asked for by task"),
)

#: Collections that stay on the database's first shard, each with the reason.
ON_ONE_SHARD: Mapping[str, str] = {
    "nonces": "no nonce twice and no intent at two nonces: two unique indexes, which hold on one shard only",
    "movements": "written with the books in `cursors` in one transaction",
    "gas_sums": "written with `nonces` in one transaction; a few rows a day",
    "cursors": "a few rows: leases, how far things were read",
    "blocks": "the last few thousand blocks",
    "workers": "each round of matching asks for the best of all machines; as many rows as machines",
    "enrolment": "as many rows as wallets were listed",
    "challenges": "forgotten after minutes",
    "orders": "two orders never have the same number: a unique index",
    "pool": "a few rows",
    "pins": "small rows, looked for by content",
    "quarantine": "few rows",
}


def shard(db: Database[dict[str, Any]]) -> list[Sharding]:
    """Shard what is not sharded yet, and return it. What was stored moves by itself meanwhile (MongoDB's balancer).

    Raises NotPossible where `db` is not reached through a router, and PyMongoError.
    """
    missing = unsharded(db)
    # A process of the release before that has started since the migration has made it again.
    drop_unique_index(db)
    for each in missing:
        # One that is not empty is sharded only where its key has an index.
        with while_indexing():
            db[each.collection].create_indexes([IndexModel(list(each.key.items()), name="shard_key")])
        with exclusively():
            db.client.admin.command("shardCollection", f"{db.name}.{each.collection}", key=dict(each.key))
    return missing


def unsharded(db: Database[dict[str, Any]]) -> list[Sharding]:
    """The collections that `shard` would shard. Raises as `shard`."""
    if db.client.admin.command("hello").get("msg") != "isdbgrid":
        why = "MongoDB is not sharded: SLUICE_MONGODB_URI does not lead to a router (mongos)."
        raise NotPossible(what=why)
    names = [f"{db.name}.{each.collection}" for each in SHARDED]
    # From MongoDB 8 on, what is not sharded may be listed too.
    rows = db.client["config"]["collections"].find({"_id": {"$in": names}, "unsplittable": {"$ne": True}}, {"_id": 1})
    known = {row["_id"] for row in rows}
    return [each for each, name in zip(SHARDED, names, strict=True) if name not in known]


def table() -> Sequence[tuple[str, str, str]]:
    """(collection, key, why) of every collection, for people."""
    keys = [(each.collection, ", ".join(map(_told, each.key, each.key.values())), each.why) for each in SHARDED]
    return [*keys, *((name, "–", why) for name, why in ON_ONE_SHARD.items())]


def _told(field: str, kind: str | int) -> str:
    """A field of a shard key, for people."""
    return f"{field} {kind}" if kind == HASHED else field
