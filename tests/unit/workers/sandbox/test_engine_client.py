"""Requests to the Docker engine say what `requests` would say, over one pool of connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import docker
import pytest
from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter

from workers.sandbox.engine.client import EngineClient, OnePool


class Kept(BaseAdapter):
    """Keeps what is asked, and answers with nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[PreparedRequest] = []

    def send(self, request: PreparedRequest, *_: Any, **__: Any) -> Response:
        self.asked.append(request)
        answer = Response()
        answer.status_code, answer.url = 200, str(request.url)
        answer._content = b"{}"
        return answer

    def close(self) -> None:
        """Nothing is open."""


def said(client: docker.APIClient, method: str, parts: Mapping[str, Any]) -> PreparedRequest:
    """What this client sends for a request with these parts."""
    kept = Kept()
    client.mount("http+docker://", kept)
    client.request(method, "http+docker://localhost/v1.41/containers/x", **parts)
    return kept.asked[0]


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("GET", {}),
        ("GET", {"params": {"all": 1, "size": True, "since": None, "filters": '{"label": ["a=b c"]}'}}),
        ("POST", {"params": {"condition": "not-running"}, "timeout": 5}),
        ("POST", {"data": '{"Image": "é"}', "headers": {"Content-Type": "application/json"}}),
        ("DELETE", {"params": {"v": True, "link": False, "force": True}}),
    ],
)
def test_a_request_is_what_docker_pys_own_client_sends(method: str, parts: Mapping[str, Any]) -> None:
    theirs = said(docker.APIClient(base_url="unix:///nowhere", version="1.41"), method, parts)
    ours = EngineClient.__new__(EngineClient)
    docker.APIClient.__init__(ours, base_url="unix:///nowhere", version="1.41")
    mine = said(ours, method, parts)
    assert (mine.method, mine.url) == (theirs.method, theirs.url)
    assert (mine.body or b"") == (theirs.body.encode() if isinstance(theirs.body, str) else theirs.body or b"")
    assert dict(mine.headers.lower_items()) == dict(theirs.headers.lower_items())


def test_requests_about_different_containers_share_their_connections() -> None:
    adapter = OnePool("http+unix:///nowhere", 60)
    first, second = (adapter.get_connection(f"http+docker://localhost/v1.41/containers/{name}") for name in "ab")
    assert first is second
    adapter.close()
