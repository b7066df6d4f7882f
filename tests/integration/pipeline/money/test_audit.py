"""`sluice audit` on real parts: what was broken by hand is named, and `--fix` repairs it."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import pytest

from chain.watch.watcher import Watcher
from config import topology
from config.connections.ipfs import Ipfs
from config.settings import settings
from ops import cli
from ops.market.match import Matched
from ops.stack.parts import credentials
from pipeline import tasks
from pipeline.broker.users import machine_user
from pipeline.domain.audit.findings import Difference, Unasked
from pipeline.domain.records import Reservation, TaskStage
from pipeline.flow import sweep
from pipeline.flow.advance import advance
from pipeline.flow.audit.run import Reading, audit_when_due
from pipeline.flow.audit.run import watcher_of as new_watcher
from pipeline.scheduler import Scheduler
from pipeline.store.client import database
from pipeline.store.pins import Pin
from protocol.poco.view import TaskStatus
from protocol.types import NRlc, TaskId, Wallet
from protocol.wire import Capabilities
from tests.integration.conftest import IpfsNode
from tests.integration.pipeline.conftest import NO_TAG, WORKERS, Pool
from tests.waiting import ample, until

NOTHING = TaskId("0x" + "5e" * 32)
#: Nothing listens there.
DEAD = "http://127.0.0.1:1"


@dataclass
class Scene:
    """A pool without processes: three tasks on chain, one enrolled machine, a kept result, all as it should be."""

    pool: Pool
    scheduler: Scheduler
    watcher: Watcher
    deal: Matched
    machine: Wallet
    cid: str
    capsys: pytest.CaptureFixture[str]

    def audit(self, *words: str, code: int, **env: str) -> Any:
        """The JSON that `sluice audit` prints, blocks being followed; it must end with `code`."""
        list(self.watcher.catch_up(self.scheduler.hub.head()))
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (self.pool.environment | env).items():
                patch.setenv(name, value)
            settings.cache_clear()
            self.capsys.readouterr()
            ended = cli.run(["audit", "--wait", "0", "--json", *words])
            said = self.capsys.readouterr()
        settings.cache_clear()
        assert ended == code, said
        return json.loads(said.out)

    def follow(self) -> None:
        """What the scheduler's processes do: read blocks, take deals and tasks on, send what is to be sent."""
        list(self.watcher.catch_up(self.scheduler.hub.head()))
        store = self.scheduler.store
        tasks._ingest(self.scheduler, store.deals.deals_to_ingest(10))
        advance(self.scheduler, [task.task_id for task in store.tasks.of_deal(self.deal.deal_id)])
        sweep.sweep(self.scheduler)
        self.scheduler.lane.run()

    def settle(self) -> None:
        """Follow until every task is INITIALIZED in the database."""

        def settled() -> bool:
            self.follow()
            stored = self.scheduler.store.tasks.of_deal(self.deal.deal_id)
            return [task.stage for task in stored] == [TaskStage.INITIALIZED] * len(self.deal.tasks)

        until("all tasks are INITIALIZED", settled)


@pytest.fixture
def scene(make_pool: Callable[..., Pool], ipfs: IpfsNode, capsys: pytest.CaptureFixture[str]) -> Iterator[Scene]:
    pool = make_pool(ipfs_api=ipfs.api)
    scheduler = Scheduler.open(pool.settings)
    scheduler.ensure_indexes()
    machine = pool.chain.sender(WORKERS[0]).wallet
    pool.admin.enrol(machine)
    offer = Capabilities(name="m", version="1", slots=1, cpus=1, memory_bytes=2**30, tag=NO_TAG)
    pool.store.workers.enrol(machine, offer, time.time())
    # Nothing is assigned to it, so that all tasks stay as they are.
    pool.store.workers.mark_connected({machine: False}, time.time())
    content = pool.home / "result.zip"
    content.write_bytes(secrets.token_bytes(64))
    deal = pool.buy(trust=3, volume=3)
    with closing(Ipfs(ipfs.api)) as node:
        cid = node.add(content, "result.zip")
        pool.store.pins.put(Pin(cid, deal.tasks[0], pinned=True, stored_at=time.time()), time.time() + 3600)
        made = Scene(pool, scheduler, new_watcher(scheduler), deal, machine, cid, capsys)
        made.settle()
        yield made
        node.unpin(cid)
    scheduler.close()
    scheduler.hub.rpc.close()  # type: ignore[attr-defined]  # a node's client, whatever stands for it


def broker_api(pool: Pool) -> httpx.Client:
    return httpx.Client(base_url=pool.settings.rabbitmq_api, auth=credentials(pool.settings), timeout=ample(10.0))


def break_everything(scene: Scene) -> tuple[Wallet, Wallet]:
    """One thing of every kind that an audit compares; (a wallet with a user and no row, the machine)."""
    rows, pool = database(scene.pool.settings), scene.pool
    first, second, third = scene.deal.tasks
    rows["logs"].delete_one({"kind": "TaskInitialize", "event.task_id": first})
    rows["tasks"].update_one({"_id": second}, {"$set": {"open": False, "stage": "COMPLETED"}})
    rows["tasks"].delete_one({"_id": third})
    rows["intents"].delete_one({"_id": scene.scheduler.transactions.key(first, "initialize", 0)})
    rows["tasks"].update_one({"_id": first}, {"$set": {"next_visit": time.time() + 3600}})
    held = Reservation(NOTHING, time.time() - 60, NRlc(0))
    assert pool.store.workers.reserve(scene.machine, [held])
    stranger = pool.chain.sender(WORKERS[1]).wallet
    pool.admin.enrol(stranger)
    with broker_api(pool) as api:
        queue = topology.tx_queue_name(scene.machine)
        api.delete(f"/api/queues/{pool.settings.amqp_pool_vhost}/{queue}").raise_for_status()
    with closing(Ipfs(pool.settings.ipfs_api)) as node:
        node.unpin(scene.cid)
    return stranger, scene.machine


