"""What a machine takes from its pool, and what it does not let the pool decide."""

from __future__ import annotations

import pytest

from config.settings import Settings, read_settings
from protocol.errors import BadSetting
from protocol.wire import PoolConfig
from workers.pool.settings import complete_settings, gateway_of

POOL = PoolConfig(
    chain_id=134,
    hub="0x" + "aa" * 20,
    workerpool="0x" + "bb" * 20,
    scheduler="0x" + "cc" * 20,
    rpc_url="https://pool.example/rpc",
    ws_url="wss://pool.example/ws",
    block_time=5.0,
    ipfs_gateway="https://gateway.example",
    version="1",
)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHAIN_ID", "HUB", "WORKERPOOL", "RPC_URL", "WS_URL", "BLOCK_TIME", "IPFS_GATEWAY", "API_URL"):
        monkeypatch.delenv(f"SLUICE_{name}", raising=False)


def given(**fields: object) -> Settings:
    return read_settings(**fields)


def test_a_machine_with_only_the_apis_address_gets_the_other_settings_from_it() -> None:
    own = complete_settings(given(), POOL)
    assert (own.chain_id, own.hub, own.workerpool) == (POOL.chain_id, POOL.hub, POOL.workerpool)
    assert (own.rpc_url, own.ws_url, own.block_time) == (POOL.rpc_url, POOL.ws_url, POOL.block_time)


@pytest.mark.parametrize(
    ("told", "believed"), [(1e300, 60.0), (86400.0, 60.0), (12.0, 12.0), (0.25, 0.25), (1e-300, 0.05)]
)
def test_no_block_time_of_a_pool_keeps_a_machine_from_looking_at_the_chain_or_has_it_do_nothing_else(
    told: float, believed: float
) -> None:
    """A machine that follows no heads reveals nothing that it is not asked for, and loses its stake."""
    pool = POOL.model_copy(update={"block_time": told})
    assert complete_settings(given(), pool).block_time == believed
    # The operator's own word counts.
    assert complete_settings(given(block_time=86400.0), pool).block_time == 86400.0


@pytest.mark.parametrize(
    "fields",
    [{"chain_id": 1}, {"hub": "0x" + "11" * 20}, {"workerpool": "0x" + "11" * 20}],
    ids=["chain", "hub", "workerpool"],
)
def test_a_pool_other_than_the_operator_named_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(BadSetting, match="the pool at"):
        complete_settings(given(**fields), POOL)


def test_addresses_are_compared_whatever_their_case() -> None:
    assert complete_settings(given(hub=("0x" + "AA" * 20)), POOL).hub == POOL.hub


def test_an_own_node_is_used_for_blocks_too() -> None:
    own = complete_settings(given(rpc_url="https://mine:8545"), POOL)
    assert (own.rpc_url, own.ws_url) == ("https://mine:8545", None)


@pytest.mark.parametrize(
    ("fields", "pool"),
    [
        ({"rpc_url": "http://u:secret@mine:8545"}, POOL),
        ({"rpc_url": "https://a.example,http://b.example"}, POOL),
        ({}, POOL.model_copy(update={"rpc_url": "http://pool.example"})),
        ({}, POOL.model_copy(update={"ws_url": "ws://pool.example"})),
        ({"rpc_url": "https://mine", "ws_url": "ws://192.168.0.7:8546"}, POOL),
    ],
)
def test_a_node_elsewhere_without_encryption_needs_the_operators_leave(
    fields: dict[str, object], pool: PoolConfig
) -> None:
    with pytest.raises(BadSetting, match=r"SLUICE_ALLOW_PLAINTEXT.*the chain's node \(SLUICE_RPC_URL\)") as caught:
        complete_settings(given(**fields), pool)
    assert "secret" not in str(caught.value)
    assert complete_settings(given(allow_plaintext=True, **fields), pool).hub == POOL.hub


def test_a_node_of_this_machine_needs_no_encryption() -> None:
    own = complete_settings(given(rpc_url="http://[::1]:8545", ws_url="ws://localhost:8546"), POOL)
    assert own.ws_url == "ws://localhost:8546"


@pytest.mark.parametrize(
    ("api", "private"),
    [
        ("https://pool.example", False),
        ("https://93.184.216.34", False),
        # A name's owner says where it leads.
        ("https://pool.lan", False),
        ("https://[2606:4700::1111]:8443", False),
        ("https://10.0.0.5:18300", True),
        ("https://[fd00::5]", True),
        ("http://127.0.0.1:18300", True),
        ("http://localhost:18300", True),
    ],
)
def test_a_gateway_of_the_pools_may_be_private_only_beside_an_api_that_its_operator_named_there(
    api: str, *, private: bool
) -> None:
    pool = POOL.model_copy(update={"ipfs_gateway": "http://192.168.1.1"})
    assert gateway_of(complete_settings(given(api_url=api), pool), pool) == ("http://192.168.1.1", private)


def test_a_gateway_that_the_operator_named_may_be_anywhere_and_is_the_one_that_is_asked() -> None:
    own = complete_settings(given(api_url="https://pool.example", ipfs_gateway="http://10.0.0.9:8080"), POOL)
    assert gateway_of(own, POOL) == ("http://10.0.0.9:8080", True)
