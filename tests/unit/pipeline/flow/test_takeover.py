"""How far back open deals are sought: until all stake is explained and older deals are past their deadline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from chain.contracts import decode
from chain.contracts.hub import Account, Category, Deal
from chain.rpc.answers import Absent, Answer, Known, Unknown
from pipeline.flow.takeover import OpenWork, find_open_work
from protocol.errors import RpcError, RpcUnavailable
from protocol.poco.events import BlockRef, SchedulerNotice
from protocol.poco.ids import task_id
from protocol.poco.view import ChainView, TaskStatus
from protocol.types import BlockHash, BlockNumber, DealId, NRlc, TaskId, Timestamp
from tests.unit.pipeline.audit.test_audit import ON_CHAIN, OWNER
from tests.unit.pipeline.builders import POOL

#: A block a second; a deal's final deadline is 3,000 s after its match.
HEAD, SECONDS = 20_000, 300
HEAD_REF = BlockRef(BlockNumber(HEAD), BlockHash("0x1"), BlockHash("0x0"), Timestamp(HEAD))


@dataclass
class FakeHub:
    """Deals of two tasks each by block; tasks in `ended` are COMPLETED. It is its own node."""

    deals_at: dict[int, DealId]
    ended: set[TaskId] = field(default_factory=set)
    price: int = 100
    #: More stake than the deals explain.
    more: int = 0
    widest: int = 10**9
    asked: list[tuple[int, int]] = field(default_factory=list)
    address: str = "0x" + "99" * 20
    name: str = "node"

    @property
    def rpc(self) -> FakeHub:
        return self

    def call(self, _: str, wanted: dict[str, Any]) -> Any:
        first, last = int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16)
        if last - first >= self.widest:
            raise RpcError(node="node", method="eth_getLogs", code=-32000, message="too wide", data=None)
        self.asked.append((first, last))
        return [self._log(block) for block in self.deals_at if first <= block <= last]

    def _log(self, block: int) -> dict[str, Any]:
        topics, data = decode.encode(SchedulerNotice(POOL, self.deals_at[block]))
        place = {"blockNumber": hex(block), "blockHash": "0x1", "transactionHash": "0x2", "logIndex": "0x0"}
        return {"topics": topics, "data": data, **place}

    def batch(self, requests: Sequence[Any]) -> list[Any]:
        return [{"number": tag, "hash": "0x1", "parentHash": "0x0", "timestamp": tag} for _, (tag, _) in requests]

    def account(self, *_: object) -> Account:
        open_tasks = [task for deal in self.deals_at.values() for task in tasks(deal) if task not in self.ended]
        return Account(NRlc(0), NRlc(len(open_tasks) * self.price * 30 // 100 + self.more))

    def category(self, number: int, _: BlockRef) -> Answer[Category]:
        return Known(Category(0, "XS", "", SECONDS)) if number == 0 else Absent("no such category")

    def deals(self, deal_ids: Sequence[DealId], _: BlockRef) -> list[Answer[Deal]]:
        blocks = {deal: block for block, deal in self.deals_at.items()}
        return [
            Known(
                replace(
                    ON_CHAIN,
                    deal_id=deal,
                    bot_size=2,
                    workerpool_price=NRlc(self.price),
                    start_time=Timestamp(blocks[deal]),
                )
            )
            for deal in deal_ids
        ]

    def tasks(self, task_ids: Sequence[TaskId], _: int) -> list[ChainView]:
        over = TaskStatus.COMPLETED
        return [ChainView(task, over if task in self.ended else TaskStatus.ACTIVE) for task in task_ids]


def deal(number: int) -> DealId:
    return DealId(f"0x{number:064x}")


def tasks(deal_id: DealId) -> list[TaskId]:
    return [task_id(deal_id, index) for index in range(2)]


def found(hub: FakeHub, lowest: int = 0) -> OpenWork:
    return find_open_work(hub, POOL, OWNER, HEAD_REF, BlockNumber(lowest), lambda *_: None)  # type: ignore[arg-type]  # stands in


def test_what_is_open_is_found_and_the_watcher_begins_at_the_oldest() -> None:
    hub = FakeHub({19_900: deal(1), 19_000: deal(2), 18_000: deal(3)}, ended={*tasks(deal(3)), tasks(deal(2))[0]})
    work = found(hub)
    assert [(each.block, len(each.tasks)) for each in work.deals] == [(19_000, 1), (19_900, 2)]
    assert (work.first_block, work.by_status) == (19_000, {"ACTIVE": 3})
    assert work.locked == work.explained == 90


def test_the_search_ends_where_older_deals_are_past_their_deadline_and_all_stake_is_explained() -> None:
    work = found(FakeHub({19_900: deal(1)}))
    assert HEAD - 10 * SECONDS - 2000 - 500 < work.read_to < HEAD - 10 * SECONDS


def test_an_expired_deal_that_still_locks_stake_is_found_however_old_it_is() -> None:
    work = found(FakeHub({19_900: deal(1), 3: deal(2)}))
    assert (work.first_block, work.by_status) == (3, {"ACTIVE": 2, "expired": 2})


def test_a_free_deal_that_is_not_past_its_deadline_is_found_although_no_stake_tells_of_it() -> None:
    assert found(FakeHub({HEAD - 10 * SECONDS + 1: deal(1)}, price=0)).first_block == HEAD - 10 * SECONDS + 1


def test_stake_that_nothing_explains_has_all_blocks_read_and_is_said() -> None:
    work = found(FakeHub({19_900: deal(1)}, more=7), lowest=100)
    assert (work.read_to, work.locked - work.explained) == (100, 7)


def test_without_open_deals_the_watcher_begins_at_the_head() -> None:
    assert found(FakeHub({})).first_block == HEAD


def test_every_block_is_read_once_also_by_a_node_that_takes_small_ranges_only() -> None:
    hub = FakeHub({19_900: deal(1), 3: deal(2)}, widest=100)
    assert len(found(hub).deals) == 2
    read = [block for first, last in hub.asked for block in range(first, last + 1)]
    assert sorted(read) == list(range(HEAD + 1))


def test_a_node_that_does_not_tell_is_no_pool_without_deals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeHub, "call", lambda *_: None)
    with pytest.raises(RpcUnavailable):
        found(FakeHub({19_900: deal(1)}))
    monkeypatch.undo()
    monkeypatch.setattr(FakeHub, "deals", lambda *_: [Unknown("the node is behind")])
    with pytest.raises(RpcUnavailable):
        found(FakeHub({19_900: deal(1)}))
