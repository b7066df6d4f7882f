"""The dashboards by Grafana's own published schema (Apache-2.0): `make test-grafana`.

Grafana itself is no part of this: it is under the AGPL. What it does with a query is Prometheus' answer, which
`test_prometheus` and `test_metrics` ask for each panel's.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ops.stack.go_modules import go
from tests.prometheus import MONITORING

MODULE = Path(__file__).parent
DASHBOARDS = sorted((MONITORING / "grafana/dashboards").glob("*.json"))

Dashboard = dict[str, Any]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[int, str]]:
    """Runs the program that decodes dashboards: its exit code and words. Go builds it once in a minute and a half."""
    program = tmp_path_factory.mktemp("schema") / "schema"
    # By itself: what Go says of its downloads is no word of the program's.
    built = subprocess.run(
        ["nice", go(MODULE), "build", "-o", program, "."], cwd=MODULE, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr

    def run(*files: Path) -> tuple[int, str]:
        done = subprocess.run([program, *files], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


def test_grafanas_schema_takes_each_dashboard_and_has_a_place_for_all_that_is_in_it(
    said: Callable[..., tuple[int, str]],
) -> None:
    assert len(DASHBOARDS) == 3
    assert said(*DASHBOARDS) == (0, "")


def _panel(dashboard: Dashboard) -> Dashboard:
    """The first one that shows a figure."""
    return next(each for each in dashboard["panels"] if each["type"] == "stat")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(lambda of: of.update(tittle="x"), "unexpected field 'tittle'", id="field"),
        pytest.param(lambda of: _panel(of).update(type="stats"), "no such kind of panel", id="kind"),
        pytest.param(lambda of: _panel(of)["options"].update(colour="value"), "unexpected field 'colour'", id="option"),
        pytest.param(lambda of: _panel(of)["options"].pop("textMode"), "textMode: required field", id="missing"),
        pytest.param(lambda of: _panel(of)["gridPos"].update(w="wide"), "gridPos.w: json", id="type"),
        pytest.param(lambda of: _panel(of)["targets"][0].update(query="up"), "unexpected field 'query'", id="query"),
        pytest.param(lambda of: _panel(of).update(targets=[]), "it asks nothing", id="nothing"),
    ],
)
def test_a_mistake_in_a_dashboard_is_found(
    said: Callable[..., tuple[int, str]], spoil: Callable[[Dashboard], object], says: str, tmp_path: Path
) -> None:
    dashboard = json.loads(DASHBOARDS[0].read_text())
    spoil(dashboard)
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(dashboard))
    code, words = said(wrong)
    assert (code, says in words) == (1, True), words
