"""Runs that are told the head by a subscription, and when they ask for it all the same."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from chain.lane.model.intent import IntentState
from chain.lane.model.policy import LanePolicy
from chain.rpc.announced import Announced, AnnouncedHead
from protocol.types import BlockHash, BlockNumber, Nonce
from tests.unit.chain.lane.rig import Rig


def test_a_head_that_was_announced_is_not_asked_for_and_shows_a_reorg_as_well() -> None:
    rig = Rig(LanePolicy(finality=12))
    (key,) = rig.submit("any", "a")
    rig.step()
    rig.chain.mine()
    rig.chain.asked.clear()
    rig.lane.run(announced=rig.chain.announced())
    assert rig.chain.asked == {"eth_getTransactionCount": 1}
    rig.chain.reorg(2, keep=True)
    rig.lane.run(announced=rig.chain.announced())
    assert rig.state(key) is IntentState.SENT, "its block is gone"
    rig.step()
    assert rig.state(key) is IntentState.MINED


def test_announced_heads_prove_that_a_mined_block_stands_though_the_lane_did_not_run_at_each_of_them() -> None:
    rig = Rig(LanePolicy(finality=12))
    rig.submit("any", "a")
    rig.step()
    shelf = Announced()
    put = shelf.begin()
    rig.chain.asked.clear()
    for _ in range(5):
        rig.chain.mine()
        put(BlockNumber(len(rig.chain.blocks) - 1), rig.chain.announced().header)
    rig.lane.run(announced=shelf.take())
    assert rig.chain.asked == {"eth_getTransactionCount": 1}
    rig.chain.mine()
    rig.chain.mine()
    rig.lane.run(announced=rig.chain.announced())
    assert rig.chain.asked == {"eth_getTransactionCount": 2, "eth_getBlockByNumber": 2}, "one head was missed"


def test_a_head_announced_below_our_newest_block_has_the_head_asked_for_and_hides_no_reorg_later() -> None:
    rig = Rig(LanePolicy(finality=12))
    (key,) = rig.submit("once", "a")
    rig.run()
    shelf = Announced()
    put = shelf.begin()
    stale = rig.chain.announced().header
    put(BlockNumber(len(rig.chain.blocks) - 1), stale)
    rig.step()
    assert rig.state(key) is IntentState.MINED, "in the block above the announced one"
    rig.chain.asked.clear()
    rig.lane.run(announced=shelf.take())
    assert rig.chain.asked["eth_getBlockByNumber"] == 1
    rig.chain.done_by_others.add("a")
    rig.chain.reorg(1, keep=True)
    put(BlockNumber(len(rig.chain.blocks) - 1), rig.chain.announced().header)
    rig.chain.mine()
    put(BlockNumber(len(rig.chain.blocks) - 1), rig.chain.announced().header)
    rig.lane.run(announced=shelf.take())
    assert rig.state(key) is IntentState.DONE, "the call reverted in the block that replaced the first"


def test_a_block_above_the_head_that_is_asked_for_proves_nothing_of_later_heads() -> None:
    rig = Rig(LanePolicy(finality=12))
    (key,) = rig.submit("once", "a")
    rig.step()

    def behind(params: list[Any]) -> Any:
        """Asked for the newest block, a node answers that is one behind."""
        shown = rig.chain.blocks[:-1] if params[0] == "latest" else rig.chain.blocks
        return rig.chain._header(shown, params[0], 0)

    rig.chain.lies["eth_getBlockByNumber"] = behind
    rig.run()
    rig.chain.lies.clear()
    rig.chain.done_by_others.add("a")
    rig.chain.reorg(1, keep=True)
    rig.chain.mine()
    below = frozenset(BlockHash(block.hash) for block in rig.chain.blocks[:-1])
    rig.lane.run(announced=AnnouncedHead(rig.chain.announced().header, below))
    rig.run()
    assert rig.state(key) is IntentState.DONE, "the call reverted in the block that replaced the first"


def test_an_idle_lane_with_a_head_announced_below_its_final_block_takes_nothing_for_undone() -> None:
    rig = Rig(LanePolicy(finality=1))
    stale = rig.chain.announced()
    (key,) = rig.submit("any", "a")
    rig.step(2)
    assert rig.state(key) is IntentState.FINAL
    with capture_logs() as logs:
        rig.lane.run(announced=stale)
    assert [line for line in logs if line["action"] in {"lane_reorg", "lane_final_undone"}] == []


def test_an_announced_header_without_a_base_fee_has_the_head_asked_for() -> None:
    rig = Rig()
    (key,) = rig.submit("any", "a")
    header = {name: value for name, value in rig.chain.announced().header.items() if name != "baseFeePerGas"}
    rig.lane.run(announced=AnnouncedHead(header))
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert rig.state(key) is IntentState.SENT
    assert record.newest.fees.tip < record.newest.fees.max_fee, "the chain has a base fee, though the header has none"


def test_an_announced_header_that_cannot_be_read_has_the_head_asked_for() -> None:
    rig = Rig()
    rig.submit("any", "a")
    rig.lane.run(announced=AnnouncedHead({"number": "0x1"}))
    assert rig.chain.asked["eth_getBlockByNumber"] == 1


def test_a_receipt_from_another_branch_than_the_announced_head_shows_that_an_earlier_block_was_replaced() -> None:
    rig = Rig(LanePolicy(finality=12))
    (first,) = rig.submit("once", "a")
    rig.step()
    (second,) = rig.submit("any", "b")
    rig.run()
    rig.chain.mine()
    stale = rig.chain.announced().header, frozenset({BlockHash(rig.chain.blocks[1].hash)})
    rig.chain.done_by_others.add("a")
    rig.chain.reorg(2, keep=True)
    rig.chain.mine()
    rig.lane.run(announced=AnnouncedHead(*stale))
    assert rig.state(second) is IntentState.MINED, "on the branch that the node is asked about"
    rig.step()
    assert rig.state(first) is IntentState.DONE, "its call reverted there"
