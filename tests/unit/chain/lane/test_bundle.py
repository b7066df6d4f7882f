"""Which intents share a transaction, and what becomes of a group that fails."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chain.contracts import calls
from chain.lane.model.intent import Intent
from chain.lane.rules.encoding import PocoEncoder
from protocol.errors import BadMessage
from protocol.types import Contract, DealId, Hash32, Signature, TaskId, Wallet

HUB = Contract("0x" + "99" * 20)
WALLET = Wallet("0x" + "ab" * 20)
DEAL = DealId("0x" + "0d" * 32)
HASH, SIGNATURE = Hash32("0x" + "0a" * 32), Signature("0x" + "0b" * 65)


def task(number: int) -> TaskId:
    return TaskId(f"0x{number:064x}")


def intent(method: str, number: int = 1, **args: object) -> Intent:
    return Intent.new(1, WALLET, method, task(number), args, 0.0)


def initialize(number: int) -> Intent:
    return intent("initialize", number, deal_id=DEAL, index=number)


def test_initializes_share_arrays_up_to_the_batch() -> None:
    groups = PocoEncoder(HUB, batch=2).group([initialize(number) for number in range(5)])
    assert [len(group) for group in groups] == [2, 2, 1]


def test_what_failed_in_company_travels_alone() -> None:
    retried = replace(initialize(1), generation=1)
    groups = PocoEncoder(HUB).group([initialize(0), retried, initialize(2)])
    assert [[item.subject for item in group] for group in groups] == [[task(0), task(2)], [task(1)]]


def test_other_methods_never_share() -> None:
    groups = PocoEncoder(HUB).group([intent("reveal", 1), intent("reveal", 2), initialize(3), intent("claim", 4)])
    assert [len(group) for group in groups] == [1, 1, 1, 1]


def test_what_has_stakes_locked_goes_before_what_locks_more() -> None:
    groups = PocoEncoder(HUB).group([initialize(1), intent("finalize", 2), initialize(3), intent("claim", 4)])
    assert [group[0].method for group in groups] == ["finalize", "claim", "initialize"]


@pytest.mark.parametrize(
    ("group", "data"),
    [
        ((initialize(4),), calls.initialize(DEAL, 4)),
        ((initialize(4), initialize(5)), calls.initialize_array([(DEAL, 4), (DEAL, 5)])),
        ((intent("claim", 1), intent("claim", 2)), calls.claim_array([task(1), task(2)])),
        ((intent("claim"),), calls.claim(task(1))),
        ((intent("reopen"),), calls.reopen(task(1))),
        ((intent("reveal", digest=HASH),), calls.reveal(task(1), HASH)),
        ((intent("finalize", results="0x12"),), calls.finalize(task(1), "0x12")),
        (
            (intent("contribute", result_hash=HASH, result_seal=HASH, authorization=SIGNATURE),),
            calls.contribute(task(1), HASH, HASH, SIGNATURE),
        ),
        (
            (intent("contributeAndFinalize", digest=HASH, results="0x12", authorization=SIGNATURE),),
            calls.contribute_and_finalize(task(1), HASH, "0x12", SIGNATURE),
        ),
    ],
)
def test_calldata_is_what_the_contract_takes(group: tuple[Intent, ...], data: str) -> None:
    call = PocoEncoder(HUB).encode(group)
    assert (call.to, call.data) == (HUB, data)
    assert call.gas > 21_000


def test_a_plain_call_goes_where_it_says() -> None:
    call = PocoEncoder(HUB).encode((intent("call", to="0x" + "12" * 20, gas=21_000, value="5"),))
    assert (call.to, call.data, call.gas, call.value) == ("0x" + "12" * 20, "0x", 21_000, 5)


@pytest.mark.parametrize("broken", [intent("reveal"), intent("reveal", digest=7), intent("dance")])
def test_arguments_that_do_not_fit_are_refused(broken: Intent) -> None:
    with pytest.raises(BadMessage):
        PocoEncoder(HUB).encode((broken,))
