"""Fixtures of the integration tests: real parts, each test with a chain of its own."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pymongo import MongoClient

from chain.contracts.hub import Hub
from chain.rpc.client import Rpc
from config.connections import mongodb
from config.connections.http_client import http_client
from config.settings import Settings, read_settings
from config.values.stack_settings import StackSettings
from ops.market.orders import Market
from ops.poco.accounts import dev_key
from ops.poco.deploy import PocoAddresses
from ops.poco.sender import TIP, DirectSender, TxRequest
from ops.poco.state import CHAIN_ID, PocoState, ensure_state
from ops.stack import ports, tools
from ops.stack.parts import StackPart, credentials
from ops.stack.servers import anvil
from ops.stack.servers.anvil import Anvil
from ops.stack.servers.node import BLOCK_GAS
from ops.stack.stack import Stack
from ops.stack.stack import up as bring_up
from pipeline.store.database import sharding
from protocol.errors import RpcError
from protocol.ethereum.transaction import Transaction, sign_transaction
from protocol.types import Nonce, TxHash
from tests.waiting import ample

#: Seconds between blocks: many blocks a test, and yet mined by interval as everywhere.
BLOCK_TIME = 0.25


@pytest.fixture(scope="session", autouse=True)
def no_connection_is_left_open() -> Iterator[None]:
    """The store's clients live as long as their process; a test process closes its own at the end."""
    yield
    mongodb.close()


@dataclass(frozen=True, slots=True)
class Chain:
    """A development chain with PoCo on it."""

    node: Anvil
    rpc: Rpc
    at: PocoAddresses
    #: Whether blocks come only when a test sends through a `sender`, or mines one.
    by_hand: bool = False

    @property
    def hub(self) -> Hub:
        """Reads the PoCo hub."""
        return Hub(self.rpc, self.at.hub)

    @property
    def market(self) -> Market:
        """What orders are bound to."""
        return Market(CHAIN_ID, self.at.hub)

    def sender(self, index: int) -> DirectSender:
        """Development account `index`; 0 is the deployer, 1 to 9 hold native tokens and RLC."""
        kind = MiningSender if self.by_hand else QuickSender
        return kind(dev_key(index), self.rpc, CHAIN_ID)

    def mine(self, blocks: int = 1) -> None:
        """Have so many blocks mined now; the first takes what is pooled."""
        self.rpc.call("anvil_mine", hex(blocks))


class QuickSender(DirectSender):
    """Signs as a lane does, and sends a batch in one exchange: web3.py's middleware, by which pools of whole processes
    are prepared, takes five times as long, and half of these tests begin with ten transactions.
    """

    def send(self, calls: Sequence[TxRequest]) -> list[TxHash]:
        """As DirectSender."""
        nonce, fee = self._nonce_and_fee()
        signed = [
            sign_transaction(
                self.key,
                Transaction(
                    chain_id=self.chain_id,
                    nonce=Nonce(nonce + place),
                    to=call.to,
                    data=call.data,
                    value=call.value,
                    gas=call.gas,
                    max_fee_per_gas=fee,
                    max_priority_fee_per_gas=TIP,
                ),
            )
            for place, call in enumerate(calls)
        ]
        for answer in self.rpc.batch([("eth_sendRawTransaction", (raw,)) for raw, _ in signed]):
            if isinstance(answer, RpcError):
                raise answer
        return [tx_hash for _, tx_hash in signed]


class MiningSender(QuickSender):
    """A sender whose every batch is in a block when it is sent."""

    def send(self, calls: Sequence[TxRequest]) -> list[TxHash]:
        """As QuickSender, then one block."""
        sent = super().send(calls)
        self.rpc.call("evm_mine")
        return sent


@dataclass(frozen=True, slots=True)
class IpfsNode:
    """Addresses of an IPFS node."""

    api: str
    gateway: str


