"""Pools, nodes and requesters that would have a machine pay or risk more than its operator allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.lane.model.intent import Intent, LaneId
from chain.lane.rules.fees import GWEI, FeeMarket, bump, quote
from chain.lane.store.sqlite import SqliteStore
from chain.rpc.answers import Known, Unknown
from config.settings import Settings, read_settings
from protocol.amounts import ETHER
from protocol.errors import BadSetting, RpcUnavailable
from protocol.results.error_result import MACHINE_FAILED, cause_code
from protocol.types import NRlc, Wei
from protocol.wire import Mode, Report, Step
from tests.unit.workers.assignments import CHAIN_ID, SCHEDULER_KEY, WORKER_KEY, WORKERPOOL, assignment, task_id
from tests.unit.workers.pool.test_complete_settings import POOL
from workers import machine
from workers.context import Machine
from workers.data.layout import Layout, layout_of
from workers.money import limits, market, pins
from workers.money.ledger import Ledger
from workers.money.limits import Budget, Caps, why_not
from workers.pool.api import PoolApi
from workers.pool.saved_config import policy_of, save_pool_config, settings_from_pool
from workers.pool.settings import complete_settings
from workers.task.compute import compute
from workers.task.journal import Journal
from workers.task.replicate import ReplicateStage

OTHER = "0x" + "99" * 20
AMOUNTS = st.integers(0, 10**21)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("CHAIN_ID", "HUB", "WORKERPOOL", "RPC_URL", "WS_URL", "BLOCK_TIME"):
        monkeypatch.delenv(f"SLUICE_{name}", raising=False)
    layout_of(tmp_path, WORKER_KEY.wallet).make()
    return read_settings(home=tmp_path, private_key="0x" + "11" * 32, api_url="https://pool.example")


# -- a pool that names other contracts -----------------------------------------------------------------------------


def started(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """The machine has started once, for POOL."""
    layout = layout_of(settings.home, WORKER_KEY.wallet)
    monkeypatch.setattr(PoolApi, "config", lambda _: POOL)
    own = settings_from_pool(settings)
    pins.keep(layout, own)
    save_pool_config(own, WORKER_KEY.wallet, POOL)
    return layout


LIES = [
    pytest.param({"hub": OTHER}, f"hub {OTHER} in place of {POOL.hub}", id="another hub"),
    pytest.param({"chain_id": 1}, f"chain id 1 in place of {POOL.chain_id}", id="another chain id"),
    pytest.param({"workerpool": OTHER}, f"workerpool {OTHER} in place of {POOL.workerpool}", id="another workerpool"),
]


@pytest.mark.parametrize(("changed", "words"), LIES)
@pytest.mark.parametrize("upgraded", [False, True])
def test_a_lying_pool_that_names_other_contracts_than_at_first_is_refused_at_every_door_before_its_node_is_asked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], words: str, upgraded: bool
) -> None:
    layout = started(settings, monkeypatch)
    if upgraded:
        # The release that ran here first kept no pins.
        layout.pins.unlink()
    liar = POOL.model_copy(update=changed)
    monkeypatch.setattr(PoolApi, "config", lambda _: liar)
    doors: list[Callable[[], object]] = [
        lambda: machine._settings_checked_at_node(settings, liar, WORKER_KEY.wallet),
        lambda: settings_from_pool(settings),
    ]
    for door in doors:
        with pytest.raises(BadSetting) as caught:
            door()
        assert words in str(caught.value)
        (name,) = changed
        assert f"SLUICE_{name.upper()}={changed[name]}" in str(caught.value)


@pytest.mark.parametrize(("changed", "_words"), LIES)
def test_what_the_operator_names_is_how_a_change_is_accepted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], _words: str
) -> None:
    started(settings, monkeypatch)
    monkeypatch.setattr(PoolApi, "config", lambda _: POOL.model_copy(update=changed))
    (name,) = changed
    named = read_settings(**settings.model_dump(exclude_unset=True), **changed)
    own = settings_from_pool(named)
    assert getattr(own, name) == changed[name]
    pins.keep(layout_of(settings.home, WORKER_KEY.wallet), own)
    # From then on it is what the machine works for, named or not.
    assert getattr(settings_from_pool(settings), name) == changed[name]


def test_pins_that_cannot_be_read_are_not_taken_for_none(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    started(settings, monkeypatch).pins.write_text("{")
    with pytest.raises(BadSetting, match="cannot be read"):
        settings_from_pool(settings)


# -- a pool or a node that inflates fees -----------------------------------------------------------------------------

CHAINS = (1, 134, 42161, 421614, 11155111, 31337, 7)


@given(
    chain=st.sampled_from(CHAINS),
    base=st.none() | st.integers(0, 200 * GWEI),
    suggested=st.integers(0, 10**30),
    policy_name=st.sampled_from(["fast", "normal", "cheap"]),
    bumps=st.integers(0, 60),
)
def test_a_lying_node_with_a_huge_gas_price_is_paid_no_more_than_the_blocks_own_base_fee_again(
    chain: int, base: int | None, suggested: int, policy_name: str, bumps: int
) -> None:
    own = read_settings(chain_id=chain, fee_policy=policy_name)
    policy = limits.lane_policy(own, node_of_pool=True).fees
    seen = FeeMarket(None if base is None else Wei(base), Wei(suggested))
    paid = quote(policy, seen)
    for _ in range(bumps):
        paid = bump(policy, seen, paid) or paid
    caps = limits.caps_of(own)
    assert paid.max_fee <= caps.price
    if base is None:
        assert paid.max_fee <= caps.price // 4
    else:
        assert paid.tip <= max(base, GWEI // 10)
        assert paid.tip <= caps.price // 4
        # What is really paid: the base fee, which no node decides, and the tip.
        assert min(paid.max_fee, base + paid.tip) <= max(2 * base, base + GWEI // 10)


def test_a_lying_pool_with_inflated_fees_is_believed_only_if_the_operator_named_that_node_himself(
    settings: Settings,
) -> None:
    inflated, pool = FeeMarket(Wei(GWEI), Wei(90 * GWEI)), POOL.model_copy(update={"chain_id": 31337})
    own_node = {"rpc_url": "https://mine.example:8545"}
    # The same node as the pool's is the operator's own, if it is the operator who says so.
    for named, tip in (({}, GWEI), (own_node, 100 * GWEI), ({"rpc_url": pool.rpc_url}, 100 * GWEI)):
        given = read_settings(**settings.model_dump(exclude_unset=True), **named)
        own = complete_settings(given, pool)
        made = Machine(own, WORKER_KEY, pool, PoolApi("https://pool.example"))
        # A command goes by the same, also before the machine's first start.
        assert [quote(each.fees, inflated).tip for each in (made.policy, policy_of(own))] == [tip, tip]
        assert own.model_fields_set == given.model_fields_set


# -- deciding ----------------------------------------------------------------------------------------------------------


@given(
    budget=st.builds(
        Budget,
        spent=AMOUNTS,
        in_flight=AMOUNTS,
        locked=AMOUNTS,
        base_fee=st.none() | st.integers(0, 10**12),
        price=st.integers(0, 10**12),
    ),
    caps=st.builds(Caps, price=st.integers(0, 10**12), day=AMOUNTS, stake=st.none() | AMOUNTS),
    gas=st.integers(0, 2**24),
    stake=AMOUNTS,
)
def test_a_task_is_taken_exactly_if_no_limit_is_passed_even_in_the_worst_case(
    budget: Budget, caps: Caps, gas: int, stake: int
) -> None:
    fits = (
        (budget.base_fee is None or budget.base_fee <= caps.price)
        and budget.spent + budget.in_flight + gas * budget.price <= caps.day
        and (not stake or caps.stake is None or budget.locked + stake <= caps.stake)
    )
    why = why_not(budget, caps, gas, NRlc(stake))
    assert (why is None) == fits
    assert why is None or "SLUICE_" in why


# -- the machine's own books -------------------------------------------------------------------------------------------


@dataclass
class Books:
    """A machine's files, real; the chain says what votes lock."""

    layout: Layout
    settings: Settings
    stakes: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.journal, self.store = Journal(self.layout.journal), SqliteStore(self.layout.lane)

    def close(self) -> None:
        self.journal.close()
        self.store.close()

    @property
    def ledger(self) -> Ledger:
        """As a process that has just started has it."""
        hub: Any = SimpleNamespace(deals=self._deals, rpc=SimpleNamespace(name="the node"))
        policy = limits.lane_policy(self.settings, node_of_pool=True)
        lane = LaneId(CHAIN_ID, WORKER_KEY.wallet)
        return Ledger(self.settings, policy, self.layout, self.journal, self.store, lane, lambda: 1000.0, lambda: hub)

    def _deals(self, deal_ids: Sequence[str]) -> list[Any]:
        self.asked += deal_ids
        return [
            Known(SimpleNamespace(worker_stake=self.stakes[each]))
            if each in self.stakes
            else Unknown("it does not say")
            for each in deal_ids
        ]

    @property
    def context(self) -> Any:
        pool = SimpleNamespace(scheduler=SCHEDULER_KEY.wallet, chain_id=CHAIN_ID, workerpool=WORKERPOOL)
        return SimpleNamespace(
            layout=self.layout,
            journal=self.journal,
            now=lambda: 1000.0,
            machine=SimpleNamespace(wallet=WORKER_KEY.wallet, pool=pool, settings=self.settings),
            ledger=self.ledger,
            reports=SimpleNamespace(send=lambda _, report: self.reports.append(report)),
        )


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Books]]:
    made: list[Books] = []
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr("workers.money.ledger._ASK_SECONDS", 0.0)

    def make(**fields: object) -> Books:
        layout = Layout(tmp_path / "worker")
        layout.make()
        made.append(Books(layout, read_settings(chain_id=CHAIN_ID, **fields)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_task_of_a_lying_pool_which_locks_too_much_stake_is_declined_before_it_is_computed(
    books: Callable[..., Books],
) -> None:
    own = books(most_stake_nrlc=100)
    wanted = assignment(1)
    own.stakes[wanted.deal_id] = 101
    assert not compute(own.context, wanted)
    found = own.journal.find(task_id(1))
    assert found is not None
    assert (found.stage, found.digest) == (ReplicateStage.FAILED, None)
    assert [report.step for report in own.reports] == [Step.STARTED, Step.FAILED]
    assert cause_code(own.reports[-1].cause) == MACHINE_FAILED
    assert "SLUICE_MOST_STAKE_NRLC" in str(found.cause)


@given(stakes=st.lists(st.integers(0, 60), min_size=1, max_size=8), cap=st.integers(0, 100))
def test_whatever_tasks_come_no_more_stake_is_locked_than_allowed(stakes: list[int], cap: int) -> None:
    budget, taken = Budget(Wei(0), Wei(0), NRlc(0), None, Wei(1)), 0
    for stake in stakes:
        now = Budget(budget.spent, budget.in_flight, NRlc(taken), None, Wei(1))
        if why_not(now, Caps(Wei(1), Wei(ETHER), NRlc(cap)), 1, NRlc(stake)) is None:
            taken += stake
    assert taken <= cap


def test_stake_is_counted_over_all_tasks_and_asked_once_for_each_deal(books: Callable[..., Books]) -> None:
    own = books(most_stake_nrlc=100)
    wanted = [assignment(number) for number in (1, 2, 3)]
    own.stakes[wanted[0].deal_id] = 40
    verdicts = []
    for each in wanted:
        own.journal.add(each, 1.0)
        verdicts.append(own.ledger.why_not(each) is None)
    assert verdicts == [True, True, False]
    assert own.asked == [wanted[0].deal_id]
    # Alone it locks nothing.
    assert own.ledger.why_not(assignment(3, mode=Mode.SOLO)) is None


def test_a_node_that_does_not_say_what_a_vote_locks_decides_nothing(books: Callable[..., Books]) -> None:
    own = books(most_stake_nrlc=100)
    with pytest.raises(RpcUnavailable):
        own.ledger.why_not(assignment(1))


def test_without_a_limit_of_its_own_on_stake_a_machine_asks_the_chain_nothing_before_a_task(
    books: Callable[..., Books],
) -> None:
    own = books()
    assert own.ledger.why_not(assignment(1)) is None
    assert own.asked == []


def test_many_tasks_beyond_the_days_cap_are_declined_also_after_a_restart(
    books: Callable[..., Books],
) -> None:
    price, gas = 3 * GWEI, limits.task_gas(solo=False, surcharge={})
    own = books(daily_spend_cap_wei=3 * gas * price, fee_policy="fixed", fixed_fee_gwei=3)
    market.note(own.layout, FeeMarket(Wei(GWEI), Wei(0)))
    wanted = [assignment(number) for number in range(1, 7)]
    taken = []
    for each in wanted:
        own.journal.add(each, 1.0)
        if own.ledger.why_not(each) is None:
            taken.append(each)
        else:
            own.journal.mark_failed(task_id(wanted.index(each) + 1), "declined", 1.0)
    assert taken == wanted[:3]
    own.close()
    own.__post_init__()
    assert "SLUICE_DAILY_SPEND_CAP_WEI" in str(own.ledger.why_no_work(None))
    assert own.ledger.budget().in_flight == 3 * gas * price


def test_what_is_queued_in_the_lane_and_what_will_be_revealed_counts_at_its_worst(books: Callable[..., Books]) -> None:
    own = books(fee_policy="fixed", fixed_fee_gwei=1)
    market.note(own.layout, FeeMarket(Wei(GWEI), Wei(0)))
    task, wanted = task_id(1), assignment(1)
    own.journal.add(wanted, 1.0)
    before = own.ledger.budget().in_flight
    own.journal.mark_running(task, None, 1.0)
    own.journal.mark_computed(task, 1.0, digest="0x" + "ab" * 32, callback_data=None, cause=None, exit_code=0)  # type: ignore[arg-type]
    own.store.add([Intent.new(CHAIN_ID, WORKER_KEY.wallet, "contribute", task)])
    own.journal.mark_committed(task, 1.0)
    assert own.ledger.budget().in_flight == before == limits.task_gas(solo=False, surcharge={}) * GWEI


def test_the_worth_of_a_reveal_is_its_stake_as_the_chain_says_and_unknown_stake_is_worth_nothing(
    books: Callable[..., Books],
) -> None:
    own = books(rlc_value_wei=10**15)
    wanted = assignment(1)
    own.journal.add(wanted, 1.0)
    assert own.ledger.worth(wanted.deal_id) == 0
    own.stakes[wanted.deal_id] = 5
    own.ledger.note_stakes()
    own.ledger.note_stakes()
    assert own.ledger.worth(wanted.deal_id) == 5 * 10**6
    assert own.asked == [wanted.deal_id]


@given(stake=st.integers(0, 2**200), cap=st.none() | st.integers(0, 10**12), day=st.integers(0, 10**20))
def test_a_stake_that_a_lying_node_invents_is_worth_no_more_than_the_machine_would_risk_or_spend_in_a_day(
    stake: int, cap: int | None, day: int
) -> None:
    own = read_settings(chain_id=42161, rlc_value_wei=10**14, daily_spend_cap_wei=day, most_stake_nrlc=cap)
    worth = limits.worth_in_wei(NRlc(stake), own)
    assert worth <= day
    assert cap is None or worth <= cap * 10**14 // 10**9
    if stake * 10**5 <= day and (cap is None or stake <= cap):
        assert worth == stake * 10**5


def test_a_stake_that_becomes_known_after_its_reveal_was_queued_counts_when_it_is_sent(
    books: Callable[..., Books],
) -> None:
    own = books(rlc_value_wei=10**15)
    wanted = assignment(1)
    own.journal.add(wanted, 1.0)
    reveal = Intent.new(CHAIN_ID, WORKER_KEY.wallet, "reveal", task_id(1))
    vote = Intent.new(CHAIN_ID, WORKER_KEY.wallet, "contribute", task_id(1))
    assert own.ledger.worth_of(reveal) == 0
    own.stakes[wanted.deal_id] = 5
    own.ledger.note_stakes()
    assert own.ledger.worth_of(reveal) == 5 * 10**6
    assert own.ledger.worth_of(vote) == 0


def test_above_the_price_limit_no_task_is_taken(books: Callable[..., Books]) -> None:
    own = books(max_fee_gwei=2)
    market.note(own.layout, FeeMarket(Wei(3 * GWEI), Wei(0)))
    assert "base fee" in str(own.ledger.why_no_work(0))
    market.note(own.layout, FeeMarket(Wei(GWEI), Wei(0)))
    assert own.ledger.why_no_work(0) is None


def test_a_market_file_that_cannot_be_read_counts_as_the_highest_price(books: Callable[..., Books]) -> None:
    own = books()
    own.layout.market.write_text("{")
    assert own.ledger.budget().price == own.ledger.caps.price
