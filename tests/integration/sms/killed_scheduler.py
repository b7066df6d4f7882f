"""The scheduler is killed before and after each step by which a task for an enclave gets its challenge and its machine:
the task is completed all the same, by one of two machines, with the challenge that the service told; nothing stays
locked, and nobody pays for more.

    ask the secret service ─► record the challenge ─► sign the authorization ─► publish
"""

from __future__ import annotations

import base64
import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from beat.watch import LOOKBACK
from chain.lane.model.policy import LanePolicy
from chain.watch.watcher import Watcher
from config import topology
from config.settings import Settings, read_settings
from ops.market.match import Matched
from ops.poco.state import PocoState
from ops.stack import ports
from ops.stack.stack import Stack
from pipeline import tasks
from pipeline.broker import segments
from pipeline.flow import assign, sweep
from pipeline.flow.advance_each import advance_each
from pipeline.flow.challenges import SecretServiceApi
from pipeline.scheduler import Scheduler
from pipeline.store.task.challenges import TaskChallenges
from protocol.enclave.result import write_encrypted
from protocol.enclave.secrets import RESULT_KEY_NAME, STORE_NAME, wallet_secret
from protocol.poco.view import TaskStatus
from protocol.types import BlockNumber, TaskId
from protocol.wire import Assignment, Stored
from tests.integration import forged
from tests.integration.conftest import IpfsNode, _database, given
from tests.integration.pipeline.conftest import OWNER, PRICE, REQUESTER, WORKERS
from tests.integration.pipeline.trouble.outage_pool import LONG, open_outage_pool
from tests.integration.sms.service import serving
from tests.integration.sms.test_enclave_pool import CONTENT, ENCRYPTED, TDX, Place, finalize, serving_machines
from tests.integration.workers.restarts.one_replicate import Point
from tests.waiting import until

#: Where each operation of a point is.
OWNERS: dict[str, type | ModuleType] = {
    "challenge": SecretServiceApi,
    "record": TaskChallenges,
    "sign_authorization": assign,
    "publish": segments,
}
BENEFICIARY = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
POINTS = [Point(at, when) for at in OWNERS for when in ("before", "after")]
#: Seconds between two looks of the scheduler, and without a ping after which a machine is lost.
PAUSE, LOST = 0.2, 4.0


def schedule(settings: Settings, point: Point | None) -> None:
    """A scheduler's process: what its messages and its clock do, over and over, until it is killed at the point."""
    if point is not None:
        _die_at(point)
    scheduler = Scheduler.open(settings)
    finality = LanePolicy.of(settings).finality
    watcher = Watcher(
        scheduler.hub.rpc,
        scheduler.hub,
        scheduler.workerpool,
        scheduler.store.chain,
        LOOKBACK,
        BlockNumber(0),
        finality,
    )
    pause = threading.Event()
    while True:
        for caught in watcher.catch_up(scheduler.hub.head()):
            tasks._ingest(scheduler, list(caught.deals))
            advance_each(scheduler, list(caught.tasks))
        sweep.sweep(scheduler)
        tasks._run_lane(scheduler)
        with scheduler.notifier._link.producer() as producer:
            # Nobody reads what it publishes for itself.
            channel: Any = producer.channel
            channel.queue_purge(topology.PIPELINE_QUEUE)
        pause.wait(PAUSE)


def _die_at(point: Point) -> None:
    """Have this process killed before or after an operation."""
    owner = OWNERS[point.at]
    whole = getattr(owner, point.at)

    def struck(*given: Any, **more: Any) -> Any:
        if point.when == "after":
            whole(*given, **more)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, point.at, struck)