@pytest.fixture(scope="session")
def poco_state() -> PocoState:
    """The saved chain that every test's own chain starts from."""
    return ensure_state(tools.root() / ".sluice")


@pytest.fixture
def chain(poco_state: PocoState, tmp_path: Path) -> Iterator[Chain]:
    """A fresh chain with PoCo, a block every BLOCK_TIME: for processes that live on a chain."""
    node = anvil.start(tmp_path / "anvil", ports.free_port(), block_time=BLOCK_TIME, load=poco_state.path)
    try:
        with Rpc(node.rpc_url, timeout=ample(3.0)) as rpc:
            yield Chain(node, rpc, poco_state.addresses)
    finally:
        node.stop()


@contextmanager
def standing_still(state: PocoState, folder: Path) -> Iterator[Chain]:
    """A fresh chain with PoCo that stands still but for the blocks that are asked for."""
    node = anvil.start(folder, ports.free_port(), block_time=None, load=state.path, extra=("--no-mining",))
    try:
        with Rpc(node.rpc_url, timeout=ample(3.0)) as rpc:
            yield Chain(node, rpc, state.addresses, by_hand=True)
    finally:
        node.stop()


class StillNode:
    """A chain that stands still, for one test after the other: to rewind a node takes a twentieth of a start."""

    def __init__(self, state: PocoState, folders: Callable[[], Path]) -> None:
        self._state, self._folders = state, folders
        self._running = ExitStack()
        self._chain: Chain | None = None
        #: What it is rewound to: a snapshot of the saved state, and the base fee of the next block.
        self._snapshot = self._base_fee = ""

    def rewound(self) -> Chain:
        """The chain as it was saved; on another node, if a test has ended the one before."""
        if self._chain is None or not self._chain.node.process.alive():
            self.close()
            self._chain = self._running.enter_context(standing_still(self._state, self._folders()))
            self._base_fee = self._chain.rpc.call("eth_getBlockByNumber", "pending", False)["baseFeePerGas"]
        else:
            self._rewind(self._chain.rpc)
        self._snapshot = self._chain.rpc.call("evm_snapshot")
        return self._chain

    def _rewind(self, rpc: Rpc) -> None:
        assert rpc.call("evm_revert", self._snapshot), "a test has rolled the chain back beyond its beginning"
        # What a snapshot does not hold: the pool, the miner's mode, the base fee to come, the limit, the clock.
        rpc.call("anvil_dropAllTransactions")
        rpc.call("evm_setIntervalMining", 0)
        rpc.call("anvil_setNextBlockBaseFeePerGas", self._base_fee)
        rpc.call("evm_setBlockGasLimit", hex(BLOCK_GAS))
        rpc.call("evm_setTime", int(time.time()))

    def close(self) -> None:
        self._chain = None
        self._running.close()


@pytest.fixture(scope="session")
def still_node(poco_state: PocoState, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StillNode]:
    """The node of all tests of this process whose chain stands still."""
    with closing(StillNode(poco_state, lambda: tmp_path_factory.mktemp("anvil"))) as node:
        yield node


@pytest.fixture
def still_chain(still_node: StillNode) -> Chain:
    """A fresh chain with PoCo that stands still but for the blocks a test asks for: what is in which block is certain.

    A file whose tests all want this has a fixture `chain` that returns it.
    """
    return still_node.rewound()


@pytest.fixture(scope="session")
def stack() -> Stack:
    """MongoDB and RabbitMQ of the local stack; started if they are not up, and left up for the next run."""
    return _up(StackPart.MONGODB, StackPart.RABBITMQ)


@pytest.fixture(scope="session")
def docker_engine() -> str:
    """Address of the Docker engine: the machine's own or the stack's."""
    return _up(StackPart.DOCKER).settings["SLUICE_DOCKER_HOST"]


