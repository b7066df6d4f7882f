"""What a node cannot tell decides nothing: a nonce is foreign only on proof, and a lane that waits says so.

`r02` is a public bug report of this kind, tried with receipts that are an error and with receipts that are null.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from chain.lane import admin
from chain.lane.model.intent import IntentState
from chain.lane.model.nonce import NonceRecord, NonceState
from chain.lane.model.policy import LanePolicy
from chain.lane.phases.proof import Spender, find_spender, receipts
from chain.rpc.answers import Known, Unknown
from protocol.errors import BadInput, RpcError
from protocol.types import BlockNumber, Nonce, TxHash
from tests.unit.chain.lane.model import FOG, WALLET
from tests.unit.chain.lane.rig import Rig

RECEIPT = "eth_getTransactionReceipt"


def _mined_without_receipts(fog: str, finality: int = 3) -> tuple[Rig, str]:
    """A lane whose one transaction is mined, on a node that does not show the receipt."""
    rig = Rig(LanePolicy(finality=finality))
    (key,) = rig.submit("any", "a")
    rig.run()
    rig.chain.fog[RECEIPT] = fog
    rig.chain.mine()
    return rig, key


@pytest.mark.parametrize("fog", sorted(FOG))
def test_r02_receipts_that_are_withheld_for_any_time_in_any_words_do_not_halt_the_lane(fog: str) -> None:
    rig, key = _mined_without_receipts(fog)
    for _ in range(40):
        assert rig.step().halted is None
    rig.chain.fog.clear()
    rig.step()
    assert rig.state(key) is IntentState.FINAL
    assert rig.chain.executed() == {"a": 1}


@pytest.mark.parametrize("fog", ["null", "indexing"])
def test_r02_what_is_submitted_meanwhile_is_mined(fog: str) -> None:
    rig, _ = _mined_without_receipts(fog)
    rig.step(15)
    rig.submit("any", "b")
    rig.step(2)
    assert rig.chain.executed() == {"a": 1, "b": 1}


def test_r02_a_lane_that_waits_for_a_receipt_says_so_and_says_when_it_does_no_more() -> None:
    rig, _ = _mined_without_receipts("indexing")
    with capture_logs() as lines:
        rig.step(rig.policy.alarm_after + 3)
    (said,) = [line for line in lines if line["action"] == "lane_waits"]
    assert said["log_level"] == "error"
    status = admin.status(rig.lane)
    assert status.halted is None
    assert status.waiting == status.why == rig.store.waiting(rig.id)
    assert "nonce 0 is spent" in status.why
    assert "indexing is in progress" in status.why
    assert REGISTRY.get_sample_value("sluice_lane_waits", {"wallet": rig.id.wallet}) == 1
    rig.chain.fog.clear()
    rig.step()
    assert admin.status(rig.lane).waiting is None
    assert REGISTRY.get_sample_value("sluice_lane_waits", {"wallet": rig.id.wallet}) == 0


def test_r02_a_halt_ends_by_itself_once_one_of_our_hashes_has_a_receipt() -> None:
    rig, key = _mined_without_receipts("null")
    # As a release before this rule left it.
    rig.store.halt(rig.id, "Nonce 0 was used by a transaction that is not ours.")
    assert rig.step(3).halted is not None
    rig.chain.fog.clear()
    with capture_logs() as lines:
        assert rig.step().halted is None
    assert "lane_halt_ended" in [line["action"] for line in lines]
    assert rig.store.halted(rig.id) is None
    rig.step(4)
    assert rig.state(key) is IntentState.FINAL


@pytest.mark.parametrize(
    ("method", "fog"),
    [
        (method, fog)
        for method in ("eth_getTransactionByHash", "eth_getTransactionCount", "eth_getBlockByNumber")
        for fog in sorted(FOG)
        # That is the truth about a transaction that a stranger's has replaced.
        if (method, fog) != ("eth_getTransactionByHash", "null")
    ],
)
def test_without_proof_a_foreign_nonce_stops_nothing_and_with_it_it_does(method: str, fog: str) -> None:
    rig = Rig(LanePolicy(finality=3))
    rig.submit("any", "a")
    rig.run()
    rig.chain.drop()
    rig.chain.foreign()
    rig.chain.fog[method] = fog
    for _ in range(10):
        assert rig.step().halted is None
    rig.chain.fog.clear()
    halted = rig.step(5).halted
    assert halted is not None
    assert "is not ours" in halted


def test_a_node_without_old_state_cannot_prove_that_a_nonce_is_foreign_and_the_error_says_what_can() -> None:
    rig = Rig(LanePolicy(finality=3))
    rig.submit("any", "a")
    rig.run()
    rig.chain.drop()
    rig.chain.foreign()
    for _ in range(20):
        rig.chain.mine()
    rig.chain.stateless_below = len(rig.chain.blocks) - 2
    assert rig.step(3).halted is None
    rig.store.halt(rig.id, "Nonce 0 …")
    with pytest.raises(BadInput, match=r"not proved.*node that keeps old blocks"):
        admin.disown(rig.lane, Nonce(0))
    rig.chain.stateless_below = 0
    assert admin.disown(rig.lane, Nonce(0))


@pytest.mark.parametrize("fog", sorted(set(FOG) - {"cut"}))
@pytest.mark.parametrize("method", [RECEIPT, "eth_getTransactionByHash"])
def test_disown_refuses_while_the_nonce_may_be_ours(method: str, fog: str) -> None:
    rig = Rig(LanePolicy(finality=2))
    rig.submit("any", "a")
    rig.run()
    rig.chain.mine()
    rig.store.halt(rig.id, "Nonce 0 …")
    rig.chain.fog = {RECEIPT: fog, method: fog}
    for _ in range(5):
        rig.chain.mine()
    with pytest.raises(BadInput):
        admin.disown(rig.lane, Nonce(0))
    (record,) = rig.store.records(rig.id, list(NonceState))
    assert record.state is NonceState.OPEN


def test_a_receipt_of_another_transaction_or_of_another_shape_is_no_receipt() -> None:
    rig = Rig()
    rig.submit("any", "a", "b")
    rig.step()
    records = rig.store.records(rig.id, list(NonceState))
    honest = receipts(rig.chain, records)
    assert all(isinstance(answer, Known) for answer in honest.values())
    first = rig.chain.call(RECEIPT, records[0].newest.tx_hash)
    rig.chain.lies[RECEIPT] = lambda _: first
    found = receipts(rig.chain, records)
    assert isinstance(found[Nonce(0)], Known)
    assert isinstance(found[Nonce(1)], Unknown)
    rig.chain.lies[RECEIPT] = lambda params: first | {"transactionHash": params[0], "status": None}
    assert all(isinstance(answer, Unknown) for answer in receipts(rig.chain, records).values())


def test_the_transaction_that_spent_a_nonce_is_found_in_a_long_chain_in_few_batches() -> None:
    rig = Rig()
    rig.submit("any", *(f"n{number}" for number in range(5)))
    rig.chain.per_block = 1
    for _ in range(5):
        rig.step()
        for _ in range(37):
            rig.chain.mine()
    rig.chain.foreign()
    for _ in range(300):
        rig.chain.mine()
    head = BlockNumber(len(rig.chain.blocks) - 1)
    for nonce in range(5):
        record = rig.store.record(rig.id, Nonce(nonce))
        assert record is not None
        assert _found(rig, record, head).ours
        # What does not know its own hash sees a stranger.
        rig.chain.asked.clear()
        stranger = _found(rig, _with_other_hash(record), head)
        assert not stranger.ours
        assert record.mined is not None
        assert stranger.block == record.mined.block
        assert rig.chain.asked["eth_getTransactionCount"] < 60


@pytest.mark.parametrize("kept", range(2, 40))
def test_a_node_that_keeps_few_blocks_proves_what_lies_within_them_and_nothing_else(kept: int) -> None:
    rig = Rig()
    for _ in range(50):
        rig.chain.mine()
    rig.submit("any", "a")
    rig.step()
    (record,) = rig.store.records(rig.id, list(NonceState))
    for _ in range(17):
        rig.chain.mine()
    head = BlockNumber(len(rig.chain.blocks) - 1)
    rig.chain.stateless_below = head - kept + 1
    answer = find_spender(rig.chain, WALLET, _with_other_hash(record), head)
    assert record.mined is not None
    # The block before it must be known as well: only there the count says that the nonce was free.
    assert isinstance(answer, Known if record.mined.block - 1 >= rig.chain.stateless_below else Unknown)


def _found(rig: Rig, record: NonceRecord, head: BlockNumber) -> Spender:
    answer = find_spender(rig.chain, WALLET, record, head)
    assert isinstance(answer, Known)
    return answer.value


def _with_other_hash(record: NonceRecord) -> NonceRecord:
    return replace(record, attempts=(replace(record.newest, tx_hash=TxHash("0x" + "00" * 32)),))


def test_a_node_far_behind_is_asked_again_and_takes_nothing_back() -> None:
    rig = Rig(LanePolicy(finality=2))
    (key,) = rig.submit("any", "a")
    for _ in range(100):
        rig.chain.mine()
    rig.step(4)
    assert rig.state(key) is IntentState.FINAL
    rig.submit("any", "b")
    rig.chain.lag = 90
    assert "it is behind" in (rig.run().trouble or "")
    assert rig.state(key) is IntentState.FINAL
    rig.chain.lag = 0
    rig.step()
    assert rig.chain.executed() == {"a": 1, "b": 1}


def test_a_node_that_contradicts_itself_is_asked_again() -> None:
    rig = Rig(LanePolicy(finality=2))
    (key,) = rig.submit("any", "a")
    rig.step(4)
    rig.submit("any", "b")
    # Another server behind the balancer.
    rig.chain.lies["eth_getTransactionCount"] = lambda _: "0x0"
    assert "contradicts itself" in (rig.run().trouble or "")
    assert rig.state(key) is IntentState.FINAL
    rig.chain.lies.clear()
    rig.step()
    assert rig.chain.executed() == {"a": 1, "b": 1}


@pytest.mark.parametrize("fog", sorted(set(FOG) - {"shape"}))
@pytest.mark.parametrize("method", ["eth_getBalance", "eth_gasPrice", "eth_getBlockByNumber"])
def test_a_head_that_cannot_be_read_costs_a_run_and_no_more(method: str, fog: str) -> None:
    rig = Rig()
    (key,) = rig.submit("any", "a")
    rig.chain.fog[method] = fog
    assert rig.run().trouble is not None
    rig.chain.fog.clear()
    rig.step()
    assert rig.state(key) is IntentState.MINED


@pytest.mark.parametrize(
    "words",
    [
        "method handler crashed",
        "rate limit for method eth_gasPrice exceeded",
        "429: too many requests for this method",
        "this method is temporarily unavailable",
        "header does not exist",
    ],
)
def test_a_gas_price_that_an_error_hides_is_asked_again_and_is_not_0(words: str) -> None:
    rig = Rig()
    (key,) = rig.submit("any", "a")
    rig.chain.lies["eth_gasPrice"] = lambda _: RpcError(method="eth_gasPrice", code=-32005, message=words)
    assert words in (rig.run().trouble or "")
    assert rig.store.highest_nonce(rig.id) is None
    rig.chain.lies.clear()
    rig.step()
    assert rig.state(key) is IntentState.MINED


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-32601, "no"),
        (-32000, "the method eth_gasPrice does not exist/is not available"),
        (-32004, "Method not supported"),
        (-32000, "Method not found"),
        (-32000, "eth_gasPrice is not supported"),
    ],
)
def test_a_node_without_the_method_asks_no_gas_price(code: int, words: str) -> None:
    rig = Rig()
    rig.chain.base_fee = 0
    rig.chain.mine()
    rig.chain.lies["eth_gasPrice"] = lambda _: RpcError(method="eth_gasPrice", code=code, message=words)
    (key,) = rig.submit("any", "a")
    rig.step()
    assert rig.state(key) is IntentState.MINED
    (record,) = rig.store.records(rig.id, list(NonceState))
    assert record.newest.fees.max_fee == 0
