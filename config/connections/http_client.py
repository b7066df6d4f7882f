"""Makes every HTTP client of Sluice: one target each, with the proxy variables of the environment read in one place.

    HTTP_PROXY, HTTPS_PROXY, ALL_PROXY    a proxy for addresses of that scheme (any scheme for ALL_PROXY)
    NO_PROXY                              targets that are reached directly, separated by commas:
                                          host, .domain, *.domain, address, network (10.0.0.0/8), each with :port or not

Lower-case names are read as well. A target on this machine is never reached through a proxy: a proxy elsewhere could
not reach it, and a developer's machine often has such variables set for other programs. A variable that cannot be
honoured is refused in one sentence, before anything is sent.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies

import httpx

from config.connections.limited_network import AnswerTime, LimitedNetwork
from protocol.errors import BadSetting

#: A WebSocket begins as an HTTP request, and goes through the same proxy.
_SCHEMES = {"ws": "http", "wss": "https"}
_SOCKS = frozenset({"socks5", "socks5h"})
_PORTS = {"http": 80, "https": 443}
#: Seconds without a sign of the peer's kernel after which a connection that waits for an answer is lost: a peer that is
#: cut off closes none, and a request may wait a minute for its answer, while a result is stored.
CUT_OFF_SECONDS = 12
#: Connections of one client at a time. All of them are kept: if more are open than it keeps, httpcore (1.0.9) closes
#: any that is at rest, also one that another thread has just been given, whose request is then lost (seen: 1 of 20,000
#: by 32 threads).
MOST_CONNECTIONS = 100
#: Seconds that a connection at rest is kept: less than any server of ours keeps it, so that none is closed in use.
KEPT_SECONDS = 5.0
#: Seconds that an answer may take from its first bytes to its last, where the caller does not know better: the longest
#: is a listing of some ten thousand queues or tasks, of 10 MB or so.
WHOLE_ANSWER_SECONDS = 60.0
_FIX = "Change it, unset it, or name the host in NO_PROXY."


def whole_answer_seconds() -> float:
    """WHOLE_ANSWER_SECONDS, as a function, which `http_client` takes."""
    return WHOLE_ANSWER_SECONDS


def http_client(
    url: str,
    *,
    timeout: float | httpx.Timeout,
    auth: tuple[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    answer_seconds: Callable[[], float] | None = whole_answer_seconds,
    transport: httpx.BaseTransport | None = None,
) -> httpx.Client:
    """A client for requests to `url` and what is below it; `timeout` in seconds, `transport` for tests.

    `timeout` is for each part that comes. `answer_seconds`: for a whole answer from its first bytes on, headers
    included, after which requests raise httpx.ReadTimeout: a trickle of bytes would keep a request waiting for ever.
    None: for a stream of events, which has no end.
    Raises BadSetting if a proxy variable that applies to `url` cannot be honoured.
    """
    secure = url.startswith("https:")
    return httpx.Client(
        timeout=timeout,
        base_url=url,
        auth=auth,
        headers=headers,
        transport=transport
        or _Transport(
            # Without TLS there is nothing to verify, and reading the certificates takes 20 ms in each process.
            verify=httpx.create_ssl_context() if secure else False,
            proxy=proxy_for(url),
            answer_seconds=answer_seconds,
        ),
        trust_env=False,
    )


class _Transport(httpx.HTTPTransport):
    """httpx's transport over connections that are watched, and whose answers end in time."""

    def __init__(
        self, *, verify: ssl.SSLContext | bool, proxy: str | None, answer_seconds: Callable[[], float] | None
    ) -> None:
        # The variables were read above; httpx would apply them to loopback as well, and raise on some of them.
        super().__init__(
            verify=verify,
            proxy=proxy,
            limits=httpx.Limits(
                max_connections=MOST_CONNECTIONS,
                max_keepalive_connections=MOST_CONNECTIONS,
                keepalive_expiry=KEPT_SECONDS,
            ),
            socket_options=watched_socket(),
            trust_env=False,
        )
        if answer_seconds is not None:
            # httpx has no argument for it; its pool is one of three kinds, by the proxy, all with this attribute.
            self._pool._network_backend = LimitedNetwork(lambda: AnswerTime(answer_seconds))  # noqa: SLF001


