"""A pool that works, as the real Prometheus sees it: panels and alerts have what they ask for; figures are right."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import yaml

from bench.rig.bench_pool import BenchPool
from protocol.poco.view import TaskStatus
from tests import prometheus, promql
from tests.integration.pool.conftest import HONEST
from tests.prometheus import MONITORING, Prometheus
from tests.waiting import wait_until

#: What begins to exist with the first trouble of its kind: a pool that is well has none of it.
ONLY_IN_TROUBLE = {
    "sluice_lane_replaced_total",
    "sluice_quarantined_total",
    "sluice_background_failures_total",
    "sluice_background_dropped_total",
    # As long as no task waits.
    "sluice_oldest_task_age_seconds",
    "sluice_oldest_task_window_used",
    "sluice_assignments_refused_total",
}


@pytest.fixture(scope="module")
def seen(shared_pool: BenchPool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus on the operations port of the shared pool, after a vote and some tasks without one."""
    folder = tmp_path_factory.mktemp("prometheus")
    port = shared_pool.names.operations_port
    with prometheus.running(folder, f"127.0.0.1:{port}") as server:
        # Rates need a scrape from before.
        wait_until(lambda: server.value('up{job="sluice"}') == 1, 30, what="the first scrape")
        deals = [shared_pool.buy(trust=3, volume=1), shared_pool.buy(trust=1, volume=3)]
        assert {view.status for view in shared_pool.wait(deals).values()} == {TaskStatus.COMPLETED}
        ended = 'sluice_tasks_ended_total{status="COMPLETED"}'
        wait_until(lambda: (server.value(ended) or 0) >= 4, 30, what="the tasks in the metrics")
        yield server


def test_every_metric_of_every_panel_and_alert_is_there(seen: Prometheus) -> None:
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    asked = [rule["expr"] for group in rules for rule in group["rules"]]
    for path in sorted((MONITORING / "grafana/dashboards").glob("*.json")):
        asked += [target["expr"] for panel in json.loads(path.read_text())["panels"] for target in _targets(panel)]
    wanted = {name for expression in asked for name in promql.read(expression).metrics} - {"ALERTS"}

    def missing() -> set[str]:
        return wanted - set(seen.ask("label/__name__/values")) - ONLY_IN_TROUBLE

    # Fees are counted once their transactions are final.
    wait_until(lambda: not missing(), 60, what=f"{missing()} in the metrics")


def _targets(panel: dict[str, list[dict[str, str]]]) -> list[dict[str, str]]:
    return panel.get("targets", [])


def test_tasks_are_timed_from_their_match_to_each_step(seen: Prometheus) -> None:
    for step in ("initialize", "consensus", "finalize"):
        blocks, seconds = (
            seen.value(f'sum(sluice_task_{unit}_sum{{step="{step}"}}) / sum(sluice_task_{unit}_count{{step="{step}"}})')
            for unit in ("blocks", "seconds")
        )
        assert blocks is not None
        assert seconds is not None
        # No step is in the block of the match.
        assert blocks >= 1
        assert seconds > 0
    counted = seen.value('sum(sluice_task_blocks_count{step="finalize"})')
    assert counted == seen.value('sum(sluice_tasks_ended_total{status="COMPLETED"})')


def test_the_pools_machines_wallet_and_queues_are_counted(seen: Prometheus, shared_pool: BenchPool) -> None:
    wait_until(lambda: seen.value("sluice_workers_able") == HONEST, 30, what="the machines")
    # Machines of other tests that are gone are counted too.
    assert seen.value('sum(sluice_machines{state=~"idle|busy"})') == HONEST
    on_chain = shared_pool.pool.on_chain
    account = shared_pool.hub.account(on_chain.scheduler.key.wallet)
    stake = "sluice_stake_free_nrlc + sluice_stake_locked_nrlc"
    # The parts are checked every 10 s.
    wait_until(lambda: seen.value(stake) == account.stake + account.locked, 30, what="the stake")
    assert (seen.value("sluice_wallet_balance_wei") or 0) > (seen.value("sluice_task_cost_wei") or 0) > 0
    queues = {row["metric"]["queue"] for row in seen.ask("query", query="sluice_queue_ready")["result"]}
    assert {"pipeline", "lane", "dead", "machines"} <= queues
    assert (seen.value("sluice_dead_letters"), seen.value("sum(sluice_quarantined_rows)")) == (0, 0)


def test_work_of_machines_is_counted(seen: Prometheus) -> None:
    # A vote of two or three machines, of which one brings the result, and three tasks done alone.
    assert (seen.value("sluice_result_upload_seconds_count") or 0) >= 4
    assert (seen.value('sluice_reports_total{step="computed"}') or 0) >= 5
    assert (seen.value("sum(sluice_replicates_ended_total)") or 0) >= 5
    assert (seen.value('sum(sluice_rpc_requests_total{outcome="ok"})') or 0) > 0
    assert seen.value("sluice_results_not_stored_total") == 0


def test_no_alert_begins_in_a_pool_that_is_well(seen: Prometheus) -> None:
    def judged() -> list[dict[str, str]]:
        return [rule for group in seen.ask("rules")["groups"] for rule in group["rules"]]

    wait_until(lambda: all(rule["health"] != "unknown" for rule in judged()), 30, what="the judgement of the alerts")
    assert {rule["name"]: rule["health"] for rule in judged() if rule["health"] != "ok"} == {}
    assert {rule["name"]: rule["state"] for rule in judged() if rule["state"] == "firing"} == {}
