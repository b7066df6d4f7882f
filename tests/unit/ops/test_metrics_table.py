"""docs/metrics.md is what the code declares, and every metric that is counted is declared."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import REGISTRY

from config.metrics import DECLARED, Kind
from ops.metrics_table import markdown


def test_the_metrics_page_is_what_is_declared() -> None:
    page = Path(__file__).parents[3] / "docs" / "metrics.md"
    assert page.read_text() == markdown(), "run: sluice metrics --markdown > docs/metrics.md"


def test_every_metric_that_is_counted_is_declared_by_its_name_in_prometheus() -> None:
    declared = {metric.name: metric.kind for metric in DECLARED}
    ours = {family.name: family.type for family in REGISTRY.collect() if family.name.startswith("sluice_")}
    assert ours
    for name, kind in ours.items():
        assert declared[f"{name}_total" if kind == "counter" else name] == kind


def test_no_metric_is_declared_twice_and_counters_end_in_total() -> None:
    assert len({metric.name for metric in DECLARED}) == len(DECLARED)
    assert all(metric.name.endswith("_total") == (metric.kind is Kind.COUNTER) for metric in DECLARED)
