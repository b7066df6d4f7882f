"""Which of the pool's node addresses are given to workers."""

from __future__ import annotations

import pytest

from config.settings import read_settings
from config.values.endpoints import (
    asks_who_announces,
    loopback_warnings,
    plaintext_warnings,
    public_endpoints,
    rpc_urls,
    secret_services,
)
from protocol.errors import BadSetting
from protocol.poco.tags import Framework


def test_several_nodes_are_read_from_one_setting_and_workers_get_the_first() -> None:
    settings = read_settings(rpc_url="http://a:1, http://b:2,")
    assert rpc_urls(settings) == ["http://a:1", "http://b:2"]
    assert public_endpoints(settings)[0] == "http://a:1"


@pytest.mark.parametrize("url", ["", " , ", "a:1", "http://", "ftp://a", "http://a:x", "http://[::1", "http://a b"])
def test_what_is_no_address_is_named_by_its_setting(url: str) -> None:
    with pytest.raises(BadSetting, match="SLUICE_RPC_URL"):
        rpc_urls(read_settings(rpc_url=url))


@pytest.mark.parametrize("url", ["http://me:hush@a", "https://a/v3/hush", "https://a/?key=hush", "https://hush@a/"])
def test_an_address_that_may_hold_a_key_is_never_sent_to_workers(url: str) -> None:
    with pytest.raises(BadSetting, match="SLUICE_PUBLIC_RPC_URL") as caught:
        public_endpoints(read_settings(rpc_url=url))
    assert "hush" not in str(caught.value)
    told = public_endpoints(read_settings(rpc_url=url, public_rpc_url="https://open/rpc"))
    assert told == ("https://open/rpc", None)


def test_a_web_socket_that_may_hold_a_key_is_left_out() -> None:
    assert public_endpoints(read_settings(ws_url="ws://a:1"))[1] == "ws://a:1"
    assert public_endpoints(read_settings(ws_url="wss://a/v3/hush"))[1] is None
    assert public_endpoints(read_settings(ws_url="wss://a/v3/hush", public_ws_url="wss://b"))[1] == "wss://b"


def test_addresses_of_nodes_do_not_show_in_the_settings_repr() -> None:
    assert "hush" not in repr(read_settings(rpc_url="https://a/v3/hush", ws_url="wss://a/v3/hush"))


def test_the_operator_is_told_what_machines_elsewhere_would_refuse() -> None:
    public = {"api_url": "http://pool.example", "amqp_public_host": "pool.example", "public_rpc_url": "http://n"}
    told = plaintext_warnings(read_settings(**public))
    names = [line.partition(":")[0] for line in told]
    assert names == ["SLUICE_API_URL", "SLUICE_AMQP_PUBLIC_TLS", "SLUICE_PUBLIC_RPC_URL"]
    assert not plaintext_warnings(read_settings(**public, allow_plaintext=True))
    encrypted = {"api_url": "https://pool.example", "amqp_public_host": "2001:db8::1", "amqp_public_tls": True}
    assert not plaintext_warnings(read_settings(**encrypted))
    assert not plaintext_warnings(read_settings(amqp_public_host="::1"))


def test_the_secret_service_is_an_address_that_machines_elsewhere_reach_or_is_not_named() -> None:
    assert secret_services(read_settings()) == {}
    one = secret_services(read_settings(enclave_sms_url="https://sms.example/"))
    assert one == dict.fromkeys(Framework, "https://sms.example")
    two = secret_services(read_settings(enclave_sms_url="tdx=https://a.example, SCONE=https://b.example/"))
    assert two == {Framework.TDX: "https://a.example", Framework.SCONE: "https://b.example"}
    for wrong in ("sms.example", "RISC=https://a", "TDX=a", "TDX=https://a,TDX=https://b", "https://a,TDX=https://b"):
        with pytest.raises(BadSetting, match="SLUICE_ENCLAVE_SMS_URL"):
            secret_services(read_settings(enclave_sms_url=wrong))
    public = {"api_url": "https://pool.example", "enclave_sms_url": "http://127.0.0.1:18320"}
    assert any(line.startswith("SLUICE_ENCLAVE_SMS_URL") for line in loopback_warnings(read_settings(**public)))
    assert any(
        "SLUICE_ENCLAVE_SMS_URL" in line for line in plaintext_warnings(read_settings(enclave_sms_url="http://a"))
    )


@pytest.mark.parametrize(
    ("rpc_url", "ws_url", "same"),
    [
        ("http://a:8545", "ws://a:8546", True),
        ("https://a/key", "wss://a/ws/key", True),
        ("https://a/key,https://a/other", "wss://a/ws/key", True),
        ("http://a:8545,http://a:8547", "ws://a:8546", False),
        ("http://127.0.0.1:8545", "ws://127.0.0.1:8545", True),
        ("http://127.0.0.1:8545", "ws://127.0.0.1:8546", False),
        ("http://localhost:8545", "ws://localhost:8546", False),
        ("http://a:8545,http://b:8545", "ws://a:8546", False),
        ("http://a:8545", "ws://b:8546", False),
        ("http://a:8545", "ipc:/node.ipc", False),
        ("http://a:8545", "ws://[a:8546", False),
        ("http://a:8545", None, False),
    ],
)
def test_a_host_that_announces_blocks_is_known_as_the_one_that_is_asked(
    rpc_url: str, ws_url: str | None, *, same: bool
) -> None:
    assert asks_who_announces(read_settings(rpc_url=rpc_url, ws_url=ws_url)) is same
