"""Which addresses a deal may send this machine to."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Refused, RefusedHere
from workers.data.guard import check, gateway_url, inside_gateway, same_place

PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "fe80::1",
    "fc00::1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "2002:7f00:1::",
    "::7f00:1",
    "::5db8:d822",
    "64:ff9b:1::a00:1",
    "2606:2800:220:1:0:5efe:a00:1",
    "2606:2800:220:1:200:5efe:7f00:1",
    "5f00::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_that_leads_to_a_private_address_is_refused(address: str) -> None:
    with pytest.raises(Refused, match="private"):
        check("http://evil.example/x", lambda *_: [address], allow_private=False)


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    with pytest.raises(Refused, match="private"):
        check("http://evil.example/x", lambda *_: ["93.184.216.34", "10.0.0.1"], allow_private=False)


def test_this_machines_own_public_address_is_refused_and_only_here() -> None:
    """No firewall keeps the machine itself from what it serves there."""
    with pytest.raises(RefusedHere, match="this machine itself"):
        check("http://93.184.216.34/", lambda *_: ["93.184.216.34"], allow_private=False, is_own=lambda _: True)
    check("http://93.184.216.34/", lambda *_: ["93.184.216.34"], allow_private=True, is_own=lambda _: True)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://example.com/x", "gopher://x/", "jar:http://x!/y", "/etc/passwd", "unix:/x", ""]
)
def test_only_http_and_https_are_opened(url: str) -> None:
    with pytest.raises(Refused, match="only http"):
        check(url, lambda *_: ["93.184.216.34"], allow_private=True)


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://host:99999/",
        "http://[::1/",
        "http://a..b/",
        f"http://{'x' * 64}.example/",
        "http://example.com/\ud800",
        "http://\udfff.example/",
    ],
)
def test_malformed_addresses_are_refused(url: str) -> None:
    with pytest.raises(Refused):
        check(url, lambda *_: ["93.184.216.34"], allow_private=True)


def test_a_name_outside_ascii_is_looked_up_and_sent_as_dns_carries_it() -> None:
    target = check("http://b\u00fccher.example/", lambda *_: ["93.184.216.34"], allow_private=False)
    assert target.host_header == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("http://gate:80/other", True),
        ("http://GATE/ipfs/x", True),
        ("http://gate:81/", False),
        ("https://gate/", False),
        ("http://169.254.169.254/", False),
    ],
)
def test_only_the_gateways_own_host_and_port_are_the_gateway(url: str, *, same: bool) -> None:
    assert same_place(url, "http://gate") is same


def test_the_connection_goes_to_the_checked_address_under_the_name_the_server_knows() -> None:
    target = check("https://example.com/a/b?c=d#e", lambda *_: ["93.184.216.34"], allow_private=False)
    assert target.pinned(target.addresses[0]) == "https://93.184.216.34:443/a/b?c=d"
    assert target.host_header == "example.com"


def test_an_own_port_stays_in_the_host_header() -> None:
    target = check("http://example.com:8080/", lambda *_: ["2606:2800:220:1::1"], allow_private=False)
    assert target.pinned(target.addresses[0]) == "http://[2606:2800:220:1::1]:8080/"
    assert target.host_header == "example.com:8080"


def test_user_and_password_in_an_address_are_not_sent_on() -> None:
    target = check("http://user:word@example.com/", lambda *_: ["93.184.216.34"], allow_private=False)
    assert "word" not in target.pinned(target.addresses[0]) + target.host_header


def test_ipfs_addresses_go_through_the_pools_gateway() -> None:
    assert gateway_url("/ipfs/QmX/file", "http://gate:1/") == "http://gate:1/ipfs/QmX/file"
    assert gateway_url("ipfs://QmX", "http://gate:1") == "http://gate:1/ipfs/QmX"
    assert gateway_url("https://example.com/ipfs/QmX", "http://gate:1") is None


@pytest.mark.parametrize(
    "path",
    [
        "/ipfs/../api/v0/id",
        "/ipfs/Qm/../../metrics",
        "/ipfs/%2e%2e/api",
        "/ipfs/Qm/%2E%2e/%2e%2e/api",
        "/ipfs/Qm%2f..%2f..%2fapi",
        "/ipfs/%252e%252e/api",
        "/ipfs/Qm/%25252525252525252e%2e/api",
        "/ipfs/..\\api",
        "/ipfs/Qm\\..\\..\\api",
        "/ipfs/Qm/%5c..%5capi",
        "/ipfs/..//169.254.169.254/",
        "/ipfs/./x",
        "/ipfs//x",
        "/ipfs/",
        "/ipfs/Qm%00/x",
        "ipfs://../debug/vars",
        "ipfs://@169.254.169.254/",
        "ipfs://Qm/../../x",
        "ipfs://",
    ],
)
def test_no_path_leads_out_of_the_gateways_content(path: str) -> None:
    with pytest.raises(Refused, match="IPFS path"):
        gateway_url(path, "http://gate:1")


@given(st.lists(st.sampled_from(["..", ".", "%2e", "%2E%2E", "%252e", "/", "%2f", "\\", "%5c", "Qm", "a b", "?", "#"])))
def test_whatever_a_gateway_makes_of_a_path_it_stays_below_ipfs(parts: list[str]) -> None:
    try:
        found = gateway_url("/ipfs/" + "".join(parts), "http://gate:1")
    except Refused:
        return
    assert found is not None
    path = urlsplit(found).path
    for _ in range(5):
        path = unquote(path)
        assert posixpath.normpath(path.replace("\\", "/")).startswith("/ipfs/")


@pytest.mark.parametrize(
    ("url", "inside"),
    [
        ("http://gate/ipfs/Qm/x", True),
        ("http://gate/ipfs/Qm/x?format=car", True),
        ("http://gate/api/v0/id", False),
        ("http://gate/ipfs/../api", False),
        ("http://gate:81/ipfs/Qm", False),
        ("http://other/ipfs/Qm", False),
    ],
)
def test_a_redirect_at_the_gateway_may_lead_to_content_only(url: str, *, inside: bool) -> None:
    assert inside_gateway(url, "http://gate") is inside


@pytest.mark.parametrize(
    "address",
    [
        "192.0.0.192",
        "192.0.0.9",
        "168.63.129.16",
        "192.88.99.1",
        "100.100.100.200",
        "198.18.0.1",
        "161.26.0.1",
        "3fff::1",
        "2001:20::1",
        "2001:0:7f00:1::",
        "2002:808:808::1",
        "64:ff9b::",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::c000:c0",
        "::ffff:168.63.129.16",
    ],
)
def test_addresses_that_only_look_public_are_refused(address: str) -> None:
    with pytest.raises(Refused, match="private"):
        check("http://evil.example/x", lambda *_: [address], allow_private=False)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:2800:220:1::1", "2001:4860:4860::8888"])
def test_the_open_internet_is_not_refused(address: str) -> None:
    assert check("http://good.example/x", lambda *_: [address], allow_private=False).addresses == (address,)


def test_a_name_that_this_machines_resolver_leads_astray_is_no_fault_of_the_deal() -> None:
    with pytest.raises(RefusedHere):
        check("http://files.example/x", lambda *_: ["10.0.0.1"], allow_private=False)
    with pytest.raises(Refused) as caught:
        check("http://10.0.0.1/x", lambda *_: ["10.0.0.1"], allow_private=False)
    assert not isinstance(caught.value, RefusedHere)
