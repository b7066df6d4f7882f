"""docker-compose.yml with the profile `dev`, as `sluice init --dev` sets it up: deals begin on a chain of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from chain.contracts.hub import Hub
from chain.keystore import open_keystore
from chain.rpc.client import Rpc
from ops import wallet_files
from ops.market import contracts, orders
from ops.market.match import match
from ops.market.orders import Market, Offer
from ops.new_pool.files import ENV, Places
from ops.poco.accounts import dev_key
from ops.poco.sender import DirectSender
from ops.poco.state import CHAIN_ID, ensure_state
from ops.pool.on_chain import PROVIDER, REQUESTER, XS
from ops.pool.site import Servers
from ops.stack import ports, tools
from protocol.poco.view import TaskStatus
from protocol.types import Contract, Hash32, TaskId
from tests.image import composed
from tests.image.composed import Project, init
from tests.image.conftest import Image
from tests.waiting import ample, wait_until

#: What makes an app's order; nobody runs it here.
CHECKSUM = Hash32("0x" + "11" * 32)


@dataclass(frozen=True, slots=True)
class Development:
    """The services, and the chain as this machine reaches it."""

    project: Project
    rpc: Rpc

    def setting(self, name: str) -> str:
        """What `sluice init` wrote into .env."""
        lines = (self.project.folder / ENV).read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))[name].strip("'")


@pytest.fixture(scope="module")
def development(image: Image, shared_servers: Servers) -> Iterator[Development]:
    """All services of the file and the chain are up and healthy."""
    inside = [port for each in composed.PORTS.values() for port in each]
    published = dict(zip(inside, itertools.count(ports.free_port(len(inside))), strict=False))
    with composed.project(image.host, image.engine, {}, published) as made:
        init(made.folder, "--dev")
        made.compose("up", "--detach", "--wait", "--wait-timeout", str(composed.UP_SECONDS))
        with Rpc(f"http://127.0.0.1:{published[8545]}", timeout=ample(3.0)) as rpc:
            yield Development(made, rpc)


def test_a_deal_on_the_chain_of_the_profile_is_begun_also_after_all_was_stopped(development: Development) -> None:
    places = Places(development.project.folder, compose=True)
    owner = open_keystore(places.keystore, wallet_files.password_in(places.password_file))
    at = ensure_state(tools.root() / ".sluice").addresses
    workerpool = Contract(development.setting("SLUICE_WORKERPOOL"))
    market = Market(CHAIN_ID, at.hub)
    provider, requester = (DirectSender(dev_key(number), development.rpc, CHAIN_ID) for number in (PROVIDER, REQUESTER))
    (app,) = contracts.create(provider, at, [contracts.NewApp("hello", "docker.io/library/hello:1", CHECKSUM)])

    def begun() -> TaskId:
        offer = Offer(
            orders.offer_app(market, provider.key, app), orders.offer_work(market, owner, workerpool, category=XS)
        )
        request = orders.request(market, requester.key, offer, trust=1, volume=1)
        (task,) = match(requester, market, [(offer, request)])[0].tasks
        hub = Hub(development.rpc, at.hub)
        wait_until(lambda: hub.tasks([task])[0].status is TaskStatus.ACTIVE, 30, what="the task on chain")
        return task

    first = begun()
    # It takes longer for the chain to be forgotten than to write it: it is written at its end.
    development.project.compose("stop")
    development.project.compose("up", "--detach", "--wait", "--wait-timeout", str(composed.UP_SECONDS))
    assert Hub(development.rpc, at.hub).tasks([first])[0].status is TaskStatus.ACTIVE
    begun()
