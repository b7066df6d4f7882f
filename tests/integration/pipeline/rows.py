"""Rows to put into a store: one deal and its tasks, machines that have signed in, what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.domain.records import ChainFacts, DealRecord, Reservation, TaskRecord
from pipeline.flow.ingest import task_records
from pipeline.store.client import Store
from protocol.types import (
    ZERO_ADDRESS,
    BlockNumber,
    Contract,
    DealId,
    Hash32,
    NRlc,
    TaskId,
    Timestamp,
    Wallet,
    Wei,
)
from protocol.wire import Capabilities

DEAL = DealId("0x" + "de" * 32)
POOL = Contract("0x" + "50" * 20)
ALICE, BOB = Wallet("0x" + "a1" * 20), Wallet("0x" + "b0" * 20)
NO_TAG = Hash32("0x" + "0" * 64)
NOW = 1_700_000_000.0


def deal(size: int = 3, block: int = 10) -> DealRecord:
    return DealRecord(
        deal_id=DEAL,
        app=POOL,
        image="hello:1",
        image_checksum=NO_TAG,
        dataset=None,
        workerpool=POOL,
        requester=BOB,
        beneficiary=BOB,
        callback=ZERO_ADDRESS,
        params="",
        trust=1,
        tag=NO_TAG,
        category_seconds=10,
        start_time=Timestamp(1000),
        bot_first=0,
        bot_size=size,
        worker_stake=NRlc(2**70),
        contribution_deadline=Timestamp(1070),
        final_deadline=Timestamp(1100),
        matched_block=BlockNumber(block),
    )


def enrol(store: Store, wallet: Wallet, slots: int = 2) -> None:
    store.workers.enrol(
        wallet, Capabilities(name="$name", version="1", slots=slots, cpus=1, memory_bytes=0, tag=NO_TAG), NOW
    )


def many(store: Store, first: int, count: int, facts: ChainFacts | None) -> list[Wallet]:
    """Workers that signed in; `facts`: what the chain says of each, if it was asked."""
    wallets = [Wallet(f"0x{number:040x}") for number in range(first, first + count)]
    for wallet in wallets:
        enrol(store, wallet, slots=8)
    if facts is not None:
        store.workers.store_facts([(wallet, facts) for wallet in wallets], NOW)
    return wallets


def prove(store: Store, wallet: Wallet, *, score: int = 100, stake: int = 1000) -> None:
    """Store chain facts: native token, stake and a score."""
    store.workers.store_facts([(wallet, ChainFacts(2, NRlc(stake), Wei(1), funded=True, score=score))], NOW)


def held(number: int) -> Reservation:
    return Reservation(TaskId(f"0x{number:064x}"), NOW, NRlc(30))


def some_tasks(store: Store, size: int = 3) -> list[TaskRecord]:
    store.tasks.insert_new(task_records(deal(size)))
    return store.tasks.of_deal(DEAL)


#: Values that stand for whatever a bug, another release or a hand may have left in a row.
ODD: tuple[Any, ...] = (None, "no such thing", 2**63 - 1)


def broken(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Copies of a document, each with one key missing or of another kind, at the top or in its first inner rows."""
    for key, value in document.items():
        if key == "_id":
            continue
        yield {name: kept for name, kept in document.items() if name != key}
        yield from ({**document, key: odd} for odd in ODD)
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict):
            for changed in broken(inner):
                yield {**document, key: [changed] if isinstance(value, list) else changed}
