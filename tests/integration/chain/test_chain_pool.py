"""Real nodes behind one face: one frozen, one behind, one on another chain."""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from chain.lane.model.nonce import Fees, Purpose
from chain.lane.signer import KeySigner, to_self
from chain.rpc.answers import Reply
from chain.rpc.client import Request, Rpc
from chain.rpc.pool import CHECK_SECONDS, RpcPool
from ops.poco.accounts import dev_key
from ops.poco.state import CHAIN_ID
from ops.stack import ports
from ops.stack.servers import anvil
from ops.stack.servers.anvil import Anvil
from protocol.errors import RpcUnavailable, WrongChain
from protocol.types import Nonce, Wei
from tests.integration.conftest import Chain
from tests.waiting import freeze, wait_until

#: Seconds a node may take in this test; long enough for a busy machine, short enough to wait for.
TIMEOUT = 3.0
#: Calls in a row, and how many of them may wait for a frozen node: one, and more only where the machine is so
#: busy that the good node is late as well, which makes every node the last hope in turn.
CALLS, FEW_TIMEOUTS = 50, 10
WAIT_SECONDS = 30.0
#: An account with native tokens on every one of these chains.
KEY = dev_key(5)


class CountingRpc(Rpc):
    """A node that counts how often who reads from a pool waited for it and got no answer."""

    unanswered = 0

    def batch(self, requests: Sequence[Request]) -> list[Reply]:
        """As a node; the pool's own checks, which have threads of their own, do not count."""
        try:
            return super().batch(requests)
        except RpcUnavailable:
            self.unanswered += threading.current_thread() is threading.main_thread()
            raise


@dataclass(frozen=True, slots=True)
class Farm:
    """Nodes to put into a pool."""

    good: Anvil
    start: Callable[..., Anvil]
    pool: Callable[..., RpcPool]
    #: The nodes of the pools that were made, by address.
    nodes: dict[str, CountingRpc]

    def waits(self, node: Anvil) -> int:
        """How many reads waited for that node and got no answer."""
        return self.nodes[node.rpc_url].unanswered


@pytest.fixture
def farm(chain: Chain, tmp_path: Path) -> Iterator[Farm]:
    """`chain` is the good node; `start` starts more, on other chains or forks of it; all is undone at the end."""
    asked: dict[str, CountingRpc] = {}
    with ExitStack() as undo:

        def start(*extra: str, chain_id: int = CHAIN_ID) -> Anvil:
            folder = tmp_path / secrets.token_hex(4)
            node = anvil.start(folder, ports.free_port(), chain_id=chain_id, block_time=3600, extra=extra)
            undo.callback(node.stop)
            return node

        def pool(*nodes: Anvil) -> RpcPool:
            members = {node.rpc_url: CountingRpc(node.rpc_url, TIMEOUT) for node in nodes}
            asked.update(members)
            made = RpcPool(list(members.values()), CHAIN_ID)
            undo.callback(made.close)
            return made

        yield Farm(chain.node, start, pool, asked)


@contextmanager
def frozen(node: Anvil) -> Iterator[None]:
    """The node neither answers nor hangs up."""
    freeze(node.pid)
    try:
        yield
    finally:
        os.kill(node.pid, signal.SIGCONT)


def test_a_node_that_freezes_costs_at_most_one_time_out(chain: Chain, farm: Farm) -> None:
    second = farm.start("--fork-url", chain.node.rpc_url)
    pool = farm.pool(chain.node, second)
    pool.call("eth_chainId")
    with frozen(chain.node):
        for _ in range(CALLS):
            pool.call("eth_chainId")

    # None where one of the pool's own checks was the first to ask it.
    assert farm.waits(chain.node) < FEW_TIMEOUTS


def test_a_node_that_is_frozen_from_the_start_costs_no_time_out(chain: Chain, farm: Farm) -> None:
    second = farm.start("--fork-url", chain.node.rpc_url)
    pool = farm.pool(second, chain.node)
    with frozen(second):
        for _ in range(CALLS):
            pool.call("eth_blockNumber")

    assert farm.waits(second) < FEW_TIMEOUTS


def test_of_a_frozen_a_late_a_strange_and_a_good_node_the_good_one_is_asked_and_takes_the_transactions(
    chain: Chain, farm: Farm
) -> None:
    late = farm.start("--fork-url", chain.node.rpc_url)
    asleep = farm.start("--fork-url", chain.node.rpc_url)
    strange = farm.start(chain_id=5)
    chain.rpc.call("anvil_mine", hex(10))
    pool = farm.pool(strange, late, asleep, chain.node)
    with frozen(asleep):
        # The first answer may come from the late node, as long as nobody knows of a later block.
        wait_until(lambda: int(pool.call("eth_blockNumber"), 16) >= _head(chain.rpc), WAIT_SECONDS)
        heads = [int(pool.call("eth_blockNumber"), 16) for _ in range(CALLS)]
        (payment,) = KeySigner(KEY).sign(
            [to_self(KEY.wallet, CHAIN_ID, Nonce(0), Fees(Wei(10**11), Wei(10**9)), Purpose.YIELD, "")]
        )
        (answer,) = pool.batch([("eth_sendRawTransaction", (payment.raw,))])
        wait_until(lambda: chain.rpc.call("eth_getTransactionReceipt", payment.tx_hash), WAIT_SECONDS)

    assert answer == payment.tx_hash
    assert heads == sorted(heads)
    assert farm.waits(asleep) < FEW_TIMEOUTS
    with Rpc(strange.rpc_url) as stranger:
        assert stranger.call("eth_getTransactionByHash", payment.tx_hash) is None


def test_a_node_that_wakes_up_takes_part_again(chain: Chain, farm: Farm) -> None:
    second = farm.start("--fork-url", chain.node.rpc_url)
    pool = farm.pool(chain.node, second)
    with frozen(chain.node):
        wait_until(lambda: pool.call("eth_blockNumber"), WAIT_SECONDS)
    chain.rpc.call("anvil_mine", hex(10))
    # The other one is ten blocks behind as soon as this one has said how far it is.
    wait_until(lambda: int(pool.call("eth_blockNumber"), 16) >= _head(chain.rpc), WAIT_SECONDS + CHECK_SECONDS)


def test_if_all_nodes_are_on_another_chain_it_is_said(farm: Farm) -> None:
    strangers = farm.start(chain_id=5), farm.start(chain_id=6)
    with pytest.raises(WrongChain, match=f"is on chain {CHAIN_ID}"):
        farm.pool(*strangers).call("eth_blockNumber")


def _head(rpc: Rpc) -> int:
    return int(rpc.call("eth_blockNumber"), 16)
