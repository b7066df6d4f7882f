"""The open work of a pool that something else ran, found on the chain: where the watcher must begin, and what there is.

    head ◄── notices of our workerpool ◄── older blocks, range by range, until
             every deal's tasks are read      │  1  the open tasks explain the stake that the hub locks for the pool
             by the contracts, at the head    │  2  and older deals are past their final deadline

The first ends the search in a pool whose deals cost something, however long it has stood still; the second in one whose
deals are free. Both are needed, so that a free deal beside paid ones is found too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chain.contracts import decode
from chain.contracts.hub import Deal, Hub
from chain.rpc.answers import Known, Unknown, decode_reply, value_of
from chain.watch.ranges import RangeSize
from pipeline.domain.audit.compare import stake_of
from protocol.errors import RpcError, RpcUnavailable
from protocol.poco.deadlines import final_deadline
from protocol.poco.events import BlockRef, SchedulerNotice
from protocol.poco.ids import task_id
from protocol.poco.view import ChainView, ContributionStatus, TaskStatus
from protocol.types import BlockNumber, Contract, DealId, NRlc, TaskId, Timestamp, Wallet

#: Tasks whose state is asked for in one batch.
PAGE = 500
_ENDED = (TaskStatus.COMPLETED, TaskStatus.FAILED)

#: Called with the progress of the search: the lowest block read, and the number of open deals found.
Progress = Callable[[BlockNumber, int], None]


@dataclass(frozen=True, slots=True)
class OpenDeal:
    """A deal with tasks that are not over, and its category's seconds."""

    deal: Deal
    block: BlockNumber
    seconds: int
    tasks: tuple[ChainView, ...]


@dataclass(frozen=True, slots=True)
class OpenWork:
    """All open work of a pool at the block `head`."""

    head: BlockRef
    deals: tuple[OpenDeal, ...]
    #: nRLC that the hub locks of the pool's wallet, and how much of it the open tasks explain.
    locked: NRlc
    explained: NRlc
    #: The lowest block that was read.
    read_to: BlockNumber

    @property
    def first_block(self) -> BlockNumber:
        """The block of the oldest open deal: the watcher begins there; the head if no deal is open."""
        return min((deal.block for deal in self.deals), default=self.head.number)

    @property
    def by_status(self) -> dict[str, int]:
        """Open tasks by what the chain says of them: `UNSET`, `ACTIVE`, `REVEALING`, and those past their final
        deadline, which can only be claimed, as `expired`.
        """
        return dict(Counter(self._word(deal, view) for deal in self.deals for view in deal.tasks))

    def _word(self, deal: OpenDeal, view: ChainView) -> str:
        """The state of an open task in a word."""
        over = self.head.timestamp >= final_deadline(deal.deal.start_time, deal.seconds)
        return "expired" if over else view.status.name

    @property
    def votes(self) -> int:
        """Votes on chain for open tasks."""
        return sum(len(view.contributions) for deal in self.deals for view in deal.tasks)

    @property
    def to_reveal(self) -> int:
        """Winners that have not revealed yet."""
        return sum(
            vote.status is ContributionStatus.CONTRIBUTED
            for deal in self.deals
            for view in deal.tasks
            for vote in view.winners
        )

    @property
    def voters(self) -> set[Wallet]:
        """Workers with a vote on an open task."""
        return {vote.worker for deal in self.deals for view in deal.tasks for vote in view.contributions}


