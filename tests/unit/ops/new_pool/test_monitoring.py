"""Alerts and dashboards name only what `/metrics` has, and each alert has its section in the runbook and its test."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from chain.lane.model.nonce import Purpose
from config import topology
from config.metrics import DECLARED
from config.settings import Settings
from pipeline.broker.admin import MACHINES_QUEUES
from pipeline.domain.machines.worker_state import WorkerState
from pipeline.domain.records import TaskStage
from tests.promql import Named, read

ROOT = Path(__file__).parents[4]
MONITORING = ROOT / "monitoring"
DASHBOARDS = sorted((MONITORING / "grafana/dashboards").glob("*.json"))
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES}
SERIES = {series: metric for metric in DECLARED for series in metric.series}
#: What Prometheus makes itself, with its labels.
OWN: dict[str, tuple[str, ...]] = {"up": (), "ALERTS": ("alertname", "alertstate", "severity")}
ALWAYS = {"job", "instance", "le"}
#: Labels whose values are an enumeration of the code, or settled in it.
VALUES: dict[str, set[str]] = {
    "job": {"sluice"},
    "alertstate": {"firing", "pending"},
    "stage": set(TaskStage),
    "status": set(TaskStage),
    "state": set(WorkerState),
    "outcome": {"ok", "error", "unavailable"},
    "purpose": set(Purpose),
    "queue": {"pipeline", topology.DEAD_QUEUE, MACHINES_QUEUES, "lane"},
    # As `pipeline.domain.condition.health.parts` has them.
    "part": {
        "mongodb",
        "rabbitmq",
        "ipfs",
        "chain",
        "clock",
        "ownership",
        "gas",
        "watcher",
        "pipeline",
        "audit",
        "lane",
        "workers",
        "results",
        "certificates",
    },
}
#: The four steps of each section.
STEPS = ("Detect", "Triage", "Fix", "Verify")


def panels(dashboard: Path) -> Iterator[dict[str, Any]]:
    """The panels that show something."""
    yield from (panel for panel in json.loads(dashboard.read_text())["panels"] if panel["type"] != "row")


def expressions() -> Iterator[tuple[str, str]]:
    """(where, expression) of every panel, alert and series of a test of an alert."""
    for name, rule in ALERTS.items():
        yield f"alert {name}", rule["expr"]
    for dashboard in DASHBOARDS:
        for panel in panels(dashboard):
            for number, target in enumerate(panel["targets"]):
                yield f"{dashboard.stem}: {panel['title']} {number}", target["expr"]


EXPRESSIONS = dict(expressions())


def _check(named: Named) -> None:
    assert named.metrics, "it names no metric"
    unknown = named.metrics - SERIES.keys() - OWN.keys()
    assert not unknown, f"no such metric: {unknown}"
    labels = {label for name in named.metrics for label in (SERIES[name].labels if name in SERIES else OWN[name])}
    assert named.labels <= labels | ALWAYS, f"none of {sorted(named.metrics)} has {named.labels - labels - ALWAYS}"
    for label, value in named.values:
        assert label not in VALUES or value in VALUES[label], f"{label} is never {value}"


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_every_metric_and_label_of_a_panel_or_an_alert_exists(where: str) -> None:
    _check(read(EXPRESSIONS[where]))


@pytest.mark.parametrize(
    "wrong",
    [
        "sluice_task",
        "sum(rate(sluice_task_seconds[5m]))",
        "sum by (stages) (sluice_tasks)",
        'sluice_tasks{stage="RUNING"}',
        "sluice_tasks + on (job) sluice_tassks",
        "max(1)",
    ],
)
def test_a_typo_is_found(wrong: str) -> None:
    with pytest.raises(AssertionError):
        _check(read(wrong))


def test_what_an_expression_names_is_read_as_prometheus_does() -> None:
    named = read('histogram_quantile(0.5, sum by (le, step) (rate(a_bucket{x="b{c}",y=~"d|e"}[5m] offset 1h))) > 1e18')
    assert named.metrics == {"a_bucket"}
    assert named.labels == {"le", "step", "x", "y"}
    assert named.values == {("x", "b{c}"), ("y", "d"), ("y", "e")}


def test_each_dashboard_uses_the_data_source_that_is_provisioned() -> None:
    (source,) = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/sluice.yml").read_text())["datasources"]
    wanted = {"type": source["type"], "uid": source["uid"]}
    assert [path.stem for path in DASHBOARDS] == ["machines", "money", "pool"]
    for dashboard in DASHBOARDS:
        for panel in panels(dashboard):
            assert panel["datasource"] == wanted
            assert all(target["datasource"] == wanted for target in panel["targets"])


def test_panels_of_a_dashboard_have_places_and_ids_of_their_own() -> None:
    uids = [json.loads(path.read_text())["uid"] for path in DASHBOARDS]
    assert len(set(uids)) == len(uids)
    for dashboard in DASHBOARDS:
        every = json.loads(dashboard.read_text())["panels"]
        assert len({panel["id"] for panel in every}) == len(every)
        taken: set[tuple[int, int]] = set()
        for place in (panel["gridPos"] for panel in every):
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert max(x for x, _ in cells) < 24
            assert not taken & cells
            taken |= cells


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_says_how_bad_it_is_in_words_and_where_the_runbook_has_it(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["for"]
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    named = read(rule["expr"])
    known = {label for metric in named.metrics for label in (SERIES[metric].labels if metric in SERIES else ())}
    assert shown <= known | ALWAYS


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_has_a_section_of_four_steps_in_the_runbook(name: str) -> None:
    text = (ROOT / "docs/runbook.md").read_text()
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    found = [re.search(rf"^- \*\*{step}\.\*\* ", sections[name], re.MULTILINE) for step in STEPS]
    assert all(found)
    assert [at.start() for at in found if at] == sorted(at.start() for at in found if at)


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    named = re.findall(r"^## (Sluice\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(ALERTS)


def test_each_alert_has_a_test_of_its_own_that_names_metrics_which_exist() -> None:
    files = {path.stem: path for path in (ROOT / "tests/alerts").glob("*.yml")}
    assert set(files) == {*ALERTS, "a-healthy-pool"}
    for name, path in files.items():
        for test in yaml.safe_load(path.read_text())["tests"]:
            named = [read(each["series"]) for each in test["input_series"]]
            for each in named:
                _check(each)
            if name in ALERTS:
                assert {metric for each in named for metric in each.metrics} & read(ALERTS[name]["expr"]).metrics
                assert all(f'alertname="{name}"' in each["expr"] for each in test["promql_expr_test"])


@pytest.mark.parametrize("name", ALERTS)
def test_each_alerts_own_test_sees_it_wait_as_long_as_it_says_and_no_judgement_longer(name: str) -> None:
    """Whether it does so promtool says (test_prometheus.py): here, that it is asked at the right times."""
    file = yaml.safe_load((ROOT / f"tests/alerts/{name}.yml").read_text())
    shipped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["global"]["evaluation_interval"]
    assert file["evaluation_interval"] == shipped
    every, waits = _seconds(shipped), _seconds(ALERTS[name]["for"])
    firing = [test["promql_expr_test"] for test in file["tests"] if test["name"].startswith("it fires")]
    assert firing
    for looks in firing:
        assert {look["expr"] for look in looks} == {f'count by (alertstate) (ALERTS{{alertname="{name}"}})'}
        states = {_seconds(look["eval_time"]): _state(look) for look in looks}
        fires = min(at for at, state in states.items() if state == "firing")
        wanted = {fires - waits - every: None, fires: "firing"}
        wanted |= {fires - waits: "pending", fires - every: "pending"} if waits else {}
        assert wanted.items() <= states.items()


def _seconds(text: str) -> int:
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([dhms])", text))


def _state(look: dict[str, Any]) -> str | None:
    """What a look at an alert expects: pending, firing, or nothing."""
    return next((re.findall(r'"(\w+)"', sample["labels"])[0] for sample in look["exp_samples"]), None)


def test_prometheus_reads_the_port_that_is_the_default() -> None:
    port = Settings.model_fields["operations_port"].default
    for file, host in (("targets.yml", "127.0.0.1"), ("targets-compose.yml", "scheduler")):
        assert yaml.safe_load((MONITORING / file).read_text()) == [{"targets": [f"{host}:{port}"]}]
