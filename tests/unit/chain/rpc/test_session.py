"""What each request to a node carries beside its body."""

from __future__ import annotations

import io
import json
from email.message import Message
from types import SimpleNamespace
from typing import Any

import requests
from requests.adapters import BaseAdapter
from urllib3 import HTTPResponse

from chain.rpc.client import Rpc


class Balanced(BaseAdapter):
    """A node behind a load balancer, which sets a cookie; keeps the headers of each request."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[dict[str, str]] = []

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """The call's method as its result."""
        self.asked.append({name.lower(): str(value) for name, value in request.headers.items()})
        call = json.loads(request.body or b"")
        body = json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": call["method"]}).encode()
        headers = Message()
        headers["Set-Cookie"] = "server=a; Path=/"
        response = requests.Response()
        response.status_code, response.request, response.url = 200, request, str(request.url)
        response.headers.update(dict(headers))
        original: Any = SimpleNamespace(msg=headers, isclosed=lambda: False)
        response.raw = HTTPResponse(io.BytesIO(body), preload_content=False, original_response=original)
        return response

    def close(self) -> None:
        """Nothing to close."""


def test_each_request_carries_the_login_of_the_url_and_the_cookies_that_the_node_has_set() -> None:
    node = Balanced()
    rpc = Rpc("https://user:secret@node.example/v3", adapter=node)

    assert [rpc.call("eth_chainId") for _ in range(3)] == ["eth_chainId"] * 3

    assert [headers.get("cookie") for headers in node.asked] == [None, "server=a", "server=a"]
    assert {headers["authorization"] for headers in node.asked} == {"Basic dXNlcjpzZWNyZXQ="}
    assert {headers["content-type"] for headers in node.asked} == {"application/json"}
