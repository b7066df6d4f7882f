"""A pool of its own for one benchmark: own chain at the wanted pace, own names on shared servers, removed after."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker

from chain.contracts import calls
from chain.contracts.hub import Hub
from chain.rpc.client import Rpc
from chain.rpc.heads import heads
from config.connections.mongodb import client
from ops.demo import app_image
from ops.market import orders
from ops.market.contracts import NewDataset
from ops.market.match import Matched, match
from ops.poco.accounts import dev_key
from ops.poco.deploy import CATEGORIES
from ops.poco.sender import DirectSender, TxRequest
from ops.poco.state import CHAIN_ID, ensure_state
from ops.pool import site
from ops.pool.follow import Follower
from ops.pool.local import WORKER, LocalPool, WorkerMachine
from ops.pool.on_chain import PRICE, XS
from ops.pool.servers import bring_up
from ops.pool.site import Chain, Names, Servers
from ops.stack import ports
from ops.stack.servers import anvil, geth
from ops.stack.servers.node import BLOCK_GAS, Node
from pipeline.domain.records import TaskStage
from pipeline.store.task.tasks import Tasks
from protocol.errors import NotReady, SluiceError
from protocol.poco.view import ChainView, TaskStatus
from protocol.types import BlockNumber, TaskId

#: Seconds a run may take before it counts as stuck.
WAIT_SECONDS = 300.0
#: Seconds for an answer of the node: on a busy machine it takes longer than a pool waits before it asks again, and
#: there is no other node.
NODE_SECONDS = 30.0
#: Category XS: its seconds only matter to deadlines.
CATEGORY_SECONDS = 300
#: The development account that owns the hub.
HUB_OWNER = 0


class BrokenPromise(SluiceError):
    """{what} did not end as it must. {why}"""


@dataclass(slots=True)
class BenchPool:
    """A running pool and the means to buy from it and to watch it."""

    home: Path
    servers: Servers
    names: Names
    chain: Chain
    node: Node
    pool: LocalPool
    rpc: Rpc
    buyer: DirectSender
    timeout: float = WAIT_SECONDS

    @property
    def hub(self) -> Hub:
        """The PoCo hub of the pool's chain, for reads."""
        return Hub(self.rpc, self.chain.addresses.hub)

    def buy(self, *, trust: int, volume: int, args: str = "noop", category: int = XS) -> Matched:
        """Match one deal at the paid offer, so that stakes are locked; returns once it is mined."""
        on_chain = self.pool.on_chain
        offer = on_chain.offer(price=PRICE, category=category)
        params = f'{{"iexec_args":"{args}","iexec_result_storage_provider":"ipfs"}}'
        request = orders.request(on_chain.market, on_chain.requester, offer, volume=volume, trust=trust, params=params)
        (deal,) = match(self.buyer, on_chain.market, [(offer, request)])
        return deal

    def new_category(self, seconds: int) -> int:
        """A category of the chain whose tasks may take so many seconds; its number, for `buy`. One for a pool."""
        owner = DirectSender(dev_key(HUB_OWNER), self.rpc, self.chain.chain_id)
        data = calls.create_category(f"OF-{seconds}", "", seconds)
        owner.run([TxRequest(self.chain.addresses.hub, data, calls.gas_limit("createCategory", data))])
        return len(CATEGORIES)

    def watch(self, deals: Sequence[Matched], stop: threading.Event) -> Iterator[Mapping[TaskId, ChainView]]:
        """Views of all tasks of `deals`, again whenever one changes, until all have ended or `stop` is set."""
        follower = Follower(
            rpc=self.rpc,
            ws_url=self.chain.ws_url,
            hub=self.chain.addresses.hub,
            block_time=self.chain.block_time,
            next_block=BlockNumber(min(deal.block_number for deal in deals)),
            categories={task: CATEGORY_SECONDS for deal in deals for task in deal.tasks},
        )
        return follower.until_over(stop)

    def wait(self, deals: Sequence[Matched]) -> Mapping[TaskId, ChainView]:
        """The last views of all tasks of `deals`, once all have ended. Raises NotReady after `timeout` seconds."""
        stop = threading.Event()
        timer = threading.Timer(self.timeout, stop.set)
        timer.start()
        last: Mapping[TaskId, ChainView] = {}
        try:
            for views in self.watch(deals, stop):
                last = views
        finally:
            timer.cancel()
        if stop.is_set():
            raise self.failed(deals[0])
        return last

    def compare(self, deal: Matched, seconds: float) -> tuple[int, int]:
        """(tasks COMPLETED for the scheduler's database only, for the contract only).

        Returns once both agree on all tasks, or after `seconds`; compares again at each new block.
        """
        tasks = Tasks(client(self.servers.mongodb_uri)[self.names.database])
        stop = threading.Event()
        timer = threading.Timer(seconds, stop.set)
        timer.start()
        differing = (0, 0)
        try:
            for _ in heads(self.chain.ws_url, self.rpc, self.chain.block_time, stop):
                stored = {task.task_id for task in tasks.of_deal(deal.deal_id) if task.stage is TaskStage.COMPLETED}
                views = self.hub.tasks(deal.tasks)
                on_chain = {view.task_id for view in views if view.status is TaskStatus.COMPLETED}
                differing = len(stored - on_chain), len(on_chain - stored)
                if differing == (0, 0):
                    break
        finally:
            timer.cancel()
        return differing

    def failed(self, deal: Matched) -> NotReady:
        """The NotReady error for a deal that does not end; it names the log of the scheduler, the first program."""
        log = next(iter(self.pool.programs.values())).log
        return NotReady(part=f"Deal {deal.deal_id}", seconds=self.timeout, log=log, why="It is not COMPLETED on chain.")


