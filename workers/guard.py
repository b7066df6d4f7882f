"""Which URLs of a deal this machine is willing to open. Pure but for the name look-up, which is passed in.

A requester chooses these URLs, so they must not reach what only this machine can reach: its own services, its local
network, a cloud's metadata address. Names are resolved once and the connection goes to the very address that was
checked, so that a name cannot answer differently the second time.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit, urlunsplit

from protocol.errors import Refused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Addresses of a host name, as text.
Resolve = Callable[[str, int], Iterable[str]]

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """One checked place to fetch from."""

    url: str
    scheme: str
    #: Host name as the server expects to see it.
    host: str
    port: int
    #: Checked address to connect to.
    address: str

    @property
    def pinned_url(self) -> str:
        """The URL with the checked address in place of the name."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        parts = urlsplit(self.url)
        return urlunsplit((self.scheme, f"{host}:{self.port}", parts.path or "/", parts.query, ""))

    @property
    def host_header(self) -> str:
        """`Host` header: the name, with its port unless it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def gateway_url(url: str, gateway: str) -> str | None:
    """URL at our own IPFS gateway, if `url` is an IPFS one (`/ipfs/…` or `ipfs://…`); else None."""
    path = "/ipfs/" + url.removeprefix("ipfs://").removeprefix("ipfs/") if url.startswith("ipfs://") else url
    return gateway.rstrip("/") + path if path.startswith("/ipfs/") else None


def check(url: str, resolve: Resolve, *, allow_private: bool) -> Target:
    """The one place behind `url` that may be opened. Raises Refused; what `resolve` raises passes through."""
    parts = _split(url)
    if parts.scheme not in _PORTS:
        raise Refused(why=f"only http and https addresses are fetched, not {parts.scheme or 'no scheme'}")
    if not parts.hostname:
        raise Refused(why="the address names no host")
    host, port = _host(parts.hostname), parts.port or _PORTS[parts.scheme]
    addresses = list(resolve(host, port))
    if not addresses:
        raise Refused(why=f"{host} has no address")
    for address in addresses:
        if not allow_private and not is_public(ipaddress.ip_address(address)):
            # One private address among public ones is how a guard gets walked around: refuse the name.
            raise Refused(why=f"{host} leads to a private address")
    return Target(url, parts.scheme, host, port, addresses[0])


def same_place(url: str, other: str) -> bool:
    """Whether both lead to the same host name and port by the same scheme. Raises Refused if either is malformed."""
    return _place(url) == _place(other)


def _place(url: str) -> tuple[str, str | None, int | None]:
    parts = _split(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def is_public(address: Address) -> bool:
    """Whether the address belongs to the open internet, also behind IPv6 transition prefixes."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and (address in _NAT64 or int(address) >> 32 & _ISATAP_MASK == _ISATAP):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
        if address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not address.is_multicast


#: RFC 6052: the last 32 bits are an IPv4 address.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: RFC 5214: an interface id of 0000:5efe or 0200:5efe before an IPv4 address.
_ISATAP, _ISATAP_MASK = 0x0000_5EFE, 0xFDFF_FFFF
#: RFC 4291: all that is routed on the internet; the rest holds embedded IPv4 (`::/96`), local NAT64 and the like.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")


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
    try:
        # Half of a surrogate pair is no character, and no request can carry it.
        url.encode()
        parts = urlsplit(url)
        # Reading the port is what finds a malformed one.
        _ = parts.port
    except ValueError as error:
        raise Refused(why="the address is malformed") from error
    return parts
