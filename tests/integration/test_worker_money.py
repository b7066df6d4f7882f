"""A machine's wallet, its stake and what it earns, on the real contracts."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from chain.contracts import calls
from chain.lane.model.intent import Intent, IntentState
from chain.lane.model.nonce import IN_A_BLOCK, NonceRecord
from chain.lane.rules.poco import poco_lane
from chain.lane.run import Lane
from chain.lane.store.sqlite import SqliteStore
from config.settings import Settings, read_settings
from ops.machine.funds import Funds, Moved, funds
from ops.machine.income import income
from ops.poco.accounts import ETHER, dev_key, give_ether
from ops.poco.state import CHAIN_ID
from ops.stack.ports import free_port
from protocol.errors import BadInput
from protocol.poco.authorization import sign_authorization
from protocol.types import NRlc, TaskId, Wei
from tests.integration.chain.test_poco_life import DIGEST, RESULTS, WRONG_DIGEST, Shop
from tests.integration.chain.test_poco_life import shop as shop  # noqa: PLC0414 - a fixture
from tests.integration.conftest import Chain
from tests.integration.forged import sluice
from tests.unit.workers.assignments import assignment
from tests.waiting import ample
from workers.data.layout import Layout, layout_of
from workers.money import transfers
from workers.money.ledger import open_ledger
from workers.money.limits import lane_policy
from workers.task import votes
from workers.task.journal import Journal
from workers.task.replicate import Replicate, ReplicateStage

#: Development account of the machine; it holds RLC.
ACCOUNT = 8
WAIT = ample(120.0)


class Killed(BaseException):
    """The command ends here."""


def settings_of(chain: Chain, home: Path, account: int) -> Settings:
    """Of a machine whose pool does not answer and whose operator has named everything."""
    return read_settings(
        home=home,
        private_key=dev_key(account)._private.to_hex(),
        chain_id=CHAIN_ID,
        hub=chain.at.hub,
        rpc_url=chain.node.rpc_url,
        api_url=f"http://127.0.0.1:{free_port()}",
        block_time=0.25,
    )


def stake(chain: Chain, account: int = ACCOUNT) -> int:
    return chain.hub.account(dev_key(account).wallet).stake


def rlc_outside(chain: Chain) -> int:
    return chain.hub.rlc(chain.at.rlc, dev_key(ACCOUNT).wallet)


def carry_out(own: Funds, amount: int, told: Callable[[Moved], None]) -> None:
    """What the command does, without its words."""
    before = own.pending
    if before is not None:
        own.carry_out(before, WAIT, resumed=True, told=told)
        if before.amount == amount:
            return
    own.carry_out(own.begin(own.plan("deposit", NRlc(amount))), WAIT, resumed=False, told=told)


def _killed(*_: object, **__: object) -> Any:
    raise Killed


def test_deposits_and_withdrawals_are_made_once_whatever_moment_the_command_is_killed_at(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(chain, tmp_path / "home", ACCOUNT)
    stake_before, outside_before = stake(chain), rlc_outside(chain)
    total = 0
    moments = [
        # The wish is on disk, the lane does not know it.
        (Lane, "submit"),
        # The lane knows it, nothing is sent.
        (transfers, "_advance"),
        # It is in a block, and nobody has read that.
        (None, ""),
    ]
    for number, (place, name) in enumerate(moments):
        amount = 100 + number
        with monkeypatch.context() as patch, funds(settings) as own, pytest.raises(Killed):
            if place is not None:
                patch.setattr(place, name, _killed)
            carry_out(own, amount, _killed)
        told: list[Moved] = []
        with funds(settings) as own:
            carry_out(own, amount, told.append)
            assert own.pending is None
        total += amount
        (moved,) = told
        assert (moved.resumed, moved.made.amount, moved.free) == (True, amount, stake_before + total)
        assert stake(chain) == stake_before + total
        assert rlc_outside(chain) == outside_before - total

    # The commands; one that finds another's transfer does that one first.
    env = {
        "SLUICE_HOME": str(settings.home),
        "SLUICE_PRIVATE_KEY": dev_key(ACCOUNT)._private.to_hex(),
        "SLUICE_CHAIN_ID": str(CHAIN_ID),
        "SLUICE_HUB": chain.at.hub,
        "SLUICE_RPC_URL": chain.node.rpc_url,
        "SLUICE_API_URL": settings.api_url,
        "SLUICE_BLOCK_TIME": "0.25",
    }
    with funds(settings) as own:
        own.begin(own.plan("deposit", NRlc(7)))
    shown = sluice("worker", "withdraw", "50 nRLC", "--dry-run", "--json", env=env)
    assert shown.code == 0, shown.err
    assert json.loads(shown.out)["pending"]["amount"] == 7
    assert stake(chain) == stake_before + total
    done = sluice("worker", "withdraw", "50 nRLC", "--yes", "--json", env=env)
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert (answer["amount"], answer["done"], answer["resumed"]) == (50, True, False)
    assert answer["free"] == stake(chain) == stake_before + total + 7 - 50
    assert sluice("worker", "withdraw", "50 nRLC", "--json", env=env).code == 2

    # What the wallet does not have.
    with funds(settings) as own:
        with pytest.raises(BadInput, match="RLC in the wallet, not"):
            own.plan("deposit", NRlc(10**18))
        with pytest.raises(BadInput, match="RLC free in the hub, not"):
            own.plan("withdraw", NRlc(10**18))
        give_ether(chain.rpc, (dev_key(ACCOUNT).wallet,), Wei(1000))
        with pytest.raises(BadInput, match="not enough gas"):
            own.plan("deposit", NRlc(1))


class Voter:
    """A machine's journal and lane; the test says what it votes."""

    def __init__(self, shop: Shop, home: Path, number: int) -> None:
        self.shop, self.key = shop, shop.worker(number).key
        self.settings = settings_of(shop.chain, home, number + 3)
        self.layout: Layout = layout_of(home, self.key.wallet)
        self.layout.make()
        self.journal, self.store = Journal(self.layout.journal), SqliteStore(self.layout.lane)
        self.lane = poco_lane(self.settings, shop.chain.rpc, self.key, self.store)

    def take(self, number: int, task: TaskId, *, mined: bool = True) -> None:
        authorization = sign_authorization(self.shop.owner.key, self.key.wallet, task)
        wanted = assignment(number, task_id=task, wallet=self.key.wallet, authorization=authorization)
        self.journal.add(wanted, 1.0)
        if not mined:
            self.journal.mark_failed(task, "MACHINE_FAILED", 1.0)

    def compute(self, task: TaskId, digest: Any) -> None:
        self.journal.mark_running(task, None, 1.0)
        self.journal.mark_computed(task, 1.0, digest=digest, callback_data=None, cause=None, exit_code=0)

    def contribute(self, task: TaskId) -> IntentState:
        state = self._send(task, votes.contribute)
        self.journal.mark_committed(task, 1.0)
        return state

    def reveal(self, task: TaskId) -> IntentState:
        state = self._send(task, votes.reveal)
        self.journal.mark_revealed(task, 1.0)
        return state

    def _send(self, task: TaskId, make: Callable[[Replicate, int, float], Intent]) -> IntentState:
        replicate = self.journal.find(task)
        assert replicate is not None
        intent = make(replicate, CHAIN_ID, 1.0)
        self.lane.submit([intent])
        self.lane.run()
        self.shop.chain.mine()
        self.lane.run()
        return self.lane.intents([intent.key])[0].state


