"""RLC of the wallet into the hub and out of it, through the wallet's lane, so that no nonce appears from outside.

deposit     approveAndCall of the RLC contract: the hub takes the amount, one transaction
withdraw    withdraw of the hub: what is not locked
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from chain.contracts import calls
from chain.contracts.hub import Hub
from chain.lane.model.intent import Intent, IntentState
from chain.lane.phases.snapshot import take_snapshot
from chain.lane.rules.fees import quote
from chain.lane.run import Lane
from protocol.errors import BadInput, LaneError, TransactionReverted
from protocol.types import ZERO_ADDRESS, Contract, NRlc, Wei
from workers.fitness.rules import NRLC, ether, rlc

Direction = Literal["deposit", "withdraw"]

_AMOUNT = re.compile(r"(\d{1,20}(?:\.\d{1,9})?)\s*(RLC|nRLC)", re.IGNORECASE)
#: Seconds between two looks at a transaction that is under way, in blocks.
_LOOKS_A_BLOCK = 2


@dataclass(frozen=True, slots=True)
class Transfer:
    """One deposit or withdrawal, before it is made; amounts in nRLC and wei."""

    direction: Direction
    amount: NRlc
    free: NRlc
    locked: NRlc
    #: RLC of the wallet outside the hub.
    outside: NRlc
    to: Contract
    data: str
    gas: int
    cost: Wei


def amount_of(text: str) -> NRlc:
    """nRLC of `12.5 RLC` or `100 nRLC`. Raises BadInput."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise BadInput(what=f"{text!r} is no amount: write it like `12.5 RLC` or `100 nRLC`.")
    number, unit = Decimal(match[1]), match[2].lower()
    amount = number * NRLC if unit == "rlc" else number
    if amount != int(amount) or amount == 0:
        raise BadInput(what=f"{text!r} is no amount: one nRLC is the least, and there are no parts of it.")
    return NRlc(int(amount))


def plan(lane: Lane, hub: Hub, direction: Direction, amount: NRlc) -> Transfer:
    """What would be sent, and its cost at most. Raises BadInput where the wallet does not have the amount."""
    wallet, token = lane.id.wallet, hub.token()
    if token == ZERO_ADDRESS:
        raise BadInput(what="This hub keeps the chain's native token, not RLC: move it with the iExec SDK.")
    account = hub.account(wallet)
    answer = hub.rpc.call("eth_call", {"to": token, "data": calls.BALANCE_OF.encode(wallet)}, "latest")
    (outside,) = calls.BALANCE_OF.decode(str(answer))
    has = outside if direction == "deposit" else account.stake
    if amount > has:
        where = "in the wallet" if direction == "deposit" else "free in the hub"
        also = f" ({rlc(account.locked)} RLC are locked by votes)" if direction == "withdraw" and account.locked else ""
        raise BadInput(what=f"There are only {rlc(has)} RLC {where}{also}, not {rlc(amount)}.")
    if direction == "deposit":
        to, method, data = token, "approveAndCall", calls.APPROVE_AND_CALL.encode(hub.address, amount, "0x")
    else:
        to, method, data = hub.address, "withdraw", calls.WITHDRAW.encode(amount)
    gas = calls.gas_limit(method, data)
    policy = lane.context.policy.fees
    price = quote(policy, take_snapshot(hub.rpc, wallet, None).market).max_fee
    return Transfer(
        direction, amount, NRlc(account.stake), NRlc(account.locked), NRlc(outside), to, data, gas, Wei(gas * price)
    )


def sentence(transfer: Transfer) -> str:
    """For whoever is asked to confirm."""
    way = "from the wallet into the hub" if transfer.direction == "deposit" else "from the hub into the wallet"
    return f"{rlc(transfer.amount)} RLC {way}, for at most {ether(transfer.cost)} of the native token as gas"


def carry_out(
    lane: Lane, transfer: Transfer, *, seconds: float, block_time: float, sleep: Callable[[float], None] = time.sleep
) -> Intent:
    """Queue the transfer and run the lane until a block has it; the intent as it stands after `seconds` at most.

    A machine that is at work sends it as well: the lane's runs exclude each other. Raises LaneError where the lane
    stands still, TransactionReverted where the contract refused.
    """
    now = time.time()
    args: dict[str, object] = {"to": transfer.to, "gas": transfer.gas, "data": transfer.data}
    # A subject of its own each time: the same amount may be wanted twice.
    subject = f"{transfer.direction}-{transfer.amount}"
    intent = Intent.new(lane.id.chain_id, lane.id.wallet, "call", subject, args, now, occasion=int(now * 1000))
    lane.submit([intent])
    deadline = time.monotonic() + seconds
    while True:
        report = lane.run()
        (intent,) = lane.intents([intent.key])
        if intent.state is IntentState.FAILED:
            raise TransactionReverted(tx=intent.key, why=intent.reason or "it was given up")
        if intent.state in (IntentState.MINED, IntentState.FINAL):
            return intent
        if report.halted is not None:
            raise LaneError(wallet=lane.id.wallet, why=report.halted)
        if time.monotonic() >= deadline:
            return intent
        if not report.wake_again:
            sleep(block_time / _LOOKS_A_BLOCK)
