"""Two processes with one wallet: whatever pauses hit them, every payment is made once and no nonce is missing."""

from __future__ import annotations

import itertools
import os
import signal

from chain.lane.store.mongo import MongoStore
from config.connections.mongodb import client
from ops.poco.accounts import ETHER, dev_key, give_ether
from tests.integration import forged
from tests.integration.conftest import Chain
from tests.integration.lane import victim
from tests.integration.lane.rig import POLICY, LaneRig
from tests.integration.lane.victim import Orders
from tests.waiting import freeze, wait_until

INTENTS = 1000
ACCOUNT = 21


def test_two_lanes_paused_alternately_make_a_thousand_payments_once_each(
    chain: Chain, mongo_uri: str, database: str
) -> None:
    key = dev_key(ACCOUNT)
    give_ether(chain.rpc, (key.wallet,), ETHER)
    store = MongoStore(client(mongo_uri)[database])
    store.ensure_indexes()
    rig = LaneRig(chain.rpc, store, key, POLICY)
    rig.submit(*(f"payment {number}" for number in range(INTENTS)))
    orders = Orders(chain.node.rpc_url, mongo_uri, database, key._private.to_hex(), (), runs=0, max_in_flight=48)
    lanes = [forged.start(victim.main, orders) for _ in range(2)]
    takeovers = 0
    try:
        # Each pause is longer than a lease, so that the other one takes over in the middle of whatever it was.
        for paused in itertools.cycle(lanes):
            assert paused.pid is not None
            freeze(paused.pid)
            fence = _fence(store, rig)
            wait_until(lambda: _fence(store, rig) > fence + 3 or not store.busy(rig.lane.id), 60)  # noqa: B023
            takeovers += _fence(store, rig) > fence + 3
            os.kill(paused.pid, signal.SIGCONT)
            if not store.busy(rig.lane.id):
                break
    finally:
        for lane in lanes:
            forged.kill(lane)
    assert takeovers >= len(lanes)
    rig.check()


def _fence(store: MongoStore, rig: LaneRig) -> int:
    found = store._cursors.find_one({"_id": f"lane:{rig.lane.id}"})
    return 0 if found is None else int(found["fence"])
