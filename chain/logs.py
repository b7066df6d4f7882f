"""Reading headers and PoCo logs so that what comes back belongs together.

Near the head a block's logs are asked for by the block's hash: a number could mean another block a moment later. Deep
down a range is asked for in one call. Either way each log must name a block that was read, and a block whose filter
promises logs of the hub that the node does not show is looked at again through its receipts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from chain import bloom, decode
from chain.rpc import JsonRpc
from config.metrics import HIDDEN_LOGS
from protocol.errors import RpcError, RpcUnavailable
from protocol.events import BlockRef, Seen
from protocol.types import BlockHash, BlockNumber, Contract

log = structlog.get_logger(__name__)

_TOPICS = tuple(decode.TOPICS.values())


@dataclass(frozen=True, slots=True)
class Header:
    """What is read of a block: who it is, and the filter over its logs (None on chains that leave it out)."""

    ref: BlockRef
    bloom: int | None


class LogReader:
    """Reads the hub's task events, those of every workerpool (`chain.ours` picks ours)."""

    def __init__(self, rpc: JsonRpc, hub: Contract) -> None:
        self.rpc = rpc
        self._hub = Contract(hub.lower())

    def headers(self, first: BlockNumber, last: BlockNumber) -> list[Header]:
        """Headers first … last, fewer if the node does not have them all (yet)."""
        answers = self.rpc.batch([("eth_getBlockByNumber", (hex(n), False)) for n in range(first, last + 1)])
        found: list[Header] = []
        for answer in answers:
            if isinstance(answer, RpcError):
                raise answer
            if answer is None:
                break
            found.append(_header(answer))
        return found

    def of_blocks(self, headers: Sequence[Header]) -> list[Seen]:
        """Events of these blocks in order, asked by hash. Raises RpcError if one of them has been replaced."""
        answers = self.rpc.batch([("eth_getLogs", (self._filter(blockHash=header.ref.hash),)) for header in headers])
        for answer in answers:
            if isinstance(answer, RpcError):
                raise answer
        return self._checked(headers, [raw for answer in answers for raw in answer])

    def of_range(self, headers: Sequence[Header]) -> list[Seen]:
        """Events of these consecutive blocks in order, asked in one call. Raises RpcError if that is too much."""
        first, last = headers[0].ref.number, headers[-1].ref.number
        raw = self.rpc.call("eth_getLogs", self._filter(fromBlock=hex(first), toBlock=hex(last)))
        return self._checked(headers, raw)

    def _filter(self, **blocks: str) -> dict[str, object]:
        return {"address": self._hub, "topics": [list(_TOPICS)], **blocks}

    def _checked(self, headers: Sequence[Header], raw_logs: Sequence[Mapping[str, Any]]) -> list[Seen]:
        blocks = {header.ref.hash: header for header in headers}
        shown = set()
        seen: list[Seen] = []
        for raw in raw_logs:
            block = BlockHash(str(raw["blockHash"]).lower())
            if block not in blocks:
                raise RpcUnavailable(what=self.rpc.name, why=f"it shows a log of block {block}, which it replaced")
            shown.add(block)
            seen += self._of_hub(raw, blocks[block].ref)
        for header in headers:
            if header.ref.hash not in shown and self._promises(header):
                seen += self._from_receipts(header)
        seen.sort(key=lambda item: (item.block_number, item.log_index))
        return seen

    def _of_hub(self, raw: Mapping[str, Any], block: BlockRef) -> list[Seen]:
        item = decode.seen(raw, block.timestamp)
        return [] if item is None or str(raw["address"]).lower() != self._hub else [item]

    # -- nodes that hide logs ------------------------------------------------------------------------------------------

    def _promises(self, header: Header) -> bool:
        return header.bloom is not None and bloom.may_hold(header.bloom, self._hub, _TOPICS)

    def _from_receipts(self, header: Header) -> list[Seen]:
        """Events that eth_getLogs did not show although the block's filter allows them; mostly there are none.

        Raises RpcUnavailable when the receipts do not add up to the filter: the node does not know its own block.
        """
        try:
            receipts = self.rpc.call("eth_getBlockReceipts", header.ref.hash)
        except RpcError as error:
            log.warning(
                "A block may have logs that the node does not show, and it gives no receipts to be sure.",
                action="logs_unchecked",
                block=header.ref.number,
                why=str(error),
            )
            return []
        union = 0
        for receipt in receipts or ():
            union |= int(receipt["logsBloom"], 16)
        if union != header.bloom:
            raise RpcUnavailable(what=self.rpc.name, why=f"it hides logs of block {header.ref.number}")
        found = [item for receipt in receipts for raw in receipt["logs"] for item in self._of_hub(raw, header.ref)]
        if found:
            HIDDEN_LOGS.inc(len(found))
            log.warning(
                "The node hid logs from eth_getLogs; taken from the receipts.",
                action="logs_hidden",
                block=header.ref.number,
                logs=len(found),
                node=self.rpc.name,
            )
        return found


def _header(raw: Mapping[str, Any]) -> Header:
    text = raw.get("logsBloom")
    return Header(decode.block_ref(raw), int(text, 16) if text else None)


def linked(headers: Sequence[Header], parent: BlockRef | None) -> bool:
    """Whether each block's parent is the one before it; `parent` None: nothing is known of the block before."""
    before: BlockRef | None = parent
    for header in headers:
        if before is not None and header.ref.parent_hash != before.hash:
            return False
        before = header.ref
    return True