def start_chain(
    folder: Path, *, block_time: float, block_gas: int = BLOCK_GAS, on_geth: bool = False
) -> tuple[Chain, Node]:
    """Start a chain of its own with PoCo's contracts, and the node to stop at the end. `on_geth`: geth's."""
    state, port = ensure_state(Path(".sluice")), ports.free_port()
    node = (
        geth.start(folder, port, block_seconds=round(block_time), load=state.path, chain_id=CHAIN_ID)
        if on_geth
        else anvil.start(folder, port, block_time=block_time, load=state.path, block_gas=block_gas)
    )
    return Chain(node.rpc_url, node.ws_url, CHAIN_ID, block_time, state.addresses), node


@contextmanager
def prepared_pool(
    *,
    block_time: float,
    workers: int,
    block_gas: int = BLOCK_GAS,
    env: dict[str, str] | None = None,
    servers: Servers | None = None,
    datasets: Sequence[NewDataset] = (),
    on_geth: bool = False,
) -> Iterator[BenchPool]:
    """Chain, contracts, wallets and stakes of a pool with `workers` machines, of which no program runs yet.

    What the caller starts of it is stopped at the end. `servers`: default is the stack's. `on_geth`: the chain is
    geth's (whole seconds between blocks), not anvil's.
    """
    servers = servers or bring_up()
    names = Names.fresh()
    home = Path(".sluice") / "bench" / names.database
    chain, node = start_chain(home / "chain", block_time=block_time, block_gas=block_gas, on_geth=on_geth)
    engine = docker.DockerClient(base_url=servers.docker_host)
    try:
        image = app_image.build(engine)
        pool = site.prepare(
            servers, chain, names, home, workers=workers, image=image, datasets=datasets, env=env, tied=True
        )
        with Rpc(chain.rpc_url, NODE_SECONDS) as rpc:
            try:
                buyer = DirectSender(pool.on_chain.requester, rpc, CHAIN_ID)
                yield BenchPool(home, servers, names, chain, node, pool, rpc, buyer)
            finally:
                pool.stop()
                site.clear(servers, names)
    finally:
        engine.close()
        node.stop()


@contextmanager
def open_bench_pool(
    *,
    block_time: float,
    workers: int,
    slots: int,
    spares: int = 0,
    block_gas: int = BLOCK_GAS,
    env: dict[str, str] | None = None,
    servers: Servers | None = None,
    machine: Sequence[str] = WORKER,
    on_geth: bool = False,
) -> Iterator[BenchPool]:
    """A pool with `workers` machines of `slots` containers each, torn down at the end.

    `spares`: wallets with a stake but no machine, the last of the workers. `servers`: default is the stack's.
    `machine`: the module that each machine runs, with its arguments. `on_geth`: as in `prepared_pool`.
    """
    with prepared_pool(
        block_time=block_time, workers=workers + spares, block_gas=block_gas, env=env, servers=servers, on_geth=on_geth
    ) as prepared:
        pool = prepared.pool
        pool.start_scheduler()
        wallets = pool.on_chain.workers[:workers]
        pool.start_machines(
            [WorkerMachine(f"worker-{n}", wallet, slots, machine) for n, wallet in enumerate(wallets, start=1)]
        )
        yield prepared