class TestEarnings:
    """On a chain that stands still but for what the test mines."""

    @pytest.fixture
    def chain(self, still_chain: Chain) -> Chain:
        return still_chain

    def test_earnings_are_what_the_chain_paid_and_took_and_a_spent_day_holds_back_votes_and_no_reveal(
        self, shop: Shop, tmp_path: Path
    ) -> None:
        give_ether(shop.chain.rpc, (shop.worker(4).wallet,), Wei(ETHER))
        voter = Voter(shop, tmp_path / "home", 4)
        with closing(voter.journal), closing(voter.store):
            deals = [shop.buy(trust=trust) for trust in (1, 5, 1)]
            won, lost, declined = (deal.tasks[0] for deal in deals)
            for deal in deals:
                shop.initialize(deal)
            voter.take(2, lost)
            voter.compute(lost, WRONG_DIGEST)
            self._win(shop, voter, won, lost)
            self._lose(shop, voter, lost)
            voter.take(3, declined, mined=False)
            voter.journal.end(declined, 10.0**9)
            wallet_before = shop.chain.hub.account(voter.key.wallet)
            found = income(voter.settings, "2001-01-01")
            by_task = {row.task_id: row for row in found.tasks}
            assert (by_task[won].reward, by_task[lost].reward, by_task[declined].reward) == (99, -30, 0)
            assert by_task[declined].stage == ReplicateStage.FAILED
            assert (found.reward, found.unknown) == (69, 0)
            assert wallet_before.stake == 10**9 + 69
            fees = [
                record.mined.fee for record in voter.store.newest(voter.lane.id, IN_A_BLOCK, 10, None) if record.mined
            ]
            assert len(fees) == 3
            assert found.gas == sum(fees) == by_task[won].gas + by_task[lost].gas
            assert by_task[declined].gas == 0
            # Kept: a node that has lost its past changes nothing.
            assert income(voter.settings, "2001-01-01") == found
            assert income(voter.settings, "1h").tasks == ()

    def _win(self, shop: Shop, voter: Voter, task: TaskId, later: TaskId) -> None:
        """Vote on `task` and win; the vote on `later` is held back meanwhile by what may be spent in a day."""
        voter.take(1, task)
        voter.compute(task, DIGEST)
        assert voter.contribute(task) is IntentState.MINED
        (spent,) = (record.mined.fee for record in self._mined(voter) if record.mined)
        capped = voter.settings.model_copy(update={"daily_spend_cap_wei": int(spent)})
        policy = lane_policy(capped, node_of_pool=False)
        with open_ledger(capped, policy, voter.layout, voter.key.wallet) as ledger:
            assert ledger.budget().spent == spent
            assert "SLUICE_DAILY_SPEND_CAP_WEI" in str(ledger.why_no_work(None))
        unlimited, voter.lane = voter.lane, poco_lane(capped, shop.chain.rpc, voter.key, voter.store, policy)
        assert voter.contribute(later) is IntentState.QUEUED
        assert voter.reveal(task) is IntentState.MINED
        voter.lane = unlimited
        shop.send(shop.owner, "finalize", calls.finalize(task, RESULTS))
        voter.journal.end(task, 10.0**9)

    def _lose(self, shop: Shop, voter: Voter, task: TaskId) -> None:
        assert voter.contribute(task) is IntentState.MINED
        for number in range(4):
            shop.contribute(number, task)
        for number in range(4):
            shop.reveal(number, task)
        shop.send(shop.owner, "finalize", calls.finalize(task, RESULTS))
        voter.journal.end(task, 10.0**9)

    @staticmethod
    def _mined(voter: Voter) -> list[NonceRecord]:
        return voter.store.newest(voter.lane.id, IN_A_BLOCK, 10, None)
