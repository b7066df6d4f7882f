"""Blocks that geth announces over its WebSocket. Run by `make test-geth`, since geth builds long."""

from __future__ import annotations

import threading
from itertools import islice
from pathlib import Path

from chain.rpc.announced import Announced
from chain.rpc.client import Rpc
from chain.rpc.heads import heads
from chain.watch.logs import LogReader
from ops.stack import ports
from ops.stack.servers import geth
from protocol.types import ZERO_ADDRESS, Contract


def test_every_new_block_of_geth_wakes_up_with_its_header(tmp_path: Path) -> None:
    node, announced = geth.start(tmp_path / "geth", ports.free_port()), Announced()
    try:
        with Rpc(node.rpc_url) as rpc:
            # At a supposed 60 s between blocks polling would see nothing for half a minute.
            found = heads(node.ws_url, rpc, 60.0, threading.Event(), announced)
            first, *_, last = islice(found, 5)
            assert last >= first + 3
            reader = LogReader(rpc, Contract(ZERO_ADDRESS))
            assert reader.quiet(announced.between(last, last)) == reader.headers(last, last)
            found.close()
    finally:
        node.stop()
