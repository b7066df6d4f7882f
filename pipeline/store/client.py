"""The scheduler's database: all collections behind one value."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pymongo.database import Database
from pymongo.errors import PyMongoError

from config.connections.mongodb import durable_database, while_indexing
from config.settings import Settings
from pipeline.store.audits import Audits
from pipeline.store.blocks import ChainStore
from pipeline.store.database.copies import Copies
from pipeline.store.database.migrations import migrate
from pipeline.store.deals import Deals
from pipeline.store.ended import Ended
from pipeline.store.hold import HoldSwitch
from pipeline.store.machine.census import Census
from pipeline.store.machine.enrolment import Enrolment
from pipeline.store.machine.ready import Rounds
from pipeline.store.machine.workers import Workers
from pipeline.store.money import gas, ledger
from pipeline.store.money.transfer_wish import TransferWishes
from pipeline.store.orders import Orders
from pipeline.store.pause import PauseSwitch
from pipeline.store.pins import Pins
from pipeline.store.quarantine import Quarantine, Quarantined
from pipeline.store.sweeps import Sweeps
from pipeline.store.task.challenges import TaskChallenges
from pipeline.store.task.lists import TaskLists
from pipeline.store.task.outputs import Outputs
from pipeline.store.task.tasks import Tasks
from pipeline.store.task.unserved import UnservedTasks
from pipeline.store.task.uploads import Uploads
from protocol.errors import NotPossible, Unavailable


def database(settings: Settings) -> Database[dict[str, Any]]:
    """The database named in the settings, every write acknowledged by a majority and journaled."""
    return durable_database(settings, settings.mongodb_database)


@contextmanager
def answering() -> Iterator[None]:
    """For commands: within the block, a database error is raised as Unavailable, with one sentence for people."""
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
    rounds: Rounds
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
    challenges: TaskChallenges
    unserved: UnservedTasks
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
            Rounds(db),
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
            TaskChallenges(db),
            UnservedTasks(db),
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
        with while_indexing():
            for part in (self.deals, self.tasks, self.workers, self.census, self.chain, self.outputs):
                part.ensure_indexes()
            self.quarantine.ensure_indexes()
            self.enrolment.ensure_indexes()
            self.pins.ensure_indexes()
            self.lists.ensure_indexes()
            self.unserved.ensure_indexes()
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
