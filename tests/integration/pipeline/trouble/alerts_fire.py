"""Faults that no operator asks about in `test_operators_questions` and `test_rarer_troubles`: the alert of each fires,
and the commands of its section in the runbook are run.

`make test-alerts`. The pool is that of `test_rarer_troubles`, and Prometheus is the real one.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.rig.reorg import replace_blocks
from config import topology
from config.celery_apps import core_app
from ops.poco.state import PocoState
from ops.stack.stack import Stack
from pipeline.domain.condition.facts import Facts
from pipeline.flow.audit.run import audit_when_due
from pipeline.flow.orders.actions import FIRST_WAIT
from pipeline.flow.orders.keep import keep_orders
from pipeline.probes import Probes
from pipeline.tasks import _ingest
from protocol.ethereum.signing import Key
from tests.faulty import Answer, answers
from tests.faulty.market import market_api
from tests.integration.conftest import _database
from tests.integration.pipeline.conftest import PRICE
from tests.integration.pipeline.trouble.operated_pool import (
    ANEW,
    CATEGORY,
    FINALITY,
    XS,
    OperatedPool,
    open_operated_pool,
)
from tests.integration.pipeline.trouble.outage_pool import SHORT
from tests.integration.pipeline.trouble.shell import Shell
from tests.integration.pipeline.trouble.test_rarer_troubles import POLICY
from tests.prometheus import Prometheus
from tests.waiting import until

#: Tasks of a deal that nobody does, and of one whose actions come too late: more than the alerts take.
FAILED, LATE = 4, 8
#: How often the market refuses.
TRIES = 4
#: Seconds of votes for a task of the category SHORT, and until it is over.
VOTES, OVER = 7 * SHORT, 10 * SHORT
#: Messages in a queue that nobody reads; blocks that the watcher has not read; both more than the alerts take.
MESSAGES, BEHIND = 1001, 70
#: Seconds: more than a transaction may wait, more than the parts may be unchecked, and more than two readings of an
#: audit are apart.
STUCK, UNCHECKED, READING = 301.0, 61.0, 90.0


@pytest.fixture(scope="module")
def operated(poco_state: PocoState, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatedPool]:
    home = tmp_path_factory.mktemp("operated")
    with (
        _database(stack) as (database, _),
        open_operated_pool(poco_state, stack, database, home, machines=3, tasks=8) as opened,
    ):
        yield opened


@contextmanager
def begin(seen: Prometheus, *names: str) -> Iterator[None]:
    """What is done in the block makes these alerts fire."""
    until(f"the end of {names}", lambda: {seen.states()[name] for name in names} == {"inactive"})
    yield
    seen.alarms(*names)


def test_the_market_refuses_the_pools_orders(
    operated: OperatedPool, seen: Prometheus, open_shell: Shell, tmp_path: Path
) -> None:
    """First, while no task was taken away from the machines that began it."""
    pool, file = operated.pool, tmp_path / "orders.toml"
    # A slot for each task that is open, whatever waits, and one to sell.
    for _ in range(open_tasks(operated) + 1):
        operated.wallets.append(Key(secrets.token_bytes(32)).wallet)
        operated.sign_in(len(operated.wallets) - 1)
    operated.step(2)
    with market_api(pool.chain.rpc, pool.chain.at.hub, pool.settings.chain_id) as market:
        file.write_text(POLICY.format(url=market.url, category=XS, price=PRICE))
        scheduler = replace(pool.scheduler, settings=pool.settings.model_copy(update={"orders_file": file}))
        market.down = Answer(403, b'{"ok":false,"error":"the workerpool is not allowed here"}')
        with begin(seen, "SluiceMarketSilent"):
            for number in range(TRIES):
                keep_orders(scheduler)
                # Longer than it waits until it asks again.
                operated.step(1, FIRST_WAIT * 2.0**number + 1)
        with operated.restarted_with(orders_file=file):
            open_shell.says("orders ls", "not allowed here")
            open_shell.says("orders plan", "that could be given a task")
    operated.step(4)


def open_tasks(operated: OperatedPool) -> int:
    """Tasks of the pool that are not over."""
    return sum(found.count for found in operated.pool.store.lists.count_by_stage().values())


def test_a_node_hides_logs(operated: OperatedPool, seen: Prometheus, open_shell: Shell) -> None:
    pool = operated.pool
    first = pool.chain.hub.head()
    with begin(seen, "SluiceEventsMissed"):
        pool.node.fault = answers.results([], frozenset({"eth_getLogs"}))
        deal = pool.buy(CATEGORY)
        operated.step(2)
    pool.node.fault = answers.honest
    operated.step(2)
    assert operated.task(deal).initialized_block is not None
    last = pool.store.chain.cursor()
    assert last is not None
    lost = pool.store._db["logs"].find_one_and_delete({"block": {"$gte": first}})
    assert lost is not None, "no event is stored of the blocks that are audited"
    says = "To repair it: sluice chain replay"
    open_shell.says(f"chain audit --from {first} --to {last.number}", "missing", says, code=1)
    open_shell.says(f"chain replay --from {first} --to {last.number}", "Repaired.")
    open_shell.says(f"chain audit --from {first} --to {last.number}", "all is stored as the chain says")


def test_blocks_that_counted_as_final_are_replaced(operated: OperatedPool, seen: Prometheus, open_shell: Shell) -> None:
    operated.step(2 * FINALITY)
    with begin(seen, "SluiceReorgBeyondFinality"):
        replace_blocks(operated.pool.chain.rpc, FINALITY + 1)
        operated.step(2)
    open_shell.says("chain status", f"reorg: {FINALITY + 1} blocks above")
    operated.step(2 * FINALITY)
    open_shell.says("tx audit", "All is as the chain says.")
    last = operated.pool.store.chain.cursor()
    assert last is not None
    first = last.number - 3 * FINALITY
    open_shell.says(f"chain replay --from {first} --to {last.number}", "all is stored as the chain says")
    open_shell.says("chain audit", "all is stored as the chain says")


def test_the_watcher_stands_still(operated: OperatedPool, seen: Prometheus, open_shell: Shell) -> None:
    with begin(seen, "SluiceWatcherBehind"):
        operated.pool.chain.rpc.call("anvil_mine", hex(BEHIND), "0x1")
        operated.pool.now = operated.head_time()
        operated.look(ANEW)
    open_shell.says("chain status", f"{BEHIND} blocks behind")
    operated.step(2)
    open_shell.says("chain status", "0 blocks behind")
    open_shell.says("chain audit", "all is stored as the chain says")


def test_a_queue_has_lost_its_process(operated: OperatedPool, seen: Prometheus, open_shell: Shell) -> None:
    app, queue = core_app(operated.pool.settings), topology.PIPELINE_QUEUE

    def grown() -> bool:
        # RabbitMQ counts every few seconds.
        operated.look(ANEW)
        return seen.states()["SluiceQueueGrows"] == "firing"

    with operated.nobody_reads(queue), app.connection_for_write() as connection:
        with begin(seen, "SluiceQueueGrows"), connection.Producer() as producer:
            for number in range(MESSAGES):
                producer.publish({"number": number}, routing_key=queue)
            until("the alert SluiceQueueGrows", grown)
        open_shell.says("queue ls", queue, str(MESSAGES))
        open_shell.says("status", f"{queue} {MESSAGES} + 0 in hand", code=1)
        channel: Any = connection.channel()
        channel.queue_purge(queue)


def test_the_database_has_lost_a_task(operated: OperatedPool, seen: Prometheus, open_shell: Shell) -> None:
    """As after a failover to a member that was behind."""
    pool, task = operated.pool, operated.bulk.tasks[0]
    rows, started = pool.store._db["tasks"], pool.now
    lost = rows.find_one_and_delete({"_id": task})
    assert lost is not None
    with begin(seen, "SluiceAuditDiffers"):
        for _ in range(2):
            audit_when_due(pool.scheduler, started)
            operated.look(READING)
    seen.alarms("SluicePartNotWell")
    open_shell.says("status", "audit: ", "sluice audit --fix", code=1)
    open_shell.says("audit --wait 0", "it has 8 tasks, of which 7 are stored", code=1)
    # What is left is of the test's own making: nobody reads the message that the deal is to be read again.
    open_shell.says("audit --wait 0 --fix", "fixed; see with the next `sluice audit` that it is", code=1)
    _ingest(pool.scheduler, [operated.bulk.deal_id])
    operated.step(2)
    assert rows.find_one({"_id": task}) is not None
    assert "are stored" not in open_shell.run("audit", "--wait", "0")[1]


def test_tasks_that_nobody_does_are_late_and_fail(operated: OperatedPool, seen: Prometheus, open_shell: Shell) -> None:
    machine = operated.wallets[0]
    with begin(seen, "SluiceTaskLate"):
        deal = operated.pool.buy(SHORT, volume=FAILED)
        operated.step(2)
        operated.step(1, 0.5 * VOTES)
    task = deal.tasks[0]
    stage = operated.task(deal).stage
    open_shell.says(f"task ls --stage {stage} --limit 1000", task)
    open_shell.says(f"task show {task}", str(stage))
    open_shell.says(f"explain {task}", task)
    open_shell.says("worker ls", machine)
    open_shell.says(f"worker drain {machine}", "drained")
    open_shell.says(f"worker undrain {machine}", machine)
    open_shell.run("scheduler", "doctor")
    with begin(seen, "SluiceTaskAlmostExpired"):
        operated.step(1, 0.4 * VOTES)
    open_shell.says(f"explain {task}", task)
    assert task in {each["task_id"] for each in json.loads(open_shell.run("task", "ls", "--json")[1])}
    open_shell.says("pool resume", "not paused")
    open_shell.says("orders cancel --all --yes", "offered")
    with begin(seen, "SluiceTasksFail"):
        operated.step(6, 0.5 * OVER)
    open_shell.says("task ls --stage FAILED", task)
    open_shell.says(f"task show {task}", "FAILED")
    open_shell.says("worker ls", machine)
    open_shell.says(f"worker drain {machine}", "drained")
    open_shell.says(f"worker undrain {machine}", machine)


def test_actions_come_too_late(operated: OperatedPool, seen: Prometheus, open_shell: Shell) -> None:
    """The wallet has gas again once the time of what waited for it is over."""
    chain, wallet = operated.pool.chain, operated.pool.scheduler.key.wallet
    held = chain.rpc.call("eth_getBalance", wallet, "latest")
    chain.rpc.call("anvil_setBalance", wallet, hex(1000))
    with begin(seen, "SluiceActionsFail"):
        deal = operated.pool.buy(SHORT, volume=LATE)
        operated.step(2)
        waits = json.loads(open_shell.run("tx", "ls", "--json")[1])["intents"]
        intent = next(each["key"] for each in waits if each["subject"] in deal.tasks)
        operated.step(1, VOTES)
        chain.rpc.call("anvil_setBalance", wallet, held)
        operated.step(2)
    open_shell.says(f"tx show {intent}", "failed")


def test_mongodb_is_away(operated: OperatedPool, seen: Prometheus, open_shell: Shell) -> None:
    with begin(seen, "SluiceCountsMissing"):
        operated.pool.mongodb.away = True
        operated.look(ANEW)
    open_shell.says("status", "mongodb: ", code=1)
    operated.pool.mongodb.away = False
    operated.step(2)
    assert "busy" in open_shell.run("status")[1]


def test_the_checks_hang(
    operated: OperatedPool, seen: Prometheus, open_shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server takes their connections and never answers."""
    ask, begun, over = Probes.ask, threading.Event(), threading.Event()
    asking = threading.current_thread()

    def hang(probes: Probes, *, running: bool) -> Facts:
        begun.set()
        # `scheduler doctor` asks the same servers anew.
        if threading.current_thread() is not asking:
            over.wait()
        return ask(probes, running=running)

    monkeypatch.setattr(Probes, "ask", hang)
    operated.pool.now += ANEW
    operated.services.monitor.report()
    until("a check", begun.is_set)
    try:
        with begin(seen, "SluiceChecksHang"):
            operated.pool.now += UNCHECKED
        # No scheduler runs where this one looks for it: it asks the servers.
        with open_shell.told(SLUICE_OPERATIONS_PORT="1"):
            said = " ".join(open_shell.run("scheduler", "doctor")[1].split())
        assert "ok mongodb" in said, said
    finally:
        over.set()


