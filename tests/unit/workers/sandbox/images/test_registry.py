"""What a registry's refusal says: of the image, or of this machine's own login there."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from protocol.errors import RateLimited, Refused, RefusedHere, StorageUnavailable, WrongPlatform
from workers.data.download import retry_after
from workers.data.registry import _bad_answer, _choose


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


@pytest.mark.parametrize(
    ("status", "code", "limited"), [(429, "", True), (429, "TOOMANYREQUESTS", True), (403, "TOOMANYREQUESTS", False)]
)
def test_a_registry_that_has_given_enough_for_now_is_told_from_one_that_is_away(
    status: int, code: str, limited: bool
) -> None:
    body = _Body(json.dumps({"errors": [{"code": code}]}).encode())
    answer = httpx.Response(status, stream=body, headers={"retry-after": "90"})
    error = _bad_answer("https://registry.example/v2/a/b/manifests/1", answer, "", logged_in=False)
    assert isinstance(error, RateLimited) == limited
    if isinstance(error, StorageUnavailable):
        assert retry_after(error) == 90.0


def test_an_index_without_an_image_for_this_platform_names_those_that_it_has() -> None:
    offer = {"platform": {"os": "linux", "architecture": "arm64"}, "digest": "sha256:" + "a" * 64}
    index = json.dumps({"manifests": [offer]}).encode()
    assert _choose(index, ("linux", "arm64")) == offer["digest"]
    with pytest.raises(WrongPlatform, match="for linux/arm64, and this machine is linux/amd64"):
        _choose(index, ("linux", "amd64"))


def test_an_entry_of_an_index_that_names_no_platform_is_taken_where_no_other_fits() -> None:
    """An attestation beside it names `unknown`; what is neither is left to the image's configuration."""
    proof = {"platform": {"os": "unknown", "architecture": "unknown"}, "digest": "sha256:" + "c" * 64}
    named = {"platform": {"os": "linux", "architecture": "arm64"}, "digest": "sha256:" + "a" * 64}
    unnamed = {"digest": "sha256:" + "b" * 64}
    index = json.dumps({"manifests": [proof, unnamed, named]}).encode()
    assert _choose(index, ("linux", "arm64")) == named["digest"]
    assert _choose(index, ("linux", "amd64")) == unnamed["digest"]


@pytest.mark.parametrize("manifests", [None, 7, "text", ["text"], [None], [{}], [{"digest": 1, "platform": 3}]])
def test_an_index_that_cannot_be_read_is_asked_for_again(manifests: object) -> None:
    with pytest.raises(StorageUnavailable, match="index cannot be read"):
        _choose(json.dumps({"manifests": manifests}).encode(), ("linux", "amd64"))
