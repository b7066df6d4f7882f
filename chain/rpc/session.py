"""Connections to one node: a session of requests with bounded answers, which reads nothing but proxies from the
environment.

web3.py's HTTPProvider posts through it (`chain.rpc.transport`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.exceptions import ReadTimeoutError

from config.connections.http_client import proxy_for
from protocol.errors import BadSetting

#: How many time-outs a whole answer may take, chunk by chunk, and its most bytes: a block's receipts are a few MB.
WHOLE, MOST_BYTES = 6, 2**27
#: Connections kept to a node: as many as threads ask at once in any process.
_CONNECTIONS = 16
#: Bytes read at once.
_CHUNK = 2**16


class TooLong(requests.Timeout):
    """The answer began and did not end within its bounds. Caught by `chain.rpc.client`."""


@contextmanager
def _stall_as_too_long() -> Iterator[None]:
    """Within the block, raise TooLong for a stalled body: `requests` reports a cut connection, which is retried."""
    try:
        yield
    except requests.ConnectionError as error:
        if error.args and isinstance(error.args[0], ReadTimeoutError):
            raise TooLong("its answer stopped in the middle") from error
        raise


class NodeSession(requests.Session):
    """Connections to one node. No redirects, no variables of the environment but the proxy's, bounded answers."""

    def __init__(self, url: str, timeout: float, adapter: BaseAdapter | None) -> None:
        """`timeout`: seconds for connecting and for each piece of an answer. Raises BadSetting for a bad proxy."""
        super().__init__()
        self.trust_env = False
        self._timeout = timeout
        proxy = proxy_for(url) if adapter is None else None
        if proxy is not None:
            if proxy.startswith("socks") and find_spec("socks") is None:
                why = "it names a SOCKS proxy, which needs the Python package PySocks"
                raise BadSetting(name="ALL_PROXY", why=why, fix="Install PySocks, or give an http:// proxy.")
            self.proxies = {"http": proxy, "https": proxy}
        for scheme in ("http://", "https://"):
            self.mount(scheme, adapter or HTTPAdapter(pool_connections=1, pool_maxsize=_CONNECTIONS))

    def post(self, url: Any, data: Any = None, json: Any = None, **_: Any) -> requests.Response:
        """As `requests.post`, with the whole body read.

        Raises requests.HTTPError for any status but 2xx, and TooLong for a body over its limits.
        """
        until = time.monotonic() + WHOLE * self._timeout
        response = super().post(
            url,
            data=data,
            json=json,
            headers={"content-type": "application/json"},
            timeout=self._timeout,
            allow_redirects=False,
            stream=True,
        )
        content = bytearray()
        with response, _stall_as_too_long():
            for chunk in response.iter_content(_CHUNK):
                content += chunk
                if time.monotonic() > until or len(content) > MOST_BYTES:
                    raise TooLong(f"its answer did not end within {WHOLE * self._timeout:g} s and {MOST_BYTES} bytes")
        response._content = bytes(content)  # noqa: SLF001 # requests has no other way to keep what was streamed
        if not response.ok or response.is_redirect:
            raise requests.HTTPError(response=response)
        return response
