"""Intents and nonce records as documents: the one place where they become JSON, for both durable stores.

Wei is kept as text: it outgrows the 64-bit integers of BSON and SQLite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chain.lane.model.intent import Intent, IntentState, LaneId
from chain.lane.model.nonce import Attempt, Fees, Mined, NonceRecord, NonceState, Purpose
from protocol.types import BlockHash, BlockNumber, Contract, Nonce, TxHash, Wallet, Wei

Document = dict[str, Any]


def lane_from(text: str) -> LaneId:
    """The lane id written as `<chain>:<wallet>`."""
    chain_id, _, wallet = text.partition(":")
    return LaneId(int(chain_id), Wallet(wallet))


def intent_document(intent: Intent) -> Document:
    """The intent as a document for MongoDB or SQLite; `_id` is its key."""
    return {
        "_id": intent.key,
        "lane": str(intent.lane),
        "method": intent.method,
        "subject": intent.subject,
        "args": dict(intent.args),
        "created_at": intent.created_at,
        "state": intent.state.value,
        "generation": intent.generation,
        "block": intent.block,
        "reason": intent.reason,
    }


def intent_from(document: Mapping[str, Any]) -> Intent:
    """The intent in a stored document."""
    block = document["block"]
    return Intent(
        key=document["_id"],
        lane=lane_from(document["lane"]),
        method=document["method"],
        subject=document["subject"],
        args=document["args"],
        created_at=document["created_at"],
        state=IntentState(document["state"]),
        generation=document["generation"],
        block=None if block is None else BlockNumber(block),
        reason=document["reason"],
    )


def record_document(record: NonceRecord) -> Document:
    """The nonce record as a document for MongoDB or SQLite; `_id` is `<chain>:<wallet>:<nonce>`."""
    return {
        "_id": record_id(record.lane, record.nonce),
        "lane": str(record.lane),
        "nonce": record.nonce,
        "intents": list(record.intents),
        "to": record.to,
        "data": record.data,
        "gas": record.gas,
        "value": str(record.value),
        "attempts": [attempt_document(attempt) for attempt in record.attempts],
        "created_at": record.created_at,
        "state": record.state.value,
        "sent_block": record.sent_block,
        "mined": None if record.mined is None else mined_document(record.mined),
        "released": list(record.released),
    } | ({"early": True} if record.early else {})


def record_id(lane: LaneId, nonce: Nonce) -> str:
    """The `_id` of a nonce's document; that it is unique makes a nonce claimed only once."""
    return f"{lane}:{nonce}"


def record_from(document: Mapping[str, Any]) -> NonceRecord:
    """The nonce record in a stored document."""
    sent, mined = document["sent_block"], document["mined"]
    return NonceRecord(
        lane=lane_from(document["lane"]),
        nonce=Nonce(document["nonce"]),
        intents=tuple(document["intents"]),
        to=Contract(document["to"]),
        data=document["data"],
        gas=document["gas"],
        value=Wei(int(document["value"])),
        attempts=tuple(_attempt_from(item) for item in document["attempts"]),
        created_at=document["created_at"],
        state=NonceState(document["state"]),
        sent_block=None if sent is None else BlockNumber(sent),
        mined=None if mined is None else _mined_from(mined),
        released=tuple(document["released"]),
        early=document.get("early", False),
    )


def attempt_document(attempt: Attempt) -> Document:
    """An attempt as an entry of the document's `attempts`."""
    gas = {"gas": attempt.gas} if attempt.gas else {}
    return gas | {
        "hash": attempt.tx_hash,
        "raw": attempt.raw,
        "max_fee": str(attempt.fees.max_fee),
        "tip": str(attempt.fees.tip),
        "legacy": attempt.fees.legacy,
        "purpose": attempt.purpose.value,
        "note": attempt.note,
    }


def _attempt_from(document: Mapping[str, Any]) -> Attempt:
    """The attempt in an entry of `attempts`."""
    fees = Fees(Wei(int(document["max_fee"])), Wei(int(document["tip"])), document["legacy"])
    return Attempt(
        TxHash(document["hash"]),
        document["raw"],
        fees,
        Purpose(document["purpose"]),
        document["note"],
        document.get("gas", 0),
    )


def mined_document(mined: Mined) -> Document:
    """A receipt as the document's field `mined`."""
    return {
        "hash": mined.tx_hash,
        "block": mined.block,
        "block_hash": mined.block_hash,
        "success": mined.success,
        "fee": str(mined.fee),
        "gas_used": mined.gas_used,
    }


def _mined_from(document: Mapping[str, Any]) -> Mined:
    """The receipt in the field `mined`."""
    return Mined(
        TxHash(document["hash"]),
        BlockNumber(document["block"]),
        BlockHash(document["block_hash"]),
        document["success"],
        Wei(int(document["fee"])),
        document["gas_used"],
    )
