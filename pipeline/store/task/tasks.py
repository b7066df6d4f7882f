"""Collection `tasks`: every query and conditional update on tasks and their embedded replicates."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection as Some
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from pymongo import ASCENDING, IndexModel, InsertOne, UpdateOne
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import AutoReconnect, BulkWriteError
from pymongo.read_concern import ReadConcern

from config.connections.mongodb import may_be_undone
from pipeline.domain.due import DueTask, Turn
from pipeline.domain.records import LIVE, DealRecord, Replicate, ReplicateState, TaskRecord, TaskStage
from pipeline.store.documents import Row
from pipeline.store.quarantine import Quarantine, Reader
from pipeline.store.task import due, reorgs, reports, waiting
from pipeline.store.task.changes import changed_fields, updates
from pipeline.store.task.documents import TASKS, replicate_document, to_document
from protocol.types import DealId, Hash32, TaskId, Wallet
from protocol.wire import ResultLink, Step

log = structlog.get_logger(__name__)

#: MongoDB's code for a duplicate key.
DUPLICATE_KEY = 11000
#: Field that names the `save` that last changed a task.
_SAVE_MARK = "saved_by"

INDEXES = [
    # No two tasks have both alike: a task's id is their hash. Tasks are sharded by it, and then nothing else is unique.
    IndexModel([("deal", ASCENDING), ("index", ASCENDING)], name="of_deal"),
    *waiting.INDEXES,
    *due.INDEXES,
    IndexModel([("replicates.wallet", ASCENDING)], name="by_worker", partialFilterExpression={"open": True}),
]


class Verdicts(NamedTuple):
    """The answer to a ping: what to do with the tasks that the worker has."""

    #: They are over.
    forget: list[TaskId]
    #: The worker's replicate must stop.
    abort: list[TaskId]
    #: No such task, or no such replicate, is on record.
    unknown: list[TaskId]


@dataclass(frozen=True, slots=True)
class NewReplicates:
    """Replicates for one task, and what it wants after them."""

    task: TaskRecord
    replicates: tuple[Replicate, ...]
    wants: int
    leading: int
    newcomers: int


class Tasks:
    """Queries on `tasks`."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db[waiting.COLLECTION]
        #: The same collection, read as the majority of members has it: no change of primary undoes that.
        self._lasting = self._rows.with_options(read_concern=ReadConcern("majority"))
        self.reader = Reader(
            self._rows, TASKS, Quarantine(db), lambda until: {"next_visit": until, "not_before": until}
        )

    def ensure_indexes(self) -> None:
        """Create the indexes."""
        self._rows.create_indexes(INDEXES)

    # -- reading --------------------------------------------------------------------------------------------------

    def get_task(self, task_id: TaskId) -> TaskRecord | None:
        """One task; None if it is not stored. Raises InQuarantine."""
        return self.reader.one(self._rows.find_one({"_id": task_id}))

    def load_tasks(self, task_ids: Iterable[TaskId]) -> list[TaskRecord]:
        """The stored tasks of these ids, in no order; quarantined ones are left out."""
        return self.reader.each(self._rows.find({"_id": {"$in": list(task_ids)}}))

    def load_with_logs(self, task_ids: Iterable[TaskId]) -> list[tuple[TaskRecord, list[Row]]]:
        """As `load_tasks`, each with the rows of its logs on the present chain, for `Logs.read_rows`: in one query."""
        present: list[dict[str, Any]] = [{"$match": {"orphaned": False}}]
        logs = {"from": "logs", "localField": "_id", "foreignField": "event.task_id", "pipeline": present, "as": "logs"}
        rows = self._rows.aggregate([{"$match": {"_id": {"$in": list(task_ids)}}}, {"$lookup": logs}])
        return [(task, row["logs"]) for row in rows for task in self.reader.each([row])]

    def known(self, task_ids: Sequence[TaskId]) -> set[TaskId]:
        """Which of these tasks are stored and belong to a deal on the present chain."""
        rows = self._rows.find({"_id": {"$in": list(task_ids)}, "orphaned": False}, {"_id": 1})
        return {TaskId(row["_id"]) for row in rows}

    def of_deal(self, deal_id: DealId, first: int = 0, limit: int = 0) -> list[TaskRecord]:
        """A deal's tasks by index, from index `first` on; at most `limit`, 0 for all."""
        rows = self._rows.find({"deal": deal_id, "index": {"$gte": first}}).sort("index", ASCENDING).limit(limit)
        return self.reader.each(rows)

    def tasks_wanting_workers(self, now: float, limit: int, *, begun: bool = False) -> list[TaskRecord]:
        """Tasks that want replicates, still take votes and were not passed over lately, most urgent first.

        `begun`: only those that a worker was given before.
        """
        query = waiting.waiting(now)
        rows = self._rows.find(query | waiting.BEGUN).hint(waiting.BEGUN_TURN) if begun else self._rows.find(query)
        return self.reader.each(rows.sort(waiting.MOST_URGENT_FIRST).limit(limit))

    def read(self, rows: Iterable[Row]) -> list[TaskRecord]:
        """The tasks of rows of this collection that came with others (`Rounds.begin`)."""
        return self.reader.each(rows)

    def any_undecided(self, now: float) -> bool:
        """Whether a task was stored and not decided upon yet, so that it is not known whether it wants workers."""
        query = {"open": True, "stage": str(TaskStage.RECEIVED), "contribution_deadline": {"$gt": now}}
        return self._rows.find_one({**query, "version": 0, "orphaned": {"$ne": True}}, {"_id": 1}) is not None

    def defer_matching(self, task_ids: Sequence[TaskId], until: float) -> None:
        """Do not match these tasks before `until` (Unix seconds), since no worker could take them."""
        self._rows.update_many({"_id": {"$in": list(task_ids)}}, {"$set": {"not_before": until}})

    def tasks_due(self, now: float, limit: int, turns: Some[Turn] = frozenset(Turn)) -> list[DueTask]:
        """Open tasks whose next visit has come, longest overdue first; shared out as `pipeline.store.task.due.find_due`
        says.
        """
        return due.find_due(self._rows, now, limit, turns)

    def uninitialized(self, now: float, limit: int, after: str = "") -> list[TaskId]:
        """Tasks whose initialize was never handed to the lane, shared out as `due.find_uninitialized` says."""
        return due.find_uninitialized(self._rows, now, limit, after)

    def any_received(self) -> bool:
        """Whether any task is not initialized on chain, as far as is known."""
        return due.any_received(self._rows)

    def of_worker(self, wallet: Wallet) -> list[TaskRecord]:
        """Open tasks that a worker was given."""
        return self.reader.each(self._rows.find({"open": True, "replicates.wallet": wallet}))

    # -- deciding and its results ---------------------------------------------------------------------------------

    def insert_new(self, records: Sequence[TaskRecord]) -> int:
        """Insert the tasks that are new; how many were. Raises PyMongoError, also if that may be undone."""
        if not records:
            return 0
        try:
            result = self._rows.bulk_write([InsertOne(to_document(task)) for task in records], ordered=False)
        except BulkWriteError as error:
            details = error.details or {}
            others = any(problem["code"] != DUPLICATE_KEY for problem in details.get("writeErrors", []))
            if others or may_be_undone(error):
                raise
            return int(details["nInserted"])
        return result.inserted_count

    def save(self, records: Sequence[TaskRecord], before: Mapping[TaskId, TaskRecord] | None = None) -> set[TaskId]:
        """Store tasks whose stored version is still the record's, each with the version after it. `before`: the tasks
        as they were read, of which only what differs is written.

        Returns the tasks that were stored. The others were changed by another process meanwhile: load and decide
        again. One that was stored by us and then by another process may be left out.
        """
        if not records:
            return set()
        mark, known = secrets.token_hex(8), before or {}
        written = {_SAVE_MARK: mark}
        changes = [
            (
                task.task_id,
                task.version,
                {**changed_fields(known.get(task.task_id), task), **written, "version": task.version + 1},
            )
            for task in records
        ]
        tasks = [task.task_id for task in records]
        try:
            matched = self._rows.bulk_write(updates(changes), ordered=False).matched_count
        except (AutoReconnect, BulkWriteError) as error:
            if isinstance(error, BulkWriteError) and not may_be_undone(error):
                raise
            # The driver repeats no update of several rows: some may be stored, and what follows from them must be done.
            why = type(error).__name__
            log.info("It is asked which tasks were stored.", action="save_unsure", tasks=len(tasks), why=why)
        else:
            if matched in (0, len(tasks)):
                return set(tasks) if matched else set()
        # A bulk write counts what it changed but does not say which. A write that a change of primary may still undo
        # counts as not made.
        rows = self._lasting.find({"_id": {"$in": tasks}, _SAVE_MARK: mark}, {"_id": 1})
        return {TaskId(row["_id"]) for row in rows}

    def set_next_visits(self, next_visits: Mapping[TaskId, tuple[int, float]]) -> None:
        """Note when the sweep is to visit tasks next that are unchanged: task → (version seen, Unix seconds)."""
        writes = updates((task, version, {"next_visit": at}) for task, (version, at) in next_visits.items())
        if writes:
            self._rows.bulk_write(writes, ordered=False)

    def make_due(self, now: float) -> None:
        """Have every open task visited and matched from `now` on that was to be later, by a clock that was wrong."""
        due.make_due(self._rows, now)

    def assign(self, given: Sequence[NewReplicates], now: float, next_visit: float) -> set[TaskId]:
        """Add replicates to tasks that are unchanged since they were read; returns the tasks that took them.

        A task counts as taken if every one of its wallets is stored with the `assigned_at` of this call's replicate.
        """
        writes = [
            UpdateOne(
                {"_id": item.task.task_id, "version": item.task.version},
                {
                    "$push": {"replicates": {"$each": [replicate_document(each) for each in item.replicates]}},
                    "$inc": {"version": 1},
                    "$set": {
                        "wants": item.wants,
                        "leading": str(item.leading),
                        "newcomers": item.newcomers,
                        "changed_at": now,
                        "next_visit": next_visit,
                    },
                },
            )
            for item in given
        ]
        tasks = [item.task.task_id for item in given]
        matched = self._rows.bulk_write(writes, ordered=False).matched_count if writes else 0
        if matched in (0, len(writes)):
            return set(tasks) if matched else set()
        # A bulk write counts what it changed but does not say which.
        rows = self._rows.find({"_id": {"$in": tasks}}, {"replicates.wallet": 1, "replicates.assigned_at": 1})
        stored = {row["_id"]: {(each["wallet"], each["assigned_at"]) for each in row["replicates"]} for row in rows}
        return {
            item.task.task_id
            for item in given
            if {(each.wallet, each.assigned_at) for each in item.replicates} <= stored.get(item.task.task_id, set())
        }

    def add_replicate(self, task_id: TaskId, replicate: Replicate) -> None:
        """Add the replicate of a wallet that the task does not know yet; repeating it changes nothing."""
        self._rows.update_one(
            {"_id": task_id, "replicates.wallet": {"$ne": replicate.wallet}},
            {
                "$push": {"replicates": replicate_document(replicate)},
                "$inc": {"version": 1},
                "$set": {"next_visit": 0.0},
            },
        )

    def record_failed_intents(self, failures: Sequence[tuple[TaskId, str, int, str, str]]) -> None:
        """Note lane intents that ended FAILED: (task, method, generation, its name as counted, why); once each."""
        writes = [
            UpdateOne(
                {"_id": task, f"sent.{method}.generation": generation},
                {
                    "$inc": {f"failed.{name}": 1, "version": 1},
                    "$set": {"why": why, "next_visit": 0.0, "changed_at": time.time()},
                    "$unset": {f"sent.{method}": ""},
                },
            )
            for task, method, generation, name, why in failures
        ]
        if writes:
            self._rows.bulk_write(writes, ordered=False)

    def forget_sent(self, task_ids: Sequence[TaskId]) -> None:
        """Let tasks submit their transactions to the lane again: a reorg may have undone what made them unnecessary.

        Ended ones are open for the sweep until they are found ended again: the reorg may have taken that back too.
        """
        self._rows.update_many(
            {"_id": {"$in": list(task_ids)}},
            {"$set": {"sent": {}, "open": True, "next_visit": 0.0}, "$inc": {"version": 1}},
        )

    def orphan(self, deal_ids: Sequence[DealId]) -> None:
        """Mark all tasks of these deals as orphaned, since a reorg took the deals off the chain."""
        reorgs.orphan(self._rows, deal_ids)

    def bring_back(self, deal: DealRecord) -> None:
        """Give a deal's tasks the terms that it has now, since it is on the chain (again): see
        `pipeline.store.task.reorgs.bring_back`.
        """
        reorgs.bring_back(self._rows, deal)

    def lose_worker(self, wallet: Wallet) -> list[TaskId]:
        """Mark the live replicates of a silent worker LOST; returns the tasks concerned."""
        live = {"wallet": wallet, "state": {"$in": [str(state) for state in LIVE]}}
        query = {"open": True, "replicates.wallet": wallet, "replicates": {"$elemMatch": live}}
        touched = [TaskId(row["_id"]) for row in self._rows.find(query, {"_id": 1})]
        self._rows.update_many(
            {"_id": {"$in": touched}, "replicates": {"$elemMatch": live}},
            {"$set": {"replicates.$.state": str(ReplicateState.LOST)}, "$inc": {"version": 1}},
        )
        return touched

    # -- reports of workers -----------------------------------------------------------------------------------------

    def record_report(
        self,
        task_id: TaskId,
        wallet: Wallet,
        step: Step,
        now: float,
        cause: str | None,
        exit_code: int | None,
        began: float | None = None,
    ) -> TaskRecord | None:
        """Note a worker's report on its own replicate, and return the task as it was before. `began`: as of
        `reports.noted`. None: no such replicate, or the step was noted before. Where the report frees the replicate's
        slot (`pipeline.domain.decide.frees_slot`), the caller tells its worker's row (`Workers.pledge`), or else the
        sweep does. Raises InQuarantine.
        """
        expected = {"_id": task_id, "replicates": {"$elemMatch": reports.expected(wallet, step)}}
        change = reports.noted(step, now, cause, exit_code, began)
        filters = reports.own(wallet, step, cause)
        return self.reader.one(self._rows.find_one_and_update(expected, change, array_filters=filters))

    def record_upload(
        self,
        task_id: TaskId,
        wallet: Wallet,
        link: ResultLink,
        digest: Hash32,
        callback_data: str | None,
        now: float,
    ) -> bool:
        """Note the stored result of a worker's own replicate, already checked by the API. False: no such replicate."""
        change = {
            "replicates.$.link": link.model_dump(),
            "replicates.$.digest": digest,
            "replicates.$.callback_data": callback_data,
            f"replicates.$.steps.{Step.UPLOADED}": now,
            "changed_at": now,
            "heard_at": now,
        }
        own = {"_id": task_id, "replicates.wallet": wallet}
        return self._rows.update_one(own, {"$set": change, "$inc": {"version": 1}}).matched_count == 1

    def verdicts_for_ping(self, task_ids: Sequence[TaskId], wallet: Wallet) -> Verdicts:
        """For a ping: which tasks are over, which of the worker's replicates must stop, and of which nothing is known:
        this database may have been lost or restored since.
        """
        if not task_ids:
            return Verdicts([], [], [])
        shown = {"open": 1, "replicates.wallet": 1, "replicates.state": 1}
        rows = {row["_id"]: row for row in self._rows.find({"_id": {"$in": list(task_ids)}}, shown)}
        found = Verdicts([], [], [])
        for task in task_ids:
            row = rows.get(task)
            try:
                own = [item for item in row["replicates"] if item["wallet"] == wallet] if row else []
                over = row is not None and not row["open"]
                stop = bool(own) and own[0]["state"] == ReplicateState.ABORTED
            except (KeyError, TypeError) as error:
                # Left out of the answer: the machine continues.
                self.reader.quarantine(task, f"it has another shape ({error!r})")
                continue
            if over:
                found.forget.append(task)
            elif not own:
                found.unknown.append(task)
            elif stop:
                found.abort.append(task)
        return found
