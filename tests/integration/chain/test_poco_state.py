"""The real contracts, deployed from npm, and the saved chain that brings them back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chain.contracts import calls
from chain.testing import known
from ops.poco.accounts import dev_key
from ops.poco.deploy import CATEGORIES, DEV_ALLOWANCE, TEST_CATEGORY
from ops.poco.state import PocoState, ensure_state
from ops.stack import ports
from ops.stack.servers import anvil
from tests.integration.conftest import Chain

#: Blocks of the saved chain: one for each contract created, one for the cut, one for all that is configured.
SAVED_BLOCKS = 25


def test_a_chain_started_from_the_saved_state_answers(poco_state: PocoState, tmp_path: Path) -> None:
    node = anvil.start(tmp_path / "anvil", ports.free_port(), block_time=1.0, load=poco_state.path)
    try:
        assert anvil.ready(node.rpc_url) == 31337
    finally:
        node.stop()


def test_the_saved_state_is_made_once_and_the_same_everywhere(tmp_path: Path, poco_state: PocoState) -> None:
    made = ensure_state(tmp_path)
    stamp = made.path.stat().st_mtime_ns

    assert ensure_state(tmp_path) == made
    assert made.path.stat().st_mtime_ns == stamp
    assert made.addresses == poco_state.addresses
    assert made.path.name == poco_state.path.name
    blocks, others = (_blocks(state) for state in (made, poco_state))
    assert blocks == others
    assert len(blocks) == SAVED_BLOCKS + 1


def _blocks(state: PocoState) -> list[tuple[int, int, list[str]]]:
    """(number, time, transactions) of each block in the file, from genesis."""
    found = []
    for row in json.loads(state.path.read_text())["blocks"]:
        header = row["header"]
        sent = [json.dumps(tx, sort_keys=True) for tx in row["transactions"]]
        found.append((int(header["number"], 16), int(header["timestamp"], 16), sent))
    return sorted(found)


@pytest.fixture
def chain(still_chain: Chain) -> Chain:
    return still_chain


def test_the_hub_knows_its_registries_token_and_domain(chain: Chain) -> None:
    hub, at = chain.hub, chain.at

    assert hub.registries() == (at.app_registry, at.dataset_registry, at.workerpool_registry)
    assert hub.token() == at.rlc


def test_the_five_public_categories_keep_their_ids_and_the_short_ones_follow(chain: Chain) -> None:
    found = [known(chain.hub.category(number)) for number in range(len(CATEGORIES))]

    assert [(item.name, item.seconds) for item in found[:5]] == [
        ("XS", 300),
        ("S", 1200),
        ("M", 3600),
        ("L", 10800),
        ("XL", 36000),
    ]
    assert found[TEST_CATEGORY].seconds == 1


def test_every_development_account_holds_rlc_and_native_token(chain: Chain) -> None:
    for index in range(10):
        wallet = dev_key(index).wallet
        answer = chain.rpc.call("eth_call", {"to": chain.at.rlc, "data": calls.BALANCE_OF.encode(wallet)}, "latest")
        assert calls.BALANCE_OF.decode(answer)[0] >= DEV_ALLOWANCE
        assert int(chain.rpc.call("eth_getBalance", wallet, "latest"), 16) > 10**20
