"""Collection `tasks` for people: pages, counts, ages. No query here costs more as ended tasks grow in number."""

from __future__ import annotations

from collections.abc import Collection as Some
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.collection import Collection
from pymongo.database import Database

from pipeline.domain.records import LIVE, DealRecord, TaskRecord, TaskStage
from pipeline.store.quarantine import Quarantine, Reader
from pipeline.store.task.documents import TASKS
from protocol.types import BlockNumber, DealId, TaskId, Timestamp, Wallet

#: Stages of tasks that are not over.
OPEN_STAGES = tuple(stage for stage in TaskStage if stage not in (TaskStage.COMPLETED, TaskStage.FAILED))
#: ... of those in which votes are still awaited, and of those that are agreed upon.
VOTING_STAGES = (TaskStage.RECEIVED, TaskStage.INITIALIZED, TaskStage.RUNNING)
AGREED_STAGES = tuple(stage for stage in OPEN_STAGES if stage not in VOTING_STAGES)
#: Tasks counted for one figure: beyond that, more of them change nothing that a person would do.
MOST_COUNTED = 1_000_000

INDEXES = [
    # Pages of any stages, newest first, and counts of those that are not over.
    IndexModel(
        [("stage", ASCENDING), ("matched_block", DESCENDING), ("_id", DESCENDING)], name="by_stage_block_and_id"
    ),
    IndexModel(
        [("finalized_block", ASCENDING)], name="finalized", partialFilterExpression={"finalized_block": {"$gt": 0}}
    ),
    # The task of a stage whose time ends first.
    *(
        IndexModel([("stage", ASCENDING), (until, ASCENDING)], name=until, partialFilterExpression={"open": True})
        for until in ("contribution_deadline", "final_deadline")
    ),
    IndexModel([("deal", ASCENDING)], name="open_of_deal", partialFilterExpression={"open": True}),
]


#: A place in the order of tasks or deals, those matched last first: block of the match, and id.
Place = tuple[BlockNumber, str]


@dataclass(frozen=True, slots=True)
class Window:
    """A task's time from the block of its match to its next deadline: the contribution deadline before consensus, the
    final deadline after it.
    """

    matched: Timestamp
    deadline: Timestamp

    def used(self, now: float) -> float:
        """Fraction of the window that has passed at `now` (Unix seconds); above 1 after the deadline."""
        return max(0.0, now - self.matched) / (self.deadline - self.matched)


@dataclass(frozen=True, slots=True)
class StageCount:
    """Tasks of one stage; `oldest`: block time of the match of the one that was matched first, None without any.

    `windows`: the time of that one, and of the one whose deadline comes first. With categories of minutes and of days
    these are seldom the same.
    """

    count: int
    oldest: Timestamp | None = None
    windows: tuple[Window, ...] = ()


