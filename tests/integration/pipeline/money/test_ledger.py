"""The ledger of a pool on the real contracts equals the chain to the wei and nRLC; and its stake is moved once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from bench.rig.reorg import replace_blocks
from chain.contracts import calls
from config.connections.http_client import http_client
from config.http_server.server import http_server
from config.settings import settings as read_again
from ops import cli
from ops.commands.money.ledger import all_lines
from ops.market.match import Matched
from ops.poco.deploy import TEST_CATEGORY
from ops.poco.sender import TxRequest
from ops.stack import ports
from pipeline.api.admin.access import operator_token
from pipeline.api.application import create_operations_app
from pipeline.api.services import Services
from pipeline.flow.audit.run import Reading
from pipeline.flow.cleanup.retention import DAY, Retention
from pipeline.flow.money.ledger import WalletLedger
from pipeline.scheduler import Scheduler
from protocol.poco.view import TaskStatus
from protocol.types import Contract, NRlc, Wei
from tests.integration.pipeline.conftest import AGAIN_CATEGORY, LIE, OWNER, PRICE, REQUESTER, Pool
from tests.waiting import until

PARTS = ("watch", "pipeline", "lane", "beat")


@dataclass(frozen=True)
class OperatedPool:
    """A pool with the operator's API beside it."""

    pool: Pool
    services: Services
    admin: httpx.Client

    def shown(self, **params: Any) -> dict[str, Any]:
        return dict(self.admin.get("/ledger", params=params).raise_for_status().json())

    def settled(self) -> dict[str, Any]:
        """The ledger once the lane knows what all of its transactions cost."""
        return until("the ledger is complete", self._complete)

    def _complete(self) -> dict[str, Any]:
        found = self.shown(since=0)
        return found if found["reconciled"]["differs_wei"] is not None else {}

    def await_final(self) -> None:
        """Until what was sent before is final: the block after the next has it at the latest."""
        hub, depth = self.pool.chain.hub, self.ledger.finality
        block = hub.head() + 2
        until("that block is final", lambda: hub.head() >= block + depth)

    @property
    def ledger(self) -> WalletLedger:
        return WalletLedger.of(self.pool.settings, self.pool.store, self.pool.chain.hub, self.services.pool.scheduler)


@pytest.fixture
def operated(make_pool: Callable[..., Pool]) -> Iterator[OperatedPool]:
    pool = make_pool(operations_port=ports.free_port())
    pool.store.ensure_indexes()
    services = Services.open(pool.settings)
    server = http_server(pool.settings, create_operations_app(services), "127.0.0.1", pool.settings.operations_port)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until("the API listens", lambda: server.started)
    for name in PARTS:
        pool.start(name)
    headers = {"authorization": f"Bearer {operator_token(pool.settings)}"}
    url = f"http://127.0.0.1:{pool.settings.operations_port}/admin"
    with http_client(url, timeout=60.0, headers=headers) as admin:
        yield OperatedPool(pool, services, admin)
    server.should_exit = True
    thread.join()
    services.close()


@pytest.fixture
def sluice(
    operated: OperatedPool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, Any]]]:
    """Runs a command of `sluice` as the operator: exit code, and what it printed (parsed, with --json)."""
    monkeypatch.setenv("SLUICE_ADMIN_URL", f"http://127.0.0.1:{operated.pool.settings.operations_port}/")
    monkeypatch.setenv("SLUICE_ADMIN_TOKEN", operator_token(operated.pool.settings))

    def run(*words: str) -> tuple[int, Any]:
        capsys.readouterr()
        read_again.cache_clear()
        code = cli.run(words)
        out, err = capsys.readouterr()
        assert out or "--json" not in words, err
        return code, json.loads(out) if "--json" in words else out + err

    yield run
    read_again.cache_clear()


