"""A requester with the stock iExec SDK, who knows no more than what `sluice demo --json` prints, is served on chain.

The pool's side is played by hand here, so that a failure means the orders, the contracts or the link in the result; the
demo's own tests run the same requester against a whole pool.
"""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from chain.contracts import calls
from chain.contracts.decode import TOPICS, decode
from chain.rpc.heads import heads
from chain.testing import known
from ops.market import contracts, orders, results
from ops.poco.deploy import TEST_10_CATEGORY
from ops.poco.sender import TxRequest
from ops.stack import ports
from ops.stack.servers import ipfs
from ops.stack.servers.ipfs import Ipfs
from protocol.ethereum.hexbytes import to_hex
from protocol.poco.authorization import sign_authorization
from protocol.poco.events import SchedulerNotice
from protocol.poco.ids import task_id
from protocol.results.digest import file_digest
from protocol.types import DealId, Hash32
from tests.integration import sdk
from tests.integration.conftest import BLOCK_TIME, Chain
from tests.waiting import ample

#: Seconds for everything the SDK does: it looks at a task every 5 s.
WAIT_SECONDS = 90.0
CHECKSUM = Hash32("0x" + "11" * 32)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Ipfs]:
    server = ipfs.start(tmp_path / "ipfs", ports.free_port(), ports.free_port())
    yield server
    server.stop()


def test_the_stock_sdk_buys_follows_and_fetches_with_nothing_but_the_demos_output(
    chain: Chain, gateway: Ipfs, tmp_path: Path
) -> None:
    owner = chain.sender(1)
    app, pool = contracts.create(
        owner, chain.at, [contracts.NewApp("a", "sluice/a:1", CHECKSUM), contracts.NewWorkerpool("p")]
    )
    demo = tmp_path / "demo.json"
    demo.write_text(
        json.dumps(
            {
                "endpoints": {"rpc": chain.node.rpc_url, "hub": chain.at.hub, "ipfs_gateway": gateway.gateway},
                "orders": {
                    "app": orders.offer_app(chain.market, owner.key, app).to_json(),
                    "workerpool": orders.offer_work(chain.market, owner.key, pool, category=TEST_10_CATEGORY).to_json(),
                },
            }
        )
    )
    with sdk.start(demo, args="hello", seconds=ample(WAIT_SECONDS)) as requester:
        try:
            deal = await_deal(chain)
            task = task_id(deal, 0)
            serve(chain, deal, store(gateway, {"answer.txt": b"42"}))
            printed, complaints = requester.communicate(timeout=ample(WAIT_SECONDS))
        finally:
            requester.kill()

    assert requester.returncode == 0, complaints
    report = json.loads(printed)
    found = known(chain.hub.deals([deal])[0])
    assert found is not None
    assert (report["deal_id"], report["task_id"], report["requester"]) == (deal, task, found.requester)
    assert json.loads(found.params)["iexec_args"] == "hello"
    assert report["status"] == "COMPLETED"
    assert report["messages"][-1] == "TASK_COMPLETED"
    assert report["files"] == {"answer.txt": "42"}
    # And our own requester's side reads the same.
    view = chain.hub.tasks([task])[0]
    assert results.fetch(gateway.gateway, view.results).files == {"answer.txt": b"42"}


def serve(chain: Chain, deal: DealId, link: str) -> None:
    """Run the deal's only task as scheduler and worker in one."""
    owner, worker, task = chain.sender(1), chain.sender(2), task_id(deal, 0)
    begin = calls.initialize_array([(deal, 0)])
    owner.run([TxRequest(chain.at.hub, begin, calls.gas_limit("initializeArray", begin))])
    permission = sign_authorization(owner.key, worker.wallet, task)
    vote = calls.contribute_and_finalize(task, file_digest(b"\x07" * 32), link, permission)
    worker.run([TxRequest(chain.at.hub, vote, calls.gas_limit("contributeAndFinalize", vote))])


def await_deal(chain: Chain) -> DealId:
    """The first deal that the hub announces."""
    stop = threading.Event()
    timer = threading.Timer(ample(WAIT_SECONDS), stop.set)
    timer.start()
    wanted = {"address": chain.at.hub, "fromBlock": "0x0", "topics": [TOPICS["SchedulerNotice"]]}
    try:
        for _ in heads(None, chain.rpc, BLOCK_TIME, stop):
            for log in chain.rpc.call("eth_getLogs", wanted):
                event = decode(log)
                assert isinstance(event, SchedulerNotice)
                return event.deal_id
    finally:
        timer.cancel()
    raise AssertionError(f"no deal within {ample(WAIT_SECONDS):g} s")


def store(gateway: Ipfs, files: dict[str, bytes]) -> str:
    """Put a zip of `files` on IPFS; the link for the chain as `0x` hex."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return put(gateway.api, packed.getvalue())


def put(api: str, content: bytes) -> str:
    """Put a file on IPFS; the link for the chain as `0x` hex."""
    answer = httpx.post(f"{api}/api/v0/add?cid-version=0", files={"file": content}, timeout=ample(5.0))
    link = {"storage": "ipfs", "location": f"/ipfs/{answer.json()['Hash']}"}
    return to_hex(json.dumps(link).encode())
