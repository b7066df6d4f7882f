"""What a registry's refusal says: of the image, or of this machine's own login there."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from protocol.errors import Refused, RefusedHere
from workers.data.registry import _bad_answer


class _Body(httpx.SyncByteStream):
    """A body that is read from the network."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content


def _denied(status: int, *, logged_in: bool, challenge: str = "") -> Exception:
    body = _Body(json.dumps({"errors": [] if challenge else [{"code": "DENIED"}]}).encode())
    answer = httpx.Response(status, stream=body)
    return _bad_answer("https://registry.example/v2/a/b/manifests/1", answer, challenge, logged_in=logged_in)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("challenge", ["", 'Bearer realm="https://r.example",error="insufficient_scope"'])
def test_a_denial_is_the_apps_failure_only_for_a_machine_without_a_login_of_its_own(
    status: int, challenge: str
) -> None:
    anonymous = _denied(status, logged_in=False, challenge=challenge)
    assert isinstance(anonymous, Refused)
    assert not isinstance(anonymous, RefusedHere)
    assert isinstance(_denied(status, logged_in=True, challenge=challenge), RefusedHere)
