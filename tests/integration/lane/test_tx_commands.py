"""`sluice tx …` as an operator types it, against a real lane."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from chain.lane.model.intent import IntentState
from chain.lane.store.mongo import MongoStore
from ops.poco.accounts import COIN, dev_key, give_coins
from ops.poco.actor import Call
from ops.poco.state import CHAIN_ID
from protocol.types import Nonce
from tests.integration.conftest import Chain, MiningActor
from tests.integration.forged import sluice
from tests.integration.lane.rig import LaneRig

ACCOUNT = 22


@pytest.fixture
def chain(still_chain: Chain) -> Chain:
    return still_chain


class Desk:
    """A lane whose chain stands still, and the command line."""

    def __init__(self, chain: Chain, store: MongoStore, env: dict[str, str]) -> None:
        self.chain = chain
        self.rig = LaneRig(chain.rpc, store, dev_key(ACCOUNT), by_hand=True)
        self._env = env

    def tx(self, *words: str, code: int = 0) -> Any:
        """The JSON that `sluice tx …` prints; it must end with `code`."""
        ended = sluice("tx", *words, "--json", env=self._env)
        assert ended.code == code, ended.err
        return json.loads(ended.out) if ended.out else ended.err


@pytest.fixture
def desk(chain: Chain, mongo_store: MongoStore, mongo_uri: str, database: str) -> Iterator[Desk]:
    key = dev_key(ACCOUNT)
    give_coins(chain.rpc, (key.wallet,), COIN)
    yield Desk(
        chain,
        mongo_store,
        {
            "SLUICE_RPC_URL": chain.node.rpc_url,
            "SLUICE_CHAIN_ID": str(CHAIN_ID),
            "SLUICE_HUB": chain.at.hub,
            "SLUICE_PRIVATE_KEY": key._private.to_hex(),
            "SLUICE_MONGODB_URI": mongo_uri,
            "SLUICE_MONGODB_DATABASE": database,
        },
    )


def test_the_queue_its_head_and_the_price_of_going_faster_are_told_before_gas_is_spent(desk: Desk) -> None:
    desk.rig.submit("a", "b")
    desk.rig.run()
    listed = desk.tx("ls")
    assert [record["nonce"] for record in listed["open"]] == [0, 1]
    assert listed["why"].startswith("nonce 0 was sent at block")
    assert len(listed["intents"]) == 2
    first = listed["open"][0]["attempts"][0]
    offer = desk.tx("bump", "0", "--dry-run")
    assert not offer["done"]
    assert offer["cost_wei_at_most"] == offer["max_fee_wei"] * 21_000
    assert len(desk.tx("show", "0")["nonce"]["attempts"]) == 1
    bumped = desk.tx("bump", "0")
    assert bumped["max_fee_wei"] * 10 >= first["max_fee_wei"] * 11
    desk.chain.rpc.call("evm_mine")
    assert desk.chain.rpc.call("eth_getTransactionReceipt", bumped["tx"])["status"] == "0x1"
    desk.rig.run()
    assert desk.rig.all_mined()


def test_cancel_takes_a_nonce_or_a_queued_intent_away(desk: Desk) -> None:
    desk.rig.submit("a")
    desk.rig.run()
    desk.rig.submit("b")
    desk.tx("cancel", "--intent", desk.rig.intent("b").key, "--dry-run")
    assert desk.rig.intent("b").state is IntentState.QUEUED
    assert "not in the queue" in desk.tx("cancel", "--intent", desk.rig.intent("a").key, "--dry-run", code=2)
    desk.tx("cancel", "--intent", desk.rig.intent("b").key)
    assert desk.rig.intent("b").state is IntentState.FAILED
    offer = desk.tx("cancel", "0", "--dry-run")
    assert offer["cost_wei_at_most"] == offer["max_fee_wei"] * 21_000
    assert desk.tx("cancel", "0")["answer"] == "accepted"
    desk.chain.rpc.call("anvil_mine", hex(6))
    desk.rig.run()
    desk.rig.run()
    assert desk.rig.intent("a").state is IntentState.FAILED
    assert desk.rig.intent("a").reason.startswith("cancelled")


def test_what_a_node_lost_can_be_sent_again(desk: Desk) -> None:
    desk.rig.submit("a")
    desk.rig.run()
    desk.chain.rpc.call("anvil_dropAllTransactions")
    assert desk.tx("rebroadcast", "--dry-run")["answers"] == []
    assert desk.tx("rebroadcast")["answers"] == ["accepted"]


def test_a_gap_is_found_by_the_audit_and_filled(desk: Desk, mongo_store: MongoStore) -> None:
    desk.rig.submit("a", "b", "c")
    desk.rig.run()
    # What a database restored from an older copy looks like.
    mongo_store._nonces.delete_one({"nonce": 1})
    desk.chain.rpc.call("anvil_dropAllTransactions")
    found = desk.tx("audit", code=1)
    assert {item["kind"] for item in found} == {"gap", "no_nonce"}
    offer = desk.tx("fill-gap", "--dry-run")
    assert (offer["gaps"], offer["done"]) == ([1], False)
    assert offer["cost_wei_at_most"] == offer["max_fee_wei"] * 21_000
    filled = desk.tx("fill-gap")
    assert (filled["gaps"], filled["done"]) == ([1], True)
    desk.tx("rebroadcast")
    desk.chain.rpc.call("evm_mine")
    assert int(desk.chain.rpc.call("eth_getTransactionCount", desk.rig.key.wallet, "latest"), 16) == 3


def test_a_foreign_nonce_is_disowned_and_the_lane_goes_on(desk: Desk) -> None:
    desk.rig.submit("a")
    desk.rig.run()
    assert "does not stand still" in desk.tx("resume", code=2)
    assert "not spent" in desk.tx("disown", "0", "--dry-run", code=2)
    desk.chain.rpc.call("anvil_dropAllTransactions")
    MiningActor(desk.rig.key, desk.chain.rpc, CHAIN_ID).run([Call(desk.rig.key.wallet, "0x", 21_000)])
    for _ in range(desk.rig.policy.finality + 1):
        desk.rig.run()
        desk.rig.next_block()
    assert "Nonce 0" in (desk.rig.run().halted or "")
    assert "Nonce 0" in desk.tx("ls")["halted"]
    assert "Nonce 0" in desk.tx("resume", "--dry-run")["stood_still"]
    (becomes,) = desk.tx("disown", "0", "--dry-run")["intents"].values()
    assert becomes == "queued: nonce 0 was taken by a foreign transaction"
    assert desk.rig.run().halted is not None
    desk.tx("disown", "0")
    desk.rig.drive(desk.rig.all_final)
    record = desk.rig.store.record(desk.rig.lane.id, Nonce(0))
    assert record is not None
    assert record.state.value == "foreign"


def test_a_nonce_that_is_not_open_is_refused_in_one_sentence(desk: Desk) -> None:
    assert "Nonce 7 of" in desk.tx("bump", "7", code=2)
    assert "no nonce and no intent" in desk.tx("show", "nonsense", code=2)
