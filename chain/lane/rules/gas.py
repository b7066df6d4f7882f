"""How much gas a transaction may use: the function's own limit, and what the chain takes on top of that.

    limit of a call      function's limit (a floor, `chain.contracts.calls`) + surcharge of its bytes × 1.5
    transfer to oneself  21,000                                    + surcharge of no bytes  × 1.5
    reverted before      at least what eth_estimateGas says now × 1.25
    refused for its gas  a new attempt with at least twice the limit
    all of them          at most SLUICE_MAX_TRANSACTION_GAS; array calls also at most what a block holds

Some chains (Arbitrum) count the cost of posting a transaction's bytes to another chain as gas of the transaction. That
cost follows the other chain's prices and can outgrow any fixed limit. Such a chain is known by what it does: it
estimates more than 21,000 for a transfer, or refuses bytes whose limit covers what the protocol counts. The surcharge
of a call is asked for with its own bytes sent to the wallet itself: there nothing runs, so that the answer does not
depend on the contract's state, which a transaction in flight may be about to change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import structlog

from chain.lane.model.intent import Intent
from chain.lane.model.nonce import TRANSFER_GAS, NonceRecord, Purpose
from chain.lane.phases.context import LaneMemory, RunContext
from chain.lane.rules.encoding import Call
from chain.rpc.answers import Known, Unknown, decode_replies, parse_quantity
from chain.rpc.client import JsonRpc, Request
from protocol.types import Contract, Nonce, Wallet

log = structlog.get_logger(__name__)

#: Intents that share a transaction, and its call.
Group = tuple[tuple[Intent, ...], Call]

#: Seconds for which the answer to "does a transfer cost more than 21,000" is good.
_GOOD_FOR = 60.0
#: Percent of a surcharge that is allowed for: it moves with another chain's prices until the transaction is ordered.
_SURCHARGE_PERCENT = 150
#: Percent of an estimate that is allowed for: other transactions of the same block change the contract's state.
_ESTIMATE_PERCENT = 125
#: How much more gas is allowed for after the first refusal, and after each further one.
_FIRST_STEP, _STEP = 2, 4
#: Gas that the protocol counts for a byte of calldata: zero, and any other.
_ZERO_BYTE, _BYTE = 4, 16


def transfer_gas(context: RunContext, memory: LaneMemory) -> int:
    """Gas limit of a 0-value self-transfer. Raises RpcUnavailable."""
    _refresh_surcharge(context, memory)
    return min(context.policy.max_gas, TRANSFER_GAS + allowance(memory.surcharge.gas))


def allow(
    context: RunContext, memory: LaneMemory, groups: Sequence[Group], block_gas: int | None = None
) -> list[Group]:
    """The groups with the gas limit that each needs; groups that need more than is allowed are split.

    `block_gas`: most gas that a block holds, if that is known; no node takes a transaction that asks for more. Raises
    RpcUnavailable.
    """
    if not groups:
        return []
    _refresh_surcharge(context, memory)
    allowed = _needed_gas(context, memory, groups)
    most, fitting = context.policy.max_gas, list[Group]()
    ceiling = most if block_gas is None else min(most, block_gas)
    for intents, call in allowed:
        if call.gas > ceiling and len(intents) > 1:
            half = len(intents) // 2
            parts = [(part, context.encoder.encode(part)) for part in (intents[:half], intents[half:])]
            fitting += allow(context, memory, parts, block_gas)
        else:
            fitting.append((intents, replace(call, gas=min(call.gas, most))))
    return fitting


def raise_gas_limits(context: RunContext, memory: LaneMemory, records: Sequence[NonceRecord]) -> dict[Nonce, int]:
    """By nonce, a higher gas limit for the next attempt of transactions that nodes refused for too little gas.

    Nonces whose limit is the highest allowed already are left out. Raises RpcUnavailable.
    """
    records = [record for record in records if record.gas_limit < context.policy.max_gas]
    if not records:
        return {}
    # What the chain takes may have changed this very moment.
    memory.surcharge.asked = -math.inf
    _refresh_surcharge(context, memory)
    asked = surcharges(
        context.rpc, context.lane.wallet, [record.data if _is_call(record) else "0x" for record in records]
    )
    return {record.nonce: _next_limit(context, record, answer) for record, answer in zip(records, asked, strict=True)}


def _next_limit(context: RunContext, record: NonceRecord, surcharge: Known[int] | Unknown) -> int:
    """The gas limit after the present one was refused: several times as much, or what the surcharge demands."""
    present, tried = record.gas_limit, len({record.gas_of(attempt) for attempt in record.attempts})
    floor = record.gas if _is_call(record) else TRANSFER_GAS
    wanted = present * (_FIRST_STEP if tried == 1 else _STEP)
    if isinstance(surcharge, Known) and floor + surcharge.value > present:
        wanted = floor + allowance(surcharge.value)
    return min(context.policy.max_gas, wanted)


def _is_call(record: NonceRecord) -> bool:
    """Whether the newest attempt carries a call, in contrast to a 0-value self-transfer."""
    return record.newest.purpose is Purpose.CALL


def estimate(rpc: JsonRpc, wallet: Wallet, calls: Sequence[Call]) -> list[Known[int] | Unknown]:
    """eth_estimateGas of each call in the state at the head. Raises RpcUnavailable."""
    requests: list[Request] = [("eth_estimateGas", (call_object(wallet, call),)) for call in calls]
    return decode_replies(rpc.batch(requests), parse_quantity) if requests else []


def surcharges(rpc: JsonRpc, wallet: Wallet, data: Sequence[str]) -> list[Known[int] | Unknown]:
    """Gas that the chain takes of a self-transfer with each of these `0x` data, beyond what the protocol counts."""
    found = estimate(rpc, wallet, [Call(Contract(wallet), item, 0) for item in data])
    return [
        Known(max(0, answer.value - _protocol_gas(item))) if isinstance(answer, Known) else answer
        for answer, item in zip(found, data, strict=True)
    ]


def allowance(surcharge: int) -> int:
    """Gas that the lane allows on top of a call's own for this surcharge."""
    return _percent(surcharge, _SURCHARGE_PERCENT)


