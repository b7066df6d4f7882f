"""Uploads that are cut and go on, over real connections."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from pipeline.domain.records import TaskRecord
from protocol.results.digest import file_digest
from protocol.results.resumed_upload import Rest, digest_header
from protocol.results.zip_rules import largest_zip
from tests.integration.api.conftest import STRANGER, TASK, WORKER, Api
from tests.integration.api.results.test_results import RESULT, stored, zipped
from tests.waiting import ample, wait_until
from workers.pool.api import RESUMED_BYTES, PoolApi

#: With what a zip adds just long enough to be asked for.
CONTENT = secrets.token_bytes(RESUMED_BYTES)
ZIP = zipped(CONTENT)
SHA256 = hashlib.sha256(ZIP).hexdigest()
HALF = len(ZIP) // 2
DIGEST = file_digest(hashlib.sha256(CONTENT).digest())
#: Its last byte alone.
LAST = Rest(len(ZIP) - 1, len(ZIP), SHA256)


class Cut(Exception):
    """The worker's end of the line is gone."""


def put(api: Api, header: dict[str, str], body: bytes, rest: Rest) -> httpx.Response:
    return api.http.put(RESULT, content=body, headers={**header, **rest.headers()})


def held(api: Api, header: dict[str, str]) -> int:
    """Bytes that the pool says it has."""
    answer = api.http.head(RESULT, headers={**header, "repr-digest": digest_header(SHA256)})
    assert answer.status_code == 204
    return int(answer.headers["upload-offset"])


def cut_half_way(api: Api, header: dict[str, str]) -> int:
    """Send half of the zip, close the connection, and wait until the pool has noticed: bytes that it has. It may be
    less than was sent, since a server drops what it has not handed on when a connection ends.
    """

    def half() -> Iterator[bytes]:
        yield ZIP[:HALF]
        raise Cut

    headers = {**header, **Rest(0, len(ZIP), SHA256).headers(), "content-length": str(len(ZIP))}
    with pytest.raises(Cut), httpx.Client(base_url=api.http.base_url, timeout=ample(10.0)) as line:
        line.put(RESULT, content=half(), headers=headers)
    wait_until(lambda: held(api, header), 10.0, what="what came of the upload")
    # While the pool still has the request it says so, without an offset.
    wait_until(lambda: "upload-offset" in put(api, header, b"x", LAST).headers, 10.0, what="the end of the upload")
    assert 0 < held(api, header) <= HALF
    return held(api, header)


def test_an_upload_that_is_cut_goes_on_where_it_was_cut(api: Api, give: Callable[..., TaskRecord]) -> None:
    give()
    header = api.bearer(WORKER)
    first = cut_half_way(api, header)
    rest = Rest(first, len(ZIP), SHA256)
    answer = put(api, header, ZIP[first:], rest)
    assert answer.status_code == 200, answer.text
    assert answer.json()["digest"] == stored(api).digest == DIGEST
    assert put(api, header, ZIP[-1:], LAST).json() == answer.json()
    assert list(api.services.uploads.iterdir()) == []


def test_a_worker_goes_on_with_an_upload_that_was_cut(
    api: Api, give: Callable[..., TaskRecord], tmp_path: Path
) -> None:
    give()
    header = api.bearer(WORKER)
    cut_half_way(api, header)
    archive = tmp_path / "result.zip"
    archive.write_bytes(ZIP)
    worker, token = PoolApi(str(api.http.base_url)), header["authorization"].removeprefix("Bearer ")
    try:
        answer = worker.put_result(token, TASK, archive)
        assert worker.put_result(token, TASK, archive) == answer
    finally:
        worker.close()
    assert answer.digest == stored(api).digest == DIGEST
    assert list(api.services.uploads.iterdir()) == []


def test_a_hostile_continuation_stores_nothing_and_leaves_nothing(api: Api, give: Callable[..., TaskRecord]) -> None:
    """Bodies that are refused unread are short: a long one may find its connection closed before the answer."""
    give()
    header, stranger = api.bearer(WORKER), api.bearer(STRANGER)
    first = cut_half_way(api, header)
    # Another wallet.
    assert held(api, stranger) == 0
    assert put(api, stranger, b"x", LAST).status_code == 403
    # Beyond what is there.
    gap = put(api, header, b"x", LAST)
    assert (gap.status_code, gap.headers["upload-offset"]) == (409, str(first))
    # More than a result may have, and another length than the body's.
    most = largest_zip(api.settings.max_result_bytes)
    assert put(api, header, b"x", Rest(most, most + 1, SHA256)).status_code == 413
    assert put(api, header, b"xy", LAST).status_code == 400
    assert held(api, header) == first
    # Other bytes.
    other = put(api, header, bytes(len(ZIP) - first), Rest(first, len(ZIP), SHA256))
    assert (other.status_code, other.headers["upload-offset"]) == (409, "0")
    assert list(api.services.uploads.iterdir()) == []
    # Another zip, which is not mixed with what came of the first.
    cut_half_way(api, header)
    mixed = put(api, header, b"x", Rest(len(ZIP) - 1, len(ZIP), "00" * 32))
    assert (mixed.status_code, mixed.headers["upload-offset"]) == (409, "0")
    assert list(api.services.uploads.iterdir()) == []
    assert stored(api).link is None
