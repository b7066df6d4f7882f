"""The router of a sharded MongoDB where no `mongos` is installed: MongoDB's own routing, as its shards have it.

No package of a registry has a `mongos`. But every shard can route: what it begins itself it asks of the other shards by
its commands `clusterFind`, `clusterUpdate` and so on, which are those of a `mongos` under another name. This program
takes commands of clients and gives them to the first shard under these names. What shards have no such command for:

    findAndModify              to the shard that has the row, by MongoDB's hash of the shard key
    count, distinct            as an aggregation
    createIndexes, dropIndexes to each shard that has the collection
    shardCollection, drop …    as the first shard's own commands for it
    transactions               to the first shard, which has all that is not sharded

For tests on one machine: one router, no data moves, shard keys begin with a hashed text, and a write whose answer got
lost is not known again by its number (`txnNumber`), as shards have no such thing for what they route.

    python -m ops.stack.clusters.router <host>:<port> <config server's> <name of a shard>=<its> …
"""

from __future__ import annotations

import hashlib
import socket
import struct
import sys
import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from ops.stack.clusters import wire
from ops.stack.clusters.wire import Message

Document = dict[str, Any]

#: Commands that shards have for routing, by what clients say.
_ROUTED = {
    name: f"cluster{name[0].upper()}{name[1:]}"
    for name in ("find", "aggregate", "getMore", "insert", "update", "delete")
}
#: Databases that belong to the servers themselves.
_OWN = frozenset(("admin", "config", "local"))
_MAJORITY: Document = {"writeConcern": {"w": "majority"}}
#: MongoDB's codes: the query does not say where the row is; there is no such command; a server did not answer.
_NO_SHARD_KEY, _NO_COMMAND, _UNREACHABLE = 61, 59, 6
#: The rank of text among the types that MongoDB hashes.
_TEXT = 15
#: MongoDB 6.0.
_WIRE_VERSION = 17
_HELLO: Document = {
    "ismaster": True,
    "isWritablePrimary": True,
    "msg": "isdbgrid",
    "maxBsonObjectSize": 16 << 20,
    "maxMessageSizeBytes": 48_000_000,
    "maxWriteBatchSize": 100_000,
    "logicalSessionTimeoutMinutes": 30,
    "minWireVersion": 0,
    "maxWireVersion": _WIRE_VERSION,
    "readOnly": False,
    "ok": 1.0,
}


@dataclass(frozen=True, slots=True)
class Sharded:
    """A sharded collection: the field that is hashed, and where each range of its hashes begins and lies."""

    field: str
    begins: tuple[int, ...]
    shards: tuple[str, ...]

    def shard_of(self, value: str) -> str:
        """The shard that has the rows with this value."""
        return self.shards[bisect_right(self.begins, hashed(value)) - 1]


def hashed(text: str) -> int:
    """MongoDB's hash of a text. Pure."""
    value = text.encode()
    content = struct.pack("<iii", 0, _TEXT, len(value) + 1) + value + b"\0"
    return int(struct.unpack_from("<q", hashlib.md5(content, usedforsecurity=False).digest())[0])


