"""Every query of the store goes by an index, and looks at no more rows where more is over.

Each public method of the store's collections is called once on a database with a past; what it asked MongoDB is then
explained by MongoDB itself. A method that is added is called too: by the types of its arguments, or as `CALLS` says.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, get_type_hints

import pytest
from pymongo import MongoClient, monitoring
from pymongo.database import Database

from bench.rig.past import Past, machine_wallet
from chain.lane.model.intent import Intent, IntentState, LaneId
from chain.lane.model.nonce import NonceRecord, NonceState, Sent
from chain.lane.store.lease import LaneLease
from chain.lane.store.mongo import MongoStore
from chain.lane.store.port import IntentMove
from chain.watch.audit import Audit
from chain.watch.watcher import Reorg
from config.settings import read_settings
from ops.stack.stack import Stack
from pipeline.domain.audit.findings import Difference, Unasked
from pipeline.domain.due import Turn
from pipeline.domain.machines.enrolment import Listing
from pipeline.domain.money.ledger import Books, Outside
from pipeline.domain.money.statement import By
from pipeline.domain.orders.records import Withdrawal
from pipeline.domain.records import ChainFacts, ComputeLog, Outcome, Replicate, Reservation, TaskStage
from pipeline.flow.ingest import task_records
from pipeline.store.client import Store
from pipeline.store.deals import DEALS, NEW, Lease
from pipeline.store.ended import PastDeal
from pipeline.store.logs import LOGS, Logs, Together
from pipeline.store.machine.challenges import Challenges
from pipeline.store.money.gas import GasBook
from pipeline.store.money.ledger import BlocksRead, Movements
from pipeline.store.money.transfer_wish import TransferWish
from pipeline.store.pins import Pin
from pipeline.store.task.documents import to_document
from pipeline.store.task.tasks import NewReplicates
from protocol.errors import SluiceError
from protocol.poco.events import BlockRef, Seen, TaskInitialize
from protocol.poco.money import EVEN
from protocol.types import (
    BlockHash,
    BlockNumber,
    Contract,
    Hash32,
    Nonce,
    NRlc,
    Timestamp,
    TxHash,
    Wallet,
    Wei,
)
from protocol.wire import Capabilities, Mode, ResultLink, Step
from tests.integration.conftest import given
from tests.unit.pipeline.offering import order

NOW = 1_700_000_000.0
#: Ended tasks, and machines; each of the past's collections has a tenth of it at least.
ENDED, MACHINES = 600, 300
#: Rows and keys that a query may look at beside those that it answers, changes or deletes.
BESIDE = 40
COMMANDS = frozenset(("find", "aggregate", "count", "distinct", "update", "delete", "findAndModify"))
LANE = LaneId(1, Wallet("0x" + "aa" * 20))
POOL = Contract("0x" + "50" * 20)
WORKER, HASH = machine_wallet(0), Hash32("0x" + "11" * 32)
BLOCK = BlockNumber(10**7)
REF = BlockRef(BLOCK, BlockHash(HASH), BlockHash(HASH), Timestamp(int(NOW)))

#: What looks at more, and why.
ALLOWED = {
    "Workers.nearest": "an operator asks why a task waits: the first few of machines that come near, or of any",
    "Workers.with_free_slots": "a machine that offers rare bits is looked for among all that are free",
    "Census.count_by_state": "counts all machines that are there, by keys alone",
    "Census.capacity": "iExec's tooling asks what all machines that are there offer",
    "Census.offers": "an enclave is looked for among all machines that are there, once for all tasks of its kind",
    "Census.machine_facts": "counts machines that are there up to MACHINES_LIMIT",
}


class Asked(monitoring.CommandListener):
    """Keeps what was asked of MongoDB."""

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name in COMMANDS:
            self.commands.append(dict(event.command))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...


@pytest.fixture
def past(stack: Stack, emptied_database: str) -> Iterator[tuple[Past, Asked]]:
    settings, asked = read_settings(**given(stack.settings)), Asked()
    with MongoClient[dict[str, Any]](settings.mongodb_uri.get_secret_value(), event_listeners=[asked]) as client:
        db = client[emptied_database]
        Store.of(db).ensure_indexes()
        MongoStore(db).ensure_indexes()
        Challenges(db).ensure_indexes()
        made = Past(db, LANE, POOL, f"1:{POOL}:{LANE.wallet}", NOW)
        made.put(ENDED, MACHINES)
        yield made, asked


def collections(db: Database[dict[str, Any]]) -> dict[str, object]:
    """All parts of the store, by the name of their class."""
    store = Store.of(db)
    parts = [getattr(store, name) for name in get_type_hints(Store) if not name.startswith("_")]
    parts += [Movements(db, 1, POOL, LANE.wallet), GasBook(db, LANE), Challenges(db), MongoStore(db), Logs(db)]
    return {type(part).__name__: part for part in parts}


def examined(plan: Any) -> Iterator[tuple[str, int]]:
    """Each stage and figure of an explained command that tells what it looked at, wherever it stands."""
    if isinstance(plan, Mapping):
        for name, value in plan.items():
            if name == "rejectedPlans":
                continue
            if name in ("stage", "strategy"):
                yield str(value), 0
            if name in ("totalKeysExamined", "totalDocsExamined", "collectionScans"):
                yield name, int(value)
            yield from examined(value)
    elif isinstance(plan, list):
        for each in plan:
            yield from examined(each)


def explained(db: Database[dict[str, Any]], command: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Each statement of a command, with MongoDB's account of what it did for it."""
    kept = {name: value for name, value in command.items() if not name.startswith("$") and name not in _SESSION}
    lists = [name for name in ("updates", "deletes") if name in kept]
    for number in range(len(kept[lists[0]]) if lists else 1):
        for one in apart({name: [value[number]] if name in lists else value for name, value in kept.items()}):
            yield one, db.command({"explain": one, "verbosity": "executionStats"})


