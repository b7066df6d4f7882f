"""Fakes for tests without a node: a scripted chain that answers JSON-RPC, and a watcher's store in memory."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from chain.contracts import decode
from chain.rpc.announced import OnHeader
from chain.rpc.answers import Answer, Broken, Known, Reply
from chain.rpc.client import Request
from chain.watch import bloom
from chain.watch.audit import Audit, DealPlace
from chain.watch.logs import NO_TRANSACTIONS
from chain.watch.watcher import Reorg
from protocol.errors import RpcError, RpcUnavailable
from protocol.ethereum.hexbytes import to_hex
from protocol.ethereum.keccak import keccak
from protocol.poco import events
from protocol.poco.events import BlockRef, Seen
from protocol.types import BlockHash, BlockNumber, Contract, DealId, TaskId, Timestamp

T = TypeVar("T")

#: Time of the fake chain's first block, and seconds between blocks.
GENESIS_TIME, BLOCK_SECONDS = 1_700_000_000, 1


def known(answer: Answer[T] | Broken) -> T:
    """The value of an answer that must be Known; else the test fails."""
    assert isinstance(answer, Known), answer
    return answer.value


@dataclass(frozen=True, slots=True)
class _Block:
    """A block of the fake chain: its header's fields, its logs, and the bloom filter over them."""

    ref: BlockRef
    logs: tuple[dict[str, Any], ...]
    bloom: int


