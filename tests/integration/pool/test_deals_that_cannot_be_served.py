"""Deals that cannot be served: each ends COMPLETED on chain with an error result that tells the requester why.

Bought in one block as the shared pool opens, so that they run side by side, and while other tests run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from bench.rig.bench_pool import BenchPool
from ops.market import results
from ops.market.match import Matched
from protocol.poco.seal import result_hash
from protocol.poco.view import ChainView, TaskStatus
from protocol.results.error_result import ERROR_FILE, error_digest, error_text
from tests.integration.pool.conftest import ended
from tests.integration.pool.unservable import FAILURES


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one of the deals ended: on chain, in the API, and what the result holds."""

    view: ChainView
    task: Mapping[str, Any]
    files: Mapping[str, bytes]


def voted(outcome: Outcome) -> list[Mapping[str, Any]]:
    """The replicates that the API shows of machines that voted. Another one that was given the task as well, because
    the first took their time, may have been stopped, or have found the task over.
    """
    wallets = {vote.worker for vote in outcome.view.contributions}
    return [item for item in outcome.task["replicates"] if item["walletAddress"].lower() in wallets]


@pytest.fixture(scope="module")
def outcomes(shared_pool: BenchPool, unservable_deals: dict[str, Matched]) -> dict[str, Outcome]:
    """All of FAILURES, followed to their end."""
    views = shared_pool.wait(list(unservable_deals.values()))
    found = {}
    for name, deal in unservable_deals.items():
        (task,) = deal.tasks
        files = results.fetch(shared_pool.servers.ipfs_gateway, views[task].results).files
        found[name] = Outcome(views[task], ended(shared_pool, task), files)
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
    replicates = voted(outcomes[name])
    assert replicates
    for item in replicates:
        assert [update["cause"] for update in item["statusUpdateList"] if "cause" in update] == [FAILURES[name]]


def test_machines_agree_on_the_error_of_an_app_that_exits_1_and_pass_on_what_it_said(
    outcomes: dict[str, Outcome],
) -> None:
    outcome = outcomes["exit 1"]
    assert len(outcome.view.revealed) == 2
    assert outcome.files["unproven/stderr.txt"] == b"told to fail\n"
    assert [item["appExitCode"] for item in voted(outcome)] == [1, 1]


def test_nobody_loses_stake_for_a_deal_that_cannot_be_served(
    shared_pool: BenchPool, outcomes: dict[str, Outcome]
) -> None:
    wallets = [
        wallet.key.wallet for wallet in (shared_pool.pool.on_chain.scheduler, *shared_pool.pool.on_chain.workers)
    ]
    assert [account.locked for account in shared_pool.hub.accounts(wallets)] == [0] * len(wallets)
    assert all(not outcome.view.contributions or outcome.view.revealed for outcome in outcomes.values())