@dataclass(slots=True)
class _Search:
    """The search back from the head."""

    hub: Hub
    workerpool: Contract
    wallet: Wallet
    head: BlockRef
    size: RangeSize = field(default_factory=RangeSize)
    deals: dict[DealId, OpenDeal] = field(default_factory=dict)
    explained: int = 0

    def notices(self, first: BlockNumber, last: BlockNumber) -> dict[DealId, BlockNumber]:
        """Deals of our workerpool matched in these blocks. Raises RpcError if that is too much, RpcUnavailable."""
        topics = [decode.TOPICS[SchedulerNotice.__name__], "0x" + self.workerpool[2:].rjust(64, "0")]
        wanted = {"address": self.hub.address, "topics": topics, "fromBlock": hex(first), "toBlock": hex(last)}
        raw = self.hub.rpc.call("eth_getLogs", wanted)
        if not isinstance(raw, list):
            # Null from a node that cuts answers is no "none".
            why = f"it answered eth_getLogs with {type(raw).__name__} in place of logs"
            raise RpcUnavailable(what=self.hub.rpc.name, why=why)
        seen = [decode.seen(item, Timestamp(0)) for item in raw]
        return {
            each.event.deal_id: each.block_number
            for each in seen
            if each is not None and isinstance(each.event, SchedulerNotice)
        }

    def look_at(self, found: dict[DealId, BlockNumber]) -> None:
        """Read these deals and the state of their tasks, and keep what is open. Raises RpcUnavailable, RpcError."""
        for block, answer in zip(found.values(), self.hub.deals(list(found), self.head), strict=True):
            if isinstance(answer, Unknown):
                raise RpcUnavailable(what=self.hub.rpc.name, why=answer.why)
            # A deal that this release cannot serve is told by the ingest; its stake stays unexplained.
            if isinstance(answer, Known):
                self._look_at_deal(answer.value, block)

    def _look_at_deal(self, deal: Deal, block: BlockNumber) -> None:
        """Note a deal's open tasks, and the stake that they explain. Raises RpcUnavailable."""
        open_tasks: list[ChainView] = []
        tasks = [task_id(deal.deal_id, deal.bot_first + place) for place in range(deal.bot_size)]
        for start in range(0, len(tasks), PAGE):
            views = self._views(tasks[start : start + PAGE])
            open_tasks += [view for view in views if view.status not in _ENDED]
        self.explained += sum(stake_of(view, deal, self.wallet) for view in open_tasks)
        if open_tasks:
            category = self.hub.category(deal.category, self.head)
            if not isinstance(category, Known):
                raise RpcUnavailable(what=self.hub.rpc.name, why=category.why)
            self.deals[deal.deal_id] = OpenDeal(deal, block, category.value.seconds, tuple(open_tasks))

    def _views(self, tasks: Sequence[TaskId]) -> list[ChainView]:
        """The contract's views of tasks at the block of the search."""
        return self.hub.tasks(tasks, self.head.number)


def find_open_work(
    hub: Hub, workerpool: Contract, wallet: Wallet, head: BlockRef, lowest: BlockNumber, progress: Progress
) -> OpenWork:
    """Search the chain back from `head` for open deals of `workerpool`; `wallet` owns it. Not below block `lowest`.

    Raises RpcUnavailable, RpcError: nothing is guessed where a node does not answer.
    """
    locked = hub.account(wallet, head.number).locked
    seconds = longest_category(hub, head)
    search = _Search(hub, workerpool, wallet, head)
    top = head.number
    while top >= lowest:
        first = BlockNumber(max(lowest, top - search.size.blocks + 1))
        try:
            found = search.notices(first, top)
        except RpcError as error:
            if search.size.least:
                raise
            search.size = search.size.failed(error.message)
            continue
        search.size = search.size.succeeded()
        search.look_at(found)
        progress(first, len(search.deals))
        top = BlockNumber(first - 1)
        if search.explained >= locked and final_deadline(_time_of(hub, first), seconds) < head.timestamp:
            break
    deals = sorted(search.deals.values(), key=lambda deal: deal.block)
    return OpenWork(head, tuple(deals), locked, NRlc(search.explained), BlockNumber(top + 1))


def longest_category(hub: Hub, at: BlockRef) -> int:
    """Seconds of the hub's longest category. Raises RpcUnavailable."""
    longest, number = 0, 0
    while True:
        match hub.category(number, at):
            case Known(category):
                longest, number = max(longest, category.seconds), number + 1
            case Unknown(why):
                raise RpcUnavailable(what=hub.rpc.name, why=why)
            case _:
                # The contract refuses the first number that it has no category for.
                return longest


def block_at(hub: Hub, number: BlockNumber) -> BlockRef:
    """A block of the chain. Raises RpcUnavailable."""
    (answer,) = hub.rpc.batch([("eth_getBlockByNumber", (hex(number), False))])
    return value_of(decode_reply(answer, decode.block_ref), hub.rpc.name)


def _time_of(hub: Hub, number: BlockNumber) -> Timestamp:
    """A block's time."""
    return block_at(hub, number).timestamp
