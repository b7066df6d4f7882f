"""One wallet that sends transactions through web3.py's signing middleware and waits until they are mined.

For owners and requesters of the demo, the benchmarks and the tests. It stores nothing and repairs nothing: a wallet
that matters belongs to `chain.lane`, and no wallet may be used by both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from chain.contracts.contract import checksummed
from chain.rpc.answers import decode_reply, value_of
from chain.rpc.client import JsonRpc
from chain.rpc.library import load_web3
from ops.poco.receipts import Receipt, await_mined
from protocol.ethereum.signing import Key
from protocol.types import Contract, TxHash, Wallet, Wei

if TYPE_CHECKING:
    from web3 import Web3

#: Wei per gas for the block's producer: 1 gwei, what development chains suggest.
TIP = Wei(10**9)
#: The base fee may rise by an eighth each full block: tenfold covers some 20 full blocks between signing and mining.
BASE_FEE_FACTOR = 10
NO_ETHER = Wei(0)
#: Seconds to wait for a batch to be mined, by default.
WAIT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class TxRequest:
    """One transaction to send: `0x` calldata for contract `to` (None: create a contract), gas limit, value in wei."""

    to: Contract | Wallet | None
    data: str
    gas: int
    value: Wei = NO_ETHER


@dataclass(frozen=True)
class DirectSender:
    """Sends transactions of `key`'s wallet at once, for set-up, demo and tests. One sender at a time for a wallet."""

    key: Key
    rpc: JsonRpc
    chain_id: int

    @property
    def wallet(self) -> Wallet:
        """Address that the transactions are sent from."""
        return self.key.wallet

    @cached_property
    def _web3(self) -> Web3:
        """web3.py with this wallet's signing middleware."""
        load_web3()
        from web3.middleware import SignAndSendRawMiddlewareBuilder  # noqa: PLC0415 # loaded by the line before

        from chain.rpc.provider import web3_over  # noqa: PLC0415

        w3 = web3_over(self.rpc)
        w3.middleware_onion.add(SignAndSendRawMiddlewareBuilder.build(self.key.account()))
        return w3

    def send(self, calls: Sequence[TxRequest]) -> list[TxHash]:
        """Sign `calls` with consecutive nonces and send them; hashes in their order.

        Raises RpcError for the first transaction that the node refuses; those before it are sent.
        """
        nonce, fee = self._nonce_and_fee()
        hashes = []
        for position, call in enumerate(calls):
            sent = self._web3.eth.send_transaction(self._parameters(call, nonce + position, fee))
            hashes.append(TxHash(sent.to_0x_hex()))
        return hashes

    def run(self, calls: Sequence[TxRequest], *, seconds: float = WAIT_SECONDS) -> list[Receipt]:
        """`send`, then wait until all are mined; raises TransactionReverted if one failed."""
        return await_mined(self.rpc, self.send(calls), seconds=seconds)

    def create(self, code: bytes, *, gas: int) -> Contract:
        """Create a contract from creation `code` and wait for it; its address."""
        (receipt,) = self.run([TxRequest(None, "0x" + code.hex(), gas)])
        return receipt.contract

    def _nonce_and_fee(self) -> tuple[int, Wei]:
        """The next nonce (`pending`) and a fee cap in wei per gas, well above the base fee."""
        nonce, block = self.rpc.batch(
            [("eth_getTransactionCount", (self.wallet, "pending")), ("eth_getBlockByNumber", ("latest", False))]
        )
        count = value_of(decode_reply(nonce, lambda text: int(text, 16)), self.rpc.name)
        base_fee = value_of(decode_reply(block, lambda body: int(body.get("baseFeePerGas", "0x0"), 16)), self.rpc.name)
        return count, Wei(BASE_FEE_FACTOR * base_fee + TIP)

    def _parameters(self, call: TxRequest, nonce: int, fee: Wei) -> Any:
        """The transaction as web3.py takes it."""
        parameters: Any = {
            "from": checksummed(self.wallet),
            "chainId": self.chain_id,
            "nonce": nonce,
            "data": call.data,
            "gas": call.gas,
            "value": call.value,
            "maxFeePerGas": fee,
            "maxPriorityFeePerGas": TIP,
        }
        if call.to is not None:
            parameters["to"] = checksummed(call.to)
        return parameters
