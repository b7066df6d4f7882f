"""One wallet that sends transactions to a development chain, simply: a batch out, a batch of receipts back.

For owners and requesters of the demo, the benchmarks and the tests. It stores nothing and repairs nothing: a wallet
that matters belongs to `chain.lane`, and no wallet may be used by both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chain.rpc import JsonRpc
from ops.poco.receipts import Receipt, await_mined
from protocol.errors import RpcError
from protocol.signing import Key
from protocol.transaction import Transaction, sign_transaction
from protocol.types import Contract, Nonce, TxHash, Wallet, Wei

#: Wei per gas for whoever mines: 1 gwei, what development chains suggest.
TIP = Wei(10**9)
#: The base fee may rise by an eighth each full block: tenfold covers some 20 full blocks between signing and mining.
BASE_FEE_FACTOR = 10
NO_COINS = Wei(0)
#: Seconds to wait for a batch to be mined, unless told otherwise.
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Call:
    """One transaction to be: calldata in `0x` hex for contract `to` (None: create a contract), gas limit, coins."""

    to: Contract | Wallet | None
    data: str
    gas: int
    value: Wei = NO_COINS


@dataclass(frozen=True, slots=True)
class Actor:
    """Sends as `key`'s wallet. Only one Actor may send for a wallet at a time."""

    key: Key
    rpc: JsonRpc
    chain_id: int

    @property
    def wallet(self) -> Wallet:
        """Its address."""
        return self.key.wallet

    def send(self, calls: Sequence[Call]) -> list[TxHash]:
        """Sign `calls` with consecutive nonces and send them in one batch; hashes in their order.

        Raises the first RpcError of a transaction that the node refused.
        """
        nonce, fee = self._nonce_and_fee()
        signed = [
            sign_transaction(
                self.key,
                Transaction(
                    chain_id=self.chain_id,
                    nonce=Nonce(nonce + position),
                    to=call.to,
                    data=call.data,
                    gas=call.gas,
                    value=call.value,
                    max_fee_per_gas=fee,
                    max_priority_fee_per_gas=TIP,
                ),
            )
            for position, call in enumerate(calls)
        ]
        answers = self.rpc.batch([("eth_sendRawTransaction", (raw,)) for raw, _ in signed])
        for answer in answers:
            if isinstance(answer, RpcError):
                raise answer
        return [tx_hash for _, tx_hash in signed]

    def run(self, calls: Sequence[Call], *, seconds: float = PATIENCE) -> list[Receipt]:
        """`send`, then wait until all are mined; raises TransactionReverted if one failed."""
        return await_mined(self.rpc, self.send(calls), seconds=seconds)

    def create(self, code: bytes, *, gas: int) -> Contract:
        """Create a contract from creation `code` and wait for it; its address."""
        (receipt,) = self.run([Call(None, "0x" + code.hex(), gas)])
        return receipt.contract

    def _nonce_and_fee(self) -> tuple[int, Wei]:
        nonce, block = self.rpc.batch(
            [("eth_getTransactionCount", (self.wallet, "pending")), ("eth_getBlockByNumber", ("latest", False))]
        )
        for answer in (nonce, block):
            if isinstance(answer, RpcError):
                raise answer
        base_fee = int(block.get("baseFeePerGas", "0x0"), 16)
        return int(nonce, 16), Wei(BASE_FEE_FACTOR * base_fee + TIP)