def call_object(wallet: Wallet, call: Call) -> dict[str, str]:
    """A call as the JSON object that eth_call and eth_estimateGas take; no gas, no fees."""
    value = {"value": hex(call.value)} if call.value else {}
    return {"from": wallet, "to": call.to, "data": call.data} | value


def _refresh_surcharge(context: RunContext, memory: LaneMemory) -> None:
    """Read the surcharge on a transfer without data again, if it was read more than `_GOOD_FOR` seconds ago."""
    now = context.monotonic()
    if now - memory.surcharge.asked < _GOOD_FOR:
        return
    (answer,) = surcharges(context.rpc, context.lane.wallet, ["0x"])
    if isinstance(answer, Unknown):
        # What was known last stays; a refusal says if it is too little.
        return
    if bool(answer.value) != bool(memory.surcharge.gas):
        log.info("What the chain takes of a plain transfer changed.", action="lane_gas_surcharge", gas=answer.value)
    memory.surcharge.gas, memory.surcharge.asked = answer.value, now


def _needed_gas(context: RunContext, memory: LaneMemory, groups: Sequence[Group]) -> list[Group]:
    """The groups with the gas limit that each needs, even where that exceeds the highest allowed."""
    known = memory.surcharge.gas
    if known:
        asked = surcharges(context.rpc, context.lane.wallet, [call.data for _, call in groups])
        on_top = [answer.value if isinstance(answer, Known) else known for answer in asked]
    else:
        on_top = [0] * len(groups)
    # What failed before may have failed for too little gas: votes that the contract walks through, a callback.
    again = [number for number, (intents, _) in enumerate(groups) if intents[0].generation]
    used = dict(
        zip(again, estimate(context.rpc, context.lane.wallet, [groups[number][1] for number in again]), strict=True)
    )
    allowed: list[Group] = []
    for number, (intents, call) in enumerate(groups):
        gas = call.gas + allowance(on_top[number])
        match used.get(number):
            case Known(least):
                gas = max(gas, _percent(least, _ESTIMATE_PERCENT))
            case _:
                # It would revert, or the node cannot say.
                pass
        allowed.append((intents, replace(call, gas=gas)))
    return allowed


def _protocol_gas(data: str) -> int:
    """Gas that the protocol counts for a transfer with this `0x` data."""
    body = bytes.fromhex(data[2:])
    zeros = body.count(0)
    return TRANSFER_GAS + _ZERO_BYTE * zeros + _BYTE * (len(body) - zeros)


def _percent(amount: int, percent: int) -> int:
    """`percent` of an amount, rounded up."""
    return -(-amount * percent // 100)
