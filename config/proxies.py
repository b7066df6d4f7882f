"""Proxy variables (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY), put in order once before any library reads them.

Operators set them for other programs. Every library reads them in its own way: some send calls to this very machine to
the proxy, and one fails on an address in brackets.
"""

from __future__ import annotations

from collections.abc import MutableMapping

import httpx

from protocol.errors import BadSetting

_PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")
_EXCEPTIONS = "NO_PROXY"
#: Calls to this machine never go through a proxy.
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def settle(environ: MutableMapping[str, str]) -> None:
    """Have loopback calls go direct, and NO_PROXY in a form that all libraries read; with neither, change nothing.

    Raises BadSetting for what cannot be honoured, rather than at the first call that needs it.
    """
    for name in (*_PROXIES, _EXCEPTIONS):
        # The small letters win everywhere, also when they are empty.
        value = environ.get(name.lower(), environ.get(name))
        if value is not None:
            environ[name] = environ[name.lower()] = value.strip()
    given = [name for name in _PROXIES if environ.get(name)]
    if not given and not environ.get(_EXCEPTIONS):
        return
    wanted = [_host(entry) for entry in environ.get(_EXCEPTIONS, "").split(",") if entry.strip()]
    if "*" not in wanted:
        environ[_EXCEPTIONS] = environ[_EXCEPTIONS.lower()] = ",".join(dict.fromkeys([*wanted, *LOOPBACK]))
    for name in given:
        try:
            httpx.Proxy(environ[name] if "://" in environ[name] else f"http://{environ[name]}")
            httpx.HTTPTransport(proxy=environ[name], verify=False).close()
        except ImportError as error:
            fix = "Name an http:// proxy instead, or unset it for Sluice."
            raise BadSetting(name=name, why="Sluice cannot speak to a SOCKS proxy", fix=fix) from error
        except (httpx.InvalidURL, ValueError) as error:
            # Never the value: it may hold a password.
            raise BadSetting(name=name, why="it is no address of a proxy", fix="Write http://host:port.") from error
    try:
        httpx.Client(verify=False).close()  # noqa: S501 - only to see whether the variables can be read; asks nobody
    except (httpx.InvalidURL, ValueError) as error:
        why = f"one of its entries is no host name or address ({error})"
        raise BadSetting(name=_EXCEPTIONS, why=why, fix="Separate host names by commas.") from error


def _host(entry: str) -> str:
    """An entry of NO_PROXY without what only some programs read: brackets, and a port behind them."""
    entry = entry.strip()
    if entry.startswith("[") and "]" in entry:
        return entry[1 : entry.index("]")]
    return entry
