"""A real deal, read through a node that answers in every way a node can answer, and is well in the end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chain.contracts.hub import Hub
from chain.rpc.answers import Known, Unknown
from chain.rpc.pool import connect
from chain.testing import MemoryWatchStore, known
from chain.watch.watcher import Watcher
from config.settings import read_settings
from protocol.errors import RpcError, RpcUnavailable
from protocol.poco import events
from protocol.poco.events import BlockRef
from protocol.types import DealId
from tests.faulty.answers import Fault
from tests.faulty.draws import faults
from tests.faulty.node import FaultyNode, serving, upstream
from tests.integration.chain.test_chain_watch import LOOKBACK, Scene, scene
from tests.waiting import until

__all__ = ["scene"]

T = TypeVar("T")

#: Faults drawn for one reading of deal and events; as many readings as cost a few seconds.
STORY = st.lists(faults(), min_size=1, max_size=6)
READINGS = 10


def test_whatever_a_node_answers_a_real_deal_and_its_events_are_read_right_in_the_end(scene: Scene) -> None:
    deal = scene.buy(volume=2)
    scene.initialize(deal)
    scene.catch_up()
    at = scene.store.cursor()
    assert at is not None
    happened = [
        events.SchedulerNotice(scene.pool, deal.deal_id),
        *(events.TaskInitialize(task, scene.pool) for task in deal.tasks),
    ]
    with ExitStack() as until_end:
        node = FaultyNode(until_end.enter_context(upstream(scene.chain.node.rpc_url)))
        url = until_end.enter_context(serving(node))
        rpc = until_end.enter_context(closing(connect(read_settings(rpc_url=url))))
        hub = Hub(rpc, scene.chain.at.hub)

        @settings(
            max_examples=READINGS,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        )
        @given(STORY)
        def reading(story: list[Fault]) -> None:
            store = MemoryWatchStore()
            watching = Watcher(rpc, hub, scene.pool, store, lookback=LOOKBACK, start_block=deal.block_number - LOOKBACK)
            node.faults = list(story)
            while node.faults:
                _read(hub, watching, deal.deal_id, at)
            # A node that is well may still be late, where this machine is busy.
            assert known(in_the_end(lambda: hub.deals([deal.deal_id], at))[0]).bot_size == 2
            for _ in range(2):
                in_the_end(lambda: list(watching.catch_up(at.number)))
            assert store.events == happened
            assert not store.reorgs

        reading()


def in_the_end(ask: Callable[[], list[T]]) -> list[T]:
    """What a node answers that is well by now, asked again while no answer comes in time."""

    def answer() -> tuple[list[T]] | None:
        try:
            return (ask(),)
        except RpcUnavailable:
            return None

    (found,) = until("the node to answer", answer) or ([],)
    return found


def _read(hub: Hub, watching: Watcher, deal: DealId, at: BlockRef) -> None:
    """Read deal and events once, whatever comes of it, but no wrong *no*."""
    try:
        (found,) = hub.deals([deal], at)
        assert isinstance(found, Known | Unknown)
        list(watching.catch_up(at.number))
    except (RpcUnavailable, RpcError):
        return
