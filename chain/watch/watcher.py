"""Following the chain without losing, inventing or forgetting an event, through crashes and reorganisations.

    catch_up(head)
      │ 0  first call of a process, or after a store that failed half-way: take back all above the cursor,
      │    for its blocks may be replaced before they are read again
      │ 1  is the cursor's block still on the chain?   no ─► walk back to the last common block,
      │    yes, if the blocks above it are linked to it      mark everything above it orphaned
      │ 2  first call of a process: go back `lookback` blocks, so that work whose wake-up was lost is seen again
      │ 3  read on:   deep below the head in ranges, the last `lookback` blocks by their hashes;
      │               of a hub that many pools share, only what concerns our tasks
      │ 4  store the work, and only with it move the cursor; then return it to the caller
      ▼
    Caught, Caught, …

A crash anywhere repeats a step, and every step may be repeated: logs are stored under block hash and index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from chain.contracts.hub import Hub
from chain.rpc.announced import Announced
from chain.rpc.client import JsonRpc
from chain.watch.logs import Header, LogReader, linked
from chain.watch.pool_filter import PoolFilter
from chain.watch.ranges import RangeSize
from config.metrics import BLOCKS_READ, LATE_FINDS, REORGS, REORGS_BEYOND_FINALITY
from protocol.errors import RpcError, RpcUnavailable, WrongChain
from protocol.poco.events import BlockRef, SchedulerNotice, Seen
from protocol.types import BlockNumber, Contract, DealId, TaskId

log = structlog.get_logger(__name__)

#: Blocks read by hash in one step near the head.
_STEP = 32
#: Deepest reorganisation that is undone. Ethereum makes blocks final after 64; anything deeper is another chain.
DEEPEST_REORG = 512
#: Blocks that a node may lack below a head that another one announced: those of one chain differ by a block or two.
#: A block that is missing deeper down keeps everything above it from being read, which must be said.
MOST_BEHIND = 8
#: Below every block.
_BEFORE_ALL = BlockNumber(-1)


@dataclass(frozen=True, slots=True)
class Reorg:
    """Blocks that were replaced: those above `ancestor`, up to `top`, the last one whose work was stored."""

    ancestor: BlockRef
    top: BlockRef
    #: How many tasks lost events.
    tasks: int

    @property
    def depth(self) -> int:
        """Number of blocks that were replaced."""
        return self.top.number - self.ancestor.number


class WatchStore(Protocol):
    """What the watcher remembers. The MongoDB one is in `pipeline.store`, an in-memory one in `chain.testing`."""

    def cursor(self) -> BlockRef | None:
        """The highest block whose events are stored; the watcher goes on above it."""

    def block(self, number: BlockNumber) -> BlockRef | None:
        """The stored block of this height; None if there is none."""

    def commit(self, blocks: Sequence[BlockRef], logs: Sequence[Seen]) -> None:
        """Store `logs`, then `blocks`, then move the cursor to the last block unless it stands higher."""

    def orphan(self, above: BlockNumber) -> list[TaskId]:
        """Mark logs above block `above` as orphaned and move the cursor down to it. Returns the tasks that had such
        logs.
        """

    def logs_between(self, first: BlockNumber, last: BlockNumber) -> Sequence[Seen]:
        """Stored events of blocks first … last that are not orphaned, in any order."""

    def known(self, task_ids: Sequence[TaskId]) -> set[TaskId]:
        """Which of these tasks belong to our workerpool, as far as the present chain was followed."""

    def note(self, reorg: Reorg) -> None:
        """Keep a reorganisation for `sluice chain status`."""


@dataclass(frozen=True, slots=True)
class Caught:
    """One step that is stored now: the events `seen` happened in `blocks`; the tasks `orphaned` lost
    events to a reorg.
    """

    blocks: tuple[BlockRef, ...]
    seen: tuple[Seen, ...]
    orphaned: tuple[TaskId, ...] = ()

    @property
    def deals(self) -> list[DealId]:
        """Deals matched in these blocks, each once, in chain order."""
        return list(dict.fromkeys(s.event.deal_id for s in self.seen if isinstance(s.event, SchedulerNotice)))

    @property
    def tasks(self) -> list[TaskId]:
        """Tasks whose chain view may have changed, each once."""
        happened = [s.event.task_id for s in self.seen if not isinstance(s.event, SchedulerNotice)]
        return list(dict.fromkeys([*self.orphaned, *happened]))


class Watcher:
    """Reads one workerpool's events into `store`, from `start_block` on.

    `lookback`: blocks below the head that may still be replaced, and that are read again when a process starts.
    `finality`: depth from which the transaction lane calls an action final and does not check it again; None: never.
    `announced`: headers that came with the heads; blocks that they prove to be of no interest are not asked for.
    """

    def __init__(
        self,
        rpc: JsonRpc,
        hub: Hub,
        workerpool: Contract,
        store: WatchStore,
        lookback: int = 64,
        start_block: int = 0,
        finality: int | None = None,
        announced: Announced | None = None,
    ) -> None:
        self._reader = LogReader(rpc, hub.address)
        self._hub = hub
        self._workerpool = workerpool
        self._node = rpc.name
        self._store = store
        self._finality = finality
        self._announced = Announced() if announced is None else announced
        self._lookback = lookback
        self._start = BlockNumber(start_block)
        self._size = RangeSize()
        self._overlapped = False
        #: Whether nothing above the cursor can be stored: not after a crash between logs and cursor.
        self._tidy = False
        #: The highest block this process followed: several reorganisations in a row may add up below it.
        self._highest: BlockRef | None = None
        #: The block up to which the last reading went, and its filter; None after one that was cut off.
        self._filter: tuple[BlockRef, PoolFilter] | None = None

    def catch_up(self, head: BlockNumber) -> Iterator[Caught]:
        """Bring the store up to `head`, in steps; yields each step once it is stored. Raises as `catch_up_from`."""
        yield from self.catch_up_from(self._store.cursor(), head)

    def catch_up_from(self, cursor: BlockRef | None, head: BlockNumber) -> Iterator[Caught]:
        """As `catch_up`, for a caller that has just read the store's cursor. Called at each new head.

        Ends early, to go on at the next call, if the chain changes while it is being read. Raises RpcUnavailable or
        RpcError when the node fails (call again later), WrongChain when this is not the chain the store knows.
        """
        if not self._tidy:
            yield from self._take_back_unfinished(cursor)
        above: Sequence[Header] = ()
        if cursor is not None:
            above = self._linked_above(cursor, head)
            ancestor = cursor if above else self._common_ancestor(cursor, head)
            if ancestor != cursor:
                yield self._take_back(cursor, ancestor)
                cursor = ancestor
        # The last reading's filter serves on if nobody, by the cursor, has gone on or taken anything back since.
        (kept, self._filter), followed = (self._filter, None), cursor
        pool_filter = kept[1] if kept is not None and kept[0] == cursor else self.new_filter()
        for caught in self.read(self._first_block(cursor), head, pool_filter, above):
            late = self._find_late(caught, _BEFORE_ALL if cursor is None else cursor.number)
            self._commit_step(caught)
            pool_filter.stored()
            report_late_finds(late, "overlap")
            followed = caught.blocks[-1]
            yield caught
            if followed.number >= head:
                self._overlapped = True
        self._filter = None if followed is None else (followed, pool_filter)

    def new_filter(self) -> PoolFilter:
        """A new filter for our workerpool's events; each reading of consecutive blocks needs one of its own."""
        return PoolFilter(self._workerpool, self._store)

    def still_on_chain(self, last: BlockNumber) -> bool:
        """Whether the last block followed is still on the chain, as far as the node shows.

        Raises as `catch_up`, and RpcUnavailable if the node does not have block `last` yet.
        """
        cursor, head = self._store.cursor(), self._hub.head()
        if cursor is None or self._common_ancestor(cursor, head) != cursor:
            return False
        if head < last:
            raise RpcUnavailable(what=self._node, why=f"its head is block {head}, below block {last}")
        return True

    def stands(self, block: BlockRef) -> bool:
        """Whether `block` is on the chain, and the store has no other block at its height. Raises as `catch_up`."""
        cursor, known = self._store.cursor(), self._store.block(block.number)
        if cursor is None or cursor.number < block.number or (known is not None and known.hash != block.hash):
            return False
        return [header.ref.hash for header in self._reader.headers(block.number, block.number)] == [block.hash]

    def _commit_step(self, caught: Caught) -> None:
        """Store one step, and remember the highest block that this process followed."""
        self._tidy = False
        self._store.commit(caught.blocks, caught.seen)
        self._tidy = True
        top = caught.blocks[-1]
        if self._highest is None or top.number >= self._highest.number:
            self._highest = top

    def _find_late(self, caught: Caught, stored_to: BlockNumber) -> list[Seen]:
        """Events of blocks up to `stored_to` that the store lacks, although those blocks were stored before."""
        again = [seen for seen in caught.seen if seen.block_number <= stored_to]
        if not again:
            return []
        stored = {seen.place for seen in self._store.logs_between(again[0].block_number, again[-1].block_number)}
        return [seen for seen in again if seen.place not in stored]

    # -- reading on ----------------------------------------------------------------------------------------------------

    def _first_block(self, cursor: BlockRef | None) -> BlockNumber:
        """The block to read on from: after the cursor, in a new process `lookback` blocks before it."""
        if cursor is None:
            return self._start
        overlap = 0 if self._overlapped else self._lookback
        return BlockNumber(max(self._start, cursor.number + 1 - overlap))

    def _linked_above(self, cursor: BlockRef, head: BlockNumber) -> Sequence[Header]:
        """Headers of the blocks above the cursor up to `head`, if they prove that its block is on the chain; else none.

        None also where a process begins, or has more to read than one step.
        """
        if not self._overlapped or not 0 < head - cursor.number <= min(_STEP, self._lookback):
            return ()
        first = BlockNumber(cursor.number + 1)
        quiet = self._reader.quiet(self._announced.between(first, head))
        if quiet and linked(quiet, cursor):
            return quiet
        headers = self._reader.headers(first, head)
        return headers if linked(headers, cursor) else ()

    def read(
        self, first: BlockNumber, head: BlockNumber, pool_filter: PoolFilter, above: Sequence[Header] = ()
    ) -> Iterator[Caught]:
        """Events that `pool_filter` picks from blocks first … head, in steps; stores nothing.

        Ends early if the chain changes. `above`: headers from `first` on that are linked to what is stored, if they
        were read already.
        """
        number, deep = first, head - self._lookback
        before = None if above else self._store.block(BlockNumber(number - 1))
        while number <= head:
            in_range = number <= deep
            last = min(number + self._size.blocks - 1, deep) if in_range else min(number + _STEP - 1, head)
            headers = above or self._reader.headers(number, BlockNumber(last))
            if not headers:
                self._require_near(number, head)
                return
            if not above and (not linked(headers, before) or self._stored_were_replaced(headers)):
                log.info("The chain changed while it was read.", action="chain_moved", block=number)
                return
            blocks, seen = self._read_range(headers) if in_range else self._read_by_hash(headers)
            yield Caught(blocks, tuple(pool_filter.pick(seen)))
            before = blocks[-1]
            BLOCKS_READ.inc(before.number - number + 1)
            number, above = BlockNumber(before.number + 1), ()

    def _stored_were_replaced(self, headers: Sequence[Header]) -> bool:
        """Whether blocks that are read again differ from those stored: their events must be taken back first."""
        cursor = self._store.cursor()
        if cursor is None or headers[0].ref.number > cursor.number:
            return False
        # Linked as they are, the last one known speaks for all below it.
        last = headers[min(len(headers) - 1, cursor.number - headers[0].ref.number)].ref
        known = self._store.block(last.number)
        return known is not None and known.hash != last.hash

    def _read_by_hash(self, headers: Sequence[Header]) -> tuple[tuple[BlockRef, ...], list[Seen]]:
        """Blocks near the head and their events, asked for by hash: a block that is replaced meanwhile is an error."""
        return tuple(header.ref for header in headers), self._reader.events_of_blocks(headers)

    def _read_range(self, headers: Sequence[Header]) -> tuple[tuple[BlockRef, ...], list[Seen]]:
        """As many of these blocks as the node answers in one call: the last `lookback` of them, all their events."""
        while True:
            part = headers[: self._size.blocks]
            try:
                seen = self._reader.events_of_range(part)
            except RpcError as error:
                if self._size.least:
                    raise
                self._shrink_range(error.message)
            except RpcUnavailable:
                # Perhaps it was too much for the time-out: the next call tries less.
                self._shrink_range("")
                raise
            else:
                self._size = self._size.succeeded()
                return tuple(header.ref for header in part[-self._lookback :]), seen

    def _shrink_range(self, message: str) -> None:
        """Ask for smaller ranges from now on, as the node's words suggest."""
        self._size = self._size.failed(message)
        log.info("Reading smaller ranges.", action="range_shrunk", blocks=self._size.blocks, why=message)

    # -- reorganisations -----------------------------------------------------------------------------------------------

    def _common_ancestor(self, cursor: BlockRef, head: BlockNumber) -> BlockRef:
        """The highest stored block that is still on the chain: `cursor` itself, unless blocks were replaced."""
        top = min(cursor.number, head)
        known = cursor if top == cursor.number else self._store.block(top)
        current = self._reader.headers(top, top)
        if current and known is not None and current[0].ref.hash != known.hash:
            return self._walk_back(BlockNumber(top - 1), cursor)
        if not current:
            self._require_near(top, head)
        if top < cursor.number - self._lookback:
            why = f"its head is block {head}, far below block {cursor.number} that was read before"
            raise RpcUnavailable(what=self._node, why=why)
        # The same chain; a node that is a little behind is waited for.
        return cursor

    def _require_near(self, missing: BlockNumber, head: BlockNumber) -> None:
        """Raise RpcUnavailable for a block that the node does not show, unless it may just be behind."""
        if missing < head - MOST_BEHIND:
            raise RpcUnavailable(what=self._node, why=f"it does not show block {missing}, and its head is block {head}")

    def _walk_back(self, top: BlockNumber, cursor: BlockRef) -> BlockRef:
        """The highest stored block at or below `top` that is still on the chain. Raises WrongChain if there is none."""
        lowest = max(self._start, cursor.number - DEEPEST_REORG, 0)
        while top >= lowest:
            bottom = BlockNumber(max(lowest, top - _STEP + 1))
            headers = self._reader.headers(bottom, top)
            if len(headers) <= top - bottom:
                # Only blocks that were shown can differ from ours.
                raise RpcUnavailable(what=self._node, why=f"it does not show the blocks {bottom} to {top}")
            for header in reversed(headers):
                known = self._store.block(header.ref.number)
                if known is not None and known.hash == header.ref.hash:
                    return known
            top = BlockNumber(bottom - 1)
        raise WrongChain(
            why=f"none of the blocks {lowest} to {cursor.number} that were followed is on the chain of {self._node}",
            fix="Point SLUICE_RPC_URL at the chain that was followed, or set SLUICE_MONGODB_DATABASE to a new name.",
        )

    def _take_back_unfinished(self, cursor: BlockRef | None) -> Iterator[Caught]:
        """Orphan what was stored above the cursor before a crash: a reorg of such a block would not be noticed."""
        tasks = self._store.orphan(_BEFORE_ALL if cursor is None else cursor.number)
        self._tidy = True
        if tasks:
            log.info("Events of an unfinished step taken back.", action="unfinished_step", tasks=len(tasks))
            yield Caught((), (), tuple(tasks))

    def _take_back(self, cursor: BlockRef, ancestor: BlockRef) -> Caught:
        """Orphan what was stored above `ancestor`, and count and log the reorg."""
        REORGS.inc()
        tasks = self._store.orphan(ancestor.number)
        top = cursor if self._highest is None or self._highest.number < cursor.number else self._highest
        reorg = Reorg(ancestor, top, len(tasks))
        self._store.note(reorg)
        log.warning(
            "The chain was reorganised.",
            action="reorg",
            depth=reorg.depth,
            ancestor=ancestor.number,
            tasks=reorg.tasks,
        )
        if self._finality is not None and reorg.depth > self._finality:
            REORGS_BEYOND_FINALITY.inc()
            log.error(
                "Blocks were replaced whose transactions counted as final. See what became of ours with "
                "`sluice tx audit` and `sluice chain audit`, and raise SLUICE_FINALITY_BLOCKS for this chain.",
                action="reorg_beyond_finality",
                depth=reorg.depth,
                finality=self._finality,
                ancestor=ancestor.number,
                tasks=reorg.tasks,
            )
        return Caught((), (), tuple(tasks))


def report_late_finds(late: Sequence[Seen], found_by: str) -> None:
    """Count and log events that were missing in the store until now: a node hid them, or Sluice has a bug."""
    if not late:
        return
    LATE_FINDS.labels(found_by).inc(len(late))
    log.warning(
        "Events were found that the first reading of their blocks missed; they are stored now.",
        action="late_find",
        found_by=found_by,
        events=len(late),
        first_block=min(seen.block_number for seen in late),
        last_block=max(seen.block_number for seen in late),
    )
