"""The lane on geth: its words, replacement rule, pool and tags. Run by `make test-geth`, since geth builds long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chain.lane import admin
from chain.lane.model.nonce import Fees, Purpose
from chain.lane.model.policy import LanePolicy
from chain.lane.rules.fees import GWEI
from chain.lane.rules.send_errors import Kind, classify
from chain.lane.signer import KeySigner, Unsigned
from chain.lane.store.sqlite import SqliteStore
from chain.rpc.client import Rpc
from ops.poco.accounts import dev_key
from protocol.errors import RpcError
from protocol.types import Contract, Nonce, Wei
from tests.integration.lane import geth
from tests.integration.lane.rig import WAIT_SECONDS, LaneRig, address_of
from tests.waiting import wait_until

KEY = dev_key(30)
NAMES = [f"payment {number}" for number in range(40)]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Rpc]:
    with _rich(tmp_path / "geth") as rpc:
        yield rpc


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rpc]:
    """One node for all tests that have it refuse everything they send."""
    with _rich(tmp_path_factory.mktemp("refusing")) as rpc:
        yield rpc


@contextmanager
def _rich(folder: Path) -> Iterator[Rpc]:
    with geth.running(folder, KEY) as rpc:
        wait_until(
            lambda: int(rpc.call("eth_getBalance", KEY.wallet, "latest"), 16), WAIT_SECONDS, what="the native tokens"
        )
        # The pool hears of a block a moment after everybody else: only then does it know of the tokens.
        wait_until(
            lambda: rpc.call("txpool_status")["pending"] == "0x0", WAIT_SECONDS, what="the pool to know the block"
        )
        yield rpc


@pytest.fixture
def rig(node: Rpc, tmp_path: Path) -> LaneRig:
    policy = LanePolicy(finality=4, max_in_flight=40)
    return LaneRig(node, SqliteStore(tmp_path / "lane.db"), KEY, policy, chain_id=geth.CHAIN_ID)


def test_more_payments_than_guaranteed_slots_are_all_made_once(rig: LaneRig) -> None:
    rig.submit(*NAMES)
    rig.drive(rig.all_final)
    rig.check()


def test_a_bump_is_a_replacement_in_geths_eyes(rig: LaneRig) -> None:
    rig.next_block()
    rig.submit("slow")
    rig.run()
    replaced = admin.bump(rig.lane, Nonce(0))
    assert (len(replaced.record.attempts), replaced.answer) == (2, "accepted")
    rig.drive(rig.all_mined)
    mined = rig.store.record(rig.lane.id, Nonce(0))
    assert mined is not None
    assert mined.mined is not None
    rig.drive(rig.all_final)
    rig.check()


def test_a_cancel_takes_the_nonce_away(rig: LaneRig) -> None:
    rig.next_block()
    rig.submit("unwanted")
    rig.run()
    replaced = admin.cancel(rig.lane, Nonce(0))
    assert (replaced.record.newest.purpose, replaced.answer) == (Purpose.CANCEL, "accepted")
    rig.drive(lambda: rig.intent("unwanted").ended)


def test_a_rollback_by_debug_set_head_is_made_good(rig: LaneRig) -> None:
    rig.submit(*NAMES[:5])
    rig.drive(rig.all_mined)
    lowest = min(rig.intent(name).block or 0 for name in NAMES[:5])
    rig.rpc.call("debug_setHead", hex(lowest - 1))
    rig.drive(rig.all_final)
    rig.check()


@pytest.mark.parametrize(
    ("name", "change", "kind"),
    [
        ("below the pool's price", {"fees": Fees(Wei(0), Wei(0))}, Kind.UNDERPRICED),
        ("more than there is", {"value": Wei(10**30)}, Kind.INSUFFICIENT_FUNDS),
        ("too little gas", {"gas": 20_000}, Kind.FATAL),
        ("more gas than a block has", {"gas": 60_000_000, "fees": Fees(Wei(2 * GWEI), Wei(GWEI))}, Kind.FATAL),
        ("another chain", {"chain_id": 5}, Kind.FATAL),
        ("a tip above the cap", {"fees": Fees(Wei(2 * GWEI), Wei(3 * GWEI))}, Kind.FATAL),
        ("a fortune in fees", {"fees": Fees(Wei(10**15), Wei(10**15)), "gas": 2_000_000}, Kind.FEE_TOO_HIGH),
    ],
)
def test_what_geth_says_is_understood(refusing: Rpc, name: str, change: dict[str, object], kind: Kind) -> None:
    assert _kind(refusing, change) is kind, name


def test_what_geth_says_of_bytes_it_has_or_had_is_understood(node: Rpc) -> None:
    assert _kind(node, {"nonce": Nonce(5)}) is None
    assert _kind(node, {"nonce": Nonce(5)}) is Kind.KNOWN
    assert _kind(node, {"nonce": Nonce(5), "value": Wei(2)}) is Kind.REPLACEMENT_UNDERPRICED
    assert _kind(node, {}) is None
    wait_until(lambda: int(node.call("eth_getTransactionCount", KEY.wallet, "latest"), 16), WAIT_SECONDS)
    assert _kind(node, {}) is Kind.NONCE_TOO_LOW


def test_geth_names_the_final_block(refusing: Rpc) -> None:
    for tag in ("safe", "finalized"):
        assert "number" in (refusing.call("eth_getBlockByNumber", tag, False) or {"number": None})


def _kind(node: Rpc, change: dict[str, object]) -> Kind | None:
    """How the lane understands geth's refusal of a payment with this change; None if it was taken."""
    plain: dict[str, object] = {
        "chain_id": geth.CHAIN_ID,
        "nonce": Nonce(0),
        "to": Contract(address_of("anybody")),
        "data": "0x",
        "gas": 21_000,
        "fees": Fees(Wei(20 * GWEI), Wei(2 * GWEI)),
        "value": Wei(1),
    }
    (attempt,) = KeySigner(KEY).sign([Unsigned(**plain | change)])  # type: ignore[arg-type]  # a row of the table
    try:
        node.call("eth_sendRawTransaction", attempt.raw)
    except RpcError as error:
        return classify(error.message)
    return None