@pytest.fixture(scope="session")
def ipfs() -> IpfsNode:
    """The stack's IPFS node."""
    found = _up(StackPart.IPFS).settings
    return IpfsNode(found["SLUICE_IPFS_API"], found["SLUICE_IPFS_GATEWAY"])


@pytest.fixture
def database(stack: Stack) -> Iterator[str]:
    """Name of an empty database, dropped afterwards: for tests whose processes may write until they are gone."""
    with _database(stack) as (name, _):
        yield name


@pytest.fixture(scope="session")
def kept_database(stack: Stack) -> Iterator[tuple[str, MongoClient[dict[str, Any]]]]:
    """Name of a database that keeps its indexes from test to test, and a client of its server."""
    with _database(stack) as named:
        yield named


@pytest.fixture
def emptied_database(kept_database: tuple[str, MongoClient[dict[str, Any]]]) -> Iterator[str]:
    """Name of an empty database for tests that write from their own process only.

    Its documents are removed, its indexes stay: to make and drop the store's 38 costs MongoDB 0.15 s of CPU, and
    emptying them 0.015 s.
    """
    name, client = kept_database
    yield name
    for collection in client[name].list_collection_names():
        client[name][collection].delete_many({})


@pytest.fixture
def vhosts(stack: Stack) -> Iterator[tuple[str, str]]:
    """As `two_vhosts`, of the test's own."""
    with two_vhosts(stack) as names:
        yield names


@contextmanager
def two_vhosts(stack: Stack) -> Iterator[tuple[str, str]]:
    """Names of two empty virtual hosts (core, pool) that the scheduler's user may use, removed afterwards."""
    mark = secrets.token_hex(6)
    names = (f"core-{mark}", f"pool-{mark}")
    settings = read_settings(**given(stack.settings))
    user, password = credentials(settings)
    with http_client(settings.rabbitmq_api, auth=(user, password), timeout=ample(10.0)) as api:
        for name in names:
            api.put(f"/api/vhosts/{name}").raise_for_status()
            everything = {"configure": ".*", "write": ".*", "read": ".*"}
            api.put(f"/api/permissions/{name}/{user}", json=everything).raise_for_status()
        yield names
        for row in api.get(f"/api/vhosts/{names[1]}/permissions").raise_for_status().json():
            if row["user"] != user:
                api.delete(f"/api/users/{quote(row['user'], safe='')}")
        for name in names:
            api.delete(f"/api/vhosts/{name}").raise_for_status()


@pytest.fixture
def pool_settings(
    stack: Stack, chain: Chain, database: str, vhosts: tuple[str, str], tmp_path: Path
) -> Callable[..., Settings]:
    """Makes settings of a process on this test's own chain, database and virtual hosts; arguments go on top."""
    own = given(stack.settings) | {
        "home": tmp_path,
        "chain_id": CHAIN_ID,
        "rpc_url": chain.node.rpc_url,
        "ws_url": chain.node.ws_url,
        "hub": chain.at.hub,
        "block_time": BLOCK_TIME,
        "mongodb_database": database,
        "amqp_core_vhost": vhosts[0],
        "amqp_pool_vhost": vhosts[1],
    }
    return lambda **more: read_settings(**(own | more))


def given(variables: Mapping[str, str]) -> dict[str, object]:
    """`SLUICE_…` variables as arguments of `read_settings`."""
    return {name.removeprefix("SLUICE_").lower(): value for name, value in variables.items()}


@contextmanager
def _database(stack: Stack) -> Iterator[tuple[str, MongoClient[dict[str, Any]]]]:
    name = f"test_{secrets.token_hex(6)}"
    with MongoClient[dict[str, Any]](stack.settings["SLUICE_MONGODB_URI"]) as client:
        if StackSettings().sharded:
            sharding.shard(client[name])
        yield name, client
        client.drop_database(name)


def _up(*parts: StackPart) -> Stack:
    home = tools.root() / ".sluice"
    return bring_up(read_settings(home=home), StackSettings(), parts, lambda _: None)
