"""What to do about transactions that a node refuses, for good or in unknown words.

    fatal, and it wants more gas ─► another attempt with more gas; at the gas ceiling: no-op replacement, or wait
                                    where the chain itself takes that much
    fatal                        ─► no-op replacement: a 0-value self-transfer spends the nonce
    unknown, or "it reverts"     ─► after two tries, for the lowest nonce, the node is asked what the call would do:
                                    it reverts ─► no-op         it needs more gas ─► more gas
                                    anything else ─► go on; the lane reports that it waits (`chain.lane.rules.waits`)

Above the lowest nonce nothing can be asked: what those calls find depends on those before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

import structlog

from chain.lane.model.nonce import NonceRecord, Purpose
from chain.lane.phases.context import LaneMemory, Refusal, RunContext
from chain.lane.rules.encoding import Call
from chain.lane.rules.gas import call_object
from chain.lane.rules.send_errors import REACTIONS, Kind, classify, wants_gas
from chain.rpc.answers import Known, Unknown, decode_reply
from chain.rpc.response import reverted
from protocol.errors import RpcError
from protocol.types import Nonce

log = structlog.get_logger(__name__)

#: Tries of the same bytes after which the node is asked what a refusal in unknown words means.
_TRIES = 2
#: JSON-RPC code of geth and others for a call that reverted.
_REVERTED = 3


class Remedy(Enum):
    """What to do about a refusal."""

    MORE_GAS = auto()
    NOOP = auto()


def remedies(
    context: RunContext, memory: LaneMemory, records: Sequence[NonceRecord], lowest: NonceRecord | None
) -> dict[Nonce, tuple[Remedy, str]]:
    """What to do about each refused nonce, with the reason for the log. Raises RpcUnavailable."""
    found: dict[Nonce, tuple[Remedy, str]] = {}
    for record in records:
        refusal = memory.refusal_of_newest(record)
        if refusal is None:
            continue
        remedy = _remedy_from_words(context, memory, record, refusal)
        if remedy is None and record is lowest and _proves_nothing(refusal) and refusal.tries >= _TRIES:
            found |= _ask_for_remedy(context, record, refusal)
        elif remedy is not None:
            found[record.nonce] = (remedy, refusal.words)
    return found


def _remedy_from_words(context: RunContext, memory: LaneMemory, record: NonceRecord, refusal: Refusal) -> Remedy | None:
    """The remedy that the refusal's words alone justify; None if they justify none."""
    if _proves_nothing(refusal) or not REACTIONS[refusal.kind].replace_with_noop:
        return None
    if refusal.kind is Kind.FATAL and wants_gas(refusal.words):
        if record.gas_limit < context.policy.max_gas:
            return Remedy.MORE_GAS
        if memory.surcharge.gas:
            # Anything else would be refused as well.
            return None
    return Remedy.NOOP if record.newest.purpose is Purpose.CALL else None


def _proves_nothing(refusal: Refusal) -> bool:
    """Whether the refusal's words alone decide nothing: they are unknown, or tell of a revert in this state."""
    return refusal.kind is Kind.UNKNOWN or reverts(refusal.words)


def reverts(words: str) -> bool:
    """Whether a node's words say that a call reverts."""
    return "revert" in words.lower()


def _ask_for_remedy(context: RunContext, record: NonceRecord, refusal: Refusal) -> dict[Nonce, tuple[Remedy, str]]:
    """Ask the node, by eth_estimateGas and eth_call, what the lowest nonce's call would do now; the remedy, if any."""
    if record.newest.purpose is not Purpose.CALL:
        return {}
    asked = call_object(context.lane.wallet, Call(record.to, record.data, record.gas, record.value))
    least, outcome = context.rpc.batch(
        [("eth_estimateGas", (asked,)), ("eth_call", (asked | {"gas": hex(record.gas_limit)}, "latest"))]
    )
    remedy: Remedy | None = None
    match decode_reply(least, lambda text: int(text, 16)):
        case Known(gas):
            remedy = Remedy.MORE_GAS if gas > record.gas_limit else None
        case Unknown(_) if isinstance(outcome, RpcError):
            if _is_revert(outcome):
                remedy = Remedy.NOOP
            elif classify(outcome.message, context.policy.phrases, outcome.code) is Kind.FATAL:
                remedy = Remedy.MORE_GAS if wants_gas(outcome.message) else Remedy.NOOP
    if remedy is Remedy.MORE_GAS and record.gas_limit >= context.policy.max_gas:
        remedy = None
    told = outcome.message[:200] if isinstance(outcome, RpcError) else "nothing against it"
    if refusal.tries == _TRIES:
        log.warning(
            "A transaction is refused in words that nobody knows; the node was asked what it would do.",
            action="lane_refusal_looked_into",
            wallet=context.lane.wallet,
            nonce=record.nonce,
            tx=refusal.tx_hash,
            words=refusal.words[:200],
            told=told,
            remedy=None if remedy is None else remedy.name.lower(),
        )
    return {} if remedy is None else {record.nonce: (remedy, f"{refusal.words} ({told})")}


def _is_revert(error: RpcError) -> bool:
    """Whether the error is the contract's own revert, in contrast to a node's refusal to run the call.

    `data` alone proves nothing: providers put objects of their own into it, such as those of a rate limit.
    """
    return error.code == _REVERTED or reverted(error)