class Router:
    """What all connections share: clients of the servers, and which collection is sharded how."""

    def __init__(self, config: str, shards: Mapping[str, str]) -> None:
        """`config`, `shards`: addresses, the shards' by name."""
        self.config, self.shards = config, dict(shards)
        self.first = next(iter(self.shards.values()))
        self._clients = {address: _client(address) for address in (config, *self.shards.values())}
        self._tables: dict[str, Sharded | None] = {}
        self._databases: set[str] = set()
        self._lock = threading.Lock()
        self._answers: Mapping[str, Callable[[Message], Document]] = {
            **dict.fromkeys(("hello", "ismaster", "isMaster"), lambda _: _HELLO | {"localTime": datetime.now(UTC)}),
            "endSessions": lambda _: {"ok": 1.0},
            "killCursors": lambda message: {"cursorsKilled": message.body["cursors"], "ok": 1.0},
            "listShards": self._list,
            "replSetGetStatus": lambda _: _refusal(_NO_COMMAND, "this is a router"),
            "shardCollection": self._shard_collection,
            "count": self._count,
            "distinct": self._distinct,
            "createIndexes": self._of_each_shard,
            "dropIndexes": self._of_each_shard,
            "dbStats": self._stats,
            "drop": lambda message: self._of_first_shard("_shardsvrDropCollection", message.body["drop"], message),
            "dropDatabase": lambda message: self._of_first_shard("_shardsvrDropDatabase", 1, message),
            "renameCollection": self._rename,
        }

    def answer(self, message: Message) -> Document | None:
        """The answer to a command that no server gets as it is; None: `place` says which one gets it."""
        answer = self._answers.get(message.name)
        try:
            if message.database not in _OWN:
                self._found(message.database)
            return None if answer is None or "autocommit" in message.body else answer(message)
        except OperationFailure as error:
            return dict(error.details or _refusal(error.code or _UNREACHABLE, str(error)))
        except PyMongoError as error:
            return _refusal(_UNREACHABLE, str(error))

    def place(self, message: Message) -> tuple[str, Message]:
        """The address of the server that gets a command, and the command as it gets it. Raises LookupError for a
        findAndModify whose query does not say where the row is.
        """
        name, body = message.name, message.body
        if message.database == "config":
            return self.config, message
        if message.database in _OWN or "autocommit" in body:
            return self.first, message
        if name == "findAndModify" and (table := self._table(f"{message.database}.{body[name]}")) is not None:
            value = body.get("query", {}).get(table.field)
            if not isinstance(value, str):
                raise LookupError("Query for sharded findAndModify must contain the shard key")
            return self.shards[table.shard_of(value)], message
        return self.first, _routed(message)

    def _list(self, _: Message) -> Document:
        """The answer to `listShards`."""
        named = self.shards.items()
        return {"shards": [{"_id": name, "host": f"{name}/{address}"} for name, address in named], "ok": 1.0}

    def _shard_collection(self, message: Message) -> Document:
        """Carry `shardCollection` out."""
        database, _, collection = str(message.body["shardCollection"]).partition(".")
        self._found(database)
        sharding = {"shardKey": message.body["key"], "unique": message.body.get("unique", False)}
        wanted = {"_shardsvrCreateCollection": collection, **sharding, "databaseVersion": self._version(database)}
        return self._changed(database, wanted)

    def _rename(self, message: Message) -> Document:
        """Carry `renameCollection` out."""
        database, _, collection = str(message.body["renameCollection"]).partition(".")
        wanted = {"_shardsvrRenameCollection": collection, "to": message.body["to"], "stayTemp": False}
        wanted["dropTarget"] = bool(message.body.get("dropTarget"))
        return self._changed(database, wanted | {"databaseVersion": self._version(database)})

    def _of_first_shard(self, command: str, of: object, message: Message) -> Document:
        """The first shard's answer to a command that it has a routing command for."""
        database = message.database
        answer = self._changed(database, {command: of, "databaseVersion": self._version(database)})
        if message.name == "dropDatabase":
            with self._lock:
                self._databases.discard(database)
        return answer

    def _changed(self, database: str, command: Document) -> Document:
        """The first shard's answer to a command that makes or drops collections."""
        try:
            return self._ask(self.first, database, {**command, **_MAJORITY})
        finally:
            with self._lock:
                self._tables.clear()

    def _of_each_shard(self, message: Message) -> Document:
        """Send the same command to each shard with rows of the collection; the first one's answer."""
        body = {name: value for name, value in message.body.items() if name not in _OF_CONNECTION}
        # What a client sends in a section of its own.
        body |= wire.documents(message.rest)
        if self._table(f"{message.database}.{body[message.name]}") is None:
            return self._ask(self.first, message.database, body)
        first, *_ = [self._ask(address, message.database, body) for address in self.shards.values()]
        return first

    def _count(self, message: Message) -> Document:
        """The answer to `count`."""
        rows = self._ask(self.first, message.database, _as_aggregation(message.body))["cursor"]["firstBatch"]
        return {"n": rows[0]["n"] if rows else 0, "ok": 1.0}

    def _distinct(self, message: Message) -> Document:
        """The answer to `distinct`."""
        rows = self._ask(self.first, message.database, _as_aggregation(message.body))["cursor"]["firstBatch"]
        return {"values": [row["_id"] for row in rows if row["_id"] is not None], "ok": 1.0}

    def _stats(self, message: Message) -> Document:
        """The answer to `dbStats`: sums over the shards."""
        found = [self._ask(address, message.database, {"dbStats": 1}) for address in self.shards.values()]
        return {"ok": 1.0, **{name: sum(each[name] for each in found) for name in ("objects", "dataSize")}}

    def _found(self, database: str) -> None:
        """Make sure that a database exists, with the first shard as its primary shard."""
        with self._lock:
            if database not in self._databases:
                name = next(iter(self.shards))
                self._ask(
                    self.config, "admin", {"_configsvrCreateDatabase": database, "primaryShardId": name, **_MAJORITY}
                )
                self._databases.add(database)

    def _version(self, database: str) -> object:
        """The version of a database, which shards ask for; None if there is no such database."""
        row = self._clients[self.config]["config"]["databases"].find_one({"_id": database})
        return None if row is None else row["version"]

    def _table(self, name: str) -> Sharded | None:
        """How a collection, by its full name, is sharded; None if it is not."""
        with self._lock:
            if name not in self._tables:
                self._tables[name] = self._read_table(name)
            return self._tables[name]

    def _read_table(self, name: str) -> Sharded | None:
        """As `_table`, read from the config server."""
        config = self._clients[self.config]["config"]
        row = config["collections"].find_one({"_id": name})
        if row is None:
            return None
        field = next(iter(row["key"]))
        chunks = sorted(
            (int(begin) if isinstance(begin := chunk["min"][field], int) else _LOWEST, str(chunk["shard"]))
            for chunk in config["chunks"].find({"uuid": row["uuid"]})
        )
        return Sharded(field, tuple(begin for begin, _ in chunks), tuple(shard for _, shard in chunks))

    def _ask(self, address: str, database: str, command: Document) -> Document:
        """A server's answer to a command. Raises PyMongoError."""
        return dict(self._clients[address][database].command(command))


