"""Two processes with one wallet: whatever pauses hit them, every payment is made once and no nonce is missing."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys

import pytest

from chain.lane.store_mongo import MongoStore
from ops.poco.accounts import COIN, dev_key, give_coins
from ops.stack import tools
from tests.integration.conftest import Chain
from tests.integration.lane.rig import POLICY, LaneRig
from tests.integration.lane.victim import Orders
from tests.waiting import wait_until

INTENTS = 1000
ACCOUNT = 21


@pytest.mark.timeout(400)
def test_two_lanes_that_are_paused_in_turn_make_a_thousand_payments_once_each(
    chain: Chain, mongo_store: MongoStore, mongo_uri: str, database: str
) -> None:
    key = dev_key(ACCOUNT)
    give_coins(chain.rpc, (key.wallet,), COIN)
    rig = LaneRig(chain.rpc, mongo_store, key, POLICY)
    rig.submit(*(f"payment {number}" for number in range(INTENTS)))
    orders = Orders(chain.node.rpc_url, mongo_uri, database, key._private.to_hex(), (), runs=0, max_in_flight=48)
    lanes = [_start(orders) for _ in range(2)]
    takeovers = 0
    try:
        # Each pause is longer than a lease, so that the other one takes over in the middle of whatever it was.
        for paused in itertools.cycle(lanes):
            os.kill(paused.pid, signal.SIGSTOP)
            fence = _fence(mongo_store, rig)
            wait_until(lambda fence=fence: _fence(mongo_store, rig) > fence + 3 or rig.all_final(), 60)  # type: ignore[misc]
            takeovers += _fence(mongo_store, rig) > fence + 3
            os.kill(paused.pid, signal.SIGCONT)
            if not mongo_store.busy(rig.lane.id):
                break
    finally:
        for lane in lanes:
            lane.kill()
            lane.wait()
    assert takeovers >= len(lanes)
    rig.check()


def _start(orders: Orders) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.integration.lane.victim", orders.to_json()]
    return subprocess.Popen(command, cwd=tools.root(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _fence(store: MongoStore, rig: LaneRig) -> int:
    found = store._cursors.find_one({"_id": f"lane:{rig.lane.id}"})
    return 0 if found is None else int(found["fence"])
