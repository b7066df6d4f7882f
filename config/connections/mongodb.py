"""MongoDB, as every process that stores there reaches it: one client per process, durable writes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from pymongo import MongoClient, WriteConcern, timeout
from pymongo.database import Database
from pymongo.errors import BulkWriteError, ConfigurationError

from config.processes.per_process import PerProcess
from config.settings import Settings
from protocol.errors import BadSetting

#: Seconds to find a primary: a restart of MongoDB takes 1-2 s, an election 10 s; callers retry after that.
SERVER_SELECTION_SECONDS = 10.0
#: Seconds for one operation, so that a frozen server is noticed.
OPERATION_SECONDS = 20.0
#: Seconds for what needs a collection or a database to itself (drop, rename): it waits for every transaction there, and
#: MongoDB gives one that a killed process left up to a minute by default (transactionLifetimeLimitSeconds).
EXCLUSIVE_SECONDS = 90.0
#: Seconds for building indexes at start: two million rows take a minute.
INDEX_SECONDS = 3600.0
#: Seconds between two heartbeats of the driver to each member, and for its answer or a new connection: a member that is
#: cut off is given up after both together, and requests go to the new primary. pymongo's own are 10 and 20.
HEARTBEAT_SECONDS, CONNECT_SECONDS = 4.0, 5.0

#: This process's clients by connection string.
_clients: PerProcess[dict[str, MongoClient[dict[str, Any]]]] = PerProcess(dict)


def client(uri: str) -> MongoClient[dict[str, Any]]:
    """This process's client for `uri`; a forked child gets its own (pymongo clients do not survive a fork).

    Raises BadSetting if `uri` is none.
    """
    clients = _clients.get()
    if uri not in clients:
        try:
            clients[uri] = MongoClient(
                uri,
                retryWrites=True,
                retryReads=True,
                serverSelectionTimeoutMS=int(SERVER_SELECTION_SECONDS * 1000),
                socketTimeoutMS=int(OPERATION_SECONDS * 1000),
                heartbeatFrequencyMS=int(HEARTBEAT_SECONDS * 1000),
                connectTimeoutMS=int(CONNECT_SECONDS * 1000),
                # Poll: one command a heartbeat. Streaming costs two, from every process and all day;
                # an operation that a former primary refuses has all members looked at at once anyway.
                serverMonitoringMode="poll",
                tz_aware=True,
            )
        except (ConfigurationError, ValueError):
            # pymongo quotes what it stumbled over, which may be half a password: neither its words nor its traceback.
            why = "it is no connection string of MongoDB, or the host of its `mongodb+srv` is not in the DNS"
            fix = "Write it as `mongodb://user:password@host:27017/?replicaSet=…`, with `/`, `:`, `@` and `%` escaped."
            raise BadSetting(name="SLUICE_MONGODB_URI", why=why, fix=fix) from None
    return clients[uri]


def close() -> None:
    """Close this process's connections; the next use connects again."""
    for one in (_clients.forget() or {}).values():
        one.close()


def exclusively() -> AbstractContextManager[None]:
    """Within this, an operation has EXCLUSIVE_SECONDS instead of OPERATION_SECONDS: for what needs a collection or a
    database to itself.
    """
    return timeout(EXCLUSIVE_SECONDS)


def while_indexing() -> AbstractContextManager[None]:
    """Within this, an operation has INDEX_SECONDS: an index on a large collection takes longer than anything else."""
    return timeout(INDEX_SECONDS)


def drop_database(uri: str, name: str) -> None:
    """Drop a database, also if a killed process left a transaction there. Raises BadSetting, PyMongoError."""
    with exclusively():
        client(uri).drop_database(name)


def may_be_undone(error: BulkWriteError) -> bool:
    """Whether what a bulk write did may be lost again: MongoDB could not say that a majority has it, as where the
    primary steps down meanwhile.
    """
    return bool((error.details or {}).get("writeConcernErrors"))


def durable_database(settings: Settings, name: str) -> Database[dict[str, Any]]:
    """A database of SLUICE_MONGODB_URI, every write acknowledged by a majority and journaled."""
    return client(settings.mongodb_uri.get_secret_value()).get_database(
        name, write_concern=WriteConcern(w="majority", j=True)
    )
