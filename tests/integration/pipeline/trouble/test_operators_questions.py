"""What an operator asks of a pool in trouble is answered: the right cause, in words, and the command that helps.

One pool of ten machines and five hundred tasks has each of twelve troubles in turn, and the real Prometheus sees them:
the alerts of each begin. How long each command takes is printed, not judged (`pytest -rP`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from chain.contracts import calls
from config import topology
from config.celery_apps import core_app
from ops.poco.deploy import CATEGORIES
from ops.poco.sender import DirectSender, TxRequest
from ops.poco.state import PocoState
from ops.stack.stack import Stack
from pipeline.domain.records import ChainFacts, Outcome
from pipeline.flow.advance_each import advance_each
from pipeline.tasks import _ingest
from protocol.poco.tags import GPU_BIT, make_tag
from protocol.types import NRlc, TaskId, Wei
from protocol.wire import Step
from tests.faulty import answers
from tests.faulty.answers import Call, Honest, Reply
from tests.integration.conftest import _database
from tests.integration.pipeline.conftest import OWNER, REQUESTER, WORKERS
from tests.integration.pipeline.trouble.operated_pool import (
    CATEGORY,
    MACHINES,
    STAKE,
    TASKS,
    OperatedPool,
    open_operated_pool,
)
from tests.integration.pipeline.trouble.shell import Shell
from tests.waiting import until

#: Steps for longer than a part may be away without a hold, and for longer than the scheduler's stake is not asked for;
#: seconds of each.
AWAY_STEPS, STAKE_STEPS, AWAY_SECONDS = 8, 4, 8.0
#: A price whose share takes nearly all of the scheduler's stake, and more than a machine has.
DEAR = NRlc(3_200_000_000)
#: Categories that the pool made; seconds of one more, whose deadlines no date tells.
MADE = 2
FOREVER = 2**70


@pytest.fixture(scope="module")
def operated(poco_state: PocoState, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatedPool]:
    home = tmp_path_factory.mktemp("operated")
    with _database(stack) as (database, _), open_operated_pool(poco_state, stack, database, home) as opened:
        yield opened


def test_a_pool_that_is_well_says_so(operated: OperatedPool, shell: Shell) -> None:
    shell.says("status", "The pool works.", "10 busy", "RECEIVED", "INITIALIZED", "RUNNING")
    settings = operated.pool.settings
    shell.says("status", f"Flower http://127.0.0.1:{settings.flower_port}", f"RabbitMQ {settings.rabbitmq_api}")
    assert shell.health() == set()
    shell.says("pool status", "The pool takes work.")
    shell.says("chain status", "0 blocks behind")
    shell.says("dead ls", "There is no dead letter.")
    shell.says("quarantine ls", "Nothing is quarantined.")
    shell.says("tx ls", "head of the line")
    shell.says(f"explain {operated.bulk.deal_id}", f"Not over of its {TASKS} tasks: {TASKS}.")
    assert len(json.loads(shell.run("task", "ls", "--limit", "1000", "--json")[1])) == TASKS
    assert len(json.loads(shell.run("worker", "ls", "--json")[1])) == MACHINES
    shell.says("ledger", "At block", code=0)


def test_deal_not_decodable(operated: OperatedPool, shell: Shell) -> None:
    """Before the pool's clock is a minute ahead: by the machine's own, such a deal is read again after that time."""
    pool = operated.pool
    made = calls.create_category("FOREVER", "", FOREVER)
    operated.send([TxRequest(pool.chain.at.hub, made, 500_000)])
    pool.categories[FOREVER] = len(CATEGORIES) + MADE
    deal = pool.buy(FOREVER)
    operated.step(3)
    why = f"lasts {FOREVER} s"
    shell.says("status", "quarantine: 1 row of the database quarantined", "`sluice quarantine ls`", code=1)
    shell.alarms("SluiceRowsQuarantined")
    shell.says("quarantine ls", "deals", deal.deal_id, why, code=1)
    shell.says(f"explain {deal.deal_id}", "It cannot be served", why, "`sluice quarantine ls`")
    shell.says(f"deal show {deal.deal_id}", "unreadable", why)
    shell.says("deal ls --limit 1", why)
    shell.says("chain status", "1 of deals are quarantined", "`sluice quarantine ls`", code=1)
    shell.says(f"quarantine accept --key {deal.deal_id} --dry-run", "would be accepted")
    shell.says("quarantine retry --dry-run", "would be read again within seconds: 1")
    shell.says("quarantine ls", "deals", why, code=1)
    shell.says("quarantine retry", "1")
    # As the message would have it that the sweep sends.
    _ingest(pool.scheduler, [deal.deal_id])
    shell.says("quarantine ls", "deals", why, code=1)
    shell.says(f"quarantine accept --key {deal.deal_id}", "Accepted")
    shell.says("quarantine ls", "accepted: ", why)
    shell.says("chain status")
    pool.store._db["quarantine"].delete_many({})


def test_no_gas(operated: OperatedPool, shell: Shell) -> None:
    chain, wallet = operated.pool.chain, operated.pool.scheduler.key.wallet
    held = chain.rpc.call("eth_getBalance", wallet, "latest")
    chain.rpc.call("anvil_setBalance", wallet, hex(1000))
    deal = operated.pool.buy(CATEGORY)
    operated.step(2)
    shell.says("status", "gas: the wallet holds 1000 wei", f"to {wallet}", "enough for 0 tasks", code=1)
    assert shell.health() >= {"gas"}
    shell.alarms("SluiceGasOut", "SluiceLaneWaits")
    shell.says(f"explain {deal.tasks[0]}", "not enough money to send: fund the wallet", "`sluice tx ls`")
    shell.says("tx ls", "fund the wallet", f"initialize {deal.tasks[0]}")
    shell.says("stake show", "gas", "1e-15 (native token)")
    shell.says("pool status", "not all of it is well: gas, lane (`sluice status`)")
    shell.says("pool pause", "begins no new task")
    shell.says("pool resume", "takes work again")
    chain.rpc.call("anvil_setBalance", wallet, held)
    operated.step(3)
    assert operated.task(deal).initialized_block is not None


def test_no_stake(operated: OperatedPool, shell: Shell) -> None:
    """One deal locks nearly all that the scheduler has, and wants more of each machine than any has."""
    operated.fund(operated.pool.chain.sender(REQUESTER).wallet, DEAR)
    deal = operated.pool.buy(CATEGORY, trust=3, price=DEAR)
    operated.step(STAKE_STEPS, AWAY_SECONDS)
    shell.says("status", "stake: the scheduler has", "`sluice stake deposit 'N RLC'`", code=1)
    told = shell.says("status", "1 task that no machine of the pool can take", "Its vote needs", code=1)
    assert f"`sluice explain {deal.tasks[0]}`" in told
    shell.alarms("SluiceStakeLow")
    shell.says("stake show", "0.96", "enough for 0 more tasks of that price")
    shell.says(f"explain {deal.tasks[0]}", f"needs 960000000 nRLC of free stake; the most a machine has is {STAKE}")
    shell.says(f"explain {operated.wallets[0]}", f"a vote locks more than the {STAKE} nRLC of stake that it has free")
    shell.says("worker ls", "nRLC free", str(STAKE))
    code, said = shell.run("stake", "deposit", "10 nRLC", "--dry-run")
    assert (code, "Would be" in said) == (0, True)
    # The lane is the test's: once it has run, the same command sees the end of what it began.
    code, said = shell.run("stake", "deposit", "10 nRLC", "--yes", "--wait", "1")
    assert (code, "Run the same command again" in said) == (1, True)
    operated.step(2)
    code, said = shell.run("stake", "deposit", "10 nRLC", "--yes")
    assert (code, "RLC deposited in block" in said) == (0, True)
    for wallet in (operated.pool.scheduler.key.wallet, operated.wallets[0]):
        operated.fund(wallet, NRlc(10 * DEAR))
    facts = ChainFacts(1, NRlc(10 * DEAR), Wei(10**18), funded=True)
    operated.pool.store.workers.store_facts([(operated.wallets[0], facts)], operated.pool.now)
    operated.step(STAKE_STEPS, AWAY_SECONDS)


def test_wrong_tag(operated: OperatedPool, shell: Shell) -> None:
    gpu = make_tag(GPU_BIT)
    deal = operated.pool.buy(CATEGORY, tag=gpu)
    operated.step(2)
    says = "No machine offers what its tag demands: GPU"
    shell.says("status", "tasks: 1 task that no machine of the pool can take", says, code=1)
    shell.says(f"explain {deal.tasks[0]}", says)
    shell.says(f"explain {deal.deal_id}", "Task 0: ", says)
    shell.says(f"deal show {deal.deal_id}", says)
    shell.says("task ls --limit 1", says)
    shell.says(f"explain {operated.wallets[0]}", "their tag demands what it does not offer")
    operated.sign_in(1, gpu)
    operated.step(2)
    shell.says(f"explain {deal.tasks[0]}", "The machines that could take it are busy")


def test_all_machines_rest(operated: OperatedPool, shell: Shell) -> None:
    workers = operated.pool.store.workers
    for _ in range(3):
        workers.count_outcomes([(wallet, Outcome.FAILED) for wallet in operated.wallets], operated.pool.now)
    deal = operated.pool.buy(CATEGORY)
    operated.step()
    shell.says(
        "status", "none of 10 machines can take work: 10 cooling down after failures", "`sluice worker ls`", code=1
    )
    assert shell.health() == {"workers"}
    shell.alarms("SluiceNoMachine")
    shell.says(f"explain {deal.tasks[0]}", "cool down after failures, the first for another")
    shell.says(f"explain {operated.wallets[2]}", "It cools down for another", "after 3 failures in a row")
    shell.says("worker ls", "cooling down")
    shell.says(f"worker show {operated.wallets[2]}", "cooling down", "failed in a row 3")
    (rests,) = {each.rest_until for each in workers.load_workers(operated.wallets[2:3])}
    operated.step(2, max(0.0, rests - operated.pool.now) / 2 + 1)


def test_node_behind(operated: OperatedPool, shell: Shell) -> None:
    pool = operated.pool
    top = pool.chain.hub.head()

    def hung(calls: Sequence[Call], as_list: bool, ask: Honest) -> Reply:
        return answers.behind(pool.chain.hub.head() - top)(calls, as_list, ask)

    deal = pool.buy(CATEGORY)
    pool.node.fault = hung
    operated.step(AWAY_STEPS, AWAY_SECONDS)
    shell.says("status", f"chain: the head, block {top}, is", "or the node does", "SLUICE_RPC_URL", code=1)
    shell.says("status", "holding: the pool has been holding for", code=1)
    assert "chain" in shell.health()
    shell.alarms("SluicePartNotWell", "SluiceHeadOld", "SluiceHolding")
    shell.says("chain status", f"is behind: its head, block {top}", "restart the node", code=1)
    shell.says("pool status", "Holding since", f"chain: the head, block {top}", code=1)
    shell.says(f"explain {deal.tasks[0]}", "a new deal is known a block or two after it was matched", code=2)
    waiting = operated.bulk.tasks[-1]
    shell.says(f"explain {waiting}", "The pool holds and begins nothing new: chain: the head")
    shell.says("pool pause", "begins no new task")
    shell.says("pool resume", "takes work again")
    pool.node.fault = answers.honest
    operated.step(3)
    shell.says("chain status", "0 blocks behind")


def test_broker_alarm(operated: OperatedPool, shell: Shell) -> None:
    operated.pool.rabbitmq[1].short_of = "memory"
    operated.step(AWAY_STEPS, AWAY_SECONDS)
    shell.says("status", "rabbitmq: RabbitMQ takes no messages", "(memory)", "raise its watermarks", code=1)
    assert shell.health() == {"rabbitmq"}
    shell.alarms("SluicePartNotWell", "SluiceHolding")
    shell.says("pool status", "Holding since", "RabbitMQ takes no messages", code=1)
    shell.says(
        f"explain {operated.bulk.tasks[-1]}", "The pool holds and begins nothing new: rabbitmq: RabbitMQ takes no"
    )
    shell.says(f"explain {operated.wallets[0]}", "The pool holds and begins nothing new: rabbitmq")
    shell.says("queue ls", "pipeline")
    operated.pool.rabbitmq[1].short_of = None
    operated.step(2)


def test_halted_lane(operated: OperatedPool, shell: Shell) -> None:
    """Somebody sends by the scheduler's key while a transaction of the lane is on its way."""
    pool = operated.pool
    chain, wallet = pool.chain, pool.scheduler.key.wallet
    deal = pool.buy(CATEGORY)
    pool.mining = False
    operated.step()
    pending = chain.rpc.call("txpool_content")["pending"]
    (sent,) = next(held for owner, held in pending.items() if owner.lower() == wallet).values()
    chain.rpc.call("anvil_dropTransaction", sent["hash"])
    pool.mining = True
    # No block of its own: the next step mines it.
    DirectSender.send(chain.sender(OWNER), [TxRequest(chain.sender(WORKERS[0]).wallet, "0x", 30_000)])
    operated.step(6)
    nonce = int(sent["nonce"], 16)
    shell.says("status", f"lane: it is halted: Nonce {nonce}", "not ours", "`sluice tx disown`", code=1)
    assert shell.health() == {"lane"}
    shell.alarms("SluiceLaneHalted")
    shell.says(f"explain {deal.tasks[0]}", "The lane stands still until you decide", "not ours", "`sluice tx ls`")
    told = shell.says("tx ls", "The lane stands still: decide by `sluice tx disown`", f"initialize {deal.tasks[0]}")
    assert re.search(rf"^\s*{nonce} ", told, re.MULTILINE)
    shell.says(f"tx show {nonce}", deal.tasks[0])
    shell.says("pool status", "not all of it is well: lane (`sluice status`)")
    shell.says("tx resume", "not ours")
    operated.step(2)
    shell.says("status", f"lane: it is halted: Nonce {nonce}", code=1)
    shell.says(f"tx disown {nonce} --dry-run", "queued")
    shell.says(f"tx disown {nonce}", "queued")
    operated.step(3)
    shell.says("tx audit", "All is as the chain says.")
    assert operated.task(deal).initialized_block is not None


