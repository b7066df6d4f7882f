"""`bench compare` says what got worse, by the ratios that each benchmark measures against its bare thing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.__main__ import app
from bench.all_short import RESULTS, SHORT
from bench.rig.ratios import all_ratios, compare

LINES = [
    {"bench": "latency", "trust": 1, "state": "latest", "tasks": 6, "share_of_minimal_blocks": 1.0},
    {"bench": "latency", "trust": 5, "state": "latest", "tasks": 6, "share_of_minimal_blocks": 0.8},
    {"bench": "lane", "case": "payments", "intents_per_second": 900.0, "share_of_bare": 0.5},
]
PAYMENTS = "lane, case payments: share_of_bare"


def test_a_ratio_is_named_by_its_benchmark_and_by_what_tells_its_line_from_the_others() -> None:
    assert all_ratios(LINES) == {
        "latency, trust 1, state latest: share_of_minimal_blocks": 1.0,
        "latency, trust 5, state latest: share_of_minimal_blocks": 0.8,
        PAYMENTS: 0.5,
    }


@pytest.mark.parametrize(("now", "worse"), [(0.39, True), (0.41, False), (0.9, False)])
def test_a_ratio_that_lost_more_than_a_fifth_is_worse(now: float, worse: bool) -> None:
    found = compare({PAYMENTS: 0.5}, {PAYMENTS: now})
    assert bool(found.worse) is worse
    assert found.compared == 1


def test_a_loss_is_told_in_words() -> None:
    (sentence,) = compare({PAYMENTS: 0.5}, {PAYMENTS: 0.25}).worse
    assert sentence == f"{PAYMENTS} was 0.5 and is 0.25, 50% less."


def test_a_ratio_that_is_not_measured_any_more_is_worse_and_a_new_one_is_not() -> None:
    found = compare({PAYMENTS: 0.5}, {"new": 1.0})
    assert found.worse == (f"{PAYMENTS} was 0.5 and is not measured any more.",)
    assert found.changed == ("new is 1 and was not measured before.",)


def test_noise_is_not_worth_a_sentence() -> None:
    assert compare({PAYMENTS: 0.5}, {PAYMENTS: 0.49}).changed == ()


def test_compare_exits_with_an_error_if_something_got_worse(tmp_path: Path) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    before.write_text(json.dumps({"ratios": {PAYMENTS: 0.5}}))
    after.write_text(json.dumps({"ratios": {PAYMENTS: 0.3}}))
    worse = CliRunner().invoke(app, ["compare", str(before), str(after)])
    assert worse.exit_code == 1
    assert f"Worse: {PAYMENTS} was 0.5 and is 0.3, 40% less." in worse.output
    better = CliRunner().invoke(app, ["compare", str(after), str(before)])
    assert better.exit_code == 0
    assert "1 ratios compared, 0 worse." in better.output


def test_compare_says_that_a_file_is_of_a_busy_machine(tmp_path: Path) -> None:
    idle, busy = tmp_path / "idle.json", tmp_path / "busy.json"
    idle.write_text(json.dumps({"cores": 2, "load": 0.4, "ratios": {PAYMENTS: 0.5}}))
    busy.write_text(json.dumps({"cores": 2, "load": 9.0, "ratios": {PAYMENTS: 0.45}}))
    said = CliRunner().invoke(app, ["compare", str(idle), str(busy)])
    assert said.exit_code == 0
    assert f"{busy} was measured on a machine that was busy (load 9 on 2 cores)" in said.output.replace("\n", " ")
    assert f"{idle} was measured" not in said.output


def test_the_committed_baseline_has_ratios_of_every_benchmark_that_all_runs() -> None:
    baseline = json.loads((Path(__file__).parents[3] / RESULTS / "baseline.json").read_text())["ratios"]
    assert {name.partition(",")[0].partition(":")[0] for name in baseline} == {name for name, _ in SHORT}