class TaskLists:
    """Queries on `tasks` for people: no task waits for their answers."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db["tasks"]
        self._reader = Reader(
            self._rows, TASKS, Quarantine(db), lambda until: {"next_visit": until, "not_before": until}
        )

    def ensure_indexes(self) -> None:
        """Create the indexes."""
        self._rows.create_indexes(INDEXES)

    def newest(self, stages: Some[TaskStage], limit: int, *, before: Place | None = None) -> list[TaskRecord]:
        """Tasks at these stages, those matched last first; `before`: only those behind this place in that order."""
        at_stages: dict[str, Any] = {"stage": {"$in": _names(stages)}}
        if before is None:
            return self._page(at_stages, limit)
        block, task_id = before
        rest = self._page(at_stages | {"matched_block": block, "_id": {"$lt": task_id}}, limit)
        left = limit - len(rest)
        return rest + (self._page(at_stages | {"matched_block": {"$lt": block}}, left) if left else [])

    def waiting(self, now: float, limit: int) -> list[TaskRecord]:
        """Tasks that want replicates and still take votes, passed over lately or not, the most urgent first."""
        query = {"wants": {"$gt": 0}, "contribution_deadline": {"$gt": now}}
        return self._reader.each(self._rows.find(query).sort("contribution_deadline", ASCENDING).limit(limit))

    def open_of_deal(self, deal_id: DealId, limit: int) -> list[TaskRecord]:
        """A deal's tasks that are not over, at most `limit`."""
        return self._reader.each(self._rows.find({"open": True, "deal": deal_id}).limit(limit))

    def of_deal(self, deal_id: DealId, first: int, limit: int, stages: Some[TaskStage]) -> list[TaskRecord]:
        """A deal's tasks at these stages by index, from index `first` on; at most `limit`."""
        query = {"deal": deal_id, "index": {"$gte": first}, "stage": {"$in": _names(stages)}}
        return self._reader.each(self._rows.find(query).sort("index", ASCENDING).limit(limit))

    def of_worker(self, wallet: Wallet, limit: int, stages: Some[TaskStage] = OPEN_STAGES) -> list[TaskRecord]:
        """At most `limit` open tasks that were assigned to this worker and stand at one of `stages`."""
        query = {"open": True, "replicates.wallet": wallet, "stage": {"$in": _names(stages)}}
        return self._reader.each(self._rows.find(query).limit(limit))

    def open_pages(self, size: int) -> Iterator[list[TaskRecord]]:
        """All open tasks in pages of about `size`, deal by deal; what begins meanwhile may be left out."""
        deals: list[DealId] = []
        together = 0
        for deal_id, number in self.open_by_deal().items():
            if number > size:
                yield from self._open_pages_of(deal_id, size)
                continue
            if together + number > size:
                yield self._open_of(deals)
                deals, together = [], 0
            deals.append(deal_id)
            together += number
        if deals:
            yield self._open_of(deals)

    def _open_of(self, deal_ids: Some[DealId]) -> list[TaskRecord]:
        """The open tasks of these deals."""
        return self._reader.each(self._rows.find({"open": True, "deal": {"$in": list(deal_ids)}}))

    def _open_pages_of(self, deal_id: DealId, size: int) -> Iterator[list[TaskRecord]]:
        """The open tasks of a deal, page by page."""
        first = 0
        while page := self.of_deal(deal_id, first, size, OPEN_STAGES):
            first = page[-1].index + 1
            yield page

    def tasks_of_deals(self, deals: Some[DealRecord]) -> dict[DealId, int]:
        """How many tasks of each of these deals are stored, over or not; without those that a reorg took off it."""
        match = {"$match": {"deal": {"$in": [deal.deal_id for deal in deals]}}}
        rows = self._rows.aggregate([match, {"$group": {"_id": "$deal", "count": {"$sum": 1}}}])
        counts = {row["_id"]: int(row["count"]) for row in rows}
        return {deal.deal_id: self._stored(deal, counts.get(deal.deal_id, 0)) for deal in deals}

    def _stored(self, deal: DealRecord, count: int) -> int:
        """The number of a deal's tasks, where `count` are stored under its id."""
        if count <= deal.bot_size:
            return count
        own = {"$gte": deal.bot_first, "$lt": deal.bot_first + deal.bot_size}
        return self._rows.count_documents({"deal": deal.deal_id, "index": own})

    def count_by_stage(self) -> dict[TaskStage, StageCount]:
        """How many tasks stand at each stage that is not an end: the ended ones only grow in number."""
        return {stage: self._stage(stage) for stage in OPEN_STAGES}

    def count_begun(self, now: float) -> int:
        """Tasks that a machine is at or has voted on, and that can still be completed: what a paused pool finishes."""
        live = {"$elemMatch": {"state": {"$in": _names(LIVE)}}}
        voting = {"open": True, "replicates.wallet": {"$gt": ""}, "replicates": live}
        early = {"stage": {"$in": _names(VOTING_STAGES)}, "contribution_deadline": {"$gt": now}}
        late = {"stage": {"$in": _names(AGREED_STAGES)}, "final_deadline": {"$gt": now}, "open": True}
        # By the index of replicates of open tasks, and by that of stages.
        return self._rows.count_documents(voting | early) + self._rows.count_documents(late)

    def count_finalized_since(self, block: BlockNumber) -> int:
        """Tasks finalized in this block or a later one."""
        return self._rows.count_documents({"finalized_block": {"$gte": block, "$gt": 0}}, limit=MOST_COUNTED)

    def open_of_deals(self, deal_ids: Some[DealId]) -> dict[DealId, int]:
        """How many tasks of each of these deals are not over."""
        match = {"$match": {"open": True, "deal": {"$in": list(deal_ids)}}}
        rows = self._rows.aggregate([match, {"$group": {"_id": "$deal", "count": {"$sum": 1}}}])
        counts = {row["_id"]: int(row["count"]) for row in rows}
        return {deal_id: counts.get(deal_id, 0) for deal_id in deal_ids}

    def open_by_deal(self) -> dict[DealId, int]:
        """How many tasks are not over, by deal; deals without any are left out."""
        # The bound on `deal` lets the index of open tasks by deal serve.
        match = {"$match": {"open": True, "deal": {"$gt": ""}}}
        rows = self._rows.aggregate([match, {"$group": {"_id": "$deal", "count": {"$sum": 1}}}])
        return {DealId(row["_id"]): int(row["count"]) for row in rows}

    def ids_starting(self, prefix: str, limit: int) -> list[TaskId]:
        """Ids of tasks that begin with `prefix` (`0x` and hex digits), so that people need not write all 64."""
        found = self._rows.find({"_id": {"$gte": prefix, "$lt": prefix + "g"}}, {"_id": 1}).limit(limit)
        return [TaskId(row["_id"]) for row in found]

    def _page(self, query: Mapping[str, Any], limit: int) -> list[TaskRecord]:
        """At most `limit` tasks by this query, those matched last first."""
        order = [("matched_block", DESCENDING), ("_id", DESCENDING)]
        return self._reader.each(self._rows.find(query).sort(order).limit(limit))

    def _stage(self, stage: TaskStage) -> StageCount:
        """How many tasks are in a stage, since when the oldest, and the next to reach its deadline."""
        deadline = "contribution_deadline" if stage in VOTING_STAGES else "final_deadline"
        fields = {"matched_at": 1, deadline: 1}
        row = self._rows.find_one({"stage": str(stage)}, fields, sort=[("matched_block", ASCENDING)])
        if row is None:
            return StageCount(0)
        dated = {"stage": str(stage), "open": True, deadline: {"$gt": 0}}
        next_to_end = self._rows.find_one(dated, fields, sort=[(deadline, ASCENDING)])
        rows = [row] if next_to_end is None else [row, next_to_end]
        found = (_window(_time(each.get("matched_at")), _time(each.get(deadline))) for each in rows)
        count = self._rows.count_documents({"stage": str(stage)})
        return StageCount(count, _time(row.get("matched_at")), tuple(each for each in found if each is not None))


def _window(matched: Timestamp | None, deadline: Timestamp | None) -> Window | None:
    """The time between match and deadline; None if either is missing or they are in the wrong order."""
    return None if matched is None or deadline is None or deadline <= matched else Window(matched, deadline)


def _time(stored: object) -> Timestamp | None:
    """A stored time; None for what no release stored."""
    return Timestamp(int(stored)) if isinstance(stored, int | float) else None


def _names(words: Some[str]) -> list[str]:
    """Words as text, in order."""
    return sorted(map(str, words))
