"""Every instant at which a lane's process can die, each with a real node, a real database and a real `kill -9`.

intent stored │ nonce chosen │ bytes stored │ sent │ answer lost │ mined │ confirmed │ published │ reorg │ pause │ key
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from chain.lane import admin
from chain.lane.model.intent import IntentState
from chain.lane.model.nonce import NonceState
from chain.lane.store.mongo import MongoStore
from ops.poco.accounts import ETHER, dev_key, give_ether
from ops.poco.sender import TxRequest
from ops.poco.state import CHAIN_ID
from protocol.types import Nonce, TxHash
from tests.integration import forged
from tests.integration.conftest import Chain, MiningSender
from tests.integration.lane import victim
from tests.integration.lane.rig import POLICY, WAIT_SECONDS, LaneRig
from tests.integration.lane.victim import Orders, open_store
from tests.waiting import ample, wait_until

NAMES = ("one", "two", "three")
#: Development account of these tests: one that has never sent anything.
ACCOUNT = 20


@pytest.fixture
def chain(still_chain: Chain) -> Chain:
    return still_chain


class Scene:
    """One wallet, whose process is shot and whose successor must cope."""

    def __init__(self, chain: Chain, store: tuple[str, str]) -> None:
        self.chain = chain
        self.where = store
        give_ether(chain.rpc, (dev_key(ACCOUNT).wallet,), ETHER)
        self.rig = LaneRig(chain.rpc, open_store(*store), dev_key(ACCOUNT), POLICY, by_hand=True)

    def orders(self, *names: str, **more: Any) -> Orders:
        secret = self.rig.key._private.to_hex()
        return Orders(self.chain.node.rpc_url, *self.where, key=secret, submit=names, **more)

    def start(self, orders: Orders) -> BaseProcess:
        self.rig.names = list(dict.fromkeys([*self.rig.names, *orders.submit]))
        return forged.start(victim.main, orders)

    def kill(self, *names: str, **more: Any) -> None:
        """Have a process submit these and die as ordered."""
        assert _code(self.start(self.orders(*names, **more))) == -signal.SIGKILL

    def live(self, *names: str, **more: Any) -> None:
        """Have a process do it and end well."""
        assert _code(self.start(self.orders(*names, **more))) == 0

    def hashes(self) -> set[TxHash]:
        """Of everything ever signed and stored."""
        records = self.rig.store.records(self.rig.lane.id, list(NonceState))
        return {attempt.tx_hash for record in records for attempt in record.attempts}

    def ends_well(self) -> None:
        """The successor brings everything to its end, each payment made once, no nonce lost."""
        self.rig.drive(self.rig.all_final)
        self.rig.check()
        assert self.rig.store.highest_nonce(self.rig.lane.id) == len(self.rig.names) - 1


@pytest.fixture(params=["mongodb", "sqlite"])
def scene(request: pytest.FixtureRequest, chain: Chain, tmp_path: Path) -> Iterator[Scene]:
    if request.param == "sqlite":
        yield Scene(chain, (str(tmp_path / "lane.db"), ""))
        return
    uri, database = request.getfixturevalue("mongo_uri"), request.getfixturevalue("database")
    store = open_store(uri, database)
    assert isinstance(store, MongoStore)
    store.ensure_indexes()
    yield Scene(chain, (uri, database))


def test_killed_after_the_intent_is_stored_and_before_it_has_a_nonce(scene: Scene) -> None:
    scene.kill(*NAMES, at="store.add")
    assert scene.rig.store.highest_nonce(scene.rig.lane.id) is None
    scene.ends_well()


def test_killed_after_the_nonce_is_chosen_and_before_it_is_stored_with_its_bytes(scene: Scene) -> None:
    """Choosing, signing and storing are one write here: a key service that fails in between costs no nonce."""
    scene.kill(*NAMES, at="signer.sign")
    assert scene.rig.store.highest_nonce(scene.rig.lane.id) is None
    scene.ends_well()


def test_killed_after_the_signed_bytes_are_stored_and_before_they_are_sent(scene: Scene) -> None:
    scene.kill(*NAMES, at="store.claim")
    stored = scene.hashes()
    assert len(stored) == len(NAMES)
    scene.ends_well()
    assert scene.hashes() == stored


def test_killed_after_a_send_whose_answer_was_lost(scene: Scene) -> None:
    scene.live(*NAMES, at="rpc.eth_sendRawTransaction", lose_answer=True)
    sent = scene.hashes()
    scene.kill(at="rpc.eth_getBlockByNumber")
    scene.ends_well()
    assert scene.hashes() == sent


def test_killed_after_a_send_and_before_its_status_is_saved(scene: Scene) -> None:
    scene.kill(*NAMES, at="rpc.eth_sendRawTransaction")
    assert scene.rig.states() == [IntentState.QUEUED] * len(NAMES)
    sent = scene.hashes()
    scene.ends_well()
    assert scene.hashes() == sent


def test_killed_after_the_block_and_before_its_status_is_saved(scene: Scene) -> None:
    scene.live(*NAMES)
    _mined(scene)
    scene.kill(at="store.move", when="before")
    assert scene.rig.states() == [IntentState.SENT] * len(NAMES)
    scene.ends_well()


def test_killed_after_the_confirmation_and_before_a_notification(scene: Scene) -> None:
    """No notification is needed: the state is in the store, and other processes follow the chain."""
    scene.live(*NAMES)
    _mined(scene)
    scene.kill(at="store.move")
    found = scene.rig.lane.intents([scene.rig.intent(name).key for name in NAMES])
    assert {intent.state for intent in found} == {IntentState.MINED}
    scene.ends_well()


def test_killed_after_the_follow_up_was_asked_for_and_asked_for_again(scene: Scene) -> None:
    scene.kill(*NAMES, at="store.add")
    scene.kill(*NAMES, at="store.claim")
    scene.live(*NAMES)
    scene.ends_well()


def test_killed_while_a_reorg_takes_a_confirmed_block_back(scene: Scene) -> None:
    scene.live(*NAMES)
    _mined(scene)
    scene.live()
    assert scene.rig.all_mined()
    signed = scene.hashes()
    lowest = min(scene.rig.intent(name).block or 0 for name in NAMES)
    # No block may come between the question for the head and the rollback to below it.
    scene.chain.rpc.call("evm_setIntervalMining", 0)
    scene.rig.by_hand = True
    scene.chain.rpc.call("anvil_rollback", scene.rig.head() - lowest + 1)
    scene.kill(at="store.move")
    assert scene.rig.all_in(IntentState.SENT)()
    scene.ends_well()
    assert scene.hashes() == signed


@pytest.mark.parametrize("at", ["store.claim", "rpc.eth_sendRawTransaction", "store.move"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_paused_past_its_lease_while_another_takes_over_and_then_resumed(scene: Scene, at: str, when: str) -> None:
    sleeper = scene.start(scene.orders(*NAMES, at=at, when=when, shot=signal.SIGSTOP))
    assert sleeper.pid is not None
    wait_until(lambda: _stopped(sleeper.pid), WAIT_SECONDS, what="the pause")
    # It lives, so its lease has to run out.
    wait_until(lambda: not scene.rig.run().busy, WAIT_SECONDS, what="the end of its lease")
    scene.rig.submit("four", "five")
    scene.rig.run()
    os.kill(sleeper.pid, signal.SIGCONT)
    assert _code(sleeper) == 0
    scene.ends_well()


def test_a_key_used_outside_stops_the_lane_until_an_operator_decides(scene: Scene) -> None:
    scene.kill(*NAMES, at="store.claim")
    MiningSender(scene.rig.key, scene.chain.rpc, CHAIN_ID).run([TxRequest(scene.rig.key.wallet, "0x", 21_000)])
    halted = wait_until(lambda: _run_to_next(scene).halted, WAIT_SECONDS, what="the halt")
    assert "Nonce 0" in halted
    assert _run_to_next(scene).halted
    scene.rig.submit("four")
    assert scene.rig.intent("four").state is IntentState.QUEUED
    admin.disown(scene.rig.lane, Nonce(0))
    scene.rig.drive(scene.rig.all_final)
    scene.rig.check()


def _run_to_next(scene: Scene) -> Any:
    report = scene.rig.run()
    scene.rig.next_block()
    return report


def _mined(scene: Scene) -> None:
    scene.rig.next_block()
    count = scene.chain.rpc.call("eth_getTransactionCount", scene.rig.key.wallet, "latest")
    assert int(count, 16) == len(NAMES)


def _code(process: BaseProcess) -> int | None:
    """Its exit code, once it has ended."""
    process.join(ample(WAIT_SECONDS))
    return process.exitcode


def _stopped(pid: int | None) -> bool:
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T"
