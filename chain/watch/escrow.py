"""Reads what the hub moved for one wallet, all parts of an answer from one state of the chain.

One batch asks for the last block, the logs up to it, the account at it, and the block once more: only a node that has
that very block on both sides has answered for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chain.contracts import calls, decode, escrow
from chain.rpc.answers import Known, Reply, decode_replies, decode_reply, value_of, values
from chain.rpc.client import JsonRpc, Request
from protocol.errors import RpcError, RpcUnavailable
from protocol.poco.events import BlockRef
from protocol.poco.money import Balances, Movement
from protocol.types import BlockNumber, Contract, Nonce, Wallet, Wei

#: Zeros in front of an address in an event's topic.
_PAD = "0x" + "0" * 24


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a wallet has after a block: its account in the hub, native token, and account nonce."""

    account: Balances
    balance: Wei
    count: Nonce


@dataclass(frozen=True, slots=True)
class Passage:
    """What happened in blocks up to `last`. `holdings`: None where the node does not keep that state any more."""

    last: BlockRef
    movements: tuple[Movement, ...]
    holdings: Holdings | None


class EscrowReader:
    """Reads one wallet's movements in the hub."""

    def __init__(self, rpc: JsonRpc, hub: Contract, wallet: Wallet) -> None:
        self.rpc = rpc
        self.hub = Contract(hub.lower())
        self.wallet = Wallet(wallet.lower())

    def passage(self, first: BlockNumber, last: BlockNumber) -> Passage:
        """Blocks first … last. Raises RpcError if the node refuses (too many blocks, perhaps), RpcUnavailable if it
        cannot tell.
        """
        block: Request = ("eth_getBlockByNumber", (hex(last), False))
        filters = [self._filter(topics, first, last) for topics in self._topics()]
        before, *found, account, balance, count, after = self.rpc.batch([block, *filters, *self._state(last), block])
        ref = value_of(decode_reply(before, decode.block_ref), self.rpc.name)
        if ref.number != last or decode_reply(after, decode.block_ref) != Known(ref):
            raise RpcUnavailable(what=self.rpc.name, why=f"it answered for another block than {last}, or replaced it")
        raw = [log for answer in found for log in self._logs(answer, last)]
        moved = value_of(decode_reply(raw, lambda logs: escrow.movements(logs, self.hub, self.wallet)), self.rpc.name)
        return Passage(ref, self._timed(moved), _holdings(account, balance, count))

    def holdings(self, at: Sequence[BlockNumber]) -> list[Holdings | None]:
        """What the wallet has after each of these blocks; None where the node does not say. Raises RpcUnavailable."""
        answers = self.rpc.batch([request for block in at for request in self._state(block)])
        return [_holdings(*answers[start : start + 3]) for start in range(0, len(answers), 3)]

    def _state(self, at: BlockNumber) -> list[Request]:
        """The requests for the wallet's stake, balance and nonce at a block."""
        account = {"to": self.hub, "data": calls.VIEW_ACCOUNT.encode(self.wallet)}
        return [
            ("eth_call", (account, hex(at))),
            ("eth_getBalance", (self.wallet, hex(at))),
            ("eth_getTransactionCount", (self.wallet, hex(at))),
        ]

    def _topics(self) -> list[list[object]]:
        """The topic filters of the logs to read: only Transfers can be filtered by wallet."""
        own = _PAD + self.wallet[2:]
        return [[list(escrow.OF_ESCROW)], [escrow.TRANSFER, own], [escrow.TRANSFER, None, own]]

    def _filter(self, topics: Sequence[object], first: BlockNumber, last: BlockNumber) -> Request:
        """The request for the hub's logs of these topics in a range of blocks."""
        return "eth_getLogs", ({"address": self.hub, "topics": topics, "fromBlock": hex(first), "toBlock": hex(last)},)

    def _logs(self, answer: Reply, last: BlockNumber) -> list[Mapping[str, Any]]:
        """The logs in an answer: null and errors are not "none". Raises RpcError, RpcUnavailable."""
        if isinstance(answer, RpcError):
            raise answer
        if not isinstance(answer, list):
            why = f"it answered eth_getLogs up to block {last} with {type(answer).__name__} in place of logs"
            raise RpcUnavailable(what=self.rpc.name, why=why)
        return answer

    def _timed(self, moved: Sequence[Movement]) -> tuple[Movement, ...]:
        """The movements with the times of their blocks. Raises RpcUnavailable if a block was replaced meanwhile."""
        numbers = sorted({each.block for each in moved})
        headers = self.rpc.batch([("eth_getBlockByNumber", (hex(number), False)) for number in numbers])
        times = {ref.hash: ref.timestamp for ref in values(decode_replies(headers, decode.block_ref), self.rpc.name)}
        if any(each.block_hash not in times for each in moved):
            raise RpcUnavailable(what=self.rpc.name, why="it shows logs of a block that it replaced")
        return tuple(replace(each, at=times[each.block_hash]) for each in moved)


def _holdings(account: Reply, balance: Reply, count: Reply) -> Holdings | None:
    """The three answers about a wallet at one block, if the node has all of them."""
    held = decode_reply(account, lambda answer: Balances(*calls.VIEW_ACCOUNT.decode(answer)[0]))
    wei, spent = decode_reply(balance, lambda text: int(text, 16)), decode_reply(count, lambda text: int(text, 16))
    if isinstance(held, Known) and isinstance(wei, Known) and isinstance(spent, Known):
        return Holdings(held.value, Wei(wei.value), Nonce(spent.value))
    return None
