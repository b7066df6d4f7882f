"""Compares a lane's records with the chain and with each other; an empty list of differences is good."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from chain.lane.model.intent import IntentState
from chain.lane.model.nonce import UNSETTLED, NonceRecord, NonceState
from chain.lane.phases.snapshot import take_snapshot
from chain.lane.run import Lane
from protocol.errors import RpcError
from protocol.types import Nonce

#: Newest settled nonces that are compared, besides all others: an audit must not take longer as the wallet gets older.
DEPTH = 2000
#: Most intents read of those that should have a nonce.
_MOST = 100_000


@dataclass(frozen=True, slots=True)
class LaneFinding:
    """One thing that is not as it should be."""

    #: Stable name: `gap`, `lost_receipt`, `no_answer`, `other_block`, `unconfirmed`, `no_nonce`, `two_nonces`,
    #: `queued_again`.
    kind: str
    nonce: Nonce | None
    intent: str | None
    says: str


def audit(lane: Lane, *, depth: int = DEPTH) -> list[LaneFinding]:
    """Differences between the lane's records and the chain, and within the records; for `sluice tx audit`.

    Reads only, and also lists what the next run repairs by itself. Raises RpcUnavailable.
    """
    context = lane.context
    seen = take_snapshot(context.rpc, context.lane.wallet, None)
    known = context.store.records(context.lane, list(UNSETTLED))
    known += context.store.newest(context.lane, list(NonceState), depth, None)
    records = [record for _, record in sorted({record.nonce: record for record in known}.items())]
    settled = [record for record in records if record.mined is not None]
    answers = context.rpc.batch(
        [("eth_getTransactionReceipt", (record.mined.tx_hash,)) for record in settled if record.mined is not None]
    )
    findings = _audit_gaps(records, seen.count)
    for record, receipt in zip(settled, answers, strict=True):
        findings += _audit_receipt(record, receipt)
    for record in records:
        if record.state is NonceState.OPEN and record.nonce < seen.count:
            findings.append(
                LaneFinding("unconfirmed", record.nonce, None, "is spent; the next run looks for its receipt")
            )
    return findings + _audit_intents(lane, records)


def _audit_gaps(records: list[NonceRecord], count: Nonce) -> list[LaneFinding]:
    """A finding for each nonce from `count`, the account nonce, up to the highest record that has no record."""
    held = {record.nonce for record in records}
    missing = [nonce for nonce in range(count, max(held, default=Nonce(0))) if nonce not in held]
    return [
        LaneFinding("gap", Nonce(nonce), None, "has no transaction; nothing above it can be mined") for nonce in missing
    ]


def _audit_receipt(record: NonceRecord, receipt: object) -> list[LaneFinding]:
    """A finding if the node's receipt does not agree with a record that has a block."""
    assert record.mined is not None
    if isinstance(receipt, RpcError):
        says = f"{record.state.value} in block {record.mined.block}, but the node cannot say: {receipt}"
        return [LaneFinding("no_answer", record.nonce, None, says)]
    # Some nodes show receipts of transactions that are in no block yet.
    if not isinstance(receipt, dict) or receipt.get("blockNumber") is None:
        says = (
            f"{record.state.value} in block {record.mined.block}, but the node has no receipt of {record.mined.tx_hash}"
            ": if a reorg took that block away, the next run sends it again"
        )
        return [LaneFinding("lost_receipt", record.nonce, None, says)]
    if receipt["blockHash"] == record.mined.block_hash:
        return []
    outcome = "it succeeds" if int(receipt["status"], 16) == 1 else "it reverts"
    says = (
        f"{record.state.value} in block {record.mined.block} {record.mined.block_hash}, but now it is in block"
        f" {int(receipt['blockNumber'], 16)} {receipt['blockHash']}, where {outcome}; the next run follows"
    )
    return [LaneFinding("other_block", record.nonce, None, says)]


def _audit_intents(lane: Lane, records: list[NonceRecord]) -> list[LaneFinding]:
    """A finding for each intent that several nonces carry, and for each that should have a nonce and has none."""
    carried = Counter(key for record in records for key in record.intents)
    findings = [
        LaneFinding("two_nonces", None, key, f"is carried by {times} nonces")
        for key, times in carried.items()
        if times > 1
    ]
    settled = {key for record in records if record.state is not NonceState.OPEN for key in record.intents}
    findings += [
        LaneFinding("queued_again", None, intent.key, "is in the queue, although a nonce that is settled carries it")
        for intent in lane.context.store.queued(lane.id, _MOST)
        if intent.key in settled
    ]
    holding = lane.context.store.in_state(lane.id, (IntentState.SENT, IntentState.MINED), _MOST)
    return findings + [
        LaneFinding("no_nonce", None, intent.key, f"is {intent.state.value}, but no nonce carries it")
        for intent in holding
        if intent.key not in carried
    ]