class Market:
    """The pool with its scheduler as a process, and two machines with enclaves that are played over HTTP."""

    def __init__(self, first: Place, log: Path) -> None:
        self.pool, self.log = first.pool, log
        self.machines = [first, replace(first, number=2, session=None, given={})]
        self.dead: set[int] = set()
        self.scheduler: BaseProcess | None = None

    def start(self, point: Point | None = None) -> None:
        self.scheduler = forged.start(schedule, self.pool.settings, point, out=self.log)

    def kill(self) -> None:
        process, self.scheduler = self.scheduler, None
        if process is not None:
            forged.kill(process)

    def beat(self) -> None:
        """A block, and what machines that live do all the time."""
        self.pool.now = time.time()
        self.pool.chain.mine()
        for machine in self.machines:
            if machine.number not in self.dead:
                machine.sign_in()
                machine.api.post("/workers/ping", json={"tasks": []}, headers=machine.bearer).raise_for_status()
                machine.read_queue()

    def await_killed(self) -> None:
        def ended() -> bool:
            self.beat()
            return self.scheduler is not None and self.scheduler.exitcode is not None

        until("the scheduler's end", ended)
        assert self.scheduler is not None
        assert self.scheduler.exitcode == -signal.SIGKILL, self.log.read_text()[-3000:]
        self.kill()

    def await_given(self, task: TaskId) -> tuple[Place, Assignment]:
        """The machine that has the task, of those that live."""

        def given() -> tuple[Place, Assignment] | None:
            self.beat()
            found = [(each, each.given[task]) for each in self.machines if task in each.given]
            return next((pair for pair in found if pair[0].number not in self.dead), None)

        found = until("the task's assignment", given, 40.0)
        assert found is not None
        return found

    def complete(self, machine: Place, job: Assignment) -> None:
        """What the machine does, and then the scheduler."""
        key, _ = machine.enclave(job)
        body = io.BytesIO()
        write_encrypted(body, [CONTENT], BENEFICIARY, b"\x05" * 32, b"\x06" * 16)
        answer = machine.upload(job, body.getvalue(), key)
        assert answer.status_code == 200, answer.text
        finalize(machine, job, Stored.model_validate_json(answer.content), key)

    def stakes(self) -> dict[str, list[int]]:
        """Free and locked stakes of all who take part."""
        wallets = [self.pool.chain.sender(number).wallet for number in (OWNER, REQUESTER, *WORKERS)]
        accounts = self.pool.chain.hub.accounts(wallets)
        return {"free": [account.stake for account in accounts], "locked": [account.locked for account in accounts]}


@pytest.fixture(scope="module")
def market(
    poco_state: PocoState, stack: Stack, ipfs: IpfsNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Market]:
    home, sms_port = tmp_path_factory.mktemp("killed"), ports.free_port()
    broker = read_settings(**given(stack.settings)).amqp_url.get_secret_value()
    more = {
        "enclave_sms_url": f"http://127.0.0.1:{sms_port}",
        "ipfs_api": ipfs.api,
        "api_port": ports.free_port(),
        "amqp_public_port": urlsplit(broker).port,
        "worker_lost_seconds": LOST,
        "sweep_seconds": PAUSE,
        "log_level": "debug",
    }
    with (
        _database(stack) as (database, _),
        open_outage_pool(poco_state, stack, database, home, **more) as pool,
        serving_machines(pool) as api,
        serving(pool.chain, stack.settings["SLUICE_MONGODB_URI"], home / "sms", port=sms_port) as service,
    ):
        # As the secret service's: a saved chain is behind.
        pool.now = time.time()
        nothing: Any = None
        made = Market(Place(pool, service, api, nothing, nothing), home / "scheduler.log")
        requester = pool.chain.sender(REQUESTER).key
        public = BENEFICIARY.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        service.keep(requester, wallet_secret(requester.wallet, RESULT_KEY_NAME), base64.b64encode(public))
        for machine in made.machines:
            service.keep(machine.machine, wallet_secret(machine.machine.wallet, STORE_NAME), b"a token")
        try:
            yield made
        finally:
            made.kill()


@pytest.mark.parametrize(
    ("point", "dies"),
    [*((point, False) for point in POINTS), *((point, True) for point in POINTS if point.when == "before")],
    ids=lambda given: f"{given.when} {given.at}" if isinstance(given, Point) else "machine too" if given else "",
)
def test_a_task_whose_scheduler_is_killed_on_its_way_to_a_machine_is_completed_and_no_stake_is_lost(
    market: Market, point: Point, dies: bool
) -> None:
    before = market.stakes()
    deal = buy(market)
    (task,) = deal.tasks
    market.start(point)
    market.await_killed()
    assert sum(market.stakes()["locked"]) > 0
    market.start()
    machine, job = market.await_given(task)
    if dies:
        market.dead.add(machine.number)
        other, job = market.await_given(task)
        assert other.number != machine.number
        machine = other
    market.complete(machine, job)

    def settled() -> bool:
        market.beat()
        found = market.pool.store.tasks.get_task(task)
        return found is not None and not found.open and not any(market.stakes()["locked"])

    until("the task's end", settled)
    record = market.pool.store.tasks.get_task(task)
    assert record is not None
    assert market.pool.view(deal).status is TaskStatus.COMPLETED
    assert job.enclave_challenge == record.challenge
    # The requester has paid once, and all of it is with those who worked.
    now = market.stakes()
    paid = dict(zip((OWNER, REQUESTER, *WORKERS), zip(before["free"], now["free"], strict=True), strict=True))
    assert paid[REQUESTER][1] - paid[REQUESTER][0] == -PRICE
    assert sum(now["free"]) == sum(before["free"])
    market.kill()
    market.dead.clear()


def buy(market: Market) -> Matched:
    """A confidential task that costs something."""
    market.pool.now = time.time()
    return market.pool.buy(LONG, tag=TDX, params=ENCRYPTED)