def apart(command: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The command without its `$unionWith`, and what each of these asks as a command of its own.

    A shard of MongoDB 6.0.5 ends with SIGSEGV when it explains a union whose own pipeline has a `$project`; it carries
    such a query out well.
    """
    stages = command.get("pipeline", [])
    unions = [stage["$unionWith"] for stage in stages if "$unionWith" in stage]
    others = [stage for stage in stages if "$unionWith" not in stage]
    yield {**command, "pipeline": others} if unions else dict(command)
    for union in unions:
        yield from apart({**command, "aggregate": union["coll"], "pipeline": union["pipeline"]})


_SESSION = frozenset(("lsid", "txnNumber", "writeConcern", "autocommit", "startTransaction", "readConcern"))


def too_much(db: Database[dict[str, Any]], command: Mapping[str, Any]) -> list[str]:
    """What is wrong with how MongoDB carries out a command."""
    found = []
    for one, plan in explained(db, command):
        seen = list(examined(plan))
        answered = int(plan.get("executionStats", {}).get("nReturned", 0)) + _changed(plan)
        scans = [name for name, number in seen if name == "COLLSCAN" or (name == "collectionScans" and number)]
        looked = max((number for name, number in seen if name.startswith("total")), default=0)
        if scans or looked > BESIDE + 3 * answered:
            found.append(f"looks at {looked} for {answered}, {scans}: {one}"[:600])
    return found


def _changed(plan: Mapping[str, Any]) -> int:
    stages = plan.get("executionStats", {}).get("executionStages", {})
    return max((int(stages.get(name, 0)) for name in ("nMatched", "nWouldDelete")), default=0)


def arguments(made: Past) -> dict[str, Any]:
    """A value for each type of argument, by its spelling."""
    deal = made.deal(10**6, at=NOW, block=BLOCK)
    task = task_records(deal)[0]
    seen = Seen(TaskInitialize(task.task_id, POOL), BLOCK, BlockHash(HASH), Timestamp(int(NOW)), TxHash(HASH), 0)
    held = Reservation(task.task_id, NOW, NRlc(1))
    intent = replace(Intent.new(1, LANE.wallet, "finalize", task.task_id, {}, NOW), state=IntentState.QUEUED)
    return {
        "BlockNumber": BLOCK,
        "Wallet": WORKER,
        "DealId": deal.deal_id,
        "TaskId": task.task_id,
        "Hash32": HASH,
        "Nonce": Nonce(10**7),
        "NRlc": NRlc(1),
        "Timestamp": Timestamp(int(NOW)),
        "float": NOW,
        "int": 10,
        "str": "0xabc",
        "bool": True,
        "object": "a key",
        "DealRecord": deal,
        "TaskRecord": task,
        "Lease": Lease(deal, 1, 0),
        "Replicate": Replicate(WORKER, Mode.SOLO, 2, NOW),
        "Reservation": held,
        "ChainFacts": ChainFacts(2, NRlc(1), Wei(1), funded=True),
        "ComputeLog": ComputeLog(task.task_id, WORKER, "", ""),
        "Capabilities": Capabilities(name="m", version="1", slots=1, cpus=1, memory_bytes=1, tag=HASH),
        "Step": Step.STARTED,
        "Outcome": Outcome.NEUTRAL,
        "Listing": Listing.ALLOWED,
        "ResultLink": ResultLink(storage="ipfs", location="/ipfs/Qm"),
        "BlockRef": REF,
        "Seen": seen,
        "events.Seen": seen,
        "Reorg": Reorg(REF, REF, 1),
        "Audit": Audit(BLOCK, REF, missing=(seen,), extra=(seen,)),
        "Pin": Pin("cid", task.task_id, pinned=True, stored_at=NOW),
        "Difference": Difference("kind", "subject", "says", ""),
        "Books": Books(BLOCK, EVEN, BLOCK, EVEN),
        "BlocksRead": BlocksRead(BLOCK, ()),
        "By": By.KIND,
        "OrderRecord": order(10**6),
        "NewReplicates": NewReplicates(task, (Replicate(WORKER, Mode.SOLO, 2, NOW),), 0, 0, 0),
        "LaneId": LANE,
        "LaneLease": LaneLease(LANE, "", 1, None, None),
        "Intent": intent,
        "IntentState": IntentState.QUEUED,
        "NonceState": NonceState.OPEN,
        "TransferWish": TransferWish("deposit", NRlc(1), NOW, POOL, "0x", Wei(0), 1),
        "tuple[Any, str]": ("a key", "why"),
        "tuple[DealId, BlockNumber, BlockHash]": (deal.deal_id, BLOCK, BlockHash(HASH)),
        "tuple[TaskId, str, int, str, str]": (task.task_id, "finalize", 0, "finalize", "why"),
        "tuple[Wallet, Outcome]": (WORKER, Outcome.VOTED),
        "tuple[Wallet, Reservation]": (WORKER, held),
        "tuple[Wallet, TaskId]": (WORKER, task.task_id),
        "tuple[Wallet, ChainFacts]": (WORKER, ChainFacts(2, NRlc(1), Wei(1), funded=True)),
        "IntentMove": IntentMove((intent.key,), IntentState.SENT),
        "NonceMove": Sent((Nonce(10**7),), BLOCK),
        "NonceRecord": NonceRecord(LANE, Nonce(10**7), (intent.key,), POOL, "0x", 1, (), NOW),
        "TaskStage": TaskStage.COMPLETED,
        "Turn": Turn.EXPIRED,
        "Withdrawal": Withdrawal.EXPIRED,
        "Unasked": Unasked("what", "why"),
        "Outside": Outside(BLOCK, BLOCK, 1, 0),
        "PastDeal": PastDeal(deal.deal_id, int(NOW)),
        "Place": (BLOCK, deal.deal_id),
        "tuple[BlockNumber, str]": (BLOCK, deal.deal_id),
        "Row": LOGS.to_document(Together((seen,))),
        "Mapping[TaskId, tuple[int, float]]": {task.task_id: (0, NOW)},
        "Mapping[TaskId, TaskRecord]": {task.task_id: task},
        "Mapping[Wallet, Sequence[Reservation]]": {WORKER: [held]},
        "Mapping[Wallet, bool]": {WORKER: True},
        "Mapping[str, Any]": {"mode": "open"},
    }


_MANY = re.compile(r"(?:Sequence|Iterable|Some)\[(.*)\]$")


def argument(spelled: str, known: Mapping[str, Any]) -> Any:
    """The value for an argument of this type. Raises KeyError: `arguments` needs one for the new type."""
    spelled = spelled.removesuffix(" | None")
    if spelled in known:
        return known[spelled]
    many = _MANY.match(spelled)
    if many is None:
        raise KeyError(f"`arguments` has no value for the type {spelled}")
    return [argument(many[1], known)]


def call(method: Callable[..., Any], known: Mapping[str, Any]) -> None:
    """Call a method with a value for each argument, and read all of its answer. It may refuse."""
    values = {
        name: argument(parameter.annotation, known) for name, parameter in inspect.signature(method).parameters.items()
    }
    with suppress(SluiceError):
        answer = method(**values)
        if isinstance(answer, Iterator):
            list(answer)


def test_every_query_goes_by_an_index_and_looks_at_no_more_where_more_is_over(past: tuple[Past, Asked]) -> None:
    made, asked = past
    known = arguments(made)
    deal = DEALS.to_document(known["DealRecord"]) | {"state": NEW, "block_hash": HASH, "fence": 1, "read": True}
    task = to_document(known["TaskRecord"])
    wrong: dict[str, list[str]] = {}
    for name, part in collections(made.db).items():
        for method, function in inspect.getmembers(part, inspect.ismethod):
            if method.startswith("_") or method in ("ensure_indexes", "of"):
                continue
            # Each finds one deal that is under way, with its tasks, whatever those before did to it.
            made.db["deals"].replace_one({"_id": deal["_id"]}, deal, upsert=True)
            made.db["tasks"].replace_one({"_id": task["_id"]}, task, upsert=True)
            asked.commands.clear()
            call(function, known)
            commands = list(asked.commands)
            problems = [problem for command in commands for problem in too_much(made.db, command)]
            wrong |= {f"{name}.{method}": problems} if problems else {}
    assert wrong.keys() == ALLOWED.keys(), json.dumps(wrong, indent=1)
