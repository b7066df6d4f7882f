"""What a scheduler wrote while its clock was an hour ahead keeps nothing waiting for an hour once it is right."""

from __future__ import annotations

from pipeline.domain.records import CLOCKS_APART, Outcome
from pipeline.flow.orders.actions import TURN_ENDS
from pipeline.store.client import Store
from pipeline.store.deals import LEASE_SECONDS
from pipeline.store.machine.updates import LONGEST_COOL_DOWN
from protocol.poco import events
from protocol.types import Wallet
from tests.integration.pipeline.rows import ALICE, BOB, DEAL, NOW, POOL, deal, enrol
from tests.integration.pipeline.store.test_chain_store import block, log

AHEAD = NOW + 3600


def test_the_rest_of_a_large_deal_is_stored_whatever_the_clock_was_by_which_its_last_piece_was(store: Store) -> None:
    """In the shortest category the time for votes is over within that hour."""
    at = block(10)
    store.chain.commit([at], [log(events.SchedulerNotice(POOL, DEAL), at)])
    store.deals.store_for_later(deal(5000))
    for _ in range(2):
        lease = store.deals.lease_next(AHEAD)
        assert lease is not None
        assert store.deals.lease_next(AHEAD) is None, "somebody is at it"
        assert store.deals.lease_next(AHEAD - CLOCKS_APART) is None, "nor one whose clock is a little behind"
        assert store.deals.progress(lease, lease.stored + 1000, AHEAD, again=False)
    lease = store.deals.lease_next(NOW)
    assert lease is not None
    assert lease.stored == 2000


def test_a_deal_that_could_not_be_read_is_tried_again_by_the_right_clock(store: Store) -> None:
    at = block(10)
    store.chain.commit([at], [log(events.SchedulerNotice(POOL, DEAL), at)])
    store.deals.defer(DEAL, AHEAD + LEASE_SECONDS)
    assert store.deals.deals_to_ingest(1, NOW) == [DEAL]
    store.deals.defer(DEAL, NOW + LEASE_SECONDS)
    assert store.deals.deals_to_ingest(1, NOW) == []


def test_a_run_that_was_killed_while_the_clock_was_wrong_keeps_no_other_from_the_markets(store: Store) -> None:
    """Orders that are withdrawn would stay listed for that hour."""
    assert store.orders.take_turn("killed", AHEAD, AHEAD + TURN_ENDS)
    assert store.orders.take_turn("next", NOW, NOW + TURN_ENDS)
    assert not store.orders.take_turn("another", NOW, NOW + TURN_ENDS), "one at a time"
    assert not store.orders.take_turn("another", NOW - CLOCKS_APART, NOW + TURN_ENDS - CLOCKS_APART), "a little behind"


def test_machines_rest_no_longer_than_by_the_right_clock(store: Store) -> None:
    for wallet, now in ((ALICE, AHEAD), (BOB, NOW)):
        enrol(store, wallet)
        store.workers.count_outcomes([(wallet, Outcome.WITHHELD)], now)
    store.rounds.end_long_cool_downs(NOW)
    assert rest(store, ALICE) == 0.0
    assert rest(store, BOB) == NOW + LONGEST_COOL_DOWN


def rest(store: Store, wallet: Wallet) -> float:
    worker = store.workers.get_worker(wallet)
    assert worker is not None
    return worker.rest_until