def test_the_ledger_equals_the_chain_to_the_wei_and_nrlc(
    operated: OperatedPool, sluice: Callable[..., tuple[int, Any]]
) -> None:
    pool, chain = operated.pool, operated.pool.chain
    owner = chain.sender(OWNER).wallet
    liar = pool.enrol(0, LIE)
    pool.enrol(1)
    alone = pool.buy(trust=1)
    pool.await_status(alone, TaskStatus.COMPLETED)
    voted = pool.buy(trust=3)
    until("both have voted", lambda: len(pool.views(voted)[0].contributions) == 2)
    for number in (2, 3):
        pool.enrol(number)
    pool.await_status(voted, TaskStatus.COMPLETED)
    pool.await_closed(voted)
    # Three blocks go, and with them the finalization that has just been seen.
    replace_blocks(chain.rpc, 3)
    pool.await_status(voted, TaskStatus.COMPLETED, 40)
    for machine in pool.machines:
        machine.deaf.add("worker.compute")
    let_expire = pool.buy(trust=1, category=TEST_CATEGORY)
    pool.await_status(let_expire, TaskStatus.FAILED, 40)
    for deal in (alone, voted, let_expire):
        pool.await_closed(deal)

    found = operated.settled()
    books, total = found["reconciled"], found["total"]
    assert (books["differs_wei"], books["differs_stake_nrlc"], books["differs_locked_nrlc"]) == (0, 0, 0)
    assert books["says"] == f"At block {books['block']} it differs by 0 wei and 0 nRLC."
    assert books["outside"] == []
    account = chain.hub.account(owner)
    assert (books["stake_nrlc"], books["locked_nrlc"]) == (account.stake, account.locked)
    # What the wallet had before its first deal, and what it has lost or earned since.
    assert account.stake == books["opening_stake_nrlc"] + total["earned_nrlc"]
    assert books["opening_native_wei"] - total["gas_wei"] == books["native_wei"] == chain.hub.balances([owner])[0]
    stake = PRICE * 30 // 100
    assert (total["lock_nrlc"], total["unlock_nrlc"], total["seize_nrlc"]) == (3 * stake, 2 * stake, stake)
    kinds = {line["key"] for line in found["lines"]}
    assert {"gas: initialize", "gas: finalize", "gas: claim", "lock", "unlock", "reward", "seize"} <= kinds

    # However it is looked at, the sums are the same.
    for by in ("task", "day"):
        assert operated.shown(by=by, since=0)["total"] == total
    by_task = {line["key"]: line for line in operated.shown(by="task", since=0)["lines"]}
    assert by_task[let_expire.tasks[0]]["earned_nrlc"] == -stake
    assert by_task[voted.tasks[0]]["gas_wei"] > by_task[alone.tasks[0]]["gas_wei"] > 0

    # Page by page, one line each; and up to a moment, and from then on.
    pages, _ = all_lines(lambda limit, after: operated.shown(by="task", since=0, limit=min(limit, 1), after=after))
    assert pages == list(by_task.values())
    middle = by_task[voted.tasks[0]]["at"]
    halves = [operated.shown(since=0, until=middle)["total"], operated.shown(since=middle)["total"]]
    assert all(half["gas_wei"] > 0 for half in halves)
    for name in ("transactions", "gas_wei", "lock_nrlc", "unlock_nrlc", "seize_nrlc", "reward_nrlc"):
        assert sum(half[name] for half in halves) == total[name]

    by_worker = {line["key"]: line for line in operated.shown(by="worker", since=0)["lines"]}
    worker_stake = pool.task(voted.tasks[0]).worker_stake
    assert by_worker[liar.key.wallet]["name"] == "hand-0"
    paid = sum(line["reward_nrlc"] for line in by_worker.values())
    # Both prices and the liar's stake went to the machines and the scheduler.
    assert paid + total["reward_nrlc"] == 2 * PRICE + worker_stake
    assert by_worker[liar.key.wallet]["seize_nrlc"] == worker_stake

    stake_shown = operated.admin.get("/stake").raise_for_status().json()
    assert (stake_shown["price_nrlc"], stake_shown["locks_per_task_nrlc"]) == (PRICE, stake)
    assert (stake_shown["locked_by_open_nrlc"], stake_shown["tasks_paid_for"]) == (0, account.stake // stake)
    pool.buy(trust=1, volume=2)
    until("its tasks are open", lambda: operated.shown()["forecast"]["tasks"] == 2)
    coming = operated.shown()["forecast"]
    assert (coming["scheduler_nrlc"], coming["workers_nrlc"]) == (2, 2 * (PRICE - 1))
    assert coming["locked_nrlc"] == chain.hub.account(owner).locked == 2 * stake

    # Their initialize may be on its way, which the ledger tells instead.
    until("nothing to differ", lambda: "differs by 0 wei and 0 nRLC" in sluice("ledger", "--since", "1h")[1])
    assert sluice("ledger", "--since", "1h")[0] == 0
    code, lines = sluice("ledger", "--by", "day", "--csv")
    assert code == 0
    day = dict(zip(*(line.split(",") for line in lines.splitlines()[:2]), strict=True))
    assert int(day["gas_wei"]) >= total["gas_wei"]
    assert_the_same_after_retention(operated, [alone, voted, let_expire])


def assert_the_same_after_retention(operated: OperatedPool, over: list[Matched]) -> None:
    """Ledger and audits tell what they told before, though nothing is kept of these deals."""
    pool = operated.pool
    operated.await_final()
    operated.ledger.catch_up(10.0)
    before = operated.settled()
    scheduler = Scheduler.open(pool.settings)
    retention = Retention.of(scheduler)
    assert retention is not None
    removed = replace(retention, before=time.time() + 2 * DAY).run(60.0)
    assert (removed.deals, removed.tasks) == (len(over), sum(len(deal.tasks) for deal in over))
    assert removed.amounts > 10
    assert [pool.store.deals.stored(deal.deal_id) for deal in over] == [None] * len(over)
    after = operated.settled()
    assert (after["total"], after["reconciled"]["says"][-28:]) == (before["total"], "differs by 0 wei and 0 nRLC.")
    assert after["lines"] == before["lines"]
    reading = Reading(scheduler)
    reading.run()
    assert reading.differences == [], "what is still open is audited, its events and transactions too"
    scheduler.close()


def test_a_reopened_task_is_in_the_ledger_and_what_its_silent_winner_lost(operated: OperatedPool) -> None:
    pool = operated.pool
    mute = pool.enrol(0, deaf={"worker.reveal", "worker.upload"})
    deal = pool.buy(trust=2, category=AGAIN_CATEGORY)
    pool.await_status(deal, TaskStatus.REVEALING)
    other = pool.enrol(1)
    pool.await_status(deal, TaskStatus.COMPLETED, 90)
    pool.await_closed(deal)
    found = operated.settled()
    assert found["reconciled"]["says"].endswith("differs by 0 wei and 0 nRLC.")
    kinds = {line["key"]: line for line in found["lines"]}
    assert kinds["gas: reopen"]["transactions"] == 1
    by_worker = {line["key"]: line for line in operated.shown(by="worker", since=0)["lines"]}
    stake = pool.task(deal.tasks[0]).worker_stake
    assert by_worker[mute.key.wallet]["earned_nrlc"] == -stake
    assert by_worker[other.key.wallet]["reward_nrlc"] + kinds["reward"]["reward_nrlc"] == PRICE + stake


def test_native_token_that_the_lane_did_not_move_is_traced_to_its_transactions(operated: OperatedPool) -> None:
    # The pool was founded with the same wallet.
    operated.await_final()
    operated.ledger.catch_up(10.0)
    wallet = operated.services.pool.scheduler
    operated.pool.chain.rpc.call("anvil_addBalance", wallet, hex(12345))
    found = operated.settled()["reconciled"]
    assert (found["differs_wei"], [item["wei"] for item in found["outside"]]) == (0, [12345])
    # Beside it, what others send in a transaction, and one of the wallet's own that the lane knows nothing of.
    chain, key = operated.pool.chain, operated.pool.chain.sender(OWNER)
    (gift,) = chain.sender(REQUESTER).send([TxRequest(Contract(wallet), "0x", 50_000, value=Wei(777))])
    (own,) = key.send([TxRequest(chain.at.rlc, calls.transfer(key.wallet, NRlc(0)), 100_000)])
    operated.await_final()
    operated.ledger.catch_up(10.0)
    noted = operated.ledger.movements.outside(0.0, 100)
    assert [each.wei for each in noted if not each.explained] == [12345], "no transaction did that"
    assert {tx for each in noted for tx in each.transactions} == {gift, own}
    assert all(each.until - each.after == 1 for each in noted)
    found = operated.settled()["reconciled"]
    assert (found["differs_wei"], sum(item["foreign_transactions"] for item in found["outside"])) == (0, 1)


def test_a_difference_is_an_alarm_until_the_operator_accepts_it_and_the_next_one_is_another(
    operated: OperatedPool, sluice: Callable[..., tuple[int, Any]]
) -> None:
    rpc, wallet = operated.pool.chain.rpc, operated.services.pool.scheduler
    operated.await_final()
    operated.ledger.catch_up(10.0)
    for lost in (7, 9):
        balance = int(str(rpc.call("eth_getBalance", wallet, "latest")), 16)
        rpc.call("anvil_setBalance", wallet, hex(balance - lost))
        operated.await_final()
        operated.ledger.catch_up(10.0)
        (differing,) = operated.ledger.movements.differing()
        assert differing.wei == -lost
        code, screen = sluice("ledger")
        assert (code, f"sluice ledger accept {differing.until}" in screen, f"by {-lost} wei" in screen) == (
            1,
            True,
            True,
        )
        block = str(differing.until)
        assert sluice("ledger", "accept", block, "--dry-run", "--json")[1]["changed"] is True
        assert sluice("ledger", "accept", block, "--json")[1]["changed"] is True
        assert sluice("ledger", "accept", block, "--json")[1]["changed"] is False
        code, screen = sluice("ledger")
        assert (code, "(accepted)" in screen, "by 0 wei and 0 nRLC." in screen) == (0, True, True)


def test_a_deposit_that_a_crash_cut_off_is_made_once_and_told_at_the_next_command(
    operated: OperatedPool, sluice: Callable[..., tuple[int, Any]]
) -> None:
    operated.await_final()
    owner = operated.pool.chain.sender(OWNER).wallet
    before = operated.pool.chain.hub.account(owner).stake
    code, planned = sluice("stake", "deposit", "7 nRLC", "--dry-run", "--json")
    assert (code, planned["done"], operated.pool.chain.hub.account(owner).stake) == (0, False, before)
    # A command that is killed after it asked, and another one that wants something else meanwhile.
    operated.admin.post("/stake/deposit", json={"amount_nrlc": 7}).raise_for_status()
    refused = operated.admin.post("/stake/withdraw", json={"amount_nrlc": 3})
    assert (refused.status_code, "begun before" in refused.json()["error"]) == (409, True)
    assert operated.admin.post("/stake/deposit", json={"amount_nrlc": 7}).json()["resumed"] is True
    code, made = sluice("stake", "deposit", "7 nRLC", "--yes", "--json")
    assert (code, made["resumed"], made["free_nrlc"]) == (0, True, before + 7)
    assert operated.pool.chain.hub.account(owner).stake == before + 7
    code, made = sluice("stake", "withdraw", "3 nRLC", "--yes", "--json")
    assert (code, made["resumed"], operated.pool.chain.hub.account(owner).stake) == (0, False, before + 4)

    code, refusal = sluice("stake", "withdraw", f"{before + 5} nRLC", "--yes")
    assert (code, "free in the hub" in refusal) == (2, True)
    code, shown = sluice("stake", "show", "--json")
    assert (code, shown["free_nrlc"], shown["transfer"], shown["spend"]["cap_wei"]) == (0, before + 4, None, None)
    assert shown["gas_days"] is None
    assert str(shown["gas_says"]).startswith("too young to tell for how long: 0.")
    assert shown["spend"]["spent_wei"] == operated.settled()["total"]["gas_wei"] > 0
    assert "in the hub" in sluice("stake", "show")[1]
    kinds = {line["key"]: line for line in operated.settled()["lines"]}
    assert (kinds["deposit"]["deposit_nrlc"], kinds["withdrawal"]["withdrawal_nrlc"]) == (7, 3)
    assert kinds["gas: transfer"]["transactions"] == 2
    assert operated.settled()["reconciled"]["says"].endswith("differs by 0 wei and 0 nRLC.")
