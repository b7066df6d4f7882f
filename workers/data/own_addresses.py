"""Whether an address is one of this machine's own, by the kernel's routes: also a public one, at which it may serve
what a firewall keeps from all others.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from contextlib import closing
from typing import Final

#: rtnetlink(7): a question for a route, a route as the answer, and a route that ends at this machine.
_GET_ROUTE, _ROUTE, _LOCAL = 26, 24, 2
_REQUEST: Final = 1
#: Attribute of a route: where it leads.
_DESTINATION: Final = 1
_HEADER, _ROUTE_MESSAGE, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=8BI"), struct.Struct("=HH")
#: Index of the kind of route in _ROUTE_MESSAGE.
_KIND: Final = 7
_ANSWER_BYTES: Final = 4096
#: Seconds: the kernel answers at once.
_SECONDS: Final = 2.0


def is_own(address: str) -> bool:
    """Whether packets to an IP address end at this machine; False where the kernel does not say."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    try:
        with closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)) as kernel:
            kernel.settimeout(_SECONDS)
            kernel.send(_question(found))
            answer = kernel.recv(_ANSWER_BYTES)
    except OSError:
        return False
    return _leads_here(answer)


def _question(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    """A message that asks for the route to an address."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address.packed), _DESTINATION) + address.packed
    body = _ROUTE_MESSAGE.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0) + attribute
    return _HEADER.pack(_HEADER.size + len(body), _GET_ROUTE, _REQUEST, 1, 0) + body


def _leads_here(answer: bytes) -> bool:
    """Whether a message is a route that ends at this machine; False for an error, e.g. of a network without a route."""
    if len(answer) < _HEADER.size + _ROUTE_MESSAGE.size:
        return False
    kind, route = _HEADER.unpack_from(answer)[1], _ROUTE_MESSAGE.unpack_from(answer, _HEADER.size)
    return bool(kind == _ROUTE and route[_KIND] == _LOCAL)
