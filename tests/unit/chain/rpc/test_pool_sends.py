"""A transaction goes to every node of a pool: what counts as its answer."""

from __future__ import annotations

import threading

import pytest

from protocol.errors import RpcError, RpcUnavailable
from tests.unit.chain.rpc.fake_nodes import SEND, WAIT_SECONDS, Setup
from tests.waiting import wait_until


def test_transactions_go_to_every_node(setup: Setup) -> None:
    setup.begin()
    setup.pool.batch([SEND])
    wait_until(lambda: all("eth_sendRawTransaction" in node.asked for node in setup.nodes), WAIT_SECONDS)


def test_a_node_found_on_another_chain_while_a_transaction_goes_out_leaves_nobody_to_send_it_to(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup.begin()
    known = iter([[0], []])
    monkeypatch.setattr(setup.pool, "_positions", lambda: next(known))

    with pytest.raises(RpcUnavailable):
        setup.pool.batch([SEND])


def test_one_node_that_takes_a_transaction_suffices(setup: Setup) -> None:
    setup.begin()
    setup.nodes[0].refuses = "already known"
    setup.nodes[1].frozen = True

    assert setup.pool.batch([SEND]) == ["c"]


def test_a_stuck_node_does_not_hold_up_a_transaction_that_another_took(setup: Setup) -> None:
    setup.begin()
    setup.nodes[2].stuck = release = threading.Event()

    answers = setup.pool.batch([SEND])
    release.set()

    assert answers[0] in ("a", "b")


def test_a_transaction_that_all_refuse_keeps_the_present_nodes_words(setup: Setup) -> None:
    setup.begin()
    for node in setup.nodes:
        node.refuses = f"nonce too low, says {node.name}"

    (answer,) = setup.pool.batch([SEND])

    assert isinstance(answer, RpcError)
    assert answer.message == "nonce too low, says a"


def test_of_a_transaction_that_none_took_each_nodes_words_are_handed_on(setup: Setup) -> None:
    setup.begin()
    for node in setup.nodes[:2]:
        node.refuses = f"no, says {node.name}"
    setup.nodes[2].mute = True

    (answer,) = setup.pool.batch([SEND])

    assert isinstance(answer, RpcError)
    assert answer.message == "no, says a"
    assert {other.message for other in answer.others} == {"no, says b", "the node answered null"}


def test_a_node_that_did_not_answer_may_have_taken_what_the_others_refused(setup: Setup) -> None:
    setup.begin()
    setup.nodes[0].refuses = setup.nodes[1].refuses = "no"
    setup.nodes[2].frozen = True

    (answer,) = setup.pool.batch([SEND])

    assert isinstance(answer, RpcError)
    assert [other.message for other in answer.others][-1].endswith("c does not answer: no answer within 5 s.")


def test_null_is_not_the_answer_while_another_node_took_the_transaction(setup: Setup) -> None:
    setup.begin()
    setup.nodes[0].mute = setup.nodes[1].frozen = True
    assert setup.pool.batch([SEND]) == ["c"]
    for node in setup.nodes:
        node.mute, node.frozen = True, False
    assert setup.pool.batch([SEND]) == [None]
