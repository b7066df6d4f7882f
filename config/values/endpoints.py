"""Ethereum nodes as the settings name them, and which of their addresses workers may be given.

Node providers put their customer's key into the address: before the `@`, in the path or in the query.
"""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from config.connections.broker_nodes import public_nodes
from config.connections.http_client import is_loopback
from config.settings import Settings
from protocol.errors import BadSetting
from protocol.poco.tags import Framework

_FIX = "Give an address like http://host:8545."
_SMS = "SLUICE_ENCLAVE_SMS_URL"
_SMS_FIX = (
    "Give an address like https://sms.pool.example, or TDX=https://tdx.pool.example,SCONE=https://scone.pool.example."
)
#: To listen on each of the machine's addresses.
ALL_ADDRESSES = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared with, not listened on
#: Schemes without encryption.
_PLAINTEXT = frozenset({"http", "ws", "amqp"})
_HTTP, _WEBSOCKET = frozenset({"http", "https"}), frozenset({"ws", "wss"})


def rpc_urls(settings: Settings) -> list[str]:
    """Every node of SLUICE_RPC_URL, at least one. Raises BadSetting; its text never repeats the address."""
    urls = [url.strip() for url in settings.rpc_url.split(",") if url.strip()]
    if not urls:
        raise _bad("SLUICE_RPC_URL", "it names no node")
    for url in urls:
        _split("SLUICE_RPC_URL", url, _HTTP)
    return urls


def asks_who_announces(settings: Settings) -> bool:
    """Whether the node that announces new heads is the one that answers requests, judged by the addresses: another node
    may be on another branch, or lack an announced block. Raises BadSetting.

    They are the same node if both addresses have one host and only one port of it is in SLUICE_RPC_URL. On loopback,
    where several nodes and tunnels to nodes share the host, the port must be the same too: as with anvil, but not with
    a local geth at 8545 and 8546, which is asked for each head.
    """
    asked = {_place(url) for url in rpc_urls(settings)}
    host, port = _place(settings.ws_url or "")
    if is_loopback(host or ""):
        return asked == {(host, port)}
    return len(asked) == 1 and {host} == {name for name, _ in asked}


def public_endpoints(settings: Settings) -> tuple[str, str | None]:
    """RPC address, and WebSocket address or None, that workers are given.

    The pool's own address is given only if nothing in it can be a key; a WebSocket with one is not given at all, since
    workers can do without. Raises BadSetting if SLUICE_PUBLIC_RPC_URL is needed.
    """
    return _public_rpc(settings), _public_ws(settings)


def secret_services(settings: Settings) -> dict[Framework, str]:
    """The secret service for each kind of enclave that the pool serves, without a slash at its end. Raises BadSetting.

    One address is that of every kind: a service refuses tasks that are not of its own.
    """
    found: dict[Framework, str] = {}
    for part in (part.strip() for part in (settings.enclave_sms_url or "").split(",") if part.strip()):
        name, named, url = part.partition("=")
        kinds = [kind for kind in Framework if not named or kind == name.strip().upper()]
        if not kinds or found.keys() & kinds:
            raise _bad(_SMS, f"{name.strip()} is no kind of enclave, or is named twice", _SMS_FIX)
        address = (url if named else part).strip()
        _split(_SMS, address, _HTTP, _SMS_FIX)
        found |= dict.fromkeys(kinds, address.rstrip("/"))
    return found


def loopback_warnings(settings: Settings) -> list[str]:
    """A sentence for each address given to workers that leads a machine elsewhere to itself.

    None for a pool of this machine only, whose API listens on loopback and is named so. Raises BadSetting.
    """
    api = urlsplit(settings.api_url).hostname or ""
    listens_here = is_loopback(settings.api_host) and settings.api_host not in ALL_ADDRESSES
    if listens_here and is_loopback(api):
        return []
    given = [
        ("SLUICE_API_URL", settings.api_url),
        *(("SLUICE_AMQP_PUBLIC_HOST", url) for url in _public_broker(settings)),
        ("SLUICE_IPFS_GATEWAY", settings.ipfs_gateway),
        ("SLUICE_PUBLIC_RPC_URL", _public_rpc(settings)),
        *((_SMS, url) for url in sorted({*secret_services(settings).values()})),
    ]
    return [
        f"{name} is {value}, which leads a machine elsewhere to itself."
        for name, value in given
        if is_loopback(urlsplit(value).hostname or "")
    ]


