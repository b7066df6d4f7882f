"""Start-up checks: the right chain, with PoCo on it and the pool known."""

from __future__ import annotations

import pytest

from chain.contracts.hub import Hub
from config.settings import read_settings
from ops.market import contracts
from protocol.errors import WrongChain
from protocol.types import Contract
from tests.integration.conftest import Chain

NOBODY = Contract("0x" + "12" * 20)


@pytest.fixture
def chain(still_chain: Chain) -> Chain:
    return still_chain


def test_the_right_chain_and_pool_pass(chain: Chain) -> None:
    (pool,) = contracts.create(chain.sender(1), chain.at, [contracts.NewWorkerpool("pool")])

    chain.hub.check_chain(read_settings(chain_id=31337, workerpool=pool))


def test_another_chain_id_is_refused_with_both_ids_named(chain: Chain) -> None:
    with pytest.raises(WrongChain, match="is on chain 31337, SLUICE_CHAIN_ID is 134"):
        chain.hub.check_chain(read_settings(chain_id=134))


def test_an_address_without_a_contract_is_refused(chain: Chain) -> None:
    with pytest.raises(WrongChain, match=rf"no contract at the hub address {NOBODY}.*Set SLUICE_HUB"):
        Hub(chain.rpc, NOBODY).check_chain(read_settings(chain_id=31337))


def test_a_contract_that_is_no_hub_is_refused(chain: Chain) -> None:
    with pytest.raises(WrongChain, match="is not a PoCo hub"):
        Hub(chain.rpc, chain.at.rlc).check_chain(read_settings(chain_id=31337, workerpool=NOBODY))


def test_a_pool_that_the_hub_does_not_know_is_refused(chain: Chain) -> None:
    with pytest.raises(WrongChain, match=r"is not a workerpool registered.*Set SLUICE_WORKERPOOL"):
        chain.hub.check_chain(read_settings(chain_id=31337, workerpool=NOBODY))