@dataclass(slots=True)
class FakeChain:
    """A chain in memory that answers what `chain.watch.logs` and `chain.rpc.heads` read (a `JsonRpc`).

    Faults are fields: set them between calls.
    """

    hub: Contract
    chain_id: int = 31337
    name: str = "fake://chain"
    #: Requests fail as if the node were frozen.
    frozen: bool = False
    #: Blocks by which the node's answers are behind.
    lag: int = 0
    #: Blocks that it does not show, although it shows later ones.
    lacks: set[int] = field(default_factory=set)
    #: Blocks whose logs eth_getLogs leaves out, and whose receipts leave them out too.
    hides_logs_of: set[int] = field(default_factory=set)
    hides_receipts_of: set[int] = field(default_factory=set)
    #: Whether headers have a bloom filter; else it is all zeros, as on chains that do without.
    fills_blooms: bool = True
    #: Whether headers have a root of their transactions; else it is that of none, whatever they hold.
    fills_roots: bool = True
    #: Most blocks that one eth_getLogs may span.
    most_blocks: int = 10_000
    #: Called before each answer with the method's name: lets a test change the chain while it is being read.
    before_answer: Callable[[str], None] = lambda _: None
    #: Every request answered, by method.
    asked: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _blocks: list[_Block] = field(default_factory=list)
    _salt: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.mine()

    # -- playing the chain ---------------------------------------------------------------------------------------------

    @property
    def head(self) -> BlockNumber:
        """Number of the newest block, whatever `lag` is."""
        return BlockNumber(len(self._blocks) - 1)

    def mine(self, *happened: events.Event, empty: int = 0) -> BlockRef:
        """Add one block with these events, then `empty` blocks without any; the block with the events."""
        block = self._add_block(happened)
        for _ in range(empty):
            self._add_block(())
        return block

    def rollback(self, depth: int) -> None:
        """Remove the last `depth` blocks."""
        del self._blocks[-depth:]

    def reorg(self, depth: int, *happened: events.Event) -> None:
        """Replace the last `depth` blocks; these events are in the first of the new ones."""
        self.rollback(depth)
        self.mine(*happened, empty=depth - 1)

    def ref(self, number: int) -> BlockRef:
        """The block at this height of the present chain."""
        return self._blocks[number].ref

    def announce(self, to: OnHeader, first: int) -> None:
        """Announce the headers of the blocks from `first` on, as a subscription does: without transactions."""
        for block in self._blocks[first:]:
            header = _header_json(block)
            held = header.pop("transactions")
            header["transactionsRoot"] = to_hex(keccak(b"some")) if held and self.fills_roots else NO_TRANSACTIONS
            header["gasUsed"] = hex(21_000 * len(held))
            to(block.ref.number, header)

    def _add_block(self, happened: Sequence[events.Event]) -> BlockRef:
        """Add one block with these events; its hash differs from that of any block before."""
        number = len(self._blocks)
        parent = self._blocks[-1].ref.hash if self._blocks else BlockHash("0x" + "0" * 64)
        digest = keccak(f"{number}:{parent}:{next(self._salt)}".encode())
        ref = BlockRef(
            BlockNumber(number),
            BlockHash(to_hex(digest)),
            parent,
            Timestamp(GENESIS_TIME + number * BLOCK_SECONDS),
        )
        logs = tuple(raw_log(event, ref, index, self.hub) for index, event in enumerate(happened))
        mask = 0
        for log in logs:
            for item in (log["address"], *log["topics"]):
                mask |= bloom.bits(item)
        self._blocks.append(_Block(ref, logs, mask if self.fills_blooms else 0))
        return ref

    # -- answering -----------------------------------------------------------------------------------------------------

    def call(self, method: str, *params: object) -> Any:
        """The fake node's result of one call. Raises RpcError, or RpcUnavailable while `frozen`."""
        (answer,) = self.batch([(method, params)])
        if isinstance(answer, RpcError):
            raise answer
        return answer

    def batch(self, requests: Sequence[Request]) -> list[Reply]:
        """The fake node's answers in the order of `requests`, RpcErrors among them.

        Raises RpcUnavailable while `frozen`.
        """
        return [self._answer(method, params) for method, params in requests]

    def _answer(self, method: str, params: Sequence[Any]) -> Any:
        """The fake node's answer to one request, as its faults have it."""
        self.before_answer(method)
        if self.frozen:
            raise RpcUnavailable(what=self.name, why="no answer within 5 s")
        self.asked[method] += 1
        visible = self._blocks[: len(self._blocks) - self.lag]
        match method:
            case "eth_chainId":
                return hex(self.chain_id)
            case "eth_blockNumber":
                return hex(visible[-1].ref.number)
            case "eth_getBlockByNumber":
                number = int(params[0], 16)
                shown = number < len(visible) and number not in self.lacks
                root = {} if self.fills_roots else {"transactionsRoot": NO_TRANSACTIONS}
                return _header_json(visible[number]) | root if shown else None
            case "eth_getLogs":
                return self._get_logs(visible, params[0])
            case "eth_getBlockReceipts":
                return self._get_receipts(visible, params[0])
        return RpcError(method=method, code=-32601, message="method not found")

    def _get_logs(self, visible: Sequence[_Block], wanted: Mapping[str, Any]) -> Any:
        """The answer of eth_getLogs: logs of one block by hash, or of a range."""
        if "blockHash" in wanted:
            blocks = [block for block in visible if block.ref.hash == wanted["blockHash"]]
            if not blocks:
                return RpcError(method="eth_getLogs", code=-32000, message="unknown block")
        else:
            first, last = int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16)
            if last - first >= self.most_blocks:
                message = f"block range is limited to {self.most_blocks} blocks"
                return RpcError(method="eth_getLogs", code=-32005, message=message)
            blocks = list(visible[first : last + 1])
        return [log for block in blocks if block.ref.number not in self.hides_logs_of for log in block.logs]

    def _get_receipts(self, visible: Sequence[_Block], block_hash: str) -> Any:
        """The answer of eth_getBlockReceipts: all of a block's logs in one receipt; null for an unknown block."""
        block = next((block for block in visible if block.ref.hash == block_hash), None)
        if block is None:
            return None
        if block.ref.number in self.hides_receipts_of:
            return []
        return [{"logsBloom": hex(block.bloom), "logs": list(block.logs)}]