def watched_socket() -> list[tuple[int, int, int]]:
    """Options of a TCP socket by which its kernel notices within CUT_OFF_SECONDS that the peer is gone without a FIN:
    (level, option, value) for `setsockopt`.

    Probes alone. TCP_USER_TIMEOUT would also end a connection to a live peer that does not read for some time, as one
    whose disk is slow (Linux 5.11 and later, tried on 6.18); what is on its way to a peer that is cut off waits for the
    request's own time-out.
    """
    probes = 2
    pause = CUT_OFF_SECONDS // (probes + 1)
    return [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, pause),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, pause),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes),
    ]


def proxy_for(url: str) -> str | None:
    """The proxy through which `url` (http, https, ws or wss) is reached, None for directly. Raises BadSetting.

    The proxy's address may hold a password: it belongs in no message.
    """
    target = urlsplit(url)
    host = target.hostname or ""
    scheme = _SCHEMES.get(target.scheme, target.scheme)
    variables = getproxies()
    name = next((name for name in (scheme, "all") if variables.get(name)), None)
    if name is None or is_loopback(host) or _excepted(target, scheme, variables.get("no", "")):
        return None
    return _checked(f"{name.upper()}_PROXY", variables[name])


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address without brackets, is this machine."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and (address.is_loopback or address.is_unspecified)


def _checked(variable: str, proxy: str) -> str:
    """The proxy's address with a scheme. Raises BadSetting, whose text never repeats the address."""
    full = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(full)
        sound = bool(parts.hostname) and (parts.port is None or parts.port > 0) and full.isprintable()
        httpx.URL(full)
    except (ValueError, httpx.InvalidURL):
        sound = False
    if not sound:
        raise BadSetting(name=variable, why="it is no address of a proxy", fix=_FIX)
    if parts.scheme in _SOCKS:
        if find_spec("socksio") is None:
            why = "it names a SOCKS proxy, which needs the Python package socksio"
            raise BadSetting(name=variable, why=why, fix=f"Install socksio, or give an http:// proxy. {_FIX}")
    elif parts.scheme not in _PORTS:
        why = f"proxies of the kind {parts.scheme}:// are not supported"
        raise BadSetting(name=variable, why=why, fix=f"Give an http:// or socks5:// proxy. {_FIX}")
    return full


# -- NO_PROXY ----------------------------------------------------------------------------------------------------------


def _excepted(target: SplitResult, scheme: str, no_proxy: str) -> bool:
    """Whether NO_PROXY names the target. Raises BadSetting for an entry that means nothing."""
    host = (target.hostname or "").rstrip(".").lower()
    port = target.port or _PORTS.get(scheme)
    entries = [entry.strip().lower() for entry in no_proxy.split(",") if entry.strip()]
    # All are read, so that a malformed one is refused whatever stands before it.
    return any([_names(entry, host, port) for entry in entries])  # noqa: C419


def _names(entry: str, host: str, port: int | None) -> bool:
    """Whether an entry of NO_PROXY covers the host: `*`, a network, an address, a host or a domain, with or without
    port.
    """
    if entry == "*":
        return True
    network = _network(entry)
    if network is not None:
        address = _address(host)
        return address is not None and address.version == network.version and address in network
    name, only = _split_port(entry)
    if only is not None and only != port:
        return False
    if (one := _address(name)) is not None:
        return one == _address(host)
    domain = name.removeprefix("*").removeprefix(".").rstrip(".")
    return host == domain or host.endswith("." + domain)


def _split_port(entry: str) -> tuple[str, int | None]:
    """Host and port, or None, of `host`, `host:port`, `[v6]`, `[v6]:port` or `v6`. Raises BadSetting."""
    if _address(entry) is not None:
        return entry, None
    try:
        # A name as any URL may have it; brackets hold an address.
        parts = urlsplit(f"//{entry.removeprefix('*')}")
        name, port = parts.hostname, parts.port
    except ValueError:
        name, port = None, None
    if (
        not name
        or parts.path
        or parts.query
        or parts.fragment
        or parts.username
        or not name.isprintable()
        or " " in name
    ):
        raise BadSetting(
            name="NO_PROXY",
            why=f"{entry[:80]!r} is no host, domain, address or network",
            fix="Separate hosts by commas, for example localhost,.example.org,10.0.0.0/8.",
        )
    return name, port


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """The IP network that an entry of NO_PROXY is; None if it is none."""
    if "/" not in text:
        return None
    try:
        return ipaddress.ip_network(text.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that a host is, IPv4 also where it is mapped into IPv6; None for a name."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
