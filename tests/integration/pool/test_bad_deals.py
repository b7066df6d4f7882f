"""Deals that cannot be served: each ends COMPLETED on chain with an error result that tells the requester why.

Bought in one block from the shared pool, so that they run side by side and only the slowest is waited for.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from bench.arena import Arena
from ops.market import contracts, orders, results
from ops.market.contracts import App, Dataset
from ops.market.match import Matched
from ops.market.orders import Offer
from ops.poco.accounts import dev_key
from ops.poco.actor import Actor
from ops.poco.deploy import TEST_10_CATEGORY
from ops.poco.state import CHAIN_ID
from ops.pool.ground import PRICE, PROVIDER
from protocol.errorresult import ERROR_FILE, Failure, error_digest, error_text
from protocol.seal import result_hash
from protocol.view import ChainView, TaskStatus
from tests.integration.pool.conftest import buy, ended

#: What is wrong, and the failure that the requester must read.
FAILURES = {
    "absent image": Failure.APP_IMAGE,
    "exit 1": Failure.APP,
    "never ends": Failure.APP_TIMEOUT,
    "wrong checksum": Failure.DATASET_CHECKSUM,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one of the deals ended: on chain, in the API, and what the result holds."""

    matched: Matched
    view: ChainView
    task: Mapping[str, Any]
    files: Mapping[str, bytes]


class _EmptyRegistry(http.server.BaseHTTPRequestHandler):
    """A Docker registry that is there and has no image."""

    def do_GET(self) -> None:
        found = self.path == "/v2/"
        body = b"{}" if found else json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN"}]}).encode()
        self.send_response(200 if found else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command == "GET" else b"")

    do_HEAD = do_GET  # noqa: N815 - idem

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    """Host and port of an empty registry; Docker talks plain HTTP to loopback."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _EmptyRegistry)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture(scope="module")
def outcomes(hall: Arena, registry: str) -> dict[str, Outcome]:
    """All of FAILURES, bought and followed to their end."""
    ground = hall.pool.ground
    owner = Actor(dev_key(PROVIDER), hall.rpc, CHAIN_ID)
    added = httpx.post(f"{hall.servers.ipfs_api}/api/v0/add", files={"file": b"not what the checksum says"})
    url = f"{hall.servers.ipfs_gateway}/ipfs/{added.raise_for_status().json()['Hash']}"
    absent, dataset = contracts.create(
        owner,
        ground.at,
        [App("absent", f"{registry}/nothing:1", orders.salt()), Dataset("changed", url, orders.salt())],
    )
    plain = ground.offer(price=PRICE)
    short = ground.offer(price=PRICE, category=TEST_10_CATEGORY)
    offers: dict[str, tuple[Offer, int, str]] = {
        "absent image": (replace(plain, app=orders.offer_app(ground.market, owner.key, absent)), 1, "noop"),
        # Two machines must agree on the error.
        "exit 1": (plain, 3, "fail"),
        "never ends": (short, 1, "sleep 1000"),
        "wrong checksum": (
            replace(plain, dataset=orders.offer_dataset(ground.market, owner.key, dataset)),
            1,
            "noop",
        ),
    }
    deals = dict(zip(offers, buy(hall, list(offers.values())), strict=True))
    views = hall.wait(list(deals.values()))
    found = {}
    for name, deal in deals.items():
        (task,) = deal.tasks
        files = results.fetch(hall.servers.ipfs_gateway, views[task].results).files
        found[name] = Outcome(deal, views[task], ended(hall, task), files)
    return found


@pytest.mark.parametrize("name", FAILURES)
def test_a_task_that_cannot_be_done_is_completed_with_a_result_that_says_why(
    outcomes: dict[str, Outcome], name: str
) -> None:
    outcome, failure = outcomes[name], FAILURES[name]
    assert outcome.view.status is TaskStatus.COMPLETED
    assert outcome.files[ERROR_FILE] == error_text(failure)
    assert outcome.view.consensus == result_hash(outcome.view.task_id, error_digest(failure))


@pytest.mark.parametrize("name", FAILURES)
def test_the_api_names_one_cause_for_it(outcomes: dict[str, Outcome], name: str) -> None:
    replicates = outcomes[name].task["replicates"]
    causes = [update["cause"] for item in replicates for update in item["statusUpdateList"] if "cause" in update]
    assert causes == [FAILURES[name]] * len(replicates)


def test_machines_agree_on_the_error_of_an_app_that_exits_1_and_pass_on_what_it_said(
    outcomes: dict[str, Outcome],
) -> None:
    outcome = outcomes["exit 1"]
    assert len(outcome.view.revealed) == 2
    assert outcome.files["stderr.txt"] == b"told to fail\n"
    assert [item["appExitCode"] for item in outcome.task["replicates"]] == [1, 1]


def test_nobody_loses_stake_for_a_deal_that_cannot_be_served(hall: Arena, outcomes: dict[str, Outcome]) -> None:
    wallets = [wallet.key.wallet for wallet in (hall.pool.ground.scheduler, *hall.pool.ground.workers)]
    assert [account.locked for account in hall.hub.accounts(wallets)] == [0] * len(wallets)
    assert all(not outcome.view.contributions or outcome.view.revealed for outcome in outcomes.values())
