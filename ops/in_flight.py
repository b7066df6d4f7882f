"""Transactions that a lost scheduler sent and that no block holds yet: a new one, which does not know them, waits."""

from __future__ import annotations

import time
from collections.abc import Sequence

from chain.rpc.answers import decode_replies, values
from chain.rpc.client import JsonRpc
from protocol.types import Wallet

#: Seconds between two checks.
CHECK_SECONDS = 0.5


def account_nonces(rpc: JsonRpc, wallets: Sequence[Wallet]) -> tuple[int, int]:
    """(transactions of these wallets in blocks, those at the node besides that no block holds). Raises RpcUnavailable.

    A node counts only those that it knows, and some nodes count none.
    """
    asked = [("eth_getTransactionCount", (wallet, tag)) for wallet in wallets for tag in ("pending", "latest")]
    counts = values(decode_replies(rpc.batch(asked), lambda count: int(count, 16)), rpc.name)
    mined = sum(counts[1::2])
    return mined, max(0, sum(counts[0::2]) - mined)


def wait_for_mined(rpc: JsonRpc, wallets: Sequence[Wallet], wait: float) -> int:
    """The number of these wallets' transactions that no block holds, once there are none or `wait` seconds are over.

    Raises RpcUnavailable.
    """
    end = time.monotonic() + wait
    while True:
        _, pending = account_nonces(rpc, wallets)
        if not pending or time.monotonic() >= end:
            return pending
        time.sleep(CHECK_SECONDS)
