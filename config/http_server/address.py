"""Where a request comes from, as limits count it: an IPv4 address, or the /64 of an IPv6 one.

Whoever has one IPv6 address has 2**64 of them. Behind a proxy that SLUICE_TRUSTED_PROXIES names, uvicorn has put the
client's own address into the request.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Annotated

from fastapi import Depends, Request
from starlette.types import Scope

UNKNOWN = "unknown"


def origin_of(host: str | None) -> str:
    """The address that counts for a client's `host`; UNKNOWN for what is no address."""
    try:
        address = ip_address((host or "").partition("%")[0])
    except ValueError:
        return UNKNOWN
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)


def origin_of_scope(scope: Scope) -> str:
    """The address that counts for the client of an ASGI request, as `origin_of`; UNKNOWN without a client."""
    client = scope.get("client")
    return origin_of(client[0] if client else None)


def _origin(request: Request) -> str:
    """The address a request came from, as a dependency of FastAPI routes."""
    return origin_of_scope(request.scope)


Origin = Annotated[str, Depends(_origin)]
