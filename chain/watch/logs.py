"""Reading headers and PoCo logs so that what comes back belongs together.

Near the head a block's logs are asked for by the block's hash: a number could mean another block a moment later. Deep
down a range is asked for in one call. Either way each log must name a block that was read, and a block whose filter
promises events of the hub that the node does not show is looked at again through its receipts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from chain.contracts import decode
from chain.rpc.answers import Known, Reply, Unknown, heard, heard_each, value_of, values
from chain.rpc.client import JsonRpc
from chain.watch import bloom
from config.metrics import HIDDEN_LOGS
from protocol.errors import BadMessage, RpcError, RpcUnavailable
from protocol.poco.events import BlockRef, Seen
from protocol.types import BlockHash, BlockNumber, Contract

log = structlog.get_logger(__name__)

_TOPICS = tuple(decode.TOPICS.values())


@dataclass(frozen=True, slots=True)
class Header:
    """What is read of a block: who it is, and the filter over its logs (None on chains that leave it out)."""

    ref: BlockRef
    bloom: int | None


class LogReader:
    """Reads the hub's task events, those of every workerpool (`chain.watch.ours` picks ours)."""

    def __init__(self, rpc: JsonRpc, hub: Contract) -> None:
        self.rpc = rpc
        self._hub = Contract(hub.lower())

    def headers(self, first: BlockNumber, last: BlockNumber) -> list[Header]:
        """Headers first … last, fewer if the node does not have them all (yet)."""
        answers = self.rpc.batch([("eth_getBlockByNumber", (hex(n), False)) for n in range(first, last + 1)])
        found: list[Header] = []
        for number, answer in zip(range(first, last + 1), answers, strict=True):
            if answer is None:
                break
            header = value_of(heard(answer, _header), self.rpc.name)
            if header.ref.number != number:
                raise RpcUnavailable(what=self.rpc.name, why=f"it answered block {header.ref.number} for {number}")
            found.append(header)
        return found

    def of_blocks(self, headers: Sequence[Header]) -> list[Seen]:
        """Events of these blocks in order, asked by hash.

        Raises RpcError if the node refuses (one of them has been replaced), RpcUnavailable if it cannot say.
        """
        answers = self.rpc.batch([("eth_getLogs", (self._filter(blockHash=header.ref.hash),)) for header in headers])
        logs: list[Mapping[str, Any]] = []
        for header, answer in zip(headers, answers, strict=True):
            logs += self._shown([header], answer)
        return self._checked(headers, logs)

    def of_range(self, headers: Sequence[Header]) -> list[Seen]:
        """Events of these consecutive blocks in order, asked in one call. Raises RpcError if that is too much."""
        first, last = headers[0].ref.number, headers[-1].ref.number
        raw = self.rpc.call("eth_getLogs", self._filter(fromBlock=hex(first), toBlock=hex(last)))
        return self._checked(headers, self._shown(headers, raw))

    def _shown(self, headers: Sequence[Header], answer: Reply) -> list[Mapping[str, Any]]:
        """The logs that an eth_getLogs for these blocks showed. Raises RpcError, RpcUnavailable.

        Some nodes write null for "none". It is read so where the blocks' filters tell afterwards whether it is true.
        """
        if isinstance(answer, RpcError):
            raise answer
        if isinstance(answer, list):
            return answer
        if answer is None and all(header.bloom is not None for header in headers):
            return []
        why = f"it answered eth_getLogs of block {headers[0].ref.number} with {type(answer).__name__} in place of logs"
        raise RpcUnavailable(what=self.rpc.name, why=why)

    def _filter(self, **blocks: str) -> dict[str, object]:
        return {"address": self._hub, "topics": [list(_TOPICS)], **blocks}

    def _checked(self, headers: Sequence[Header], raw_logs: Sequence[Mapping[str, Any]]) -> list[Seen]:
        """The logs as events, completed from the receipts where the node showed none although there may be some."""
        blocks = {header.ref.hash: header for header in headers}
        read = heard_each(raw_logs, lambda raw: (BlockHash(raw["blockHash"].lower()), list(raw["topics"]), raw))
        shown: dict[BlockHash, list[Mapping[str, Any]]] = {}
        for block, _, raw in values(read, self.rpc.name):
            if block not in blocks:
                raise RpcUnavailable(what=self.rpc.name, why=f"it shows a log of block {block}, which it replaced")
            shown.setdefault(block, []).append(raw)
        hidden = [header for header in headers if self._promises_more(header, shown.get(header.ref.hash, ()))]
        if hidden and shown:
            # An answer that was cut short lacks whole blocks, and perhaps the end of the last block it shows.
            last = [header for header in headers if header.ref.hash in shown][-1]
            hidden += [last] if last not in hidden else []
        seen = [item for header in hidden for item in self._from_receipts(header, len(shown.pop(header.ref.hash, ())))]
        seen += [item for block, logs in shown.items() for item in self._of_hub(logs, blocks[block].ref)]
        seen.sort(key=lambda item: (item.block_number, item.log_index))
        return seen

    def _of_hub(self, logs: Sequence[Mapping[str, Any]], block: BlockRef) -> list[Seen]:
        """Events of the hub among a block's logs. Raises RpcUnavailable for a log that no contract can have written."""

        def read(raw: Mapping[str, Any]) -> list[Seen]:
            if raw["address"].lower() != self._hub:
                return []
            item = decode.seen(raw, block.timestamp)
            return [] if item is None else [item]

        return [item for found in values(heard_each(logs, read), self.rpc.name) for item in found]

    # -- nodes that hide logs ------------------------------------------------------------------------------------------

    def _promises_more(self, header: Header, shown: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the block's filter allows an event of the hub of a kind that is not among the logs shown."""
        kinds = {str(topic).lower() for raw in shown for topic in raw["topics"][:1]}
        unseen = [topic for topic in _TOPICS if topic not in kinds]
        return header.bloom is not None and bloom.may_hold(header.bloom, self._hub, unseen)

    def _from_receipts(self, header: Header, already: int) -> list[Seen]:
        """The block's events by its receipts; mostly there are none beyond the logs that were shown (`already`).

        Raises RpcUnavailable when the receipts cannot be had or do not add up to the filter: whether the block has
        events is not known then.
        """
        receipts = self._receipts(header.ref)
        union = 0
        for receipt in receipts:
            union |= receipt.bloom
        if union != header.bloom:
            raise RpcUnavailable(what=self.rpc.name, why=f"it hides logs of block {header.ref.number}")
        found = [item for receipt in receipts for item in self._of_hub(receipt.logs, header.ref)]
        if len(found) > already:
            HIDDEN_LOGS.inc(len(found) - already)
            log.warning(
                "The node hid logs from eth_getLogs; taken from the receipts.",
                action="logs_hidden",
                block=header.ref.number,
                logs=len(found) - already,
                node=self.rpc.name,
            )
        return found

    def _receipts(self, block: BlockRef) -> list[_Receipt]:
        """All receipts of a block, in one call or, on nodes without it, one by one. Raises RpcUnavailable."""
        (answer,) = self.rpc.batch([("eth_getBlockReceipts", (block.hash,))])
        match heard(answer, lambda raw: [_receipt(each) for each in raw]):
            case Known(receipts):
                return receipts
            case Unknown(why):
                log.debug("No receipts of a block at once.", action="receipts_alone", block=block.number, why=why)
        (answer,) = self.rpc.batch([("eth_getBlockByHash", (block.hash, False))])
        hashes = value_of(heard(answer, lambda raw: [str(each) for each in raw["transactions"]]), self.rpc.name)
        answers = self.rpc.batch([("eth_getTransactionReceipt", (each,)) for each in hashes])
        return values(heard_each(answers, lambda raw: _receipt_of(raw, block)), self.rpc.name)


@dataclass(frozen=True, slots=True)
class _Receipt:
    """What is read of a receipt."""

    bloom: int
    logs: list[Mapping[str, Any]]


def _receipt(raw: Mapping[str, Any]) -> _Receipt:
    return _Receipt(int(raw["logsBloom"], 16), list(raw["logs"]))


def _receipt_of(raw: Mapping[str, Any], block: BlockRef) -> _Receipt:
    """As `_receipt`; BadMessage if the transaction is in another block."""
    if raw["blockHash"].lower() != block.hash:
        raise BadMessage(why=f"the receipt is of another block than {block.number}")
    return _receipt(raw)


def _header(raw: Mapping[str, Any]) -> Header:
    text = raw.get("logsBloom")
    return Header(decode.block_ref(raw), int(text, 16) if text and text != "0x" else None)


def linked(headers: Sequence[Header], parent: BlockRef | None) -> bool:
    """Whether each block's parent is the one before it; `parent` None: nothing is known of the block before."""
    before: BlockRef | None = parent
    for header in headers:
        if before is not None and header.ref.parent_hash != before.hash:
            return False
        before = header.ref
    return True