def test_banned_worker(operated: OperatedPool, shell: Shell) -> None:
    *others, first = operated.wallets
    deal = operated.pool.buy(CATEGORY)
    operated.step(2)
    shell.says(f"worker ban {first}", "is banned")
    operated.step(2)
    shell.says("status", "The pool works.", "1 banned", "9 busy")
    shell.says(f"explain {first}", f"It is banned: `sluice worker unban {first}`.")
    shell.says(f"worker show {first}", "state banned", f"`sluice worker unban {first}`")
    shell.says("worker ls", "banned")
    for wallet in others:
        shell.run("worker", "ban", wallet)
    operated.step(2)
    shell.says("status", "none of 10 machines can take work: 10 banned", "`sluice worker unban WALLET`", code=1)
    assert shell.health() == {"workers"}
    shell.alarms("SluiceNoMachine")
    shell.says("scheduler certificate --help", "signed by a CA of your own")
    shell.says(f"explain {deal.tasks[0]}", "Every machine that signed in is banned.")
    shell.says(f"worker drain {first}", "drained")
    shell.says(f"worker undrain {first}", "may use all the slots")
    for number, wallet in enumerate(operated.wallets):
        shell.says(f"worker unban {wallet}", "may sign in again")
        operated.sign_in(number)
    operated.step(2)


