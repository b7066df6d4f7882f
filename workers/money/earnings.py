"""What each task brought and cost: rewards by the hub's logs, gas by the lane's receipts.

The journal says which tasks there were. For each, the block of its own last transaction says from where on its end is
looked for, so that the chain's past is never read as a whole. What was found is kept in the journal.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chain.contracts.decode import TOPICS
from chain.contracts.escrow import gains
from chain.lane.model.intent import Intent, LaneId
from chain.lane.store.port import LaneStore
from chain.rpc.client import JsonRpc
from protocol.errors import RpcUnavailable
from protocol.types import BlockNumber, Contract, TaskId, Wallet, Wei
from workers.task.journal import EndedTask, Journal
from workers.task.votes import CONTRIBUTE, REVEAL, SOLO

#: Most blocks that one eth_getLogs spans: what nodes with limits take.
SPAN = 2000
#: Tasks that share one eth_getLogs, and receipts that are read at once.
TOGETHER = 50
#: Blocks that are searched: so many times as many as the block time suggests, since blocks may come faster than the
#: pool says, and some more.
FACTOR, MARGIN = 2, 100


@dataclass(frozen=True, slots=True)
class Earning:
    """One task. `reward`: nRLC, negative for a lost stake; None: its end was not found on chain. `gas`: wei."""

    task_id: TaskId
    #: Unix seconds.
    ended_at: float
    stage: str
    cause: str | None
    reward: int | None
    gas: int


@dataclass(frozen=True, slots=True)
class Earnings:
    """All tasks that ended since a moment. `gas`: wei, also of transactions that belong to no task that ended."""

    tasks: tuple[Earning, ...]
    #: nRLC of all tasks whose end was found.
    reward: int
    gas: int


def earnings(
    rpc: JsonRpc, hub: Contract, lane: LaneId, store: LaneStore, journal: Journal, since: float, block_time: float
) -> Earnings:
    """What was earned since Unix time `since`. Raises RpcUnavailable, RpcError."""
    ended = journal.ended(since)
    mined = {item.task_id: _mined(store, lane, item.task_id) for item in ended}
    unknown = [item for item in ended if item.reward is None]
    found = _rewards(rpc, hub, lane.wallet, unknown, mined, block_time)
    journal.note_rewards(found)
    tasks = tuple(
        Earning(
            item.task_id,
            item.ended_at,
            item.stage,
            item.cause,
            found.get(item.task_id) if item.reward is None else item.reward,
            mined[item.task_id].gas,
        )
        for item in ended
    )
    return Earnings(tasks, sum(item.reward or 0 for item in tasks), int(store.spent_since(lane, since)))


@dataclass(frozen=True, slots=True)
class _Mined:
    """A task's own transactions: what they cost, the block of the last, and when it was made (Unix seconds)."""

    gas: Wei
    block: BlockNumber | None
    at: float


def _mined(store: LaneStore, lane: LaneId, task: TaskId) -> _Mined:
    """What the chain has of a task's transactions: gas, newest block, time."""
    keys = [Intent.new(lane.chain_id, lane.wallet, method, task).key for method in (CONTRIBUTE, REVEAL, SOLO)]
    records = [record for key in keys if (record := store.holding(lane, key)) is not None and record.mined is not None]
    blocks = [record.mined.block for record in records if record.mined is not None]
    gas = sum(record.mined.fee for record in records if record.mined is not None)
    return _Mined(Wei(gas), max(blocks, default=None), max((record.created_at for record in records), default=0.0))


def _rewards(
    rpc: JsonRpc,
    hub: Contract,
    wallet: Wallet,
    ended: Sequence[EndedTask],
    mined: Mapping[TaskId, _Mined],
    block_time: float,
) -> dict[TaskId, int]:
    """What the ends of these tasks on chain gave to the wallet; tasks whose end was not found are left out."""
    head = BlockNumber(int(str(rpc.call("eth_blockNumber")), 16))
    spans: list[tuple[int, int, TaskId]] = []
    for item in ended:
        known = mined[item.task_id]
        if known.block is not None:
            blocks = FACTOR * math.ceil(max(item.ended_at - known.at, 0.0) / block_time) + MARGIN
            spans.append((known.block, min(head, known.block + blocks), item.task_id))
    # A task for which nothing of this wallet was mined brought nothing.
    found = {item.task_id: 0 for item in ended if mined[item.task_id].block is None}
    transactions: dict[str, set[TaskId]] = defaultdict(set)
    for first, last, tasks in _questions(spans):
        topics = [[TOPICS["TaskFinalize"], TOPICS["TaskClaimed"]], sorted(tasks)]
        wanted = {"address": hub, "fromBlock": hex(first), "toBlock": hex(last), "topics": topics}
        for log in rpc.call("eth_getLogs", wanted) or ():
            transactions[log["transactionHash"]].add(TaskId(log["topics"][1]))
    hashes = sorted(transactions)
    for start in range(0, len(hashes), TOGETHER):
        some = hashes[start : start + TOGETHER]
        for tx_hash, receipt in zip(
            some, rpc.batch([("eth_getTransactionReceipt", (each,)) for each in some]), strict=True
        ):
            if not isinstance(receipt, dict):
                raise RpcUnavailable(what=rpc.name, why=f"it does not show the receipt of {tx_hash}")
            own = dict.fromkeys(transactions[tx_hash], 0)
            for gain in gains(log for log in receipt["logs"] if log["address"].lower() == hub.lower()):
                if gain.wallet == wallet and gain.task in own:
                    own[gain.task] += gain.amount
            found |= own
    return found


def _questions(spans: Sequence[tuple[int, int, TaskId]]) -> list[tuple[int, int, list[TaskId]]]:
    """Ranges of at most SPAN blocks, each with the tasks whose end may lie in it."""
    pieces: list[tuple[int, int, TaskId]] = []
    for first, last, task in sorted(spans):
        pieces += [(start, min(last, start + SPAN - 1), task) for start in range(first, last + 1, SPAN)]
    questions: list[tuple[int, int, list[TaskId]]] = []
    for first, last, task in sorted(pieces):
        if questions:
            begin, end, tasks = questions[-1]
            if len(tasks) < TOGETHER and max(last, end) - begin < SPAN:
                questions[-1] = (begin, max(last, end), [*tasks, task])
                continue
        questions.append((first, last, [task]))
    return questions
