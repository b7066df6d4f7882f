"""Reading headers and PoCo logs so that what comes back belongs together.

Near the head a block's logs are asked for by the block's hash: a number could mean another block a moment later. Deep
down a range is asked for in one call. Either way each log must name a block that was read, and a block whose filter
allows events of the hub that the node does not show is checked again through its receipts. A block whose header
proves that it has no such event is not asked for at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from chain.contracts import decode
from chain.rpc.announced import HeaderJson
from chain.rpc.answers import Known, Reply, Unknown, decode_replies, decode_reply, value_of, values
from chain.rpc.client import JsonRpc
from chain.watch import bloom
from config.metrics import HIDDEN_LOGS
from protocol.errors import BadMessage, RpcError, RpcUnavailable
from protocol.poco.events import BlockRef, Seen
from protocol.types import BlockHash, BlockNumber, Contract

log = structlog.get_logger(__name__)

_TOPICS = tuple(decode.TOPICS.values())
#: Root of the transactions of a block that has none: keccak of an empty trie.
NO_TRANSACTIONS = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"


@dataclass(frozen=True, slots=True)
class Header:
    """What is read of a block header: the block's identity, and its bloom filter (None on chains without one)."""

    ref: BlockRef
    bloom: int | None
    #: Whether the block has no transactions.
    empty: bool


