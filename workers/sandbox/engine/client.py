"""docker-py's client with half the processor time per request.

one pool      of connections for all requests: docker-py keeps one for each URL, and a container's are used once
no web        nothing of what `requests` does for web sites: redirects, cookies, hooks, proxies, files with logins
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import docker
from docker.transport.unixconn import UnixHTTPAdapter, UnixHTTPConnectionPool
from requests import PreparedRequest, Response
from requests.structures import CaseInsensitiveDict


class EngineClient(docker.APIClient):
    """docker-py's client of the engine at `host`; asks the engine for its version. `timeout`: seconds for a request."""

    def __init__(self, host: str, timeout: int) -> None:
        super().__init__(base_url=host, version="auto", timeout=timeout)
        # The engine is never behind a proxy.
        self.trust_env = False
        adapter = self.get_adapter(self.base_url)
        if isinstance(adapter, UnixHTTPAdapter):
            adapter.close()
            self.mount("http+docker://", OnePool(f"http+unix://{adapter.socket_path}", timeout))

    def request(  # type: ignore[override] # docker-py passes no more than these
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stream: bool = False,
        **others: Any,
    ) -> Response:
        """Send one request, as `requests` does. What is not plain (a body in pieces, a form) goes there."""
        body = data.encode() if isinstance(data, str) else data
        plain = body is None or isinstance(body, bytes)
        if not plain or any(value is not None for name, value in others.items() if name != "allow_redirects"):
            return super().request(
                method, url, params=params, data=data, headers=headers, timeout=timeout, stream=stream, **others
            )
        asked = PreparedRequest()
        query = urlencode({name: value for name, value in (params or {}).items() if value is not None}, doseq=True)
        asked.method, asked.url, asked.body = method, f"{url}?{query}" if query else url, body
        every: dict[str, Any] = {**self.headers, **(headers or {})}
        asked.headers = CaseInsensitiveDict(every)
        if body is not None or method not in {"GET", "HEAD"}:
            asked.headers["Content-Length"] = str(len(body or b""))
        verify = True if self.verify is None else self.verify
        response = self.get_adapter(url).send(
            asked, stream=stream, timeout=timeout, verify=verify, cert=self.cert, proxies={}
        )
        if not stream:
            # Read to its end, so that the connection is free again.
            _ = response.content
        return response


class OnePool(UnixHTTPAdapter):
    """docker-py's adapter for a Unix socket with one pool of connections, whatever the URL."""

    def get_connection(self, url: Any, proxies: Any = None) -> UnixHTTPConnectionPool:  # noqa: ARG002 - docker-py's
        """The one connection pool, whatever the URL. `requests` calls it for each request."""
        return super().get_connection("http+docker://localhost", proxies)