def test_image_missing(operated: OperatedPool, shell: Shell) -> None:
    task = next(each for each in operated.pool.store.tasks.of_deal(operated.bulk.deal_id) if each.replicates)
    cause = "APP_IMAGE_DOWNLOAD_FAILED: the registry has no hello:1"
    wallet = task.replicates[0].wallet
    operated.pool.store.tasks.record_report(TaskId(task.task_id), wallet, Step.FAILED, operated.pool.now, cause, None)
    # As the report's message would have it.
    advance_each(operated.pool.scheduler, [task.task_id])
    shell.says(f"explain {task.task_id}", f"1 x {cause}")
    shell.says(f"task show {task.task_id}", "FAILED", cause)
    shell.says(f"explain {operated.bulk.deal_id}", f"1 x {cause}")
    shell.says(f"deal show {operated.bulk.deal_id}", f"1 x {cause}")
    shell.says(f"worker show {wallet}", "state")


def test_dead_letter(operated: OperatedPool, shell: Shell) -> None:
    app, task = core_app(operated.pool.settings), operated.bulk.tasks[0]
    with operated.nobody_reads(topology.PIPELINE_QUEUE), app.connection_for_write() as connection:
        channel: Any = connection.channel()
        channel.queue_purge(topology.PIPELINE_QUEUE)
        app.send_task(topology.ADVANCE, args=([task],), connection=connection)
        found = until("the message", lambda: channel.basic_get(topology.PIPELINE_QUEUE))
        channel.basic_reject(found.delivery_tag, requeue=False)

    def told() -> bool:
        operated.step(1, AWAY_SECONDS)
        return "dead letters: 1 message" in shell.run("status")[1]

    until("RabbitMQ's statistics have it", told)
    shell.says("status", "`sluice dead ls`", "`sluice dead retry --all`", code=1)
    said = shell.says("dead ls", topology.ADVANCE, topology.PIPELINE_QUEUE, "rejected", task, code=1)
    shell.alarms("SluiceDeadLetters")
    shell.says("queue ls", "dead 1")
    letter = said.splitlines()[1].split()[0]
    shell.says(f"dead show {letter}", task)
    shell.says("quarantine ls", "Nothing is quarantined.")
    with operated.nobody_reads(topology.PIPELINE_QUEUE), app.connection_for_write() as connection:
        shell.says("dead retry --all", "1 message")
        channel = connection.channel()
        found = until("the message again", lambda: channel.basic_get(topology.PIPELINE_QUEUE))
        channel.basic_reject(found.delivery_tag, requeue=False)
    until("the dead letter again", lambda: task in shell.run("dead", "ls")[1])
    shell.says("dead drop --all", "1 message removed.")

    def gone() -> bool:
        operated.step(1, AWAY_SECONDS)
        return "The pool works." in shell.run("status")[1]

    until("RabbitMQ's statistics have forgotten it", gone)


def test_cap_reached(operated: OperatedPool, shell: Shell) -> None:
    with operated.restarted_with(daily_spend_cap_wei=1):
        deal = operated.pool.buy(CATEGORY)
        operated.step(2)
        why = "the wallet has spent what it may in 24 hours"
        shell.says("status", f"lane: it waits for something that it cannot repair: {why}", "`sluice tx ls`", code=1)
        assert shell.health() == {"lane"}
        shell.alarms("SluiceLaneWaits")
        shell.says(f"explain {deal.tasks[0]}", why, "SLUICE_DAILY_SPEND_CAP_WEI", "`sluice tx ls`")
        shell.says("tx ls", why, f"initialize {deal.tasks[0]}")
        shell.says("tx audit", "All is as the chain says.")
        shell.says("stake show", "daily cap 0.000000000000000001 of the native token, 0 left")
        shell.says("pool status", "not all of it is well: lane (`sluice status`)")
    operated.step(3)
    assert operated.task(deal).initialized_block is not None
