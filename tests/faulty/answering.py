"""A node for unit tests: requests that go to a function instead of a socket."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import httpx
import requests
from requests.adapters import BaseAdapter
from urllib3 import HTTPConnectionPool, HTTPResponse
from urllib3.exceptions import MaxRetryError, NewConnectionError, ProtocolError


class Answering(BaseAdapter):
    """Hands every request to `handler`; what it raises becomes what requests raises for it."""

    def __init__(self, handler: Callable[[httpx.Request], httpx.Response]) -> None:
        super().__init__()
        self._handler = handler

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """The handler's response as one of requests."""
        body = request.body.encode() if isinstance(request.body, str) else bytes(request.body or b"")
        try:
            answer = self._handler(httpx.Request(str(request.method), "http://node", content=body))
        except httpx.ConnectError as error:
            refused = NewConnectionError(HTTPConnectionPool("node"), str(error))  # type: ignore[arg-type] # only shown
            raise requests.ConnectionError(MaxRetryError(HTTPConnectionPool("node"), "/", refused)) from error
        except httpx.TimeoutException as error:
            raise requests.ReadTimeout from error
        except httpx.TransportError as error:
            raise requests.ConnectionError(ProtocolError("Connection aborted.", ConnectionResetError())) from error
        response = requests.Response()
        response.status_code = answer.status_code
        response.raw = HTTPResponse(io.BytesIO(answer.content), preload_content=False)
        response.url = str(request.url)
        response.request = request
        return response

    def close(self) -> None:
        """Nothing to close."""