@dataclass(slots=True)
class MemoryWatchStore:
    """A watcher's store (`WatchStore`, `AuditStore` of `chain.watch`) that lives as long as the process."""

    present: dict[tuple[BlockHash, int], Seen] = field(default_factory=dict)
    orphaned: dict[tuple[BlockHash, int], Seen] = field(default_factory=dict)
    deals: dict[DealId, DealPlace] = field(default_factory=dict)
    #: Tasks that have a row because their deal was ingested.
    rows: set[TaskId] = field(default_factory=set)
    reorgs: list[Reorg] = field(default_factory=list)
    #: Tasks and deals that a replay had looked at.
    woken: list[TaskId | DealId] = field(default_factory=list)
    #: Called after logs are stored and before the cursor moves: lets a test end the process there.
    before_cursor: Callable[[], None] = lambda: None
    #: Called before a replay changes anything: lets a test change the chain there.
    before_repair: Callable[[], None] = lambda: None
    _blocks: dict[BlockNumber, BlockRef] = field(default_factory=dict)
    _cursor: BlockRef | None = None

    def cursor(self) -> BlockRef | None:
        """The highest block whose events are stored."""
        return self._cursor

    def block(self, number: BlockNumber) -> BlockRef | None:
        """The stored block of this height; None if there is none."""
        return self._blocks.get(number)

    def commit(self, blocks: Sequence[BlockRef], logs: Sequence[Seen]) -> None:
        """Store `logs`, then `blocks`, then move the cursor to the last block unless it is higher."""
        for item in logs:
            self.present[item.place] = item
            if isinstance(item.event, events.SchedulerNotice):
                deal_id = item.event.deal_id
                self.deals[deal_id] = DealPlace(deal_id, item.block_number, item.block_hash)
        self.before_cursor()
        for block in blocks:
            self._blocks[block.number] = block
        if blocks and (self._cursor is None or self._cursor.number <= blocks[-1].number):
            self._cursor = blocks[-1]

    def orphan(self, above: BlockNumber) -> list[TaskId]:
        """Mark logs above block `above` as orphaned and move the cursor down to it. Returns the tasks that had such
        logs.
        """
        gone = {key: item for key, item in self.present.items() if item.block_number > above}
        for key in gone:
            self.orphaned[key] = self.present.pop(key)
        self.deals = {key: deal for key, deal in self.deals.items() if deal.block_number <= above}
        self._blocks = {number: block for number, block in self._blocks.items() if number <= above}
        self._cursor = self._blocks.get(above)
        happened = [item.event for item in gone.values()]
        return list(dict.fromkeys(e.task_id for e in happened if not isinstance(e, events.SchedulerNotice)))

    def known(self, task_ids: Sequence[TaskId]) -> set[TaskId]:
        """Which of these tasks belong to our workerpool."""
        begun = {item.event.task_id for item in self.present.values() if isinstance(item.event, events.TaskInitialize)}
        return (begun | self.rows) & set(task_ids)

    def note(self, reorg: Reorg) -> None:
        """Keep a reorganisation for the test to read."""
        self.reorgs.append(reorg)

    def logs_between(self, first: BlockNumber, last: BlockNumber) -> list[Seen]:
        """Stored events of blocks first … last that are not orphaned."""
        return [item for item in self.present.values() if first <= item.block_number <= last]

    def deals_between(self, first: BlockNumber, last: BlockNumber) -> list[DealPlace]:
        """Stored deals matched in blocks first … last that are not orphaned."""
        return [deal for deal in self.deals.values() if first <= deal.block_number <= last]

    def repair(self, found: Audit) -> None:
        """Store what an audit found missing and orphan what it found too much."""
        self.before_repair()
        for item in found.extra:
            self.orphaned[item.place] = self.present.pop(item.place)
        for item in found.missing:
            self.present[item.place] = item
        for deal in found.extra_deals:
            del self.deals[deal.deal_id]
        for deal in found.missing_deals:
            self.deals[deal.deal_id] = deal
        self.woken += [*found.tasks, *(deal.deal_id for deal in found.missing_deals)]

    @property
    def events(self) -> list[events.Event]:
        """Stored events on the present chain, in chain order."""
        order = sorted(self.present.values(), key=lambda item: (item.block_number, item.log_index))
        return [item.event for item in order]


def raw_log(event: events.Event, block: BlockRef, index: int, hub: Contract) -> dict[str, Any]:
    """The event as a raw log of a node, the only one of its transaction."""
    topics, data = decode.encode(event)
    return {
        "address": hub,
        "topics": topics,
        "data": data,
        "blockNumber": hex(block.number),
        "blockHash": block.hash,
        "transactionHash": to_hex(keccak(f"{block.hash}:{index}".encode())),
        "logIndex": hex(index),
    }


def _header_json(block: _Block) -> dict[str, Any]:
    """The block's header as eth_getBlockByNumber answers it."""
    return {
        "number": hex(block.ref.number),
        "hash": block.ref.hash,
        "parentHash": block.ref.parent_hash,
        "timestamp": hex(block.ref.timestamp),
        "logsBloom": hex(block.bloom),
        "transactions": [log["transactionHash"] for log in block.logs],
    }
