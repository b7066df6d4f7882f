"""A deposit of RLC in the hub, or a withdrawal, as the lane of a wallet can send it: checked, encoded, with its cost.

deposit     token hub: approveAndCall of RLC, the hub takes the amount    native hub: deposit, with the amount as value
withdraw    withdraw of the hub: what is free
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chain.contracts import calls
from chain.contracts.hub import Hub
from chain.lane.model.intent import LaneId
from chain.lane.model.nonce import Fees, NonceState
from chain.lane.model.policy import LanePolicy
from chain.lane.phases.snapshot import take_snapshot
from chain.lane.rules.fees import quote, too_low
from chain.lane.rules.gas import allowance, surcharges
from chain.lane.store.port import LaneStore
from chain.rpc.answers import Known
from chain.rpc.client import JsonRpc
from protocol.amounts import GWEI, ether, gwei, rlc
from protocol.errors import BadInput
from protocol.types import ZERO_ADDRESS, Contract, NRlc, Wallet, Wei

Direction = Literal["deposit", "withdraw"]
#: Wei of one nRLC where the native token is RLC (IexecEscrowNativeFacet).
_WEI_PER_NRLC = GWEI


@dataclass(frozen=True, slots=True)
class Transfer:
    """One deposit or withdrawal as the operator is asked to confirm it. Amounts in nRLC and wei."""

    direction: Direction
    amount: NRlc
    #: Of the wallet's account in the hub.
    free: NRlc
    locked: NRlc
    #: RLC of the wallet outside the hub.
    outside: NRlc
    to: Contract
    #: Calldata, `0x` hex.
    data: str
    value: Wei
    gas: int
    #: Of the gas, at most.
    cost: Wei


def plan(
    hub: Hub,
    lane: LaneId,
    policy: LanePolicy,
    store: LaneStore,
    direction: Direction,
    amount: NRlc,
    promised: NRlc = NRlc(0),  # noqa: B008 - a NewType call has no state
) -> Transfer:
    """Check that the wallet can pay for a transfer, and tell its highest cost; nothing is sent. `amount`: nRLC.

    `promised`: nRLC of stake that tasks under way lock or will lock. Raises BadInput where the wallet does not
    have the amount or the gas, or gas costs more than the wallet's limit.
    """
    wallet, token = lane.wallet, hub.token()
    native = token == ZERO_ADDRESS
    account, seen = hub.account(wallet), take_snapshot(hub.rpc, wallet, None)
    outside = NRlc(seen.balance // _WEI_PER_NRLC) if native else hub.rlc(token, wallet)
    _require(direction, amount, outside if direction == "deposit" else account.stake, account.locked, promised)
    to, method, data = _call(hub, token, direction, amount)
    gas = calls.gas_limit(method, data)
    offer = quote(policy.fees, seen.market)
    if too_low(offer, seen.base_fee):
        now, most = gwei(seen.base_fee or 0), gwei(policy.fees.ceiling)
        raise BadInput(what=f"Gas costs {now} gwei now and this wallet pays at most {most} (SLUICE_MAX_FEE_GWEI).")
    value = Wei(amount * _WEI_PER_NRLC if native and direction == "deposit" else 0)
    cost = highest_cost(hub.rpc, wallet, data, gas, offer)
    under_way = store.records(lane, (NonceState.OPEN,))
    committed = sum(record.gas_limit * record.newest.fees.max_fee + record.value for record in under_way)
    left = seen.balance - committed - policy.keep_balance
    if cost + value > left:
        raise BadInput(
            what=f"There is not enough gas: {ether(max(left, 0))} of the native token are free and up to"
            f" {ether(cost + value)} are needed. Send some to {wallet}."
        )
    return Transfer(direction, amount, account.stake, account.locked, outside, to, data, value, gas, cost)


def highest_cost(rpc: JsonRpc, wallet: Wallet, data: str, gas: int, offer: Fees) -> Wei:
    """Wei that the lane pays at most for a call with this calldata and gas limit. Raises RpcUnavailable."""
    return Wei((gas + _surcharge(rpc, wallet, data)) * offer.max_fee)


def _surcharge(rpc: JsonRpc, wallet: Wallet, data: str) -> int:
    """Gas that the lane will allow for what the chain takes on top; 0 while the node does not say."""
    plain, loaded = surcharges(rpc, wallet, ["0x", data])
    if isinstance(plain, Known) and isinstance(loaded, Known) and plain.value:
        return allowance(loaded.value)
    return 0


def _require(direction: Direction, amount: NRlc, has: NRlc, locked: NRlc, promised: NRlc) -> None:
    """Raise BadInput unless the wallet has the amount to move."""
    if direction == "deposit":
        if amount > has:
            raise BadInput(what=f"There are only {rlc(has)} RLC in the wallet, not {rlc(amount)}.")
        return
    # Tasks that are not voted on yet will lock what is free now.
    kept = max(0, promised - locked)
    if amount > has - kept:
        also = f", {rlc(locked)} RLC are locked by votes" if locked else ""
        also += (
            f", and {rlc(kept)} RLC of what is free are for tasks under way (drain the machine first)" if kept else ""
        )
        raise BadInput(what=f"There are only {rlc(has)} RLC free in the hub, not {rlc(amount)} to withdraw{also}.")


def _call(hub: Hub, token: Contract, direction: Direction, amount: NRlc) -> tuple[Contract, str, str]:
    """Contract, method (which decides the gas limit), and calldata of the transfer."""
    if direction == "withdraw":
        return hub.address, "withdraw", calls.WITHDRAW.encode(amount)
    if token == ZERO_ADDRESS:
        return hub.address, "deposit", calls.DEPOSIT_NATIVE.encode()
    return token, "approveAndCall", calls.APPROVE_AND_CALL.encode(hub.address, amount, "0x")


def sentence(transfer: Transfer) -> str:
    """The transfer and its highest cost in one line, which the operator confirms."""
    way = "from the wallet into the hub" if transfer.direction == "deposit" else "from the hub into the wallet"
    return f"{rlc(transfer.amount)} RLC {way}, for at most {ether(transfer.cost)} of the native token as gas"
