"""Which URLs of a deal this machine is willing to open. Pure but for the name look-up, which is passed in.

A requester chooses these URLs, so they must not reach what only this machine can reach: its own services, also at its
public address, which no firewall keeps it from, its local network, a cloud's metadata address. Names are resolved once
and the connection goes to the very address that was checked, so that a name cannot answer differently the second time.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from protocol.errors import Refused, RefusedHere

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Addresses of a host name, as text.
Resolve = Callable[[str, int], Iterable[str]]

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class DownloadTarget:
    """One checked place to fetch from."""

    url: str
    scheme: str
    #: Host name as the server expects to see it.
    host: str
    port: int
    #: Checked addresses of the host, in the resolver's order; at least one.
    addresses: tuple[str, ...]

    def pinned(self, address: str) -> str:
        """The URL with one of the checked addresses in place of the name."""
        host = f"[{address}]" if ":" in address else address
        parts = urlsplit(self.url)
        return urlunsplit((self.scheme, f"{host}:{self.port}", parts.path or "/", parts.query, ""))

    @property
    def host_header(self) -> str:
        """`Host` header: the name, with its port unless it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def gateway_url(url: str, gateway: str) -> str | None:
    """The URL at our own IPFS gateway, if `url` is an IPFS one (`/ipfs/…` or `ipfs://…`); else None.

    Raises Refused for a path that leads out of `/ipfs/`, to other services of the gateway's host.
    """
    path = "/ipfs/" + url.removeprefix("ipfs://").removeprefix("ipfs/") if url.startswith("ipfs://") else url
    if not path.startswith("/ipfs/"):
        return None
    if not _below_ipfs(re.split("[?#]", path, maxsplit=1)[0]):
        raise Refused(why="the IPFS path is malformed")
    return gateway.rstrip("/") + path


def inside_gateway(url: str, gateway: str) -> bool:
    """Whether `url` leads to content at our own gateway, and to nothing else on its host. Raises Refused."""
    base, parts = _split(gateway), _split(url)
    prefix = base.path.rstrip("/")
    return same_place(url, gateway) and parts.path.startswith(prefix) and _below_ipfs(parts.path[len(prefix) :])


def _below_ipfs(path: str) -> bool:
    """Whether a URL's path names a CID and stays below it, however often a server may decode it."""
    for _ in range(_DECODINGS):
        plain = unquote(path, errors="surrogateescape")
        if plain == path:
            break
        path = plain
    else:
        return False
    parts = path.split("/")
    climbs = any(part in {".", ".."} for part in parts) or any(mark in path for mark in "\\\0\r\n\t")
    return not climbs and parts[:2] == ["", "ipfs"] and len(parts) > 2 and _CID.fullmatch(parts[2]) is not None


#: A path that is encoded more often than this is no honest file name.
_DECODINGS = 4
#: Letters and digits of base58, base32, base36 and base64url, which CIDs are written in.
_CID = re.compile(r"[A-Za-z0-9_=-]+")


def check(
    url: str, resolve: Resolve, *, allow_private: bool, is_own: Callable[[str], bool] = lambda _: False
) -> DownloadTarget:
    """Resolve and check `url`: returns the only target that may be opened for it, with its addresses. `is_own`: whether
    a public address is this machine's, which is refused like a private one.

    Raises Refused for what every machine refuses; RefusedHere for a name that this machine's resolver leads to a
    private address, since another resolver may answer otherwise, and for this machine's own; and what `resolve` raises.
    """
    parts = _split(url)
    if parts.scheme not in _PORTS:
        raise Refused(why=f"only http and https addresses are fetched, not {parts.scheme or 'no scheme'}")
    if not parts.hostname:
        raise Refused(why="the address names no host")
    host, port = _host(parts.hostname), parts.port or _PORTS[parts.scheme]
    addresses = tuple(resolve(host, port))
    if not addresses:
        raise RefusedHere(why=f"{host} has no address")
    for address in addresses:
        if not allow_private and not is_public(ipaddress.ip_address(address)):
            # One private address among public ones is how a guard gets walked around: refuse the name.
            why = f"{host} leads to a private address"
            raise Refused(why=why, private=True) if _is_address(host) else RefusedHere(why=why, private=True)
        if not allow_private and is_own(address):
            raise RefusedHere(why=f"{host} leads to this machine itself")
    return DownloadTarget(url, parts.scheme, host, port, addresses)


def _is_address(host: str) -> bool:
    """Whether a host is an IP address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def same_place(url: str, other: str) -> bool:
    """Whether both lead to the same host name and port by the same scheme. Raises Refused if either is malformed."""
    return _place(url) == _place(other)


def same_host(url: str, other: str) -> bool:
    """Whether both name the same host, by any scheme and port. False for what is malformed."""
    try:
        return _split(url).hostname == _split(other).hostname
    except Refused:
        return False


def _place(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port that a URL leads to. Raises Refused."""
    parts = _split(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def is_public(address: Address) -> bool:
    """Whether the address belongs to the open internet, also behind IPv6 transition prefixes."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped
        if inner is None and (address in _NAT64 or int(address) >> 32 & _ISATAP_MASK == _ISATAP):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
        if address not in _GLOBAL_UNICAST:
            return False
    if any(address in network for network in _SPECIAL if network.version == address.version):
        return False
    return address.is_global and not address.is_multicast


#: RFC 6052: the last 32 bits are an IPv4 address.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: RFC 5214: an interface id of 0000:5efe or 0200:5efe before an IPv4 address.
_ISATAP, _ISATAP_MASK = 0x0000_5EFE, 0xFDFF_FFFF
#: RFC 4291: all that is routed on the internet; the rest holds embedded IPv4 (`::/96`), local NAT64 and the like.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
#: Addresses that look public and are not, or that reach what only a machine of that provider can reach. Python's
#: `is_global` differs between versions in the first four.
_SPECIAL = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # RFC 6890: protocol assignments; Oracle Cloud's metadata at 192.0.0.192
        "2001::/23",  # RFC 2928: protocol assignments; Teredo (RFC 4380), benchmarks, ORCHID
        "2002::/16",  # RFC 3056: 6to4, an IPv4 address inside
        "3fff::/20",  # RFC 9637: documentation
        "192.88.99.0/24",  # RFC 7526: 6to4 relays
        "192.31.196.0/24",  # RFC 7535: AS112
        "192.52.193.0/24",  # RFC 7450: AMT
        "192.175.48.0/24",  # RFC 7534: AS112
        "2620:4f:8000::/48",  # RFC 7534: AS112
        "100.64.0.0/10",  # RFC 6598: carriers' inside; Alibaba Cloud's metadata at 100.100.100.200
        "168.63.129.16/32",  # Azure's host agent
        "161.26.0.0/16",  # IBM Cloud's inside
        "166.8.0.0/14",  # IBM Cloud's inside
    )
)


def _host(name: str) -> str:
    """The name as DNS and the `Host` header carry it. Raises Refused for one that they cannot."""
    try:
        host = name.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise Refused(why="the address names no possible host") from error
    if not host.isprintable():
        raise Refused(why="the address names no possible host")
    return host


def _split(url: str) -> SplitResult:
    """The parts of a URL. Raises Refused for a malformed one."""
    try:
        # Half of a surrogate pair is no character, and no request can carry it.
        url.encode()
        parts = urlsplit(url)
        # Reading the port is what finds a malformed one.
        _ = parts.port
    except ValueError as error:
        raise Refused(why="the address is malformed") from error
    return parts
