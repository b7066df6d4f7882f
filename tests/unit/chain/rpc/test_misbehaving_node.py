"""Readers of the chain behind a node that answers in every way a node can answer, and is well in the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.contracts.hub import Hub
from chain.rpc.answers import Absent, Broken, Known, Unknown
from chain.rpc.client import Rpc
from chain.rpc.response import Fits, anything_fits
from chain.rpc.shapes import fits
from chain.testing import FakeChain, MemoryWatchStore
from chain.watch.watcher import Watcher
from protocol.errors import RpcError, RpcUnavailable
from protocol.poco import events
from protocol.types import BlockNumber, DealId
from tests.faulty import answers
from tests.faulty.answers import Fault
from tests.faulty.contract import APP, DATASET, DEAL, FakeHub, deal_fields
from tests.faulty.draws import faults
from tests.faulty.node import FaultyNode
from tests.unit.chain.following import HUB, LOOKBACK, POOL, initialized, vote

NO_DEAL = DealId("0x" + "99" * 32)
#: As the pool asks (`chain.rpc.pool.connect`), and as whoever takes results as they come.
FITS = st.sampled_from([fits, anything_fits])


@pytest.fixture(autouse=True, scope="module")
def no_pauses() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chain.rpc.client._PAUSE", 0.0)
        yield


def faulty(chain: FakeChain, which: Fits) -> tuple[FaultyNode, Rpc]:
    big = {DEAL: deal_fields(), DealId("0x" + "d2" * 32): deal_fields(trust=2**64)}
    node = FaultyNode(FakeHub(chain, big).ask)
    return node, Rpc("http://node", adapter=node.adapter(), fits=which)


@given(st.lists(faults(), min_size=1, max_size=6), FITS)
def test_no_answer_of_a_node_makes_a_deal_that_exists_absent_or_broken(story: list[Fault], which: Fits) -> None:
    chain = FakeChain(HUB)
    at = chain.mine(empty=3)
    node, rpc = faulty(chain, which)
    hub = Hub(rpc, HUB)
    node.faults = list(story)
    while node.faults:
        try:
            found = [*hub.deals([DEAL], at), hub.app(APP, at), hub.dataset(DATASET, at), hub.category(0, at)]
        except RpcUnavailable:
            continue
        assert all(isinstance(answer, Known | Unknown) for answer in found)
    assert isinstance(hub.deals([DEAL], at)[0], Known)
    assert isinstance(hub.app(APP, at), Known)
    dataset = hub.dataset(DATASET, at)
    assert isinstance(dataset, Known)
    assert dataset.value.location == "/ipfs/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"


@given(faults(), FITS)
def test_a_deal_that_does_not_exist_is_never_known(fault: Fault, which: Fits) -> None:
    chain = FakeChain(HUB)
    node, rpc = faulty(chain, which)
    node.fault = fault
    try:
        (found,) = Hub(rpc, HUB).deals([NO_DEAL], chain.ref(0))
    except RpcUnavailable:
        return
    assert isinstance(found, Absent | Unknown)


def test_only_a_node_with_our_block_can_say_that_a_deal_is_absent() -> None:
    chain = FakeChain(HUB)
    at = chain.mine()
    node, rpc = faulty(chain, fits)
    hub = Hub(rpc, HUB)
    assert hub.deals([NO_DEAL], at) == [Absent("the contract has no such deal")]
    assert isinstance(hub.deals([NO_DEAL])[0], Unknown), "which block the node is at is not known"
    node.fault = answers.behind(1)
    assert isinstance(hub.deals([NO_DEAL], at)[0], Unknown)
    node.fault = answers.honest
    chain.reorg(1)
    assert isinstance(hub.deals([NO_DEAL], at)[0], Unknown)


def test_a_deal_with_a_number_that_nothing_can_store_is_broken_and_the_one_beside_it_is_not() -> None:
    chain = FakeChain(HUB)
    _, rpc = faulty(chain, fits)
    good, big = Hub(rpc, HUB).deals([DEAL, DealId("0x" + "d2" * 32)], chain.ref(0))
    assert isinstance(good, Known)
    assert isinstance(big, Broken)
    assert str(2**64) in big.why


@given(st.lists(faults(), max_size=25), st.lists(st.integers(0, 12), min_size=1, max_size=5), FITS)
def test_the_watcher_outlives_every_answer_invents_nothing_and_forgets_nothing(
    story: list[Fault], empty: list[int], which: Fits
) -> None:
    chain, store = FakeChain(HUB), MemoryWatchStore()
    node, rpc = faulty(chain, which)
    watching = Watcher(rpc, Hub(rpc, HUB), POOL, store, lookback=LOOKBACK)
    happened: list[events.Event] = []
    for number, blocks in enumerate(empty):
        happened += [initialized(number), vote(number)]
        chain.mine(*happened[-2:], empty=blocks)
        node.faults, story = story[:6], story[6:]
        for _ in range(3):
            try:
                list(watching.catch_up(BlockNumber(chain.head)))
            except (RpcUnavailable, RpcError):
                continue
    node.faults = []
    for _ in range(2):
        list(watching.catch_up(BlockNumber(chain.head)))
    assert store.events == happened
    assert store.reorgs == [], "no block was replaced"
    assert not store.orphaned
