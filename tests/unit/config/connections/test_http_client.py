"""Which proxy an address is reached through, whatever the environment holds."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import httpcore
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.connections.http_client import http_client, is_loopback, proxy_for
from protocol.errors import BadSetting

PROXY = "http://proxy.example:3128"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


#: What a shell may hold: words of proxies and exceptions, and any other text that fits into a variable.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
PROXIES = st.sampled_from(
    [
        PROXY,
        "proxy:3128",
        "socks5://127.0.0.1:9",
        "socks4://x:1",
        "ftp://x",
        "http://",
        "http://[::1",
        "http://x:y",
        "::",
    ]
)
EXCEPTIONS = st.lists(
    st.sampled_from(["*", "[::1]", "::1", "10.0.0.0/8", ".a.b", "*.a.b", "a.b:80", "[fe80::1]:8080", "[", "a b", "1/2"])
    | TEXT,
    max_size=4,
).map(",".join)
LOOPBACK = st.one_of(
    st.ip_addresses(v=4, network="127.0.0.0/8").map(str),
    st.sampled_from(
        ["localhost", "LOCALHOST", "node.localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "localhost."]
    ),
)


@given(LOOPBACK, st.sampled_from(["http", "https", "ws", "wss"]), PROXIES | TEXT, EXCEPTIONS)
def test_this_machine_is_never_reached_through_a_proxy(host: str, scheme: str, proxy: str, no_proxy: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            patch.setenv(name, proxy)
        patch.setenv("NO_PROXY", no_proxy)
        assert proxy_for(f"{scheme}://{host}:8545/path") is None
        http_client(f"{scheme.replace('ws', 'http')}://{host}:8545", timeout=1.0).close()


@given(PROXIES | TEXT, EXCEPTIONS, st.sampled_from(["HTTP_PROXY", "https_proxy", "ALL_PROXY"]))
def test_whatever_the_variables_hold_is_honoured_or_refused_in_one_sentence(proxy: str, no: str, name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, proxy)
        patch.setenv("NO_PROXY", no)
        for url in ("http://node.example:8545", "https://node.example"):
            try:
                http_client(url, timeout=1.0).close()
            except BadSetting as error:
                assert "\n" not in str(error)
                assert "PROXY" in str(error)


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("HTTP_PROXY", "http://node.example:8545"),
        ("http_proxy", "ws://node.example:8546"),
        ("HTTPS_PROXY", "https://node.example"),
        ("ALL_PROXY", "https://node.example"),
        ("all_proxy", "http://node.example"),
    ],
)
def test_a_proxy_is_used_for_addresses_of_its_scheme(variable: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, PROXY)
    assert proxy_for(url) == PROXY


def test_a_proxy_of_one_scheme_leaves_the_other_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    assert proxy_for("http://node.example") is None


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("*", "node.example", True),
        ("node.example", "node.example", True),
        ("other.example, node.example", "node.example", True),
        (".example", "node.example", True),
        ("*.example", "node.example", True),
        ("example", "node.example", True),
        ("example", "nodeexample", False),
        ("node.example:8545", "node.example", True),
        ("node.example:1", "node.example", False),
        ("10.0.0.0/8,[::1]", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("[2001:db8::1]", "[2001:db8::1]", True),
        ("[2001:db8::1]:8545", "[2001:db8::1]", True),
        ("2001:db8::/32", "[2001:db8::5]", True),
        ("10.0.0.0/8", "node.example", False),
    ],
)
def test_no_proxy_names_hosts_domains_addresses_and_networks(
    no_proxy: str, host: str, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxy_for(f"http://{host}:8545") is None) is direct


@pytest.mark.parametrize("proxy", ["http://user:secret@x:y", "ftp://user:secret@x:1", "socks5://user:secret@x:1"])
def test_a_refused_proxy_shows_no_password(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setattr("config.connections.http_client.find_spec", lambda _: None)
    with pytest.raises(BadSetting, match="ALL_PROXY") as caught:
        proxy_for("http://node.example")
    assert "secret" not in str(caught.value)


@given(st.ip_addresses())
def test_only_loopback_addresses_are_this_machine(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if is_loopback(str(address)):
        assert address.is_loopback or address.is_unspecified or "::ffff:" in str(address).lower()


def test_httpx_itself_reads_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", "[::1]")
    assert os.environ["NO_PROXY"] == "[::1]"
    with http_client(
        "http://127.0.0.1:1", timeout=1.0, transport=httpx.MockTransport(lambda _: httpx.Response(200))
    ) as it:
        assert it.get("http://127.0.0.1:1/").is_success


#: Folders with code that may make HTTP requests.
CODE = ("config", "protocol", "chain", "pipeline", "workers", "beat", "ops", "bench")
#: The client with a connection of its own kind: it reaches strangers' addresses, guarded, and through no proxy.
OWN_CLIENT = "workers/data/download.py"


def test_every_http_client_is_made_in_one_place() -> None:
    root = Path(__file__).parents[4]
    files = (path for folder in CODE for path in (root / folder).rglob("*.py"))
    makers = {str(path.relative_to(root)) for path in files if "httpx.Client(" in path.read_text()}
    assert makers - {OWN_CLIENT} == {"config/connections/http_client.py"}


class Peers(httpcore.NetworkBackend):
    """Takes connections in memory; each answers one request. `closed`: how many were closed."""

    def __init__(self) -> None:
        self.opened, self.closed = 0, 0

    def connect_tcp(self, *_: object, **__: object) -> httpcore.NetworkStream:
        self.opened += 1
        peers = self

        class Stream(httpcore.MockStream):
            def close(self) -> None:
                peers.closed += 1
                super().close()

            def get_extra_info(self, info: str) -> object:
                # Nothing comes from a peer that was not asked.
                return None if info == "is_readable" else super().get_extra_info(info)

        return Stream([b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n", b"x"])


def test_no_connection_at_rest_is_closed_because_there_are_others_it_may_be_another_threads_already() -> None:
    """httpcore closes one that it has just given to a request, if more are open than it keeps: the request is lost."""
    threads, peers = 40, Peers()
    with http_client("http://pool.example", timeout=1.0) as client:
        client._transport._pool._network_backend = peers  # type: ignore[attr-defined]  # in place of sockets
        answers = [client.send(client.build_request("GET", "/"), stream=True) for _ in range(threads)]
        for answer in answers:
            answer.read()
            answer.close()
        assert (peers.opened, peers.closed) == (threads, 0)
