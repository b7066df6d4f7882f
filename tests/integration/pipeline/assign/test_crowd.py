"""Rounds of `assign` on a real MongoDB beside a crowd of strangers: the honest get work, and the node few questions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.domain.records import ChainFacts, Standing
from pipeline.domain.replicas import PROVEN_SECONDS
from pipeline.flow.assign import PROSPECTS, UNFUNDED, assign
from pipeline.flow.machines.new_pool import decided_by
from pipeline.store.client import Store
from protocol.errors import RpcUnavailable
from protocol.types import BlockNumber, NRlc, Wallet, Wei
from tests.integration.pipeline.assign.test_overlap import Process, fill, wallet
from tests.integration.pipeline.rows import DEAL

BALANCE = 10**18


@dataclass
class Node:
    """Answers as the hub does: balance and stake by wallet, and how many wallets it was asked about."""

    rich: set[Wallet]
    scored: set[Wallet] = field(default_factory=set)
    asked: list[Wallet] = field(default_factory=list)
    silent: bool = False
    rpc: Any = field(default_factory=lambda: SimpleNamespace(call=lambda _: hex(10**9)))

    def head(self) -> BlockNumber:
        if self.silent:
            raise RpcUnavailable(what="the node", why="it is away")
        return BlockNumber(1)

    def scores(self, wallets: Sequence[Wallet], at: BlockNumber) -> list[int]:
        self.asked += wallets
        return [9 if item in self.scored else 0 for item in wallets]

    def accounts(self, wallets: Sequence[Wallet], at: BlockNumber) -> list[Any]:
        return [SimpleNamespace(stake=NRlc(1000 if item in self.rich else 0)) for item in wallets]

    def balances(self, wallets: Sequence[Wallet], at: BlockNumber) -> list[int]:
        return [BALANCE if item in self.rich else 0 for item in wallets]

    def gas_price(self) -> int:
        return 10**9


class Pool(Process):
    """A scheduler process with that node."""

    def __init__(self, store: Store, node: Node) -> None:
        super().__init__(store)
        self.hub = node

    def assign(self) -> int:
        return assign(self)  # type: ignore[arg-type]  # stands in


def strangers(store: Store, count: int, facts: ChainFacts | None) -> None:
    """That many more wallets with 8 slots each, signed in before everybody else; `facts`: what their rows say."""
    (row,) = store.workers._rows.find().limit(1)
    now = time.time()
    copies = [
        row
        | {"_id": wallet(10_000 + n), "slots": 8, "check_at": now - 10, "checked_at": 0.0, "successes": 0, "worth": 0.0}
        for n in range(count)
    ]
    for copy in copies:
        copy["facts"] = copy["facts"] | {"funded": False, "score": 0, "stake": "0"}
        copy["held"], copy["free"] = [], 2
    store.workers._rows.insert_many(copies)
    if facts is not None:
        store.workers.store_facts([(copy["_id"], facts) for copy in copies], now)


def test_eleven_hundred_free_sign_ins_do_not_stop_four_honest_machines(store: Store) -> None:
    fill(store, [1, 1, 1, 1], [3])
    strangers(store, 1100, None)
    pool = Pool(store, Node({wallet(n) for n in range(4)}))
    assert pool.assign() == 3
    assert len(set(pool.hub.asked)) <= UNFUNDED + 4
    assert {who for who, _ in pool.computing()} <= {wallet(n) for n in range(4)}


def test_a_crowd_with_native_token_and_no_stake_comes_after_those_who_put_something_at_risk(store: Store) -> None:
    tasks = fill(store, [1, 1, 1, 1], [1, 1, 1])
    store.tasks._rows.update_many({}, {"$set": {"trust": 1}})
    strangers(store, 1100, ChainFacts(2, NRlc(0), Wei(BALANCE), funded=True))
    pool = Pool(store, Node({wallet(n) for n in range(4)}))
    assert pool.assign() == 3
    assert {who for who, _ in pool.computing()} <= {wallet(n) for n in range(4)}
    given = [item for task in store.tasks.load_tasks(tasks) for item in task.replicates]
    assert all(item.standing > Standing.NEWCOMER for item in given)


def test_only_chosen_workers_facts_are_read_and_again_only_when_they_are_old(store: Store) -> None:
    fill(store, [1] * 40, [3])
    store.workers._rows.update_many({}, {"$set": {"checked_at": time.time() - 60}})
    everybody = {wallet(n) for n in range(40)}
    pool = Pool(store, Node(everybody, scored=everybody))
    assert pool.assign() == 3
    assert len(pool.hub.asked) == 3
    assert pool.assign() == 0
    assert len(pool.hub.asked) == 3


def test_a_chosen_worker_whose_native_token_is_gone_is_replaced_in_the_same_round(store: Store) -> None:
    fill(store, [1] * 6, [3])
    store.workers._rows.update_many({}, {"$set": {"checked_at": time.time() - 60}})
    pool = Pool(store, Node({wallet(n) for n in (3, 4, 5)}))
    assert pool.assign() == 3
    assert {who for who, _ in pool.computing()} == {wallet(n) for n in (3, 4, 5)}


def test_a_task_for_proven_machines_is_given_to_one_that_was_right_since_it_was_last_looked_up(store: Store) -> None:
    (task,) = fill(store, [1, 1], [1])
    strangers(store, 50, ChainFacts(2, NRlc(0), Wei(BALANCE), funded=True))
    store.workers._rows.update_many({}, {"$set": {"facts.score": 0, "successes": 0, "checked_at": time.time() - 60}})
    store.tasks._rows.update_one({"_id": task}, {"$set": {"trust": 1, "backup": True}})
    pool = Pool(store, Node({wallet(n) for n in range(2)}, scored={wallet(1)}))
    assert pool.assign() == 1
    assert {who for who, _ in pool.computing()} == {wallet(1)}
    assert len(pool.hub.asked) <= PROSPECTS + 1


def test_old_facts_will_do_while_the_node_is_silent(store: Store) -> None:
    fill(store, [1] * 4, [3])
    store.workers._rows.update_many({}, {"$set": {"checked_at": time.time() - 60}})
    pool = Pool(store, Node(set(), silent=True))
    assert pool.assign() == 3


def test_a_machine_that_just_signed_in_with_native_token_gets_work_at_once(store: Store) -> None:
    fill(store, [1], [1])
    store.workers._rows.update_many({}, {"$set": {"facts.funded": False, "checked_at": 0.0, "check_at": 0.0}})
    assert Pool(store, Node({wallet(0)})).assign() == 1


@pytest.mark.parametrize("unserved", [500])
def test_many_urgent_tasks_that_nobody_can_take_do_not_hold_up_the_rest(store: Store, unserved: int) -> None:
    fill(store, [1, 1], [1] * (unserved + 1))
    tagged = {"$set": {"tag": "0x" + "0" * 63 + "9"}}
    store.tasks._rows.update_many({"deal": DEAL, "index": {"$lt": unserved}}, tagged)
    store.tasks._rows.update_many({"deal": DEAL, "index": unserved}, {"$inc": {"contribution_deadline": 1}})
    pool = Pool(store, Node({wallet(0), wallet(1)}))
    assert pool.assign() == 1
    (last,) = store.tasks.of_deal(DEAL, unserved)
    assert len(last.replicates) == 1


@pytest.mark.parametrize("proven", ["nobody", "one that is away", "one that was away for a day"])
def test_newcomers_decide_a_task_of_high_trust_only_in_a_pool_that_has_nobody_else(store: Store, proven: str) -> None:
    (task,) = fill(store, [1] * 8, [6])
    store.tasks._rows.update_one({}, {"$set": {"trust": 100, "newcomers": 3}})
    store.workers._rows.update_many({}, {"$set": {"successes": 0, "facts.score": 0}})
    if proven != "nobody":
        ago = 60.0 if proven == "one that is away" else PROVEN_SECONDS + 60
        gone = {"successes": 1, "seen_at": time.time() - ago, "lost": True}
        store.workers._rows.update_one({"_id": wallet(7)}, {"$set": gone})
    bound = proven == "one that is away"
    assert Pool(store, Node({wallet(n) for n in range(8)})).assign() == (3 if bound else 6)
    (record,) = store.tasks.load_tasks([task])
    assert (decided_by(store.workers, [record], time.time())[0].newcomers == 0) == bound