def plaintext_warnings(settings: Settings) -> list[str]:
    """A sentence for each address given to workers that those on other machines refuse, since it is not encrypted.

    None if the pool's own SLUICE_ALLOW_PLAINTEXT says that its network is trusted. Raises BadSetting.
    """
    given = [
        ("SLUICE_API_URL", settings.api_url),
        *(("SLUICE_AMQP_PUBLIC_TLS", url) for url in _public_broker(settings)),
        ("SLUICE_PUBLIC_RPC_URL", _public_rpc(settings)),
        ("SLUICE_PUBLIC_WS_URL", _public_ws(settings) or ""),
        *((_SMS, url) for url in sorted({*secret_services(settings).values()})),
    ]
    return [
        f"{name}: {value} is not encrypted, so workers refuse it unless they set SLUICE_ALLOW_PLAINTEXT."
        for name, value in given
        if not settings.allow_plaintext and _is_plaintext_elsewhere(value)
    ]


def require_encrypted(what: str, url: str, *, allowed: bool) -> None:
    """Raise BadSetting if `url` leads to another machine without encryption, unless that is `allowed`.

    `what`: what is reached there, for the message, which holds nothing of `url` but scheme, host and port.
    """
    if allowed or not _is_plaintext_elsewhere(url):
        return
    parts = urlsplit(url)
    raise BadSetting(
        name="SLUICE_ALLOW_PLAINTEXT",
        why=f"it is not set, and {what} is at {parts.scheme}://{parts.netloc.rpartition('@')[2]}, which is not"
        " encrypted: others on the way could read and change what is sent",
        fix="Use an address with TLS (ask the pool's operator for one), or set it to true on a network that you trust.",
    )


def broker_url(host: str, port: int, *, tls: bool) -> str:
    """RabbitMQ's address as a URL, without a user. `host`: a name, or an address without brackets."""
    return f"{'amqps' if tls else 'amqp'}://{f'[{host}]' if ':' in host else host}:{port}"


def _place(url: str) -> tuple[str | None, int | None]:
    """Host and port of a URL, None where it names none, or is no URL."""
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port
    except ValueError:
        return None, None


def _public_broker(settings: Settings) -> list[str]:
    """AMQP URLs, without a password, of the nodes that workers connect to."""
    return [broker_url(node.host, node.port, tls=settings.amqp_public_tls) for node in public_nodes(settings)]


def _is_plaintext_elsewhere(url: str) -> bool:
    """Whether a URL leads to another machine without encryption."""
    try:
        parts = urlsplit(url)
    except ValueError:
        # Whoever connects to it says that it is no URL.
        return False
    return parts.scheme in _PLAINTEXT and not is_loopback(parts.hostname or "")


def _public_rpc(settings: Settings) -> str:
    """The node that workers are given. Raises BadSetting if that could give them a key of the operator's."""
    if settings.public_rpc_url:
        _split("SLUICE_PUBLIC_RPC_URL", settings.public_rpc_url, _HTTP)
        return settings.public_rpc_url
    first = rpc_urls(settings)[0]
    if _may_hold_key(_split("SLUICE_RPC_URL", first, _HTTP)):
        raise BadSetting(
            name="SLUICE_PUBLIC_RPC_URL",
            why="it is not set, and SLUICE_RPC_URL may hold a key of yours, so it is not given to workers",
            fix="Set it to a node that workers may use.",
        )
    return first


def _public_ws(settings: Settings) -> str | None:
    """The WebSocket that workers are given; None if the only one may hold a key. Raises BadSetting."""
    if settings.public_ws_url:
        _split("SLUICE_PUBLIC_WS_URL", settings.public_ws_url, _WEBSOCKET)
        return settings.public_ws_url
    own = urlsplit(settings.ws_url or "")
    return settings.ws_url if own.scheme in _WEBSOCKET and not _may_hold_key(own) else None


def require_url(setting: str, url: str, *, fix: str) -> str:
    """Returns `url` if it is http or https; else raises BadSetting for `setting`, whose text never contains the URL."""
    _split(setting, url, _HTTP, fix)
    return url


def _may_hold_key(parts: SplitResult) -> bool:
    """Whether a URL has any part in which providers put a key: user, path, query, fragment."""
    return "@" in parts.netloc or parts.path not in {"", "/"} or bool(parts.query) or bool(parts.fragment)


def _split(setting: str, url: str, schemes: frozenset[str], fix: str = _FIX) -> SplitResult:
    """The parts of a setting's URL. Raises BadSetting for another scheme, no host, or no URL at all."""
    try:
        parts = urlsplit(url)
        # Reading the port is what finds a malformed one.
        _ = parts.port
    except ValueError as error:
        raise _bad(setting, "it is no URL", fix) from error
    if parts.scheme not in schemes or not parts.hostname or not url.isprintable() or " " in url:
        kinds = " or ".join(f"{scheme}://" for scheme in sorted(schemes))
        raise _bad(setting, f"it does not begin with {kinds} and a host name", fix)
    return parts


def _bad(setting: str, why: str, fix: str = _FIX) -> BadSetting:
    """The error for a setting that holds a wrong URL."""
    return BadSetting(name=setting, why=why, fix=fix)