#: Fields of a message about the client's connection and session, which the router's own replace.
_OF_CONNECTION = frozenset(("$db", "lsid", "$clusterTime", "txnNumber", "$readPreference"))
#: Rows of an answer: all.
_ALL = 1_000_000
#: Below every hash.
_LOWEST = -(1 << 63)


def _routed(message: Message) -> Message:
    """The command as shards route it, also within an `explain`."""
    if message.name == "explain":
        return message.with_body(message.body | {"explain": _explainable(message.body["explain"])})
    name = _ROUTED.get(message.name)
    if name is None or str(message.body.get("collection", "")).startswith("$cmd."):
        return message
    (_, of), *others = message.body.items()
    # A shard that routes takes the number of a retryable write for that of a transaction.
    body = {name: of, **{key: value for key, value in others if key != "txnNumber"}}
    concern = body.get("readConcern", {})
    if concern.get("level") == "snapshot" and "atClusterTime" not in concern:
        # A shard that routes would take the time of its own last write, which others may be ahead of.
        body["readConcern"] = concern | {"atClusterTime": body["$clusterTime"]["clusterTime"]}
    return message.with_body(body)


def _explainable(command: Document) -> Document:
    """A command that reaches the same shards and can be explained: a shard that explains a write which it routes would
    ask itself without end.
    """
    name, collection = next(iter(command.items()))
    match name:
        case "count" | "distinct":
            return _as_aggregation(command)
        case "update" | "delete":
            return {"clusterFind": collection, "filter": command[f"{name}s"][0]["q"]}
        case "findAndModify":
            return {"clusterFind": collection, "filter": command.get("query") or {}}
        case "find" | "aggregate":
            return {_ROUTED[name]: collection, **{key: value for key, value in command.items() if key != name}}
    return command


def _as_aggregation(command: Document) -> Document:
    """A `count` or `distinct` as an aggregation."""
    stages: list[Document] = [{"$match": command.get("query") or {}}]
    if "key" in command:
        stages.append({"$group": {"_id": f"${command['key']}"}})
    else:
        stages.append({"$count": "n"})
    return {"clusterAggregate": next(iter(command.values())), "pipeline": stages, "cursor": {"batchSize": _ALL}}


def _refusal(code: int, says: str) -> Document:
    """The answer to a command that failed."""
    return {"ok": 0.0, "code": code, "errmsg": says}


def _client(address: str) -> MongoClient[Document]:
    """A client of one server."""
    return MongoClient(f"mongodb://{address}/", directConnection=True, serverSelectionTimeoutMS=5000)


def _connect(address: str) -> socket.socket:
    """A connection to a server, for the bytes of one client."""
    host, _, port = address.rpartition(":")
    found = socket.create_connection((host, int(port)))
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


def _serve(router: Router, client: socket.socket) -> None:
    """Answer one client until it goes; what it asks of a server goes by a connection of its own."""
    servers: dict[str, socket.socket] = {}
    try:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (raw := wire.read(client)) is not None:
            message = wire.parse(raw)
            answer = router.answer(message)
            if answer is None:
                try:
                    address, asked = router.place(message)
                except LookupError as error:
                    client.sendall(message.answer(_refusal(_NO_SHARD_KEY, str(error))))
                    continue
                server = servers.get(address) or servers.setdefault(address, _connect(address))
                server.sendall(asked.to_bytes())
                reply = wire.read(server)
                if reply is None:
                    return
                client.sendall(reply)
            else:
                client.sendall(message.answer(answer))
    except (OSError, ValueError) as error:
        # As when a server dies: the client connects again.
        print(f"A connection ended: {error}", file=sys.stderr, flush=True)
    finally:
        for connection in (client, *servers.values()):
            connection.close()


def main(words: Sequence[str]) -> None:
    """Route until killed. `words`: the arguments that the module's docstring names."""
    own, config, *named = words
    router = Router(config, dict(word.split("=", 1) for word in named))
    host, _, port = own.rpartition(":")
    with socket.create_server((host, int(port)), backlog=512) as listening:
        while True:
            client, _ = listening.accept()
            threading.Thread(target=_serve, args=(router, client), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1:])
