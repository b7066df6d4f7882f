"""What anvil can do to a lane: drop, roll back, reorganise, freeze, forget, die. All is well 3 blocks later."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chain.lane.audit import audit
from chain.lane.model.intent import IntentState
from chain.lane.model.policy import LanePolicy
from chain.lane.store.sqlite import SqliteStore
from chain.rpc.client import Rpc
from ops.poco.accounts import dev_key
from ops.stack import ports
from ops.stack.servers import anvil
from ops.stack.servers.anvil import Anvil
from protocol.types import Nonce
from tests.integration.lane.rig import POLICY, LaneRig
from tests.waiting import ample, freeze, wait_until

#: Blocks that recovery may take once the fault has ended.
BLOCKS_TO_RECOVER = 3
#: Seconds after which the lane gives a node up that is frozen here.
SHORT_TIMEOUT = 1.0
NAMES = [f"payment {number}" for number in range(6)]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Anvil]:
    running = _start(tmp_path, ports.free_port())
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def rig(node: Anvil, tmp_path: Path) -> Iterator[LaneRig]:
    # Finality deeper than the deepest reorg here.
    with Rpc(node.rpc_url, timeout=ample(3.0)) as rpc:
        store = SqliteStore(tmp_path / "lane.db")
        yield LaneRig(rpc, store, dev_key(1), replace(POLICY, finality=14), by_hand=True)


def _start(tmp_path: Path, port: int) -> Anvil:
    """A chain that stands still but for the blocks a test asks for."""
    state = tmp_path / "state.json"
    by_hand = ("--no-mining", "--state-interval", "1")
    return anvil.start(tmp_path / "anvil", port, block_time=None, keep=state, extra=by_hand)


def test_a_payment_submitted_between_two_blocks_is_in_the_next_one(rig: LaneRig) -> None:
    for number in range(5):
        rig.next_block()
        head = rig.head()
        rig.submit(f"quick {number}")
        rig.run()
        rig.next_block()
        rig.run()
        assert rig.intent(f"quick {number}").block == head + 1


def test_dropped_transactions_come_back(rig: LaneRig) -> None:
    rig.next_block()
    rig.submit(*NAMES)
    rig.run()
    rig.rpc.call("anvil_dropAllTransactions")
    _recovers(rig)


def test_one_dropped_in_the_middle_takes_its_followers_along_and_all_come_back(rig: LaneRig) -> None:
    rig.next_block()
    rig.submit(*NAMES)
    rig.run()
    record = rig.store.record(rig.lane.id, Nonce(2))
    assert record is not None
    rig.rpc.call("anvil_dropTransaction", record.newest.tx_hash)
    _recovers(rig)


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 10])
def test_a_rollback_is_made_good(rig: LaneRig, depth: int) -> None:
    _mine_then_wait(rig, depth)
    rig.rpc.call("anvil_rollback", depth)
    _recovers(rig)


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 10])
def test_a_reorg_that_drops_its_transactions_is_made_good(rig: LaneRig, depth: int) -> None:
    _mine_then_wait(rig, depth)
    rig.rpc.call("anvil_reorg", depth, [])
    _recovers(rig)


@pytest.mark.parametrize("depth", [1, 3, 10])
def test_a_reorg_that_brings_its_transactions_back_is_followed(rig: LaneRig, depth: int) -> None:
    _mine_then_wait(rig, depth)
    raw = [[record.newest.raw, 0] for number in range(6) if (record := rig.store.record(rig.lane.id, Nonce(number)))]
    rig.rpc.call("anvil_reorg", depth, raw)
    _recovers(rig)


def test_a_reorg_deeper_than_finality_is_seen_by_the_audit_and_made_good(node: Anvil, tmp_path: Path) -> None:
    with Rpc(node.rpc_url, timeout=ample(3.0)) as rpc:
        rig = LaneRig(rpc, SqliteStore(tmp_path / "lane.db"), dev_key(1), LanePolicy(finality=2))
        rig.rpc.call("anvil_mine", "0x5")
        rig.submit(*NAMES)
        for _ in range(4):
            rig.run()
            rig.rpc.call("anvil_mine", "0x1")
        rig.run()
        assert rig.all_final()
        rig.rpc.call("anvil_reorg", 5, [])
        assert {finding.kind for finding in audit(rig.lane)} == {"lost_receipt"}
        rig.run()
        assert rig.all_in(IntentState.SENT)()
        rig.rpc.call("anvil_mine", "0x1")
        rig.run()
        assert rig.all_mined()
        rig.rpc.call("anvil_mine", "0x3")
        rig.run()
        assert rig.all_final()
        assert audit(rig.lane) == []
        rig.check()


def test_a_transaction_that_the_pool_holds_back_for_no_reason_is_replaced(rig: LaneRig) -> None:
    """It came while a reorg had taken those before it: they are back in a block, and anvil never lets it go."""
    rig.next_block()
    rig.submit(*NAMES[:3])
    rig.drive(rig.all_mined)
    rig.submit("late")
    rig.run()
    *before, late = (rig.store.record(rig.lane.id, Nonce(number)) for number in range(4))
    assert late is not None
    rig.rpc.call("anvil_dropTransaction", late.newest.tx_hash)
    rig.rpc.call("anvil_rollback", rig.head() - (rig.intent(NAMES[0]).block or 0) + 1)
    rig.rpc.call("eth_sendRawTransaction", late.newest.raw)
    rig.rpc.call("anvil_reorg", 1, [[record.newest.raw, 0] for record in before if record])
    rig.next_block()
    assert int(rig.rpc.call("txpool_status")["queued"], 16) == 1

    assert rig.drive(rig.all_mined, blocks=20) <= rig.policy.stuck_after + BLOCKS_TO_RECOVER
    rig.drive(rig.all_final)
    rig.check()


def test_a_base_fee_spike_makes_the_lane_pay_more_for_its_lowest_nonce(rig: LaneRig) -> None:
    rig.next_block()
    rig.submit("dear")
    rig.run()
    _spike(rig, 20 * 10**9)
    rig.drive(rig.all_mined, blocks=12)
    record = rig.store.record(rig.lane.id, Nonce(0))
    assert record is not None
    assert len(record.attempts) > 1
    rig.drive(rig.all_final)
    rig.check()


def test_after_a_base_fee_spike_all_that_the_pool_removed_is_sent_again(rig: LaneRig) -> None:
    rig.next_block()
    rig.submit(*NAMES)
    rig.run()
    _spike(rig, 50 * 10**9)
    rig.run()
    rig.rpc.call("anvil_setNextBlockBaseFeePerGas", hex(10**9))
    rig.next_block()
    _recovers(rig)


def test_a_frozen_node_costs_a_time_out_and_nothing_else(rig: LaneRig, node: Anvil) -> None:
    rig.next_block()
    rig.submit(*NAMES[:3])
    rig.run()
    rig.submit(*NAMES[3:])
    freeze(node.pid)
    try:
        with Rpc(node.rpc_url, timeout=SHORT_TIMEOUT) as short_timeout_rpc:
            assert LaneRig(short_timeout_rpc, rig.store, rig.key, rig.policy).run().trouble is not None
    finally:
        os.kill(node.pid, signal.SIGCONT)
    _recovers(rig)


def test_a_node_restarted_without_its_mempool_gets_all_again(rig: LaneRig, node: Anvil, tmp_path: Path) -> None:
    rig.next_block()
    rig.submit(*NAMES)
    rig.run()
    node.stop()
    assert rig.run().trouble is not None
    again = _start(tmp_path, node.port)
    try:
        _recovers(rig)
    finally:
        again.stop()


def test_a_node_killed_and_restarted_from_an_older_state_gets_all_again(
    rig: LaneRig, node: Anvil, tmp_path: Path
) -> None:
    rig.submit(*NAMES[:2])
    rig.drive(rig.all_mined)
    saved = _saved(tmp_path / "state.json")
    rig.submit(*NAMES[2:])
    rig.run()
    os.kill(node.pid, signal.SIGKILL)
    node.process.stop()
    (tmp_path / "state.json").write_bytes(saved)
    again = _start(tmp_path, node.port)
    try:
        _recovers(rig)
    finally:
        again.stop()


def test_a_lagging_node_makes_no_gap_and_sends_nothing_twice(rig: LaneRig, node: Anvil, tmp_path: Path) -> None:
    rig.next_block()
    rig.submit(*NAMES[:3])
    rig.drive(rig.all_mined)
    behind = anvil.start(
        tmp_path / "behind",
        ports.free_port(),
        block_time=None,
        extra=("--fork-url", node.rpc_url, "--fork-block-number", "1", "--no-mining"),
    )
    try:
        with Rpc(behind.rpc_url) as late:
            other = LaneRig(late, rig.store, rig.key, rig.policy)
            other.submit(*NAMES[3:])
            other.run()
            other.run()
    finally:
        behind.stop()
    rig.names = list(NAMES)
    _recovers(rig)


def test_a_chain_without_fees_is_served(tmp_path: Path) -> None:
    free = anvil.start(
        tmp_path / "free",
        ports.free_port(),
        block_time=None,
        extra=("--no-mining", "--base-fee", "0", "--gas-price", "0", "--no-priority-fee"),
    )
    try:
        with Rpc(free.rpc_url) as rpc:
            policy = LanePolicy(finality=2)
            rig = LaneRig(rpc, SqliteStore(tmp_path / "lane.db"), dev_key(1), policy, by_hand=True)
            rig.submit(*NAMES)
            rig.drive(rig.all_final)
            rig.check()
    finally:
        free.stop()


def test_a_chain_without_eip_1559_is_served_with_legacy_transactions(tmp_path: Path) -> None:
    old = anvil.start(
        tmp_path / "old", ports.free_port(), block_time=None, extra=("--no-mining", "--hardfork", "berlin")
    )
    try:
        with Rpc(old.rpc_url) as rpc:
            policy = LanePolicy(finality=2)
            rig = LaneRig(rpc, SqliteStore(tmp_path / "lane.db"), dev_key(1), policy, by_hand=True)
            rig.submit(*NAMES)
            rig.drive(rig.all_final)
            rig.check()
            record = rig.store.record(rig.lane.id, Nonce(0))
            assert record is not None
            assert record.newest.fees.legacy
    finally:
        old.stop()


def _saved(file: Path) -> bytes:
    """What the node saves next, all of it."""
    file.unlink(missing_ok=True)

    def whole() -> bytes:
        content = file.read_bytes() if file.exists() else b""
        try:
            json.loads(content)
        except ValueError:
            return b""
        return content

    return wait_until(whole, 30, what="a saved state")


def _mine_then_wait(rig: LaneRig, depth: int) -> None:
    """Payments mined, and so many blocks on top that `depth` reaches just below them."""
    rig.next_block()
    while rig.head() < depth + 1:
        rig.next_block()
    rig.submit(*NAMES)
    rig.drive(rig.all_mined)
    mined = max(rig.intent(name).block or 0 for name in NAMES)
    while rig.head() - mined < depth - 1:
        rig.next_block()
        rig.run()
    assert rig.all_in(IntentState.MINED)()


def _spike(rig: LaneRig, base_fee: int) -> None:
    """Blocks at this base fee from the next one on; pooled transactions below it are removed."""
    rig.rpc.call("anvil_setNextBlockBaseFeePerGas", hex(base_fee))
    rig.next_block()


def _recovers(rig: LaneRig) -> None:
    """The fault has ended: all payments are in a block at most three blocks later, in the end each made once."""
    blocks = rig.drive(rig.all_mined)
    assert blocks <= BLOCKS_TO_RECOVER, f"{blocks} blocks"
    rig.drive(rig.all_final)
    rig.check()
