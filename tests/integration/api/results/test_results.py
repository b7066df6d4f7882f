"""Uploads of results to a real API, IPFS and chain: what is stored, shared, refused, pinned and unpinned."""

from __future__ import annotations

import hashlib
import io
import json
import re
import secrets
import zipfile
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from typing import Any

import httpx

from config.connections.ipfs import Ipfs
from ops.stack import ports
from pipeline.domain.records import TaskRecord
from pipeline.flow.cleanup.keep_results import DAY, keep_results
from pipeline.store.client import database
from pipeline.store.pins import Pin
from protocol.poco import events
from protocol.poco.seal import result_hash
from protocol.results.digest import callback_digest, file_digest
from protocol.results.zip_rules import largest_zip
from protocol.types import BlockHash, BlockNumber, Contract, Hash32, TaskId, Timestamp, TxHash, Wallet
from tests.integration.api.conftest import STRANGER, TASK, WORKER, Api
from tests.integration.conftest import IpfsNode
from tests.waiting import ample, wait_until

RESULT = f"/tasks/{TASK}/result"
DIGEST = file_digest(hashlib.sha256(b"hello").digest())


def zipped(content: bytes = b"hello", computed: object = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        said = computed or {"deterministic-output-path": "/iexec_out/result.txt"}
        archive.writestr("computed.json", json.dumps(said))
        archive.writestr("result.txt", content)
    return buffer.getvalue()


COMPUTED = b'{"deterministic-output-path": "/iexec_out/result.txt"}'


def fetched(ipfs: IpfsNode, link: dict[str, str]) -> dict[str, bytes]:
    """Files that the requester gets."""
    content = httpx.get(f"{ipfs.gateway}{link['location']}", timeout=ample(10)).content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_files_that_a_winner_adds_to_the_right_result_do_not_reach_the_requester(
    api: Api, give: Callable[..., TaskRecord], ipfs: IpfsNode
) -> None:
    """Finding F10: a script, a page and a forged log beside the right result."""
    give(trust=5)
    header = api.bearer(WORKER)
    on_chain(api, WORKER.wallet, DIGEST)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        said = {"deterministic-output-path": "/iexec_out/result.txt", "message": "run run_me.sh"}
        archive.writestr("computed.json", json.dumps(said))
        for name in ("run_me.sh", "index.html", "stdout.txt", "result.txt.exe", "sub/deep.sh"):
            archive.writestr(name, b"evil")
        archive.writestr("result.txt", b"hello")
    answer = upload(api, header, b"#!/bin/sh\n" + buffer.getvalue())
    assert answer.status_code == 200, answer.text
    held = fetched(ipfs, answer.json()["link"])
    assert held == {"computed.json": COMPUTED, "result.txt": b"hello", "unproven/stdout.txt": b"evil"}


def test_a_second_winner_of_the_same_result_shares_the_link_without_sending_it(
    api: Api, give: Callable[..., TaskRecord]
) -> None:
    give(trust=5)
    first, second = api.bearer(WORKER), api.bearer(STRANGER)
    on_chain(api, WORKER.wallet, DIGEST)
    stored_once = upload(api, first, zipped()).json()
    on_chain(api, STRANGER.wallet, DIGEST, at=9)
    assert upload(api, second, b"").json() == stored_once
    assert upload(api, second, zipped(b"other")).json() == stored_once


def upload(api: Api, header: dict[str, str], body: bytes | Iterable[bytes]) -> httpx.Response:
    return api.http.put(RESULT, content=body, headers={**header, "content-type": "application/zip"})


def on_chain(api: Api, wallet: Wallet, digest: Hash32, *, consensus: Hash32 | None = None, at: int = 1) -> None:
    """Have the watcher's store show a vote, and an outcome."""
    happened: list[events.Event] = [
        events.TaskInitialize(TASK, Contract("0x" + "ac" * 20)),
        events.TaskContribute(TASK, wallet, result_hash(TASK, digest)),
    ]
    if consensus is not None:
        happened.append(events.TaskConsensus(TASK, result_hash(TASK, consensus)))
    api.services.store.chain.logs.put(
        [
            events.Seen(event, BlockNumber(at), BlockHash(f"0x{at:064x}"), Timestamp(at), TxHash(f"0x{at:064x}"), place)
            for place, event in enumerate(happened)
        ]
    )


def stored(api: Api) -> Any:
    task = api.services.store.tasks.get_task(TASK)
    assert task is not None
    return task.replicates[0]


def test_a_lone_workers_result_is_stored_and_can_be_fetched(
    api: Api, give: Callable[..., TaskRecord], ipfs: IpfsNode
) -> None:
    give()
    header = api.bearer(WORKER)
    body = zipped()
    answer = upload(api, header, body)
    assert (answer.status_code, answer.json()["digest"]) == (200, DIGEST)
    link = answer.json()["link"]
    assert link["storage"] == "ipfs"
    assert fetched(ipfs, link) == {"computed.json": COMPUTED, "result.txt": b"hello"}
    assert (stored(api).link.location, stored(api).digest) == (link["location"], DIGEST)
    again = upload(api, header, body)
    assert again.json() == answer.json()
    assert list(api.services.uploads.iterdir()) == []


def test_once_a_result_is_stored_it_is_the_answer_to_whatever_is_sent(
    api: Api, give: Callable[..., TaskRecord]
) -> None:
    give()
    header = api.bearer(WORKER)
    first = upload(api, header, zipped())
    assert upload(api, header, zipped(b"other")).json() == first.json()
    assert stored(api).digest == DIGEST


def test_a_voters_result_must_be_the_one_it_voted_for(api: Api, give: Callable[..., TaskRecord]) -> None:
    give(trust=5)
    header = api.bearer(WORKER)
    assert upload(api, header, zipped()).status_code == 409
    on_chain(api, WORKER.wallet, DIGEST)
    refused = upload(api, header, zipped(b"something else"))
    assert (refused.status_code, "voted for" in refused.json()["error"]) == (403, True)
    assert stored(api).link is None
    assert upload(api, header, zipped()).status_code == 200


def test_a_voter_that_the_record_does_not_know_may_report_and_store_its_result(
    api: Api, give: Callable[..., TaskRecord]
) -> None:
    give(trust=5)
    header = api.bearer(STRANGER)
    report = {"step": "computed"}
    assert api.http.post(f"/tasks/{TASK}/reports", json=report, headers=header).status_code == 403
    on_chain(api, STRANGER.wallet, DIGEST)
    assert api.http.post(f"/tasks/{TASK}/reports", json=report, headers=header).status_code == 204
    assert upload(api, header, zipped()).status_code == 200
    task = api.services.store.tasks.get_task(TASK)
    assert task is not None
    known = task.replicate(STRANGER.wallet)
    assert known is not None
    assert (known.digest, known.holds) == (DIGEST, False)


def test_a_loser_cannot_store_its_result(api: Api, give: Callable[..., TaskRecord]) -> None:
    give(trust=5)
    on_chain(api, WORKER.wallet, Hash32("0x" + "dd" * 32), consensus=DIGEST)
    assert upload(api, api.bearer(WORKER), zipped()).status_code == 403


def test_a_result_for_another_workers_task_is_refused(api: Api, give: Callable[..., TaskRecord]) -> None:
    give()
    assert upload(api, api.bearer(STRANGER), zipped()).status_code == 403
    assert upload(api, {}, zipped()).status_code == 401


def test_with_a_callback_the_data_is_kept_and_the_link_names_the_contract(
    api: Api, give: Callable[..., TaskRecord]
) -> None:
    contract, data = "0x" + "cb" * 20, "0x" + "00" * 31 + "2a"
    give(callback=contract)
    answer = upload(api, api.bearer(WORKER), zipped(computed={"callback-data": data}))
    assert answer.json() == {
        "link": {"storage": "ethereum", "location": contract},
        "digest": callback_digest(data),
    }
    assert stored(api).callback_data == data


def test_bodies_that_are_no_result_are_refused_and_leave_nothing(api: Api, give: Callable[..., TaskRecord]) -> None:
    give()
    header = api.bearer(WORKER)
    traversal = io.BytesIO()
    with zipfile.ZipFile(traversal, "w") as archive:
        archive.writestr("../evil", b"x")
    bombs = {
        "not a zip": (b"hello, I am no zip at all, whatever you think", 400),
        "empty": (b"", 400),
        "traversal": (traversal.getvalue(), 400),
        "no result": (zipped(computed={"deterministic-output-path": "/iexec_out/none"}), 400),
        "leaves the folder": (zipped(computed={"deterministic-output-path": "/iexec_out/../x"}), 400),
        "too large": (bytes(largest_zip(api.settings.max_result_bytes) + 1), 413),
    }
    assert {name: upload(api, header, body).status_code for name, (body, _) in bombs.items()} == {
        name: status for name, (_, status) in bombs.items()
    }
    assert upload(api, header, iter([bytes(largest_zip(api.settings.max_result_bytes)), b"x"])).status_code == 413
    assert list(api.services.uploads.iterdir()) == []
    assert stored(api).link is None


def test_without_ipfs_the_worker_is_asked_to_come_back(api: Api, give: Callable[..., TaskRecord]) -> None:
    give()
    header = api.bearer(WORKER)
    counted = not_stored(api)
    services = replace(api.services, ipfs=Ipfs(f"http://127.0.0.1:{ports.free_port()}"))
    application = api.application
    application.state.services = services
    try:
        assert upload(api, header, zipped()).status_code == 503
    finally:
        application.state.services = api.services
        services.ipfs.close()
    assert stored(api).link is None
    # Nobody is held to it, should the task fail.
    first = stored(api).not_stored_at
    assert first is not None
    api.services.store.uploads.record_not_stored(TASK, WORKER.wallet, first + 1)
    assert stored(api).not_stored_at == first
    # The last answer is given again for some seconds.
    wait_until(lambda: not_stored(api) == counted + 1, 10, what="the result in the metrics")


def not_stored(api: Api) -> float:
    (value,) = re.findall(r"^sluice_results_not_stored_total (\S+)$", api.operations.get("/metrics").text, re.MULTILINE)
    return float(value)


# -- how long it is kept -----------------------------------------------------------------------------------------------


def pinned(ipfs: IpfsNode, cid: str) -> bool:
    return httpx.post(f"{ipfs.api}/api/v0/pin/ls", params={"arg": cid}, timeout=ample(10)).is_success


def look(api: Api) -> None:
    """One run of the clock's task."""
    with closing(Ipfs(api.settings.ipfs_api)) as node:
        keep_results(api.services.store, node, api.settings.keep_results_days, api.clock())


def test_a_lone_workers_result_is_pinned_only_when_its_task_is_completed_and_unpinned_in_the_end(
    api: Api, give: Callable[..., TaskRecord], ipfs: IpfsNode
) -> None:
    give()
    body = secrets.token_bytes(20)
    location = upload(api, api.bearer(WORKER), zipped(body)).json()["link"]["location"]
    cid = location.removeprefix("/ipfs/")
    look(api)
    assert not pinned(ipfs, cid)
    database(api.settings)["tasks"].update_one({"_id": TASK}, {"$set": {"stage": "COMPLETED", "open": False}})
    api.clock.ahead = 120.0
    look(api)
    assert pinned(ipfs, cid)
    api.clock.ahead = api.settings.keep_results_days * DAY - 60
    look(api)
    assert pinned(ipfs, cid)
    api.clock.ahead += 120
    look(api)
    assert not pinned(ipfs, cid)
    assert api.services.store.pins.due(float("inf"), 1) == []


def test_a_result_whose_task_failed_is_never_pinned(api: Api, give: Callable[..., TaskRecord], ipfs: IpfsNode) -> None:
    give()
    cid = upload(api, api.bearer(WORKER), zipped(secrets.token_bytes(20))).json()["link"]["location"][6:]
    database(api.settings)["tasks"].update_one({"_id": TASK}, {"$set": {"stage": "FAILED", "open": False}})
    look(api)
    assert not pinned(ipfs, cid)
    assert api.services.store.pins.due(float("inf"), 1) == []


def test_content_that_another_task_still_has_stays_pinned(
    api: Api, give: Callable[..., TaskRecord], ipfs: IpfsNode
) -> None:
    give(trust=5)
    body = secrets.token_bytes(20)
    on_chain(api, WORKER.wallet, file_digest(hashlib.sha256(body).digest()))
    cid = upload(api, api.bearer(WORKER), zipped(body)).json()["link"]["location"].removeprefix("/ipfs/")
    assert pinned(ipfs, cid)
    until = api.clock() + api.settings.keep_results_days * DAY + DAY
    api.services.store.pins.put(Pin(cid, TaskId("0x" + "77" * 32), pinned=True, stored_at=api.clock() + DAY), until)
    api.clock.ahead = api.settings.keep_results_days * DAY + 60
    look(api)
    assert pinned(ipfs, cid)
    api.clock.ahead += DAY
    look(api)
    assert not pinned(ipfs, cid)
