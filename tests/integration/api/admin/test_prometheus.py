"""The real Prometheus takes what `monitoring/` has, reads the real operations port, and answers every panel."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import yaml

from config.metrics import DECLARED
from pipeline.domain.records import TaskRecord
from tests import prometheus
from tests.integration.api.conftest import TASK, WORKER, Api
from tests.prometheus import MONITORING
from tests.waiting import wait_until

ALERT_TESTS = sorted((Path(__file__).parents[3] / "alerts").glob("*.yml"))


def _promtool(*words: str | Path) -> str:
    _, promtool = prometheus.programs()
    done = subprocess.run([promtool, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_the_configuration_and_the_alerts() -> None:
    assert "SUCCESS" in _promtool("check", "config", MONITORING / "prometheus.yml")
    assert "SUCCESS" in _promtool("check", "rules", MONITORING / "alerts.yml")


def test_each_alert_fires_in_its_fault_after_its_time_and_not_otherwise(tmp_path: Path) -> None:
    # In one call: promtool's start costs more than a rule. Those of the healthy pool have all.
    given = [_with_its_alert_alone(path, tmp_path) for path in ALERT_TESTS]
    assert _promtool("test", "rules", *given).count("SUCCESS") == len(ALERT_TESTS)


def _with_its_alert_alone(path: Path, folder: Path) -> Path:
    """The tests of an alert over a file with its rule and no other: promtool judges every rule of a file each 15 s."""
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    own = [rule for group in groups for rule in group["rules"] if rule["alert"] == path.stem]
    if not own:
        return path
    rules, tests = folder / f"{path.stem}.rules", folder / path.name
    rules.write_text(yaml.safe_dump({"groups": [{"name": path.stem, "rules": own}]}))
    tests.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"rule_files": [str(rules)]}))
    return tests


def test_prometheus_reads_the_operations_port_and_answers_each_panel(
    api: Api, give: Callable[..., TaskRecord], tmp_path: Path
) -> None:
    give()
    report = api.http.post(f"/tasks/{TASK}/reports", json={"step": "started"}, headers=api.bearer(WORKER))
    report.raise_for_status()
    # Begins the checks of the parts, as `sluice scheduler run` does.
    api.operations.get("/health")
    with prometheus.running(tmp_path, f"127.0.0.1:{api.settings.operations_port}") as server:
        received = 'sluice_tasks{stage="RECEIVED"}'
        wait_until(lambda: server.value(received) == 1, 30, what="a scrape that has the task")
        assert server.value('up{job="sluice"}') == 1
        for dashboard in sorted((MONITORING / "grafana/dashboards").glob("*.json")):
            for panel in json.loads(dashboard.read_text())["panels"]:
                for target in panel.get("targets", ()):
                    # Any answer but an error; without a chain some have no value.
                    server.ask("query", query=target["expr"])
        assert server.value('sum(sluice_machines{state="idle"})') is not None
        assert server.value('sluice_part_ok{part="chain"}') == 0
        assert server.value("sluice_dead_letters") == 0
        # What Prometheus has stored of ours is declared.
        stored = {name for name in server.ask("label/__name__/values") if name.startswith("sluice_")}
        declared = {series for metric in DECLARED for series in metric.series}
        # The library adds when each counter and histogram began.
        assert {name for name in stored if not name.endswith("_created")} <= declared
        rules = wait_until(
            lambda: [rule for group in server.ask("rules")["groups"] for rule in group["rules"] if _judged(rule)],
            30,
            what="the first judgement of the alerts",
        )
        assert not [rule["name"] for rule in rules if rule["health"] != "ok"]
        # There is no chain: the alert begins, and would fire after its two minutes.
        wait_until(
            lambda: (
                {rule["name"]: rule["state"] for group in server.ask("rules")["groups"] for rule in group["rules"]}[
                    "SluicePartNotWell"
                ]
                in {"pending", "firing"}
            ),
            30,
            what="the alert of the chain that is away",
        )


def _judged(rule: dict[str, str]) -> bool:
    return rule["health"] != "unknown"
