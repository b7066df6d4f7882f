"""Notifications of new blocks, from a real node that is frozen, killed and rolled back."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import tempfile
import threading
from itertools import islice
from pathlib import Path

from structlog.testing import capture_logs
from websockets.sync.server import ServerConnection, serve

from chain.rpc.announced import Announced
from chain.rpc.client import Rpc
from chain.rpc.heads import heads
from chain.rpc.library import load_web3
from chain.rpc.subscription import Subscription
from chain.watch.logs import LogReader
from ops.stack import ports
from ops.stack.servers import anvil
from protocol.types import BlockNumber
from tests.integration.conftest import BLOCK_TIME, Chain
from tests.waiting import ample, freeze


def test_every_new_block_wakes_up_over_the_websocket(chain: Chain) -> None:
    found = list(islice(heads(chain.node.ws_url, chain.rpc, 60.0, threading.Event()), 6))

    # At a supposed 60 s between blocks polling would see nothing for half a minute.
    assert found[-1] >= found[0] + 3
    assert found == sorted(found)


def test_the_header_that_comes_with_a_head_says_what_the_node_says_when_it_is_asked(chain: Chain) -> None:
    announced, reader = Announced(), LogReader(chain.rpc, chain.at.hub)
    found = heads(chain.node.ws_url, chain.rpc, 60.0, threading.Event(), announced)
    head = list(islice(found, 4))[-1]

    assert reader.quiet(announced.between(head, head)) == reader.headers(head, head)
    assert announced.take() is not None
    found.close()
    assert announced.between(head, head) == [], "nothing is kept of a subscription that has ended"


HASH = "0x" + "11" * 32
#: A header as geth 1.17 announces it: web3.py knows too few of its fields to take it for one.
GETH_HEADER = {
    **dict.fromkeys(("parentHash", "sha3Uncles", "stateRoot", "transactionsRoot", "receiptsRoot", "mixHash"), HASH),
    **dict.fromkeys(("hash", "parentBeaconBlockRoot", "requestsHash", "blockAccessListHash"), HASH),
    **dict.fromkeys(("difficulty", "gasUsed", "blobGasUsed", "excessBlobGas", "slotNumber"), "0x0"),
    "withdrawalsRoot": HASH,
    "miner": "0x" + "22" * 20,
    "logsBloom": "0x" + "00" * 256,
    "gasLimit": "0x1c9c380",
    "timestamp": "0x6b0e5ccf",
    "extraData": "0xd88301110a846765746888676f312e32362e38856c696e7578",
    "nonce": "0x0000000000000000",
    "baseFeePerGas": "0x7",
}


def test_headers_that_web3_does_not_know_as_such_wake_up_too(chain: Chain) -> None:
    """Of geth since Cancun: each ended the subscription, so that blocks were polled for."""

    def announce(socket: ServerConnection) -> None:
        asked = json.loads(socket.recv())
        socket.send(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": "0x1"}))
        for number in range(1_000, 1_003):
            told = {"subscription": "0x1", "result": {**GETH_HEADER, "number": hex(number)}}
            socket.send(json.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": told}))
        socket.recv()

    announced = Announced()
    with serve(announce, "127.0.0.1", 0) as node:
        thread = threading.Thread(target=node.serve_forever, daemon=True)
        thread.start()
        url = f"ws://127.0.0.1:{node.socket.getsockname()[1]}"
        found = heads(url, chain.rpc, 60.0, threading.Event(), announced)
        while (head := next(found)) != 1_002:
            assert head <= 1_002
        assert [header["number"] for header in announced.between(BlockNumber(1_002), BlockNumber(1_002))] == ["0x3ea"]
        found.close()
        node.shutdown()


def test_every_new_block_wakes_up_over_a_nodes_own_socket(tmp_path: Path) -> None:
    # Sockets' paths are short: 107 bytes at most.
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/node.ipc"
        node = anvil.start(tmp_path / "anvil", ports.free_port(), block_time=BLOCK_TIME, extra=("--ipc", path))
        try:
            with Rpc(node.rpc_url) as rpc:
                found = list(islice(heads(f"ipc:{path}", rpc, 60.0, threading.Event()), 6))
        finally:
            node.stop()

    assert found[-1] >= found[0] + 3


def test_without_a_websocket_blocks_are_polled_for(chain: Chain) -> None:
    found = list(islice(heads(None, chain.rpc, BLOCK_TIME, threading.Event()), 4))

    assert found[-1] >= found[0] + 2


def test_a_wrong_websocket_address_falls_back_to_polling(chain: Chain) -> None:
    found = list(islice(heads("ws://127.0.0.1:1", chain.rpc, BLOCK_TIME, threading.Event()), 4))

    assert found[-1] >= found[0] + 2


def test_a_node_killed_and_started_again_is_listened_to_again(chain: Chain, tmp_path: Path) -> None:
    stop = threading.Event()
    found = heads(chain.node.ws_url, chain.rpc, BLOCK_TIME, stop)
    list(islice(found, 4))
    # So far on that no block of the first chain has such a number.
    far = chain.hub.head() + 100
    chain.node.process.kill()

    again = anvil.start(tmp_path / "again", chain.node.port, block_time=BLOCK_TIME)
    try:
        chain.rpc.call("anvil_mine", hex(far))
        first = next(head for head in found if head >= far)
        second = next(head for head in found if head > first)
    finally:
        again.stop()

    assert second > first


def test_a_chain_that_stands_still_still_wakes_up(chain: Chain) -> None:
    chain.rpc.call("evm_setIntervalMining", 0)

    found = list(islice(heads(chain.node.ws_url, chain.rpc, BLOCK_TIME, threading.Event()), 4))

    assert len(set(found[1:])) == 1


def test_a_stop_ends_the_wait_for_a_frozen_node(chain: Chain) -> None:
    stop = threading.Event()
    # It would wait for two hours by itself.
    found = heads(chain.node.ws_url, chain.rpc, 3600.0, stop)
    list(islice(found, 3))
    freeze(chain.node.pid)
    threading.Timer(0.2, stop.set).start()
    try:
        rest = list(found)
    finally:
        os.kill(chain.node.pid, signal.SIGCONT)

    assert len(rest) <= 1


def test_a_subscription_that_is_ended_twice_leaves_no_connection_open(chain: Chain) -> None:
    load_web3()
    subscription = Subscription(chain.node.ws_url)
    thread = threading.Thread(target=subscription.run)
    thread.start()
    assert subscription.next_head(ample(10.0)) is None, "its first item is the confirmation"
    # A node that does not answer the closing keeps it waiting, which is when the second end comes.
    freeze(chain.node.pid)
    try:
        loop = subscription._loop
        loop.call_soon_threadsafe(loop.call_later, 0.2, subscription.end)
        subscription.end()
        thread.join()
    finally:
        os.kill(chain.node.pid, signal.SIGCONT)
    assert asyncio.all_tasks(loop) == set()
    # An open connection would be an error of this test's: pytest reports what is not closed.
    gc.collect()


def test_a_node_that_thaws_wakes_up_again(chain: Chain) -> None:
    with Rpc(chain.node.rpc_url, timeout=0.5) as short_timeout_rpc:
        found = heads(None, short_timeout_rpc, BLOCK_TIME, threading.Event())
        before = next(found)
        freeze(chain.node.pid)
        threading.Timer(1.0, os.kill, (chain.node.pid, signal.SIGCONT)).start()

        assert next(head for head in found if head > before)


def test_a_subscription_that_misses_blocks_is_given_up_for_polling(chain: Chain, tmp_path: Path) -> None:
    frozen = anvil.start(tmp_path / "frozen", ports.free_port(), block_time=BLOCK_TIME)
    try:
        found = heads(frozen.ws_url, chain.rpc, BLOCK_TIME, threading.Event())
        list(islice(found, 3))
        freeze(frozen.pid)
        with capture_logs() as lines:
            for _ in found:
                if any(line["action"] == "heads_polling" for line in lines):
                    break
        # Nothing but a poll tells of these.
        head = chain.hub.head()
        assert next(later for later in found if later > head)
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
        frozen.stop()
