"""The lane against a chain and a machine park that do everything wrong, in any order.

After every step: no intent at two nonces, no call carried out twice, no two different calls under one nonce, and no
halt but for a nonce that a foreign transaction has taken.
At the end, when the trouble stops: every intent ends within some blocks, and no nonce is left open.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from chain.lane import admin
from chain.lane.model.intent import ENDED, IntentState
from chain.lane.model.nonce import NonceState, Purpose
from chain.lane.model.policy import LanePolicy
from chain.lane.rules.fees import GWEI
from chain.rpc.pool import _join_answers
from protocol.errors import RpcError
from protocol.types import Nonce
from tests.unit.chain.lane.crashing_ports import Crash, Fragile, MuteWhenDead
from tests.unit.chain.lane.model import FOG
from tests.unit.chain.lane.rig import Rig

FINALITY = 8
#: Blocks until everything has ended once trouble stops: 8 in flight, one repair after the other, and finality.
CALM_BLOCKS = 150
#: More than a lease.
LONG_PAUSE = 20.0


#: Whatever the lane asks.
QUESTIONS = (
    "eth_getTransactionReceipt",
    "eth_getTransactionByHash",
    "eth_getTransactionCount",
    "eth_getBlockByNumber",
    "eth_getBalance",
    "eth_gasPrice",
    "eth_feeHistory",
    "eth_estimateGas",
    "eth_call",
    "eth_sendRawTransaction",
)
REFUSALS = ("", "intrinsic gas too low", "txpool is full", "strange words", "execution reverted", "invalid sender")
#: What a node says that takes nothing, while another may.
OPINIONS = (
    "",
    "too many requests",
    "tx fee (2.00 ether) exceeds the configured cap (1.00 ether)",
    "transaction underpriced",
    "strange words",
)


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """Ten thousand steps would log a hundred thousand lines."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


