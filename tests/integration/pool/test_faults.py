"""One fault in the middle of a bag of real containers: every task is COMPLETED, all stakes are free, no nonce is lost.

The short form of `bench/faults.py`, which also measures how much later. MongoDB and RabbitMQ are this module's own, so
that nobody else's are killed.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.faults import Fault, disturb, faults, nonce_gaps
from bench.rig.bench_pool import BenchPool, open_bench_pool
from config.settings import read_settings
from ops.market.match import Matched
from ops.pool.site import Servers
from ops.stack import mongodb, ports, rabbitmq
from ops.stack.parts import StackPart
from pipeline.store.client import Store
from protocol.poco.view import TaskStatus
from protocol.poco.weights import weight
from protocol.types import Wallet
from tests.integration.conftest import given
from tests.integration.pool.conftest import BLOCK_TIME, WAIT_SECONDS, view
from tests.waiting import ample, wait_until

#: Tasks of a bag, and how many are done when the fault strikes: both machines are at work then.
TASKS, DONE_BEFORE = 6, 2
#: What each container does: it lasts two blocks, so that some run when the fault strikes.
WORK = "sleep 0.5"
#: Seconds the chain stands still.
FREEZE_SECONDS = 5.0
#: Fault, and trust of the bag: at 3 both machines vote with a stake, and the scheduler's lane has most to do.
STRUCK = {
    "pipeline": 1,
    "lane": 3,
    "watch": 1,
    "beat": 1,
    "api": 1,
    "worker-machine": 3,
    "mongodb": 3,
    "rabbitmq": 3,
    "chain-frozen": 3,
    "reorg-3-dropped": 3,
    "reorg-10-dropped": 1,
    "reorg-3-returned": 3,
}


class OwnServers:
    """A MongoDB and a RabbitMQ that may be killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mongodb_port, self._rabbitmq_port = ports.free_port(), ports.free_port(rabbitmq.PORTS)
        self.mongodb, self.rabbitmq = self._up()

    def _up(self) -> tuple[mongodb.MongoDB, rabbitmq.RabbitMQ]:
        return (
            mongodb.start(self._folder / "mongodb", self._mongodb_port),
            rabbitmq.start(self._folder / "rabbitmq", self._rabbitmq_port),
        )

    def crash(self, part: StackPart) -> None:
        """`kill -9`, then start it again."""
        (self.mongodb if part is StackPart.MONGODB else self.rabbitmq).process.kill()
        self.mongodb, self.rabbitmq = self._up()

    def stop(self) -> None:
        """Without a clean end, which takes RabbitMQ 6 s: their data is not needed."""
        for process in (self.rabbitmq.process, self.rabbitmq.port_mapper, self.mongodb.process):
            process.stop(how=signal.SIGKILL)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServers]:
    servers = OwnServers(tmp_path_factory.mktemp("servers"))
    yield servers
    servers.stop()


@pytest.fixture(scope="module")
def bench_pool(shared_servers: Servers, own: OwnServers) -> Iterator[BenchPool]:
    """A pool of two machines with two slots each."""
    servers = replace(
        shared_servers,
        mongodb_uri=own.mongodb.uri,
        amqp_url=own.rabbitmq.amqp_url,
        amqp_port=own.rabbitmq.port,
        amqp_public={},
        rabbitmq_api=own.rabbitmq.api_url,
    )
    with open_bench_pool(block_time=BLOCK_TIME, workers=2, slots=2, servers=servers) as bench_pool:
        bench_pool.timeout = ample(WAIT_SECONDS)
        yield bench_pool


@pytest.mark.parametrize("name", STRUCK)
def test_a_bag_is_completed_though_something_breaks_in_the_middle(
    bench_pool: BenchPool, own: OwnServers, name: str
) -> None:
    outcome = disturb(
        bench_pool, _fault(own, name), tasks=TASKS, trust=STRUCK[name], done_before=DONE_BEFORE, work=WORK
    )
    assert outcome.completed == TASKS
    assert (outcome.database_only, outcome.chain_only) == (0, 0)
    assert outcome.stake_locked == 0
    wait_until(lambda: nonce_gaps(bench_pool) == 0, 10, what="all nonces to be mined")


@pytest.mark.parametrize("engine", ["there", "gone"])
def test_a_machine_killed_between_contribute_and_reveal_reveals_after_its_restart(
    bench_pool: BenchPool, engine: str
) -> None:
    """Also one that is refused the start, since its Docker engine is gone meanwhile: it reveals, and ends.

    worker-2 is down until worker-1 has voted and is killed, so that consensus comes while worker-1 is dead.
    """
    pool = bench_pool.pool
    first, second = (wallet.key.wallet for wallet in pool.on_chain.workers)
    pool.running["worker-2"].stop()
    # Earlier votes gave it a score: this is the least trust for which its vote alone is not enough.
    deal = bench_pool.buy(trust=weight(bench_pool.hub.scores([first])[0]) + 1, volume=1)
    _await_vote(bench_pool, deal, first)
    pool.running["worker-1"].kill()
    # Long before its pings are missed, the scheduler knows that there is nothing to send to.
    wait_until(lambda: not connected(bench_pool, first), 5, what="worker-1 to be known as cut off")
    pool.restart("worker-2")
    _await_vote(bench_pool, deal, second)
    (task,) = deal.tasks
    wait_until(lambda: view(bench_pool, task).status is TaskStatus.REVEALING, WAIT_SECONDS, what="consensus")
    assert first not in {vote.worker for vote in view(bench_pool, task).revealed}

    if engine == "gone":
        program = pool.programs["worker-1"]
        refused = replace(program, env={**program.env, "SLUICE_DOCKER_HOST": "unix:///nowhere/docker.sock"})
        pool.running["worker-1"] = refused.start()
    else:
        pool.restart("worker-1")
    wait_until(lambda: view(bench_pool, task).status is TaskStatus.COMPLETED, WAIT_SECONDS, what="the end of the task")
    assert {vote.worker for vote in view(bench_pool, task).revealed} == {first, second}
    if engine == "gone":
        wait_until(lambda: not pool.running["worker-1"].alive(), WAIT_SECONDS, what="the end of worker-1")
        pool.restart("worker-1")
    wait_until(lambda: connected(bench_pool, first), 10, what="worker-1 to be known as connected")
    assert all(account.locked == 0 for account in bench_pool.hub.accounts([first, second]))


def connected(bench_pool: BenchPool, wallet: Wallet) -> bool:
    """Whether a machine is connected to RabbitMQ as far as the scheduler knows."""
    found = Store.open(read_settings(**given(bench_pool.pool.env))).workers.get_worker(wallet)
    return found is not None and found.disconnected_at is None


def _await_vote(bench_pool: BenchPool, deal: Matched, wallet: Wallet) -> None:
    (task,) = deal.tasks
    wait_until(lambda: view(bench_pool, task).contribution(wallet), WAIT_SECONDS, what=f"the vote of {wallet}")


def _fault(own: OwnServers, name: str) -> Fault:
    (found,) = (fault for fault in faults(own.crash, FREEZE_SECONDS) if fault.name == name)
    return found
