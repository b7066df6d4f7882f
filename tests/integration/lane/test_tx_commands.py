"""`sluice tx …` as an operator types it, against a real lane."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from chain.lane import admin
from chain.lane.model.intent import IntentState
from chain.lane.store.mongo import MongoStore
from ops.poco.accounts import ETHER, dev_key, give_ether
from ops.poco.sender import TxRequest
from ops.poco.state import CHAIN_ID
from protocol.types import Nonce, TxHash
from tests.integration.conftest import Chain, MiningSender
from tests.integration.forged import Ended, sluice
from tests.integration.lane.rig import LaneRig

ACCOUNT = 22


@pytest.fixture
def chain(still_chain: Chain) -> Chain:
    return still_chain


class RunContext:
    """A lane whose chain stands still, and the command line."""

    def __init__(self, chain: Chain, store: MongoStore, env: dict[str, str]) -> None:
        self.chain = chain
        self.rig = LaneRig(chain.rpc, store, dev_key(ACCOUNT), by_hand=True)
        self._env = env | {"SLUICE_FINALITY_BLOCKS": str(self.rig.policy.finality)}

    def tx(self, *words: str, code: int = 0) -> Any:
        """The JSON that `sluice tx …` prints; it must end with `code`."""
        ended = sluice("tx", *words, "--json", env=self._env)
        assert ended.code == code, ended.err
        return json.loads(ended.out) if ended.out else ended.err

    def typed(self, *words: str, answer: str) -> Ended:
        """`sluice tx …` by somebody who answers what is asked."""
        return sluice("tx", *words, env=self._env, stdin=f"{answer}\n")


@pytest.fixture
def context(chain: Chain, mongo_store: MongoStore, mongo_uri: str, emptied_database: str) -> Iterator[RunContext]:
    key = dev_key(ACCOUNT)
    give_ether(chain.rpc, (key.wallet,), ETHER)
    yield RunContext(
        chain,
        mongo_store,
        {
            "SLUICE_RPC_URL": chain.node.rpc_url,
            "SLUICE_CHAIN_ID": str(CHAIN_ID),
            "SLUICE_HUB": chain.at.hub,
            "SLUICE_PRIVATE_KEY": key._private.to_hex(),
            "SLUICE_MONGODB_URI": mongo_uri,
            "SLUICE_MONGODB_DATABASE": emptied_database,
        },
    )


def test_the_queue_its_head_and_the_price_of_a_bump_are_printed_before_gas_is_spent(context: RunContext) -> None:
    context.rig.submit("a", "b")
    context.rig.run()
    listed = context.tx("ls")
    assert [record["nonce"] for record in listed["open"]] == [0, 1]
    assert listed["why"].startswith("nonce 0 was sent at block")
    assert len(listed["intents"]) == 2
    first = listed["open"][0]["attempts"][0]
    offer = context.tx("bump", "0", "--dry-run")
    assert not offer["done"]
    assert offer["cost_wei_at_most"] == offer["max_fee_wei"] * 21_000
    assert len(context.tx("show", "0")["nonce"]["attempts"]) == 1
    bumped = context.tx("bump", "0", "--yes")
    assert bumped["max_fee_wei"] * 10 >= first["max_fee_wei"] * 11
    context.chain.rpc.call("evm_mine")
    assert context.chain.rpc.call("eth_getTransactionReceipt", bumped["tx"])["status"] == "0x1"
    context.rig.run()
    assert context.rig.all_mined()


def test_cancel_takes_a_nonce_or_a_queued_intent_away(context: RunContext) -> None:
    context.rig.submit("a")
    context.rig.run()
    context.rig.submit("b")
    context.tx("cancel", "--intent", context.rig.intent("b").key, "--dry-run")
    assert context.rig.intent("b").state is IntentState.QUEUED
    assert "not in the queue" in context.tx("cancel", "--intent", context.rig.intent("a").key, "--dry-run", code=2)
    context.tx("cancel", "--intent", context.rig.intent("b").key)
    assert context.rig.intent("b").state is IntentState.FAILED
    offer = context.tx("cancel", "0", "--dry-run")
    assert offer["cost_wei_at_most"] == offer["max_fee_wei"] * 21_000
    assert context.tx("cancel", "0", "--yes")["answer"] == "accepted"
    context.chain.rpc.call("anvil_mine", hex(6))
    context.rig.run()
    context.rig.run()
    assert context.rig.intent("a").state is IntentState.FAILED
    assert context.rig.intent("a").reason.startswith("cancelled")


def test_a_transaction_is_found_by_its_hash_also_one_that_was_replaced(context: RunContext) -> None:
    context.rig.submit("a")
    context.rig.run()
    shown = context.tx("show", "0")
    (first,) = shown["nonce"]["attempts"]
    context.tx("bump", "0", "--yes")
    for attempt in context.tx("show", "0")["nonce"]["attempts"]:
        assert context.tx("show", attempt["tx"].upper().replace("0X", "0x"))["nonce"]["nonce"] == 0
    assert "no nonce and no intent" in context.tx("show", "0x" + "12" * 32, code=2)
    # Of a record that is not among the newest, the node tells the nonce.
    assert admin.nonce_of(context.rig.lane, TxHash("0x" + "12" * 32)) is None
    assert first["tx"]


def test_what_a_node_lost_can_be_sent_again(context: RunContext) -> None:
    context.rig.submit("a")
    context.rig.run()
    context.chain.rpc.call("anvil_dropAllTransactions")
    assert context.tx("rebroadcast", "--dry-run")["answers"] == []
    assert context.tx("rebroadcast")["answers"] == ["accepted"]


def test_a_gap_is_found_by_the_audit_and_filled(context: RunContext, mongo_store: MongoStore) -> None:
    context.rig.submit("a", "b", "c")
    context.rig.run()
    # What a database restored from an older copy looks like.
    mongo_store._nonces.delete_one({"nonce": 1})
    context.chain.rpc.call("anvil_dropAllTransactions")
    found = context.tx("audit", code=1)
    assert {item["kind"] for item in found} == {"gap", "no_nonce"}
    offer = context.tx("fill-gap", "--dry-run")
    assert (offer["gaps"], offer["done"]) == ([1], False)
    assert offer["cost_wei_at_most"] == offer["max_fee_wei"] * 21_000
    filled = context.tx("fill-gap", "--yes")
    assert (filled["gaps"], filled["done"]) == ([1], True)
    context.tx("rebroadcast")
    context.chain.rpc.call("evm_mine")
    assert int(context.chain.rpc.call("eth_getTransactionCount", context.rig.key.wallet, "latest"), 16) == 3


@pytest.mark.parametrize("words", [("bump", "0"), ("cancel", "0"), ("fill-gap",)], ids=" ".join)
def test_what_costs_gas_shows_its_price_and_asks(
    words: tuple[str, ...], context: RunContext, mongo_store: MongoStore
) -> None:
    context.rig.submit("a", "b", "c")
    context.rig.run()
    if words == ("fill-gap",):
        mongo_store._nonces.delete_one({"nonce": 1})

    def attempts() -> list[int]:
        return [len(record["attempts"]) for record in context.tx("ls")["open"]]

    before = attempts()
    assert "With --json nobody is asked" in context.tx(*words, code=2)
    refused = context.typed(*words, answer="n")
    assert (refused.code, refused.out.strip(), attempts()) == (1, "", before)
    assert "costs at most" in refused.err
    assert "[y/N]" in refused.err
    taken = context.typed(*words, answer="y")
    assert (taken.code, "done: True" in taken.out) == (0, True)
    assert attempts() != before


def test_what_costs_nothing_is_not_asked(context: RunContext) -> None:
    context.rig.submit("a")
    context.rig.run()
    assert context.tx("fill-gap", "--yes")["gaps"] == []
    assert context.typed("fill-gap", answer="").code == 0
    context.rig.submit("b")
    assert context.tx("cancel", "--intent", context.rig.intent("b").key)["done"]


def test_a_foreign_nonce_is_disowned_and_the_lane_goes_on(context: RunContext) -> None:
    context.rig.submit("a")
    context.rig.run()
    assert "is not halted" in context.tx("resume", code=2)
    assert "not spent" in context.tx("disown", "0", "--dry-run", code=2)
    context.chain.rpc.call("anvil_dropAllTransactions")
    MiningSender(context.rig.key, context.chain.rpc, CHAIN_ID).run([TxRequest(context.rig.key.wallet, "0x", 21_000)])
    for _ in range(context.rig.policy.finality + 1):
        context.rig.run()
        context.rig.next_block()
    assert "Nonce 0" in (context.rig.run().halted or "")
    assert "Nonce 0" in context.tx("ls")["halted"]
    assert "Nonce 0" in context.tx("resume", "--dry-run")["stood_still"]
    (becomes,) = context.tx("disown", "0", "--dry-run")["intents"].values()
    assert becomes == "queued: nonce 0 was taken by a foreign transaction"
    assert context.rig.run().halted is not None
    context.tx("disown", "0")
    context.rig.drive(context.rig.all_final)
    record = context.rig.store.record(context.rig.lane.id, Nonce(0))
    assert record is not None
    assert record.state.value == "foreign"


def test_a_nonce_that_is_not_open_is_refused_in_one_sentence(context: RunContext) -> None:
    assert "Nonce 7 of" in context.tx("bump", "7", "--yes", code=2)
    assert "no nonce and no intent" in context.tx("show", "nonsense", code=2)