class LaneMachine(RuleBasedStateMachine):
    """Each rule is one thing that happens."""

    #: Rules carried out in all lives together.
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(LanePolicy(finality=FINALITY, max_in_flight=8, scan=500, max_generations=100))
        self.keys: list[str] = []
        self.subjects = 0
        self.foreign = 0

    @initialize()
    def begin(self) -> None:
        self.rig.chain.mine()

    # -- what callers do -----------------------------------------------------------------------------------------------

    @rule(method=st.sampled_from(["any", "once"]), number=st.integers(1, 5))
    def submit(self, method: str, number: int) -> None:
        names = [f"s{self.subjects + offset}" for offset in range(number)]
        self.subjects += number
        self.keys += self.rig.submit(method, *names)

    @precondition(lambda self: self.keys)
    @rule(data=st.data())
    def submit_again(self, data: st.DataObject) -> None:
        intent = self.rig.store.intents([data.draw(st.sampled_from(self.keys))])[0]
        self.rig.lane.submit([self.rig.intent(intent.method, intent.subject)])

    @rule()
    def run(self) -> None:
        self.rig.run()

    @rule()
    def run_before_a_head_was_told_of(self) -> None:
        """A step wakes the lane; the chain may have moved on, but nothing has said so yet."""
        self.rig.lane.run(same_head=True)

    @rule(blocks=st.integers(1, 3))
    def mine_and_run(self, blocks: int) -> None:
        self.rig.step(blocks)

    # -- what machines do ----------------------------------------------------------------------------------------------

    @rule()
    def restart(self) -> None:
        self.rig.lane = self.rig.new_lane()

    @rule(at=st.integers(1, 25), after=st.booleans())
    def crash(self, at: int, after: bool) -> None:
        dead: list[bool] = []

        def strike() -> None:
            dead.append(True)
            raise Crash

        self._fragile_run(at, strike, after=after, dead=dead)
        self.rig.clock.now += LONG_PAUSE
        self.rig.lane = self.rig.new_lane()

    @rule(at=st.integers(1, 25), after=st.booleans(), blocks=st.integers(0, 3))
    def overtaken(self, at: int, after: bool, blocks: int) -> None:
        """A run freezes past its lease; another process runs; the first wakes up where it stopped."""
        other = self.rig.new_lane()

        def strike() -> None:
            self.rig.clock.now += LONG_PAUSE
            for _ in range(blocks):
                other.run()
                self.rig.chain.mine()
            other.run()
            self.rig.clock.now += LONG_PAUSE

        self._fragile_run(at, strike, after=after, dead=[])

    def _fragile_run(self, at: int, strike: Callable[[], None], *, after: bool, dead: list[bool]) -> None:
        countdown = [at]
        store = Fragile(self.rig.store, countdown, strike, after=after)
        chain = Fragile(self.rig.chain, countdown, strike, after=after)
        lane = self.rig.new_lane(MuteWhenDead(store, dead), MuteWhenDead(chain, dead))
        try:
            lane.run()
        except Crash:
            assert dead

    # -- what the chain and its nodes do -------------------------------------------------------------------------------

    @rule(blocks=st.integers(1, 4))
    def mine(self, blocks: int) -> None:
        for _ in range(blocks):
            self.rig.chain.mine()

    @rule()
    def drop_all(self) -> None:
        self.rig.chain.drop()

    @rule(offset=st.integers(0, 5))
    def drop_some(self, offset: int) -> None:
        self.rig.chain.drop(self.rig.chain.count() + offset)

    # Deeper than finality as well: FINAL is taken back, too.
    @rule(depth=st.integers(1, FINALITY + 6), keep=st.booleans())
    def reorg(self, depth: int, keep: bool) -> None:
        deepest = len(self.rig.chain.blocks) - 1
        # A stranger's transaction is only judged when final: it stays.
        newest_foreign = max(
            (block.number for block in self.rig.chain.blocks if any(tx.data == "foreign" for tx in block.txs)),
            default=0,
        )
        self.rig.chain.reorg(min(depth, deepest - newest_foreign), keep=keep)

    @rule(method=st.sampled_from(QUESTIONS), fog=st.sampled_from(sorted(FOG)))
    def node_cannot_say(self, method: str, fog: str) -> None:
        self.rig.chain.fog[method] = fog

    @rule()
    def node_can_say_everything(self) -> None:
        self.rig.chain.fog.clear()

    @rule(blocks=st.integers(0, 20))
    def node_throws_old_state_away(self, blocks: int) -> None:
        self.rig.chain.stateless_below = max(0, len(self.rig.chain.blocks) - blocks)

    @rule(gas=st.sampled_from([0, 2_000, 400_000, 40_000_000]), told=st.booleans())
    def chain_takes_gas_on_top(self, gas: int, told: bool) -> None:
        self.rig.chain.surcharge, self.rig.chain.estimates_surcharge = gas, told

    @rule(number=st.integers(1, 3))
    def lose_answers(self, number: int) -> None:
        self.rig.chain.lose_answers = number

    @rule(number=st.integers(1, 5))
    def swallow(self, number: int) -> None:
        self.rig.chain.swallow = number

    @rule(frozen=st.booleans())
    def freeze(self, frozen: bool) -> None:
        self.rig.chain.frozen = frozen

    @rule(blocks=st.integers(0, 3))
    def lag(self, blocks: int) -> None:
        self.rig.chain.lag = blocks

    @rule(gwei=st.integers(1, 60))
    def base_fee(self, gwei: int) -> None:
        self.rig.chain.base_fee = gwei * GWEI

    @rule(number=st.integers(0, 8))
    def block_space(self, number: int) -> None:
        self.rig.chain.per_block = number

    @rule(data=st.data())
    def another_wallet_does_it(self, data: st.DataObject) -> None:
        once = [key for key in self.keys if ":once:" in key]
        if once:
            self.rig.chain.done_by_others.add(data.draw(st.sampled_from(once)).split(":")[3])

    @rule(data=st.data(), blocked=st.booleans())
    def not_ready(self, data: st.DataObject, blocked: bool) -> None:
        self.rig.chain.blocked.clear()
        if blocked and self.keys:
            self.rig.chain.blocked.add(data.draw(st.sampled_from(self.keys)).split(":")[3])

    @rule(data=st.data(), words=st.sampled_from(REFUSALS), reverts=st.booleans())
    def node_refuses_one(self, data: st.DataObject, words: str, reverts: bool) -> None:
        self.rig.chain.refuses.clear()
        self.rig.chain.reverting.clear()
        if words and self.keys:
            subject = data.draw(st.sampled_from(self.keys)).split(":")[3]
            self.rig.chain.refuses[subject] = words
            if reverts:
                self.rig.chain.reverting.add(subject)

    @rule(words=st.sampled_from(OPINIONS))
    def the_first_of_two_nodes_refuses_everything(self, words: str) -> None:
        lies, method = self.rig.chain.lies, "eth_sendRawTransaction"
        lies.pop(method, None)
        if words:
            error = RpcError(method=method, code=-32000, message=words)
            lies[method] = lambda params: _join_answers([error, self.rig.chain._send(params[0])])

    @precondition(lambda self: self.foreign < 2)
    @rule()
    def foreign_nonce(self) -> None:
        self.foreign += 1
        self.rig.chain.foreign()

    @rule(balance=st.sampled_from([0, 10**14, 10**24]))
    def balance(self, balance: int) -> None:
        self.rig.chain.balance = balance

    # -- what must hold ------------------------------------------------------------------------------------------------

    @invariant()
    def a_step_was_made(self) -> None:
        LaneMachine.steps += 1

    @invariant()
    def nothing_is_carried_out_twice(self) -> None:
        twice = {subject: times for subject, times in self.rig.chain.executed().items() if times > 1}
        assert not twice, twice

    @invariant()
    def no_intent_is_at_two_nonces(self) -> None:
        carried = [key for record in self._records() for key in record.intents]
        assert len(carried) == len(set(carried))

    @invariant()
    def attempts_at_one_nonce_do_the_same_or_nothing(self) -> None:
        for record in self._records():
            bodies = [json.loads(bytes.fromhex(attempt.raw[2:])) for attempt in record.attempts]
            assert {body["nonce"] for body in bodies} == {record.nonce}
            calls = {
                body["data"]
                for body, attempt in zip(bodies, record.attempts, strict=True)
                if attempt.purpose is Purpose.CALL
            }
            assert len(calls) <= 1

    @invariant()
    def claimed_nonces_have_no_hole(self) -> None:
        nonces = [record.nonce for record in self._records()]
        taken = {tx.nonce for block in self.rig.chain.blocks for tx in block.txs if tx.data == "foreign"}
        holes = set(range(min(nonces, default=0), max(nonces, default=0))) - set(nonces) - taken
        assert not holes

    @invariant()
    def a_halt_is_about_a_nonce_that_a_foreign_transaction_took(self) -> None:
        halted = self.rig.store.halted(self.rig.id)
        taken = {tx.nonce for block in self.rig.chain.blocks for tx in block.txs if tx.data == "foreign"}
        assert halted is None or _nonce_in(halted) in taken

    @invariant()
    def a_disowned_nonce_was_taken_by_a_foreign_transaction(self) -> None:
        taken = {tx.nonce for block in self.rig.chain.blocks for tx in block.txs if tx.data == "foreign"}
        assert {record.nonce for record in self._records() if record.state is NonceState.FOREIGN} <= taken

    def _records(self) -> list[Any]:
        return self.rig.store.records(self.rig.id, list(NonceState))

    def teardown(self) -> None:
        """The trouble stops."""
        chain = self.rig.chain
        chain.frozen, chain.lag, chain.lose_answers, chain.swallow = False, 0, 0, 0
        chain.per_block, chain.balance = 8, 10**24
        chain.blocked.clear()
        chain.refuses.clear()
        chain.reverting.clear()
        chain.fog.clear()
        chain.lies.clear()
        chain.stateless_below, chain.surcharge = 0, 0
        self.rig.clock.now += LONG_PAUSE
        for _ in range(CALM_BLOCKS):
            report = self.rig.step()
            if report.halted:
                self._decide(_nonce_in(report.halted))
            if all(intent.ended for intent in self.rig.store.intents(self.keys)) and not self._open():
                break
        intents = self.rig.store.intents(self.keys)
        assert [intent for intent in intents if intent.state not in ENDED] == []
        assert self._open() == []
        executed = chain.executed()
        for intent in intents:
            if intent.state is IntentState.FINAL:
                assert executed[intent.subject] == 1, intent
            else:
                assert intent.state is IntentState.DONE, intent
                assert intent.subject in chain.done()

    def _decide(self, nonce: Nonce) -> None:
        """What an operator does: let go of what is not ours. A lane that stands still is right about that."""
        admin.disown(self.rig.lane, nonce)

    def _open(self) -> list[Any]:
        return self.rig.store.records(self.rig.id, [NonceState.OPEN, NonceState.MINED])


def _nonce_in(halted: str) -> Nonce:
    return Nonce(int(halted.split("Nonce ")[1].split(" ", maxsplit=1)[0]))


#: Lives, and most steps of each: 12,250 steps at most, 10,700 in fact, since hypothesis ends some lives early.
LIVES, STEPS_OF_A_LIFE = 245, 50
LEAST_STEPS = 10_000


def test_ten_thousand_steps_of_trouble_lose_nothing_and_do_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LaneMachine, "steps", 0)
    run_state_machine_as_test(
        LaneMachine,
        settings=settings(
            max_examples=LIVES,
            stateful_step_count=STEPS_OF_A_LIFE,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    # Invariants are also looked at before and after `begin`.
    assert LaneMachine.steps - 2 * LIVES >= LEAST_STEPS
