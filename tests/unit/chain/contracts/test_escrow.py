"""The hub's escrow logs as movements of an account, against a model of the contract that writes them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.contracts import escrow
from chain.watch.escrow import EscrowReader
from protocol.errors import BadMessage, RpcError, RpcUnavailable
from protocol.poco.money import EVEN, Balances, Kind
from protocol.types import ZERO_ADDRESS, BlockNumber, Contract, Hash32, TaskId, Wallet

HUB, ME, OTHER = Contract("0x" + "4b" * 20), Wallet("0x" + "aa" * 20), Wallet("0x" + "bb" * 20)
TASKS = [TaskId("0x" + f"{number:064x}") for number in (1, 2)]


@dataclass
class Escrow:
    """IexecEscrow and IexecERC20Core of PoCo 6.1.0, as far as accounts and logs go."""

    free: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    locked: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    logs: list[dict[str, Any]] = field(default_factory=list)

    def transfer(self, giver: str, getter: str, amount: int) -> None:
        self.free[giver] -= amount
        self.free[getter] += amount
        self._log([escrow.TRANSFER, _word(giver), _word(getter)], amount)

    def lock(self, owner: str, amount: int) -> None:
        self.transfer(owner, HUB, amount)
        self.locked[owner] += amount
        self._log([escrow.LOCK], owner, amount)

    def unlock(self, owner: str, amount: int) -> None:
        self.transfer(HUB, owner, amount)
        self.locked[owner] -= amount
        self._log([escrow.UNLOCK], owner, amount)

    def reward(self, owner: str, amount: int, task: TaskId) -> None:
        self.transfer(HUB, owner, amount)
        self._log([escrow.REWARD], owner, amount, task)

    def seize(self, owner: str, amount: int, task: TaskId) -> None:
        self.locked[owner] -= amount
        self._log([escrow.SEIZE], owner, amount, task)

    def account(self, owner: str) -> Balances:
        return Balances(self.free[owner], self.locked[owner])

    def seen_by(self, wallet: Wallet) -> list[dict[str, Any]]:
        """What a node answers to the three filters."""
        own = _word(wallet)
        return [log for log in self.logs if log["topics"][0] in escrow.OF_ESCROW or own in log["topics"][1:]]

    def _log(self, topics: list[str], *data: str | int) -> None:
        words = [f"{each:064x}" if isinstance(each, int) else each[2:].rjust(64, "0") for each in data]
        index = len(self.logs)
        self.logs.append(
            {
                "address": HUB,
                "topics": topics,
                "data": "0x" + "".join(words),
                "blockNumber": hex(7 + index // 50),
                "blockHash": f"0x{7 + index // 50:064x}",
                "transactionHash": "0x" + "77" * 32,
                "logIndex": hex(index),
            }
        )


def _word(address: str) -> str:
    return "0x" + address[2:].rjust(64, "0")


amount = st.integers(0, 10**17)
owners, others, tasks = (
    st.sampled_from([ME, OTHER]),
    st.sampled_from([OTHER, ZERO_ADDRESS, HUB]),
    st.sampled_from(TASKS),
)
acts = st.one_of(
    st.tuples(st.just("lock"), owners, amount),
    st.tuples(st.just("unlock"), owners, amount),
    st.tuples(st.just("reward"), owners, amount, tasks),
    st.tuples(st.just("seize"), st.sampled_from([ME, OTHER, escrow.KITTY]), amount, tasks),
    st.tuples(st.just("transfer"), st.just(ME), others, amount),
    st.tuples(st.just("transfer"), others, st.just(ME), amount),
    st.tuples(st.just("transfer"), st.just(ME), st.just(ME), amount),
)


@given(st.lists(acts, max_size=60))
def test_the_sum_of_an_accounts_movements_is_the_account(life: list[tuple[Any, ...]]) -> None:
    contract = Escrow()
    for name, *arguments in life:
        getattr(contract, name)(*arguments)
    seen = contract.seen_by(ME)
    found = escrow.movements(seen + seen, HUB, ME)
    assert EVEN.after([each for each in found if each.owner == ME]) == contract.account(ME)
    assert len({each.key for each in found}) == len(found)


def test_a_share_of_the_kitty_is_told_from_the_reward_and_machines_are_seen_by_their_task() -> None:
    contract, task = Escrow(), TASKS[0]
    contract.seize(OTHER, 100, task)
    contract.unlock(ME, 30)
    contract.seize(escrow.KITTY, 8, task)
    contract.reward(ME, 8, task)
    contract.unlock(OTHER, 30)
    contract.reward(OTHER, 99, task)
    contract.reward(ME, 1, task)
    contract.reward(OTHER, 5, TASKS[1])
    found = escrow.movements(contract.seen_by(ME), HUB, ME)
    assert [(each.owner, each.kind, each.amount) for each in found] == [
        (OTHER, Kind.SEIZE, 100),
        (ME, Kind.UNLOCK, 30),
        (ME, Kind.KITTY, 8),
        (OTHER, Kind.REWARD, 99),
        (ME, Kind.REWARD, 1),
    ]


@given(st.sampled_from(["lock", "unlock", "reward"]))
def test_half_of_a_pair_is_an_answer_that_was_cut(name: str) -> None:
    contract = Escrow()
    getattr(contract, name)(ME, 5, *((TASKS[0],) if name == "reward" else ()))
    with pytest.raises(BadMessage, match="without the Transfer before it"):
        escrow.movements(contract.logs[1:], HUB, ME)


def test_other_contracts_and_malformed_logs_are_not_counted() -> None:
    contract = Escrow()
    contract.lock(ME, 5)
    foreign = [{**log, "address": "0x" + "99" * 20} for log in contract.logs]
    assert escrow.movements(foreign, HUB, ME) == []
    with pytest.raises(BadMessage, match="bytes of data"):
        escrow.movements([contract.logs[0], {**contract.logs[1], "data": "0x12"}], HUB, ME)


class Node:
    """A node that answers from a model; `odd` replaces the answer to a method."""

    name = "node"

    def __init__(self, contract: Escrow) -> None:
        self.contract = contract
        self.odd: dict[str, list[Any]] = {}

    def batch(self, requests: list[Any]) -> list[Any]:
        return [self.odd[method].pop(0) if self.odd.get(method) else self._answer(method, *p) for method, p in requests]

    def call(self, method: str, *params: Any) -> Any:
        return self._answer(method, *params)

    def _answer(self, method: str, *params: Any) -> Any:
        match method:
            case "eth_getBlockByNumber":
                number = int(params[0], 16)
                return {"number": params[0], "hash": f"0x{number:064x}", "parentHash": "0x00", "timestamp": hex(number)}
            case "eth_getLogs":
                wanted = params[0]["topics"]
                return [log for log in self.contract.logs if _fits(log["topics"], wanted)]
            case "eth_call":
                held = self.contract.account(ME)
                return f"0x{held.stake:064x}{held.locked:064x}"
            case _:
                return "0x5"


def _fits(topics: list[str], wanted: list[Any]) -> bool:
    return len(topics) >= len(wanted) and all(
        ask is None or topic == ask or (isinstance(ask, list) and topic in ask)
        for topic, ask in zip(topics, wanted, strict=False)
    )


def _reader() -> tuple[Node, EscrowReader]:
    contract = Escrow()
    contract.transfer(ZERO_ADDRESS, ME, 50)
    contract.lock(ME, 5)
    node: Any = Node(contract)
    return node, EscrowReader(node, HUB, ME)


def test_a_passage_holds_movements_with_their_times_and_the_account_at_its_end() -> None:
    _, reader = _reader()
    found = reader.passage(BlockNumber(1), BlockNumber(9))
    assert [(each.kind, each.amount, each.at) for each in found.movements] == [(Kind.DEPOSIT, 50, 7), (Kind.LOCK, 5, 7)]
    assert found.holdings is not None
    assert found.holdings.account == EVEN.after(found.movements)


@pytest.mark.parametrize(
    ("method", "answers", "error"),
    [
        ("eth_getLogs", [None], RpcUnavailable),
        ("eth_getLogs", ["0x"], RpcUnavailable),
        ("eth_getLogs", [RpcError(method="eth_getLogs", code=-32005, message="too many", data=None)], RpcError),
        ("eth_getBlockByNumber", [None], RpcUnavailable),
    ],
)
def test_what_a_node_does_not_say_is_never_taken_for_nothing(method: str, answers: list[Any], error: Any) -> None:
    node, reader = _reader()
    node.odd[method] = answers
    with pytest.raises(error):
        reader.passage(BlockNumber(1), BlockNumber(9))


def test_a_block_that_is_replaced_while_it_is_read_counts_for_nothing() -> None:
    node, reader = _reader()
    one = node._answer("eth_getBlockByNumber", "0x9")
    node.odd["eth_getBlockByNumber"] = [one, {**one, "hash": Hash32("0x" + "ee" * 32)}]
    with pytest.raises(RpcUnavailable, match="replaced"):
        reader.passage(BlockNumber(1), BlockNumber(9))


def test_an_account_that_the_node_does_not_keep_any_more_is_unknown() -> None:
    node, reader = _reader()
    node.odd["eth_call"] = [RpcError(method="eth_call", code=-32000, message="missing trie node", data=None)]
    assert reader.passage(BlockNumber(1), BlockNumber(9)).holdings is None
