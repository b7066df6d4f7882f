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
from tests.integration.api.test_results import RESULT, stored, zipped
from tests.waiting import ample, wait_until
from workers.pool.api import RESUMED_BYTES, PoolApi

#: With what a zip adds just long enough to be asked for.
CONTENT = secrets.token_bytes(RESUMED_BYTES)
ZIP = zipped(CONTENT)
SHA256 = hashlib.sha256(ZIP).hexdigest()
HALF = len(ZIP) // 2


class Cut(Exception):
    """The worker's end of the line is gone."""


def put(api: Api, header: dict[str, str], body: bytes, rest: Rest) -> httpx.Response:
    return api.http.put(RESULT, content=body, headers={**header, **rest.headers()})


def held(api: Api, header: dict[str, str]) -> int | None:
    """Bytes that the pool says it has; None while it still has the request."""
    answer = api.http.head(RESULT, headers={**header, "repr-digest": digest_header(SHA256)})
    assert answer.status_code in {204, 409}
    return int(answer.headers["upload-offset"]) if answer.status_code == 204 else None


def cut_half_way(api: Api, header: dict[str, str]) -> None:
    """Send half of the zip, close the connection, and wait until the pool has noticed."""

    def half() -> Iterator[bytes]:
        yield ZIP[:HALF]
        raise Cut

    whole = Rest(0, len(ZIP), SHA256).headers()
    headers = {**header, **whole, "content-length": str(len(ZIP))}
    with pytest.raises(Cut), httpx.Client(base_url=api.http.base_url, timeout=ample(10.0)) as line:
        line.put(RESULT, content=half(), headers=headers)
    wait_until(lambda: held(api, header), 10.0, what="what came of the upload")


def test_an_upload_that_is_cut_goes_on_where_it_was_cut(
    api: Api, give: Callable[..., TaskRecord], tmp_path: Path
) -> None:
    give()
    header = api.bearer(WORKER)
    cut_half_way(api, header)
    assert held(api, header) == HALF
    archive = tmp_path / "result.zip"
    archive.write_bytes(ZIP)
    worker, token = PoolApi(str(api.http.base_url)), header["authorization"].removeprefix("Bearer ")
    try:
        answer = worker.put_result(token, TASK, archive)
        assert worker.put_result(token, TASK, archive) == answer
    finally:
        worker.close()
    assert answer.digest == stored(api).digest == file_digest(hashlib.sha256(CONTENT).digest())
    assert list(api.services.uploads.iterdir()) == []


def test_a_hostile_continuation_stores_nothing_and_leaves_nothing(api: Api, give: Callable[..., TaskRecord]) -> None:
    give()
    header, stranger = api.bearer(WORKER), api.bearer(STRANGER)
    cut_half_way(api, header)
    # Another wallet.
    assert held(api, stranger) == 0
    assert put(api, stranger, ZIP[HALF:], Rest(HALF, len(ZIP), SHA256)).status_code == 403
    # Beyond what is there.
    gap = put(api, header, ZIP[HALF + 1 :], Rest(HALF + 1, len(ZIP), SHA256))
    assert (gap.status_code, gap.headers["upload-offset"]) == (409, str(HALF))
    # More than a result may have, and another length than the body's.
    most = largest_zip(api.settings.max_result_bytes)
    assert put(api, header, b"x", Rest(most, most + 1, SHA256)).status_code == 413
    assert put(api, header, ZIP[HALF:] + b"x", Rest(HALF, len(ZIP), SHA256)).status_code == 400
    assert held(api, header) == HALF
    # Other bytes.
    other = put(api, header, bytes(len(ZIP) - HALF), Rest(HALF, len(ZIP), SHA256))
    assert (other.status_code, other.headers["upload-offset"]) == (409, "0")
    assert list(api.services.uploads.iterdir()) == []
    # Another zip, which is not mixed with what came of the first.
    cut_half_way(api, header)
    mixed = put(api, header, ZIP[HALF:], Rest(HALF, len(ZIP), "00" * 32))
    assert (mixed.status_code, mixed.headers["upload-offset"]) == (409, "0")
    assert list(api.services.uploads.iterdir()) == []
    assert stored(api).link is None
