"""Downloads from servers that mean no good, over real sockets."""

from __future__ import annotations

import json
import time
from http.server import ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from protocol.errors import Refused, RefusedHere, TaskDeclined
from tests.faulty.http import Handler, beside
from tests.integration.conftest import IpfsNode
from tests.integration.dripping import serving
from tests.unit.workers.assignments import task_id
from tests.waiting import ample
from workers.data.download import DownloadBudget, DownloadPolicy, download
from workers.task.deadline import TaskDeadline

#: Content that no node of the tests has: a CID of 32 random bytes.
ELSEWHERE = "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n"


def add_folder(ipfs: IpfsNode, name: str) -> str:
    """CID of a folder with one file of that name."""
    answer = httpx.post(
        f"{ipfs.api}/api/v0/add",
        params={"wrap-with-directory": "true", "cid-version": "0"},
        files={"file": (name, b"data")},
        timeout=ample(10),
    ).raise_for_status()
    return str(json.loads(answer.text.splitlines()[-1])["Hash"])


def budget(seconds: float = 0.5, *, aborted: bool = False) -> DownloadBudget:
    return DownloadBudget(TaskDeadline(task_id(1), time.time() + seconds, time.time, lambda: aborted), 2**20)


def policy(gateway: str = "http://127.0.0.1:1", *, private: bool = True, near: bool = True) -> DownloadPolicy:
    return DownloadPolicy(gateway=gateway, max_bytes=2**20, allow_private=private, private_gateway=near)


@pytest.mark.parametrize(
    ("first", "drip"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nx-long: ", b"x"),
        (b"", b"H"),
    ],
    ids=["body", "header", "nothing"],
)
def test_a_server_that_drips_gets_no_more_than_the_tasks_time(tmp_path: Path, first: bytes, drip: bytes) -> None:
    # It drips for ever.
    with serving(first, drip) as place, pytest.raises(TaskDeclined):
        download(f"http://{place}/x", tmp_path / "x", policy(), budget())
    assert list(tmp_path.iterdir()) == []


def test_an_abort_ends_a_download(tmp_path: Path) -> None:
    with (
        serving(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", b"x") as place,
        pytest.raises(TaskDeclined, match="ABORTED"),
    ):
        download(f"http://{place}/x", tmp_path / "x", policy(), budget(60, aborted=True))


def test_the_gateway_may_be_private_but_leads_to_no_other_private_place(tmp_path: Path) -> None:
    secret = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nsecret"
    with serving(secret) as inner:
        answer = f"HTTP/1.1 302 Found\r\nlocation: http://{inner}/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        with serving(answer.encode()) as gate, pytest.raises(Refused, match="private"):
            download("/ipfs/Qm", tmp_path / "x", policy(f"http://{gate}", private=False), budget(ample(10)))
        download("/ipfs/Qm", tmp_path / "x", policy(f"http://{inner}", private=False), budget(ample(10)))
    assert (tmp_path / "x").read_bytes() == b"secret"


def test_what_a_redirect_adds_for_its_reader_alone_is_not_repeated(tmp_path: Path) -> None:
    """A server may lead to an address that is signed for this machine, and a cause is shown to anybody."""
    absent = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    with serving(absent) as there:
        led = f"http://{there}/file?signature=secret"
        answer = f"HTTP/1.1 302 Found\r\nlocation: {led}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        with serving(answer.encode()) as here, pytest.raises(Refused, match="404") as caught:
            download(f"http://{here}/file?mine=yes", tmp_path / "x", policy(), budget(ample(10)))
    assert "secret" not in str(caught.value)


def test_a_gateway_that_only_the_pool_named_leads_to_no_private_place_and_that_is_no_fault_of_the_app(
    tmp_path: Path,
) -> None:
    secret = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nsecret"
    with serving(secret) as inner, pytest.raises(RefusedHere, match=r"private.*SLUICE_IPFS_GATEWAY"):
        at = policy(f"http://{inner}", private=False, near=False)
        download("/ipfs/Qm", tmp_path / "x", at, budget(ample(10)))
    assert list(tmp_path.iterdir()) == []


def test_a_deal_leads_to_no_service_at_this_machines_own_public_address_but_to_content_of_the_pools_gateway_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here loopback stands for it: the kernel has it as this machine's own."""
    monkeypatch.setattr("workers.data.guard.is_public", lambda _: True)
    secret = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nsecret"
    with serving(secret) as own:
        at = policy(f"http://{own}", private=False, near=False)
        with pytest.raises(RefusedHere, match="this machine itself"):
            download(f"http://{own}/metrics", tmp_path / "x", at, budget(ample(10)))
        assert list(tmp_path.iterdir()) == []
        download("/ipfs/Qm", tmp_path / "x", at, budget(ample(10)))
    assert (tmp_path / "x").read_bytes() == b"secret"


WHOLE = b"one\ntwo\n"


@pytest.mark.parametrize(
    "sent",
    [[WHOLE] * 2, [b"one\n", *[WHOLE] * 3], [b"o", b"one\n", *[WHOLE] * 2]],
    ids=["never cut", "once", "twice"],
)
def test_a_file_whose_server_tells_its_end_by_hanging_up_is_whole_once_it_came_twice_alike(
    tmp_path: Path, sent: list[bytes]
) -> None:
    """A server that breaks off looks the same, and nothing else says that an input file is whole."""
    sent = [*sent]

    class Files(Handler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:  # noqa: N802 - the library's name
            self.send_response(200)
            self.end_headers()
            self.wfile.write(sent.pop(0))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    with beside(server):
        download(f"http://127.0.0.1:{server.server_port}/x", tmp_path / "x", policy(), budget(ample(20)))
    assert (tmp_path / "x").read_bytes() == WHOLE
    assert sent == []


def test_what_the_gateway_does_not_have_now_is_asked_again_and_only_a_proof_of_absence_counts(
    ipfs: IpfsNode, tmp_path: Path
) -> None:
    folder = add_folder(ipfs, "present")
    at = policy(ipfs.gateway)
    download(f"/ipfs/{folder}/present", tmp_path / "x", at, budget(60))
    with pytest.raises(Refused, match="404"):
        download(f"/ipfs/{folder}/absent", tmp_path / "x", at, budget(60))
    for path in (f"/ipfs/{ELSEWHERE}", f"/ipfs/{ELSEWHERE}/file"):
        with pytest.raises(TaskDeclined):
            download(path, tmp_path / "y", at, budget())
