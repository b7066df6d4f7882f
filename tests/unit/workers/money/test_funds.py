"""Amounts as operators write them, what a transfer is refused for, and how the chain is asked for earnings."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.lane.model.policy import LanePolicy
from chain.lane.rules.fees import GWEI, FeePolicy
from chain.lane.transfer import Transfer
from config.settings import read_settings
from ops.machine import funds as command
from ops.machine.income import moment_of
from protocol.amounts import ETHER, amount_of, rlc
from protocol.errors import BadInput, BadSetting, RefusedHere, WrongChain
from protocol.types import ZERO_ADDRESS, Contract, NRlc, TaskId, Wei
from tests.unit.workers.assignments import WORKER_KEY, task_id
from tests.unit.workers.pool.test_complete_settings import POOL
from workers.data.layout import Layout, layout_of
from workers.money import transfers
from workers.money.earnings import SPAN, TOGETHER, _questions
from workers.pool.api import PoolApi

HUB, TOKEN = Contract("0x" + "aa" * 20), Contract("0x" + "bb" * 20)


@given(st.integers(1, 2**63 - 1))
def test_an_amount_is_read_as_it_is_shown(amount: int) -> None:
    assert amount_of(f"{rlc(amount)} RLC") == amount == amount_of(f"{amount}nRLC")


@pytest.mark.parametrize(
    "text", ["", "5", "RLC", "-1 RLC", "0 RLC", "1e3 RLC", "0.5 nRLC", "1.0000000001 RLC", "9999999999999 RLC", "١ RLC"]
)
def test_what_is_no_amount_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInput, match="is no amount"):
        amount_of(text)


def test_a_moment_is_a_span_back_or_a_date() -> None:
    assert moment_of("24h", 100_000.0) == 100_000.0 - 86_400
    assert moment_of("2w", 0.0) == -14 * 86_400
    assert moment_of("2026-11-01", 0.0) == datetime(2026, 11, 1).astimezone().timestamp()
    for wrong in ("", "7", "soon", "7y", "2026-13-01"):
        with pytest.raises(BadInput, match="is no time"):
            moment_of(wrong, 0.0)


def lane_and_hub(
    *,
    token: Contract = TOKEN,
    free: int = 10,
    locked: int = 0,
    outside: int = 10,
    wei: int = ETHER,
    ceiling: int = 100,
    surcharge: int = 0,
) -> tuple[Any, Any]:
    answers = {
        "eth_getBlockByNumber": {
            "number": "0x1",
            "timestamp": "0x1",
            "baseFeePerGas": hex(GWEI),
            "hash": "0x02",
            "parentHash": "0x01",
        },
        "eth_getTransactionCount": "0x0",
        "eth_getBalance": hex(wei),
        "eth_gasPrice": hex(2 * GWEI),
        # At most 16 gas a byte of some hundred are the protocol's own.
        "eth_estimateGas": hex(21_000 + surcharge),
    }
    hub = SimpleNamespace(
        address=HUB,
        token=lambda: token,
        account=lambda _: SimpleNamespace(stake=NRlc(free), locked=NRlc(locked)),
        rlc=lambda *_: NRlc(outside),
        rpc=SimpleNamespace(name="node", batch=lambda asked: [answers[method] for method, _ in asked]),
    )
    policy = LanePolicy(fees=FeePolicy(ceiling=Wei(ceiling * GWEI)))
    lane = SimpleNamespace(
        id=SimpleNamespace(wallet=WORKER_KEY.wallet),
        context=SimpleNamespace(policy=policy, store=SimpleNamespace(records=lambda *_: [])),
    )
    return lane, hub


def test_where_the_native_token_is_rlc_a_deposit_is_the_transactions_value() -> None:
    lane, hub = lane_and_hub(token=ZERO_ADDRESS)
    made = transfers.plan(lane, hub, "deposit", NRlc(5), NRlc(0))
    assert (made.to, made.value, made.outside) == (HUB, 5 * GWEI, ETHER // GWEI)
    # What is deposited cannot pay for gas as well.
    with pytest.raises(BadInput, match="not enough gas"):
        transfers.plan(lane, hub, "deposit", NRlc(ETHER // GWEI), NRlc(0))


@pytest.mark.parametrize(
    ("state", "direction", "amount", "promised", "words"),
    [
        ({}, "deposit", 11, 0, "only 0.00000001 RLC in the wallet"),
        ({"locked": 5}, "withdraw", 11, 5, "0.000000005 RLC are locked by votes"),
        # 7 are free, and tasks that are not voted on yet will lock 4 of them.
        ({"free": 7, "locked": 3}, "withdraw", 4, 7, "for tasks under way"),
        ({"wei": 1000}, "deposit", 1, 0, "not enough gas"),
        ({"wei": 1000}, "withdraw", 1, 0, "not enough gas"),
        ({"ceiling": 0}, "withdraw", 1, 0, "pays at most 0"),
    ],
)
def test_a_transfer_that_cannot_be_made_is_refused_with_its_figures(
    state: dict[str, int], direction: Any, amount: int, promised: int, words: str
) -> None:
    lane, hub = lane_and_hub(**state)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=words):
        transfers.plan(lane, hub, direction, NRlc(amount), NRlc(promised))


def test_what_the_chain_takes_for_posting_a_transactions_bytes_is_in_its_cost() -> None:
    plain = transfers.plan(*lane_and_hub(), "deposit", NRlc(5), NRlc(0))
    dear = transfers.plan(*lane_and_hub(surcharge=1_000_000), "deposit", NRlc(5), NRlc(0))
    # The gas of the call itself is the same: the lane adds what the chain takes when it is sent.
    assert dear.gas == plain.gas
    assert dear.cost > plain.cost * (plain.gas + 1_000_000) // plain.gas


def test_what_no_task_will_lock_can_be_withdrawn_while_others_are_under_way() -> None:
    lane, hub = lane_and_hub(free=7, locked=3)
    assert transfers.plan(lane, hub, "withdraw", NRlc(3), NRlc(7)).amount == 3


def test_two_commands_at_once_and_a_wish_that_cannot_be_read_move_nothing(layout: Layout) -> None:
    with transfers.alone(layout), pytest.raises(RefusedHere, match="under way"), transfers.alone(layout):
        pass
    layout.transfer.write_text("{}")
    with pytest.raises(RefusedHere, match="cannot be read"):
        transfers.pending(layout)


@pytest.fixture
def layout(tmp_path: Any) -> Layout:
    made = Layout(tmp_path / "worker")
    made.make()
    return made


@given(
    st.lists(
        st.tuples(st.integers(0, 50_000), st.integers(0, 6_000), st.integers(0, 200)).map(
            lambda item: (item[0], item[0] + item[1], task_id(item[2]))
        ),
        max_size=30,
    )
)
def test_questions_for_earnings_are_bounded_and_cover_each_tasks_range(spans: list[tuple[int, int, TaskId]]) -> None:
    questions = _questions(spans)
    for first, last, tasks in questions:
        assert last - first < SPAN
        assert len(tasks) <= TOGETHER
    for first, last, task in spans:
        reach = first
        for begin, end in sorted((begin, end) for begin, end, tasks in questions if task in tasks):
            if begin <= reach <= end:
                reach = end + 1
        assert reach > last


@pytest.mark.parametrize("lies", [False, True])
def test_money_goes_to_a_pools_hub_only_if_its_scheduler_owns_the_workerpool_and_binds_the_machine_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lies: bool
) -> None:
    for name in ("CHAIN_ID", "HUB", "WORKERPOOL", "RPC_URL", "WS_URL", "BLOCK_TIME"):
        monkeypatch.delenv(f"SLUICE_{name}", raising=False)
    owner = "0x" + "dd" * 20 if lies else POOL.scheduler
    node: Any = SimpleNamespace(name="node", close=lambda: None)
    hub: Any = SimpleNamespace(
        rpc=node, address=POOL.hub, check_chain=lambda _: None, workerpool=lambda _: SimpleNamespace(owner=owner)
    )
    monkeypatch.setattr(PoolApi, "config", lambda _: POOL)
    monkeypatch.setattr(command, "connect", lambda _: node)
    monkeypatch.setattr(command, "Hub", lambda *_: hub)
    given = read_settings(home=tmp_path, private_key="0x" + "11" * 32, api_url="https://pool.example")
    pinned = layout_of(tmp_path, WORKER_KEY.wallet).pins
    if lies:
        with pytest.raises(WrongChain, match="belongs to"), command.funds(given):
            pass
        assert not pinned.exists()
        return
    with command.funds(given) as own:
        assert own.place == f"chain {POOL.chain_id}, hub {POOL.hub}"
        # Looking binds nothing, sending does.
        assert not pinned.exists()
        own.begin(Transfer("deposit", NRlc(1), NRlc(0), NRlc(0), NRlc(1), HUB, "0x", Wei(0), 1, Wei(1)))
    monkeypatch.setattr(PoolApi, "config", lambda _: POOL.model_copy(update={"hub": TOKEN}))
    with pytest.raises(BadSetting, match="in place of"), command.funds(given):
        pass