def test_everything_broken_is_named_and_fixed_and_a_second_audit_finds_nothing(scene: Scene) -> None:
    assert scene.audit(code=0) == {"differences": [], "not_asked": [], "fixed": 0}

    stranger, machine = break_everything(scene)
    first, second, _ = scene.deal.tasks
    expected = {
        ("task_events", first),
        ("task_stage", first),
        ("transaction_lost", first),
        ("task_stage", second),
        ("deal_tasks", scene.deal.deal_id),
        ("slot_of_nothing", machine),
        ("stake", scene.scheduler.key.wallet),
        ("user_without_machine", stranger),
        ("machine_without_queues", machine),
        ("result_not_pinned", scene.deal.tasks[0]),
    }
    found = scene.audit(code=1)
    named = {(row["kind"], row["subject"]) for row in found["differences"] if row["kind"] != "events"}
    assert named == expected
    assert [row["kind"] for row in found["differences"]].count("events") == 1
    assert found["not_asked"] == []

    fixed = scene.audit("--fix", code=1)
    left = [row["kind"] for row in fixed["differences"] if not row["fixed"]]
    assert left == ["stake"], "explained again as soon as the tasks are stored"
    last = scene.scheduler.store.audits.last()
    assert last is not None
    assert (last.differences, last.first.partition(" ")[0]) == (1, "stake")
    token_ended = scene.pool.store.workers.get_worker(machine)
    assert token_ended is not None
    assert (token_ended.away, token_ended.held) == (True, ())
    with broker_api(scene.pool) as api:
        user = partial(machine_user, scene.pool.settings.amqp_pool_vhost)
        assert api.get(f"/api/users/{user(stranger)}").status_code == 404
        assert api.get(f"/api/users/{user(machine)}").status_code == 200
    scene.settle()
    assert scene.audit(code=0)["differences"] == []
    assert {view.status for view in scene.pool.views(scene.deal)} == {TaskStatus.ACTIVE}


def test_what_cannot_be_asked_is_listed_and_is_no_difference(scene: Scene) -> None:
    found = scene.audit(
        code=1, SLUICE_RPC_URL=DEAD, SLUICE_RABBITMQ_API=DEAD, SLUICE_IPFS_API=DEAD, SLUICE_RPC_TIMEOUT="1"
    )
    assert found["differences"] == []
    assert {row["what"] for row in found["not_asked"]} == {"the chain", "RabbitMQ", "IPFS"}


def test_the_scheduler_audits_after_its_start_says_what_two_readings_found_and_not_again_that_day(scene: Scene) -> None:
    scheduler, audits = scene.scheduler, scene.scheduler.store.audits
    database(scene.pool.settings)["tasks"].delete_one({"_id": scene.deal.tasks[2]})
    started = time.time()
    list(scene.watcher.catch_up(scheduler.hub.head()))
    audit_when_due(scheduler, started)
    assert audits.last() is None, "one reading says nothing yet"
    audit_when_due(scheduler, started)
    last = audits.last()
    assert last is not None
    assert (last.differences, last.unasked) == (2, ())
    assert scene.deal.deal_id in last.first
    audit_when_due(scheduler, started)
    assert audits.last() == last, "not due: this start was audited"

    scheduler.store.deals.read_again([scene.deal.deal_id])
    scene.settle()
    scheduler.clock = lambda: started + 25 * 3600
    audit_when_due(scheduler, started)
    again = audits.last()
    assert again is not None
    assert (again.differences, again.at) == (0, started + 25 * 3600)


OTHER, AWAY = Difference("stake", "0x1", "other", ""), Unasked("IPFS", "away")


@pytest.mark.parametrize(("found", "unasked"), [((), (AWAY,)), ((OTHER,), ())])
def test_an_audit_that_found_something_or_could_not_ask_is_made_again_after_an_hour(
    scene: Scene, found: Sequence[Difference], unasked: Sequence[Unasked]
) -> None:
    scheduler, audits, began = scene.scheduler, scene.scheduler.store.audits, time.time()
    list(scene.watcher.catch_up(scheduler.hub.head()))
    audits.note(began, found, unasked)
    for later, due in ((1800.0, False), (3601.0, True)):
        scheduler.clock = partial(float, began + later)
        audit_when_due(scheduler, began - 1)
        ended = [last for last in (audits.last(),) if last is not None and last.at > began]
        assert [(last.differences, last.unasked) for last in ended] == ([(0, ())] if due else [])


def test_the_clocks_audit_ends_in_time_and_says_what_it_left_out(scene: Scene) -> None:
    list(scene.watcher.catch_up(scene.scheduler.hub.head()))
    reading = Reading(scene.scheduler, seconds=0)
    reading.run()
    assert (reading.differences, [*reading.unasked]) == ([], ["further tasks"])