def test_the_process_of_the_api_is_gone(operated: OperatedPool, seen: Prometheus, open_shell: Shell) -> None:
    with begin(seen, "SluiceDown"):
        operated.operations.stop()
    open_shell.says("status", "see that `sluice scheduler run` runs", code=1)
    said = " ".join(open_shell.run("scheduler", "doctor")[1].split())
    assert "ok mongodb" in said, said
    operated.operations.start()
    until("the end of the alert", lambda: seen.states()["SluiceDown"] == "inactive")
    open_shell.run("status")


def test_no_block_takes_a_transaction_and_a_backup_without_it_is_put_back(
    operated: OperatedPool, seen: Prometheus, open_shell: Shell
) -> None:
    """The last one, since nobody knows of that transaction then."""
    pool = operated.pool
    wallet = pool.scheduler.key.wallet
    with operated.restarted_with(initialize_batch=1):
        for _ in range(3):
            pool.buy(CATEGORY)
        with begin(seen, "SluiceTransactionStuck"):
            pool.mining = False
            operated.step(2)
            operated.step(1, STUCK)
        pending = pool.chain.rpc.call("txpool_content")["pending"]
        held = next(sent for owner, sent in pending.items() if owner.lower() == wallet)
        first, second, *others = sorted(int(nonce) for nonce in held)
        assert others
        open_shell.says("tx ls", f"nonce {first} was sent at block", code=0)
        open_shell.says(f"tx bump {second} --yes", "costs at most", "done: True")
        open_shell.says("tx rebroadcast", "done: True")
        open_shell.says(f"tx cancel {second} --yes", "costs at most", "done: True")
        with begin(seen, "SluiceNonceGap"):
            assert pool.store._db["nonces"].delete_one({"nonce": first}).deleted_count == 1
            operated.step()
        open_shell.says("tx ls", f"nonce {first} has no transaction: a gap")
        open_shell.says("tx fill-gap --yes", "costs at most", "done: True")
        pool.mining = True
        operated.step(2)
        open_shell.says("tx ls", "head of the line")
