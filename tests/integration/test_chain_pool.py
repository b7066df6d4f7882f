"""Two real nodes behind one face, one of them frozen."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from chain.pool import RpcPool
from chain.rpc import Rpc
from ops.stack import anvil, ports
from tests.integration.conftest import Chain

#: Seconds a node may take in this test; long enough for a busy machine, short enough to wait for.
TIMEOUT = 1.0


def test_a_frozen_node_costs_one_time_out_and_no_more(chain: Chain, tmp_path: Path) -> None:
    second = anvil.start(
        tmp_path / "second", ports.free_port(), block_time=3600, extra=("--fork-url", chain.node.rpc_url)
    )
    pool = RpcPool([Rpc(chain.node.rpc_url, TIMEOUT), Rpc(second.rpc_url, TIMEOUT)], 31337)
    try:
        pool.call("eth_chainId")
        os.kill(chain.node.pid, signal.SIGSTOP)
        began = time.monotonic()
        for _ in range(20):
            pool.call("eth_chainId")
        took = time.monotonic() - began
    finally:
        os.kill(chain.node.pid, signal.SIGCONT)
        second.stop()
        pool.close()

    assert took < 2 * TIMEOUT
