"""The connection: one client per process, durable writes, and all collections behind one value."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pymongo import MongoClient, WriteConcern, timeout
from pymongo.database import Database
from pymongo.errors import ConfigurationError, PyMongoError

from config.per_process import PerProcess
from config.settings import Settings
from pipeline.store import gas, ledger
from pipeline.store.audits import Audits
from pipeline.store.blocks import ChainStore
from pipeline.store.census import Census
from pipeline.store.copies import Copies
from pipeline.store.deals import Deals
from pipeline.store.ended import Ended
from pipeline.store.enrolment import Enrolment
from pipeline.store.hold import HoldSwitch
from pipeline.store.migrations import migrate
from pipeline.store.orders import Orders
from pipeline.store.outputs import Outputs
from pipeline.store.pause import PauseSwitch
from pipeline.store.pins import Pins
from pipeline.store.quarantine import Quarantine, Quarantined
from pipeline.store.sweeps import Sweeps
from pipeline.store.task_lists import TaskLists
from pipeline.store.tasks import Tasks
from pipeline.store.transfer_wish import TransferWishes
from pipeline.store.uploads import Uploads
from pipeline.store.workers import Workers
from protocol.errors import BadSetting, NotPossible, Unavailable

#: Seconds to find a primary: a restart of MongoDB takes 1-2 s, an election 10 s; callers retry after that.
SERVER_SELECTION_SECONDS = 10.0
#: Seconds for one operation, so that a frozen server is noticed.
OPERATION_SECONDS = 20.0
#: Seconds between two looks at each member, and for its answer or a new connection: a member that is cut off is given
#: up after both together, and what waits for it is asked of the new primary. pymongo's own are 10 and 20.
LOOK_SECONDS, CONNECT_SECONDS = 4.0, 5.0
#: Seconds for building indexes at start: two million rows take a minute.
INDEX_SECONDS = 3600.0

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
                heartbeatFrequencyMS=int(LOOK_SECONDS * 1000),
                connectTimeoutMS=int(CONNECT_SECONDS * 1000),
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


def database(settings: Settings) -> Database[dict[str, Any]]:
    """The database named in the settings, every write acknowledged by a majority and journaled."""
    return client(settings.mongodb_uri.get_secret_value()).get_database(
        settings.mongodb_database, write_concern=WriteConcern(w="majority", j=True)
    )


@contextmanager
def answering() -> Iterator[None]:
    """For commands that people type: raises Unavailable, one sentence, when the database is away."""
    try:
        yield
    except PyMongoError as error:
        raise Unavailable(what="MongoDB", why=str(error).partition(" (")[0]) from error


@dataclass(frozen=True, slots=True)
class Store:
    """All collections of the scheduler."""

    deals: Deals
    tasks: Tasks
    workers: Workers
    chain: ChainStore
    outputs: Outputs
    quarantine: Quarantine
    enrolment: Enrolment
    pins: Pins
    sweeps: Sweeps
    census: Census
    pause: PauseSwitch
    hold: HoldSwitch
    lists: TaskLists
    uploads: Uploads
    transfers: TransferWishes
    orders: Orders
    audits: Audits
    ended: Ended
    _db: Database[dict[str, Any]]

    @classmethod
    def of(cls, db: Database[dict[str, Any]]) -> Store:
        """The collections of one database."""
        return cls(
            Deals(db),
            Tasks(db),
            Workers(db),
            ChainStore(db),
            Outputs(db),
            Quarantine(db),
            Enrolment(db),
            Pins(db),
            Sweeps(db),
            Census(db),
            PauseSwitch(db),
            HoldSwitch(db),
            TaskLists(db),
            Uploads(db),
            TransferWishes(db),
            Orders(db),
            Audits(db),
            Ended(db),
            db,
        )

    @classmethod
    def open(cls, settings: Settings) -> Store:
        """The collections of the settings' database; connects on first use."""
        return cls.of(database(settings))

    def ensure_indexes(self) -> None:
        """Bring the database to this release: missing indexes, then migrations. Idempotent, cheap when all is done.

        Raises NotPossible while a restore is unfinished: part of what is stored may be of another moment.
        """
        cut_off = Copies(self._db).cut_off()
        if cut_off:
            raise NotPossible(what=cut_off)
        # An index on a large collection takes longer than any other operation may.
        with timeout(INDEX_SECONDS):
            for part in (self.deals, self.tasks, self.workers, self.census, self.chain, self.outputs):
                part.ensure_indexes()
            self.quarantine.ensure_indexes()
            self.enrolment.ensure_indexes()
            self.pins.ensure_indexes()
            self.lists.ensure_indexes()
            self.orders.ensure_indexes()
            self.ended.ensure_indexes()
            gas.ensure_indexes(self._db)
            ledger.ensure_indexes(self._db)
            migrate(self._db)

    def reread_quarantined(self, entry: Quarantined) -> None:
        """Read a quarantined row again; it is released if it fits now."""
        match entry.collection:
            case "deals":
                self.deals.reread(entry.key)
            case "tasks":
                self.tasks.reader.reread(entry.key)
            case "workers":
                self.workers.reader.reread(entry.key)
            case "logs":
                self.chain.logs.reader.reread(entry.key)
            case "outputs":
                self.outputs.reader.reread(entry.key)
            case "orders":
                self.orders.reader.reread(entry.key)
            case "blocks":
                self.chain.reader.reread(entry.key)
            case other:
                self.quarantine.release(other, entry.key)
