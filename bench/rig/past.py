"""A pool's past in seconds: ended deals and tasks with their records, and machines, as raw documents of the store's own
shape, so that what a query costs can be seen beside a million of them.

Each document is made of a record by the store's own functions, once; copies differ in ids, blocks and times only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pymongo import WriteConcern
from pymongo.database import Database

from chain.lane.model.intent import Intent, IntentState, LaneId
from chain.lane.model.nonce import Attempt, Fees, Mined, NonceRecord, NonceState, Purpose
from chain.lane.store.documents import intent_document, record_document
from pipeline.domain.records import ChainFacts, DealRecord, Replicate, ReplicateState, Submission, TaskStage
from pipeline.flow.ingest import task_records
from pipeline.store.client import Store
from pipeline.store.deals import DEALS, READY
from pipeline.store.logs import LOGS, Together
from pipeline.store.task.documents import to_document
from protocol.poco.events import Event, SchedulerNotice, Seen, TaskContribute, TaskFinalize, TaskInitialize
from protocol.poco.money import Kind
from protocol.types import (
    ZERO_ADDRESS,
    ZERO_HASH,
    BlockHash,
    BlockNumber,
    Contract,
    DealId,
    Hash32,
    Nonce,
    NRlc,
    TaskId,
    Timestamp,
    TxHash,
    Wallet,
    Wei,
)
from protocol.wire import Capabilities, Mode, Step

Document = dict[str, Any]

#: Tasks of a deal, and tasks that one transaction initializes.
TASKS_OF_DEAL = 10
#: Seconds from one past deal to the next, and from the last of them to now.
APART, AGO = 30.0, 3 * 86_400.0
#: Seconds of the deals' category.
CATEGORY_SECONDS = 300
#: Documents inserted by one command.
_BATCH = 2000
_NO_TAG, _HASH = Hash32(ZERO_HASH), Hash32("0x" + "11" * 32)
#: First number of each kind of id, so that kinds never share one.
_DEAL, _TASK, _TX, _BLOCK = (place * 10**40 for place in range(1, 5))


@dataclass(frozen=True, slots=True)
class Past:
    """The history of a pool of this wallet, to be inserted. `now`: Unix seconds."""

    db: Database[dict[str, Any]]
    lane: LaneId
    workerpool: Contract
    book: str
    now: float

    def put(self, ended: int, machines: int, present: int | None = None) -> None:
        """Store so many ended tasks, and machines with free slots; all of them, or so many, are there."""
        wallets = [machine_wallet(number) for number in range(machines)]
        self._insert("workers", self._machines(wallets, machines if present is None else present))
        documents = {
            "deals": self._deals(ended),
            "tasks": self._tasks(ended, wallets),
            "logs": self._logs(ended, wallets),
            "intents": self._intents(ended),
            "nonces": self._nonces(ended),
            "movements": self._movements(ended, wallets),
        }
        for name, found in documents.items():
            self._insert(name, found)

    def deal(self, number: int, *, size: int = TASKS_OF_DEAL, at: float, block: int) -> DealRecord:
        """A deal of this pool, of trust 1, matched at Unix time `at`."""
        start = int(at)
        return DealRecord(
            deal_id=DealId(_id(_DEAL + number)),
            app=self.workerpool,
            image="docker.io/library/hello:1",
            image_checksum=_HASH,
            dataset=None,
            workerpool=self.workerpool,
            requester=self.lane.wallet,
            beneficiary=self.lane.wallet,
            callback=ZERO_ADDRESS,
            params='{"iexec_args":"noop"}',
            trust=1,
            tag=_NO_TAG,
            category_seconds=CATEGORY_SECONDS,
            start_time=Timestamp(start),
            bot_first=0,
            bot_size=size,
            worker_stake=NRlc(0),
            contribution_deadline=Timestamp(start + 7 * CATEGORY_SECONDS),
            final_deadline=Timestamp(start + 10 * CATEGORY_SECONDS),
            matched_block=BlockNumber(block),
        )

    # -- documents -----------------------------------------------------------------------------------------------------

    def _at(self, deal: int, deals: int) -> float:
        """When a past deal was matched."""
        return self.now - AGO - (deals - deal) * APART

    def _insert(self, name: str, documents: Iterator[Document]) -> None:
        """Insert without waiting for the disk: all of it is there, or the measurement is made again."""
        rows = self.db.get_collection(name, write_concern=WriteConcern(w=1, j=False))
        while batch := list(islice(documents, _BATCH)):
            rows.insert_many(batch, ordered=False)

    def _machines(self, wallets: list[Wallet], present: int) -> Iterator[Document]:
        """Rows of the machines."""
        store = Store.of(self.db)
        for wallet in wallets[:1]:
            offer = Capabilities(name="machine", version="1", slots=2, cpus=2, memory_bytes=2**32, tag=_NO_TAG)
            store.workers.enrol(wallet, offer, self.now)
            facts = ChainFacts(2, NRlc(10**9), Wei(10**18), funded=True, score=9)
            store.workers.store_facts([(wallet, facts)], self.now)
            (row,) = self.db["workers"].find({"_id": wallet})
            for number, each in enumerate(wallets[1:], 1):
                yield {
                    **row,
                    "_id": each,
                    "lot": number / len(wallets),
                    "lost": number >= present,
                    "address": f"10.{number >> 8}.{number & 255}.1",
                }

    def _deals(self, ended: int) -> Iterator[Document]:
        """Rows of the ended deals."""
        deals = _deals_of(ended)
        row = DEALS.to_document(self.deal(0, at=0.0, block=0)) | {"state": READY, "read": True, "fence": 1}
        for number in range(deals):
            at = int(self._at(number, deals))
            yield {
                **row,
                "_id": _id(_DEAL + number),
                "start_time": at,
                "contribution_deadline": at + 7 * CATEGORY_SECONDS,
                "final_deadline": at + 10 * CATEGORY_SECONDS,
                "block": number + 1,
                "block_hash": _id(_BLOCK + number),
                "stored": TASKS_OF_DEAL,
                "lease_until": 0.0,
            }

    def _tasks(self, ended: int, wallets: list[Wallet]) -> Iterator[Document]:
        """Rows of the ended tasks."""
        deals = _deals_of(ended)
        (task,) = task_records(self.deal(0, size=1, at=0.0, block=0))
        steps = dict.fromkeys((Step.STARTED, Step.COMPUTED, Step.UPLOADED), 1.0)
        done = Replicate(wallets[0], Mode.SOLO, 2, 1.0, ReplicateState.COMPUTED, steps=steps, holds_slot=False)
        over = replace(
            task,
            stage=TaskStage.COMPLETED,
            open=False,
            replicates=(done,),
            sent={"initialize": Submission(0, 1.0)},
            results='{"storage":"ipfs","location":"/ipfs/QmVtULmFZxHsCBDAJkDYGL9XPrRJkBpmgzWVcVzUmdCVYA"}',
            version=5,
        )
        row = to_document(over)
        for number in range(ended):
            deal, index = divmod(number, TASKS_OF_DEAL)
            at = int(self._at(deal, deals))
            yield {
                **row,
                "_id": _id(_TASK + number),
                "deal": _id(_DEAL + deal),
                "index": index,
                "contribution_deadline": at + 7 * CATEGORY_SECONDS,
                "final_deadline": at + 10 * CATEGORY_SECONDS,
                "matched_block": deal + 1,
                "matched_at": at,
                "finalized_block": deal + 2,
                "replicates": [{**row["replicates"][0], "wallet": wallets[number % len(wallets)]}],
            }

    def _logs(self, ended: int, wallets: list[Wallet]) -> Iterator[Document]:
        """Rows of the event logs."""
        task, worker = TaskId(ZERO_HASH), wallets[0]
        about: list[Event] = [
            TaskInitialize(task, self.workerpool),
            TaskContribute(task, worker, _HASH),
            TaskFinalize(task, "0x"),
        ]
        where = (BlockNumber(0), BlockHash(ZERO_HASH), Timestamp(0), TxHash(ZERO_HASH), 0)
        rows = [LOGS.to_document(Together((Seen(event, *where),))) for event in about]
        notice = LOGS.to_document(Together((Seen(SchedulerNotice(self.workerpool, DealId(ZERO_HASH)), *where),)))
        for deal in range(_deals_of(ended)):
            block_hash, event = _id(_BLOCK + deal), {**notice["event"], "deal_id": _id(_DEAL + deal)}
            yield {**notice, "_id": f"{block_hash}:0", "block": deal + 1, "block_hash": block_hash, "event": event}
        for number in range(ended):
            deal, index = divmod(number, TASKS_OF_DEAL)
            block_hash = _id(_BLOCK + deal)
            for place, row in enumerate(rows, 1):
                event = {**row["event"], "task_id": _id(_TASK + number)}
                key = f"{block_hash}:{index * len(rows) + place}"
                yield {**row, "_id": key, "block": deal + 1, "block_hash": block_hash, "event": event}

    def _intents(self, ended: int) -> Iterator[Document]:
        """Rows of the lane's intents."""
        made = Intent.new(self.lane.chain_id, self.lane.wallet, "initialize", "", {"deal": ZERO_HASH, "index": 0})
        row = intent_document(replace(made, state=IntentState.FINAL, block=BlockNumber(1))) | {"fence": 1}
        deals = _deals_of(ended)
        for number in range(ended):
            task, deal = _id(_TASK + number), number // TASKS_OF_DEAL
            yield {**row, "_id": f"{made.key}{task}", "subject": task, "created_at": self._at(deal, deals)}

    def _nonces(self, ended: int) -> Iterator[Document]:
        """Rows of the lane's nonces."""
        tx = TxHash(ZERO_HASH)
        attempt = Attempt(tx, "0x" + "ab" * 900, Fees(Wei(10**9), Wei(10**9)), Purpose.CALL)
        mined = Mined(tx, BlockNumber(0), BlockHash(ZERO_HASH), success=True, fee=Wei(10**15), gas_used=10**6)
        record = NonceRecord(
            self.lane, Nonce(0), (), self.workerpool, "0x" + "ab" * 700, 10**6, (attempt,), 0.0, mined=mined
        )
        row = record_document(replace(record, state=NonceState.FINAL)) | {"fence": 1}
        deals = _deals_of(ended)
        for deal in range(deals):
            first = deal * TASKS_OF_DEAL
            tasks = (_id(_TASK + number) for number in range(first, min(first + TASKS_OF_DEAL, ended)))
            yield {
                **row,
                "_id": f"{self.lane}:{deal}",
                "nonce": deal,
                "intents": [f"{self.lane}:initialize:{task}" for task in tasks],
                "created_at": self._at(deal, deals),
                "mined": {**row["mined"], "hash": _id(_TX + deal), "block": deal + 1},
                "attempts": [{**row["attempts"][0], "hash": _id(_TX + deal)}],
            }

    def _movements(self, ended: int, wallets: list[Wallet]) -> Iterator[Document]:
        """Rows of the ledger's movements."""
        deals = _deals_of(ended)
        for number in range(ended):
            deal, index = divmod(number, TASKS_OF_DEAL)
            owners = (self.lane.wallet, wallets[number % len(wallets)])
            for place, owner in enumerate(owners):
                yield {
                    "_id": f"{_id(_BLOCK + deal)}:{1000 + index * len(owners) + place}",
                    "book": self.book,
                    "owner": owner,
                    "kind": str(Kind.REWARD),
                    "amount": 1,
                    "task": _id(_TASK + number),
                    "block": deal + 1,
                    "block_hash": _id(_BLOCK + deal),
                    "tx": _id(_TX + deal),
                    "index": place,
                    "at": int(self._at(deal, deals)),
                }


def machine_wallet(number: int) -> Wallet:
    """The wallet of a machine."""
    return Wallet(f"0x{10**30 + number:040x}")


def _deals_of(ended: int) -> int:
    """How many deals that many tasks make."""
    return -(-ended // TASKS_OF_DEAL)


def _id(number: int) -> str:
    """A number as a 32-byte id."""
    return f"0x{number:064x}"
