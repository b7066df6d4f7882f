"""ENS names where settings ask for a contract and commands for a wallet, on a chain with an ENS registry."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ens.utils import raw_name_to_hash  # type: ignore[import-untyped] # it has no types

from chain.contracts.ens_names import wallets_of, with_addresses
from config.settings import Settings, read_settings
from ops.poco.state import CHAIN_ID
from protocol.errors import BadSetting, RpcUnavailable
from protocol.types import Contract
from tests.integration.conftest import Chain

NAME, UNOWNED, UNPOINTED = "pool.example.eth", "nobody.example.eth", "later.example.eth"
#: Where the tests put the registry and the resolver.
REGISTRY, RESOLVER = "0x" + "e1" * 20, "0x" + "e2" * 20
#: The smallest contract that answers `resolver(bytes32)` or `addr(bytes32)`: what its storage has at that key.
#:   PUSH1 4, CALLDATALOAD, SLOAD, PUSH1 0, MSTORE, PUSH1 32, PUSH1 0, RETURN
LOOKUP = "0x600435545f5260205ff3"


@pytest.fixture
def chain(still_chain: Chain) -> Chain:
    return still_chain


@pytest.fixture
def named(chain: Chain) -> Callable[..., Settings]:
    """Settings on a chain whose registry knows NAME (it is the hub's) and UNPOINTED (without an address)."""
    for contract in (REGISTRY, RESOLVER):
        chain.rpc.call("anvil_setCode", contract, LOOKUP)
    for name in (NAME, UNPOINTED):
        _store(chain, REGISTRY, name, RESOLVER)
    _store(chain, RESOLVER, NAME, chain.at.hub)
    own = {"rpc_url": chain.node.rpc_url, "chain_id": CHAIN_ID, "ens_registry": REGISTRY}
    return lambda **more: read_settings(**(own | more))


def _store(chain: Chain, contract: str, name: str, value: str) -> None:
    node = "0x" + raw_name_to_hash(name).hex().removeprefix("0x")
    chain.rpc.call("anvil_setStorageAt", contract, node, "0x" + value.removeprefix("0x").rjust(64, "0"))


@pytest.mark.parametrize("name", [NAME, "Pool.Example.ETH"])
def test_a_name_is_the_address_it_points_to(named: Callable[..., Settings], chain: Chain, name: str) -> None:
    found = with_addresses(named(hub=name, workerpool="0x" + "Ab" * 20))
    assert (found.hub, found.workerpool) == (chain.at.hub, "0x" + "Ab" * 20)


def test_a_command_takes_wallets_by_address_and_by_name_each_once(named: Callable[..., Settings], chain: Chain) -> None:
    given = ["0x" + "Ab" * 20, NAME, chain.at.hub, "0x" + "ab" * 20]
    assert wallets_of(named(), given) == ["0x" + "ab" * 20, chain.at.hub]


@pytest.mark.parametrize("given", [UNOWNED, UNPOINTED, "0x12", "alice", "http://alice.eth"])
def test_a_command_refuses_what_is_no_wallet(named: Callable[..., Settings], given: str) -> None:
    with pytest.raises(BadSetting, match="WALLET"):
        wallets_of(named(), ["0x" + "ab" * 20, given])


@pytest.mark.parametrize("name", [UNOWNED, UNPOINTED, "pool_with..dots.eth", "pool .eth"])
def test_a_name_without_an_address_is_refused_by_its_setting(named: Callable[..., Settings], name: str) -> None:
    with pytest.raises(BadSetting, match="SLUICE_WORKERPOOL"):
        with_addresses(named(workerpool=name))


def test_a_node_without_the_registry_has_said_nothing_of_the_name(named: Callable[..., Settings]) -> None:
    with pytest.raises(RpcUnavailable, match="may be behind"):
        with_addresses(named(workerpool=NAME, ens_registry="0x" + "e3" * 20))


def test_a_node_that_is_away_has_said_nothing_of_the_name(named: Callable[..., Settings], chain: Chain) -> None:
    settings = named(workerpool=NAME)
    chain.node.stop()
    with pytest.raises(RpcUnavailable):
        with_addresses(settings)


def test_a_chain_without_ens_is_named_with_the_way_out() -> None:
    with pytest.raises(BadSetting, match="SLUICE_ENS_REGISTRY"):
        with_addresses(read_settings(workerpool=NAME, chain_id=421614))


def test_addresses_ask_no_node() -> None:
    settings = read_settings(workerpool=Contract("0x" + "ab" * 20), rpc_url="http://127.0.0.1:1")
    assert with_addresses(settings) is settings
    assert wallets_of(settings, ["0x" + "AB" * 20]) == ["0x" + "ab" * 20]