class LogReader:
    """Reads the hub's task events, those of every workerpool (`chain.watch.pool_filter` picks ours)."""

    def __init__(self, rpc: JsonRpc, hub: Contract) -> None:
        self.rpc = rpc
        self._hub = Contract(hub.lower())

    def headers(self, first: BlockNumber, last: BlockNumber) -> list[Header]:
        """Headers of blocks first … last; fewer if the node does not have them all (yet). Raises RpcUnavailable."""
        answers = self.rpc.batch([("eth_getBlockByNumber", (hex(n), False)) for n in range(first, last + 1)])
        found: list[Header] = []
        for number, answer in zip(range(first, last + 1), answers, strict=True):
            if answer is None:
                break
            header = value_of(decode_reply(answer, _parse_header), self.rpc.name)
            if header.ref.number != number:
                raise RpcUnavailable(what=self.rpc.name, why=f"it answered block {header.ref.number} for {number}")
            found.append(header)
        return found

    def quiet(self, announced: Sequence[HeaderJson]) -> list[Header]:
        """These announced headers, if they prove that none of their blocks has an event of the hub; else none."""
        found = [decode_reply(header, _parse_header) for header in announced]
        headers = [header.value for header in found if isinstance(header, Known)]
        return headers if len(headers) == len(found) and not any(map(self._may_hold_events, headers)) else []

    def events_of_blocks(self, headers: Sequence[Header]) -> list[Seen]:
        """Events of these blocks in chain order, asked for by block hash.

        Raises RpcError if the node refuses (one of the blocks was replaced), RpcUnavailable if it cannot tell.
        """
        asked = [header for header in headers if self._may_hold_events(header)]
        requests = [("eth_getLogs", (self._hub_filter(blockHash=header.ref.hash),)) for header in asked]
        answers = self.rpc.batch(requests) if requests else []
        logs: list[Mapping[str, Any]] = []
        for header, answer in zip(asked, answers, strict=True):
            logs += self._read_logs([header], answer)
        return self._complete_logs(headers, logs)

    def _may_hold_events(self, header: Header) -> bool:
        """Whether the block may have events of the hub. An empty filter alone proves nothing."""
        if not header.bloom:  # some nodes fill in none
            return header.bloom is None or not header.empty
        return bloom.may_hold(header.bloom, self._hub, _TOPICS)

    def events_of_range(self, headers: Sequence[Header]) -> list[Seen]:
        """Events of these consecutive blocks in chain order, asked for in one call.

        Raises RpcError if that is too much.
        """
        first, last = headers[0].ref.number, headers[-1].ref.number
        raw = self.rpc.call("eth_getLogs", self._hub_filter(fromBlock=hex(first), toBlock=hex(last)))
        return self._complete_logs(headers, self._read_logs(headers, raw))

    def _read_logs(self, headers: Sequence[Header], answer: Reply) -> list[Mapping[str, Any]]:
        """The raw logs in an answer of eth_getLogs for these blocks. Raises RpcError, RpcUnavailable.

        Some nodes write null for "none": it counts as an empty list where each block's bloom filter would show what is
        missing. A filter of zeros shows nothing, since some nodes fill in none.
        """
        if isinstance(answer, RpcError):
            raise answer
        if isinstance(answer, list):
            return answer
        if answer is None and all(header.bloom or header.empty for header in headers):
            return []
        why = f"it answered eth_getLogs of block {headers[0].ref.number} with {type(answer).__name__} in place of logs"
        raise RpcUnavailable(what=self.rpc.name, why=why)

    def _hub_filter(self, **blocks: str) -> dict[str, object]:
        """The filter object of eth_getLogs for the hub's task events in these blocks."""
        return {"address": self._hub, "topics": [list(_TOPICS)], **blocks}

    def _complete_logs(self, headers: Sequence[Header], raw_logs: Sequence[Mapping[str, Any]]) -> list[Seen]:
        """The logs as events; where a bloom filter shows that the node left logs out, the receipts are read as well."""
        blocks = {header.ref.hash: header for header in headers}
        read = decode_replies(raw_logs, lambda raw: (BlockHash(raw["blockHash"].lower()), list(raw["topics"]), raw))
        shown: dict[BlockHash, list[Mapping[str, Any]]] = {}
        for block, _, raw in values(read, self.rpc.name):
            if block not in blocks:
                raise RpcUnavailable(what=self.rpc.name, why=f"it shows a log of block {block}, which it replaced")
            shown.setdefault(block, []).append(raw)
        hidden = [header for header in headers if self._may_hide_logs(header, shown.get(header.ref.hash, ()))]
        if hidden and shown:
            # An answer that was cut short lacks whole blocks, and perhaps the end of the last block it shows.
            last = [header for header in headers if header.ref.hash in shown][-1]
            hidden += [last] if last not in hidden else []
        seen = [
            item
            for header in hidden
            for item in self._events_from_receipts(header, len(shown.pop(header.ref.hash, ())))
        ]
        seen += [item for block, logs in shown.items() for item in self._decode_hub_logs(logs, blocks[block].ref)]
        seen.sort(key=lambda item: (item.block_number, item.log_index))
        return seen

    def _decode_hub_logs(self, logs: Sequence[Mapping[str, Any]], block: BlockRef) -> list[Seen]:
        """Events of the hub among a block's raw logs.

        Raises RpcUnavailable for a log that no contract can have written.
        """

        def read(raw: Mapping[str, Any]) -> list[Seen]:
            """The event in one raw log; nothing for another contract's, or one of a kind that is not followed."""
            if raw["address"].lower() != self._hub:
                return []
            item = decode.seen(raw, block.timestamp)
            return [] if item is None else [item]

        return [item for found in values(decode_replies(logs, read), self.rpc.name) for item in found]

    # -- nodes that hide logs ------------------------------------------------------------------------------------------

    def _may_hide_logs(self, header: Header, shown: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the block's bloom filter allows an event of the hub of a kind that is not among the logs shown."""
        kinds = {str(topic).lower() for raw in shown for topic in raw["topics"][:1]}
        unseen = [topic for topic in _TOPICS if topic not in kinds]
        return header.bloom is not None and bloom.may_hold(header.bloom, self._hub, unseen)

    def _events_from_receipts(self, header: Header, already: int) -> list[Seen]:
        """The block's events by its receipts; `already`: how many logs were shown, mostly all there are.

        Raises RpcUnavailable where the receipts cannot be had or do not add up to the bloom filter: then it is unknown
        whether the block has more events.
        """
        receipts = self._read_receipts(header.ref)
        union = 0
        for receipt in receipts:
            union |= receipt.bloom
        if union != header.bloom:
            raise RpcUnavailable(what=self.rpc.name, why=f"it hides logs of block {header.ref.number}")
        found = [item for receipt in receipts for item in self._decode_hub_logs(receipt.logs, header.ref)]
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

    def _read_receipts(self, block: BlockRef) -> list[_Receipt]:
        """All receipts of a block: in one call, or one by one on nodes that have no such call.

        Raises RpcUnavailable.
        """
        (answer,) = self.rpc.batch([("eth_getBlockReceipts", (block.hash,))])
        match decode_reply(answer, lambda raw: [_parse_receipt(each) for each in raw]):
            case Known(receipts):
                return receipts
            case Unknown(why):
                log.debug("No receipts of a block at once.", action="receipts_alone", block=block.number, why=why)
        (answer,) = self.rpc.batch([("eth_getBlockByHash", (block.hash, False))])
        hashes = value_of(decode_reply(answer, lambda raw: [str(each) for each in raw["transactions"]]), self.rpc.name)
        answers = self.rpc.batch([("eth_getTransactionReceipt", (each,)) for each in hashes])
        return values(decode_replies(answers, lambda raw: _parse_receipt_of(raw, block)), self.rpc.name)


@dataclass(frozen=True, slots=True)
class _Receipt:
    """What is read of a receipt."""

    bloom: int
    logs: list[Mapping[str, Any]]


def _parse_receipt(raw: Mapping[str, Any]) -> _Receipt:
    """Bloom filter and logs of a receipt's JSON."""
    return _Receipt(int(raw["logsBloom"], 16), list(raw["logs"]))


def _parse_receipt_of(raw: Mapping[str, Any], block: BlockRef) -> _Receipt:
    """`_parse_receipt`, with BadMessage if the transaction is in another block."""
    if raw["blockHash"].lower() != block.hash:
        raise BadMessage(why=f"the receipt is of another block than {block.number}")
    return _parse_receipt(raw)


def _parse_header(raw: Mapping[str, Any]) -> Header:
    """The header in a block's JSON."""
    text = raw.get("logsBloom")
    bloom_filter = int(text, 16) if text and text != "0x" else None
    return Header(decode.block_ref(raw), bloom_filter, empty=_is_empty(raw))


def _is_empty(raw: Mapping[str, Any]) -> bool:
    """Whether a header's JSON proves that its block has no transactions.

    Announced headers do not list them. Their root alone proves nothing, for some nodes fill in the same one everywhere.
    """
    if "transactions" in raw:
        return bool(raw["transactions"] == [])
    return raw.get("transactionsRoot") == NO_TRANSACTIONS and raw.get("gasUsed") == "0x0"


def linked(headers: Sequence[Header], parent: BlockRef | None) -> bool:
    """Whether each header's parent is the one before it; the first one's parent is `parent` (None: not checked)."""
    before: BlockRef | None = parent
    for header in headers:
        if before is not None and header.ref.parent_hash != before.hash:
            return False
        before = header.ref
    return True
