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
    replicates = outcomes[name].task["replicates"]
    causes = [update["cause"] for item in replicates for update in item["statusUpdateList"] if "cause" in update]
    # A machine that was given the task as well, because the first took its time, may be stopped before it has one.
    assert set(causes) == {FAILURES[name]}
    assert len(causes) <= len(replicates)


def test_machines_agree_on_the_error_of_an_app_that_exits_1_and_pass_on_what_it_said(
    outcomes: dict[str, Outcome],
) -> None:
    outcome = outcomes["exit 1"]
    assert len(outcome.view.revealed) == 2
    assert outcome.files["unproven/stderr.txt"] == b"told to fail\n"
    assert [item["appExitCode"] for item in outcome.task["replicates"]] == [1, 1]


def test_nobody_loses_stake_for_a_deal_that_cannot_be_served(
    shared_pool: BenchPool, outcomes: dict[str, Outcome]
) -> None:
    wallets = [
        wallet.key.wallet for wallet in (shared_pool.pool.on_chain.scheduler, *shared_pool.pool.on_chain.workers)
    ]
    assert [account.locked for account in shared_pool.hub.accounts(wallets)] == [0] * len(wallets)
    assert all(not outcome.view.contributions or outcome.view.revealed for outcome in outcomes.values())
