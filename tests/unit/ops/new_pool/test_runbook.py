"""The runbook's commands: each is run by a test in which the alert of its section fires."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.fault_tests import Command, FaultTest, command, fault_tests, sections

ROOT = Path(__file__).parents[4]
SECTIONS = sections((ROOT / "docs/runbook.md").read_text())
ALERTS = {
    rule["alert"]
    for group in yaml.safe_load((ROOT / "monitoring/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
#: Commands that no test of a fault runs, each with the reason.
NOT_RUN = {
    "restore": "it puts back a whole database; tests/integration/pool/trouble/test_backup.py does so on a pool at work",
    "scheduler run": "it runs until it is stopped; the tests of tests/integration/pool start, kill and restart it",
    "worker doctor": "it is for the machine's operator; tests/integration/workers run it on a machine",
}


def _of_target(target: str) -> list[Path]:
    """The files that a target of the Makefile runs."""
    makefile = (ROOT / "Makefile").read_text()
    named = re.search(rf"^{target}:.*?\$\((\w+_RUNS)\)", makefile, re.MULTILINE | re.DOTALL)
    assert named is not None
    listed = re.search(rf"^{named[1]} := \$\(addprefix tests/integration/,(.*)\)$", makefile, re.MULTILINE)
    assert listed is not None
    return [ROOT / "tests/integration" / name for name in listed[1].split()]


#: In `make test-pools`, then in `make test-alerts`.
FAULTS: list[FaultTest] = [
    test
    for path in (
        ROOT / "tests/integration/pipeline/trouble/test_operators_questions.py",
        ROOT / "tests/integration/pipeline/trouble/test_rarer_troubles.py",
        *_of_target("test-alerts"),
    )
    for test in fault_tests(path)
]


def test_each_alert_fires_in_a_fault_of_a_pool_that_the_real_prometheus_sees() -> None:
    assert {alert for test in FAULTS for alert in test.alerts} == ALERTS


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_each_command_of_a_section_is_run_while_its_alert_fires(alert: str) -> None:
    run = {known for test in FAULTS if alert in test.alerts for known in test.commands}
    missing = {
        str(wanted)
        for wanted in SECTIONS[alert]
        if " ".join(wanted.words) not in NOT_RUN and not any(wanted.is_run_by(known) for known in run)
    }
    assert not missing


def test_no_exception_is_of_a_command_that_the_runbook_does_not_name() -> None:
    assert NOT_RUN.keys() <= {" ".join(named.words) for found in SECTIONS.values() for named in found}


def test_a_command_counts_only_where_a_test_runs_it(tmp_path: Path) -> None:
    source = tmp_path / "test_faults.py"
    source.write_text(
        "def test_one(shell, seen):\n"
        '    """shell.says("dead ls")"""\n'
        '    with begin(seen, "SluiceDown"):\n'
        '        shell.says(f"task show {task} --json", "sluice tx ls", code=1)\n'
        '    shell.run("audit", "--fix")\n'
        "@pytest.mark.skip\n"
        "def test_two(shell):\n"
        '    shell.alarms("SlicePaused")\n'
        "def helper(shell):\n"
        '    shell.says("pool pause")\n'
    )
    (found,) = fault_tests(source)
    assert (found.name, set(found.alerts)) == ("test_one", {"SluiceDown"})
    assert {str(known) for known in found.commands} == {"task show --json", "audit --fix"}


def test_commands_are_told_apart_by_their_words_and_options() -> None:
    wanted = command(["audit", "--fix"])
    assert wanted == Command(("audit",), frozenset({"--fix"}))
    assert not wanted.is_run_by(Command(("audit",)))
    assert wanted.is_run_by(Command(("audit",), frozenset({"--fix", "--wait"})))
    assert not Command(("pool", "pause")).is_run_by(Command(("pool", "pause"), frozenset({"--dry-run"})))
    assert command(["orders"]) is None
