"""A worker in another language, written from docs/worker-protocol.md, beside two of ours (tests/other_worker)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.rig.bench_pool import BenchPool
from config import topology
from config.settings import read_settings
from ops.market import results
from ops.pool.consumers import all_consumed
from ops.pool.on_chain import PRICE
from ops.stack import private_file, tools
from pipeline.store.client import Store
from pipeline.store.machine.workers import Workers
from protocol.poco import weights
from protocol.poco.view import TaskStatus
from protocol.types import Wallet
from tests.integration import sdk
from tests.integration.conftest import given
from tests.integration.pool.conftest import HONEST, buy, ended, view
from tests.waiting import wait_until

FOLDER = tools.root() / "tests/other_worker"
PAGE = tools.root() / "docs/worker-protocol.md"
#: Seconds for the process to end once it is told to.
STOP_SECONDS = 30.0


@pytest.fixture
def other(shared_pool: BenchPool, tmp_path: Path) -> Iterator[Wallet]:
    """The wallet of a machine that runs the worker in JavaScript; banned afterwards, so that it gets no later task."""
    pool = shared_pool.pool
    owner = pool.on_chain.workers[HONEST + 1]
    wallet = owner.key.wallet
    private_file.write(tmp_path / "key", owner.secret)
    wanted = ("SLUICE_API_URL", "SLUICE_AMQP_CA_FILE", "SLUICE_PING_SECONDS")
    env = {name: pool.env[name] for name in wanted if name in pool.env}
    env |= {"SLUICE_KEY_FILE": str(tmp_path / "key"), "SLUICE_HOME": str(tmp_path)}
    script = sdk.installed(FOLDER) / "worker.mjs"
    # What it logs is among the output that pytest captures.
    with subprocess.Popen([sdk.node(), script], env=env) as process:
        try:
            queues = (topology.compute_queue_name(wallet), topology.tx_queue_name(wallet))

            def at_work() -> bool:
                assert process.poll() is None, "the other worker has ended"
                return all_consumed(pool.env["SLUICE_AMQP_URL"], pool.env["SLUICE_AMQP_POOL_VHOST"], queues)

            wait_until(at_work, 30, what="the other worker to consume its queues")
            yield wallet
            process.terminate()
            process.wait(STOP_SECONDS)
        finally:
            process.kill()
            workers(shared_pool).set_banned(wallet, banned=True)


def workers(shared_pool: BenchPool) -> Workers:
    return Store.open(read_settings(**given(shared_pool.pool.env))).workers


def least_trust(shared_pool: BenchPool, voters: list[Wallet]) -> int:
    """The least trust for which all of these must agree: for any fewer of them it is too much."""
    heavy = sorted(weights.weight(score) for score in shared_pool.hub.scores(voters, shared_pool.hub.head()))
    return weights.group_weight(heavy[1:]) + 1 if len(heavy) > 1 else 1


@contextmanager
def away(shared_pool: BenchPool, wallets: list[Wallet]) -> Iterator[None]:
    """These machines get no task meanwhile: those that were right before would be asked first."""
    for wallet in wallets:
        workers(shared_pool).set_banned(wallet, banned=True)
    try:
        yield
    finally:
        for wallet in wallets:
            workers(shared_pool).set_banned(wallet, banned=False)


def test_a_worker_in_javascript_takes_part_in_deals_alone_and_beside_ours(
    shared_pool: BenchPool, other: Wallet, tmp_path: Path
) -> None:
    ours = [machine.key.wallet for machine in shared_pool.pool.on_chain.workers[:HONEST]]
    tasks = []
    for count, args in ((0, "all 'by  itself'"), (1, "with one of ours"), (2, "with two of ours")):
        voters = [*ours[:count], other]
        with away(shared_pool, ours[count:]):
            trust = least_trust(shared_pool, voters)
            offer = shared_pool.pool.on_chain.offer(price=PRICE, trust=trust)
            (deal,) = buy(shared_pool, [(offer, trust, args)])
            ((task, seen),) = shared_pool.wait([deal]).items()
        final = view(shared_pool, task)
        assert seen.status is final.status is TaskStatus.COMPLETED
        assert {vote.worker for vote in final.contributions} == {*voters}
        assert {vote.worker for vote in final.revealed} == {*voters}
        said = b"args: " + args.replace("'", "").encode()
        assert said in results.fetch(shared_pool.servers.ipfs_gateway, seen.results).files["result.txt"]
        (replicate,) = (it for it in ended(shared_pool, task)["replicates"] if it["walletAddress"] == other)
        assert {"STARTED", "COMPUTED"} <= {update["status"] for update in replicate["statusUpdateList"]}
        tasks.append(task)
    wait_until(lambda: not {*tasks} & {*_journal(tmp_path)}, 30, what="the other worker to forget what is over")


def _journal(home: Path) -> list[str]:
    return [path.name for path in (home / "journal").iterdir()]


def test_the_test_vectors_of_the_page_hold_in_javascript() -> None:
    command = [sdk.node(), sdk.installed(FOLDER) / "vectors.mjs", PAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
