"""What holds for every command of `sluice`: JSON, examples, exit codes, `--dry-run`, asking before gas is spent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config.settings import settings
from ops import cli
from ops.admin import asking
from ops.admin.service_lines import write_json_lines
from ops.command_table import CommandRow, commands
from ops.machine import setup
from ops.stack import status
from ops.stack.parts import StackPart
from ops.stack.status import State
from protocol.errors import BadInput

ROWS = {row.name.removeprefix("sluice "): row for row in commands(cli.every_command())}
#: Last words of commands that only read.
READS = frozenset({"ls", "show", "status", "doctor", "plan", "logs", "earnings", "explain"})
#: Commands that change something and have no `--dry-run`, each with the reason.
NO_DRY_RUN = {
    "audit": "without --fix it is one",
    "demo": "it makes a pool of its own, and leaves nothing in yours",
    "scheduler run": "it runs a service; `sluice scheduler doctor` says whether it could",
    "worker run": "it runs a service; `sluice worker doctor` says whether it could",
    "sms run": "it runs a service",
}
#: Further commands that only read.
READ_ONLY = frozenset({"chain audit", "commands", "ledger", "metrics", "routes", "settings", "tx audit"})
#: Commands that spend gas, of which each asks.
COST_GAS = frozenset(
    {
        "orders cancel",
        "stake deposit",
        "stake withdraw",
        "tx bump",
        "tx cancel",
        "tx fill-gap",
        "worker deposit",
        "worker withdraw",
    }
)


def found(row: CommandRow) -> Any:
    """The command as click has it."""
    command = cli.every_command()
    for word in row.words:
        command = command.commands[word]
    return command


@pytest.mark.parametrize("name", ROWS)
def test_it_prints_json_on_demand(name: str) -> None:
    assert "--json" in ROWS[name].takes


@pytest.mark.parametrize("name", ROWS)
def test_its_help_has_an_example_and_the_exit_codes(name: str) -> None:
    below = found(ROWS[name]).epilog
    assert f"sluice {name}" in below
    assert below.count("Exit codes: 0") == 1


def test_exit_codes_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["pool", "pause", "--help"]) == 0
    assert cli.EXIT_CODES in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ROWS)
def test_what_changes_something_can_be_tried_first(name: str) -> None:
    reads = ROWS[name].words[-1] in READS or name in READ_ONLY
    assert ("--dry-run" in ROWS[name].takes) == (not reads and name not in NO_DRY_RUN)


def test_no_exception_is_of_a_command_that_is_gone() -> None:
    assert {*NO_DRY_RUN, *READ_ONLY, *COST_GAS} <= ROWS.keys()


def test_what_spends_gas_asks() -> None:
    """And what has `--yes` beside these asks about something else."""
    asked = {name for name, row in ROWS.items() if "--yes" in row.takes}
    assert asked == COST_GAS | {"init", "scheduler adopt"}


def test_with_json_nobody_is_asked() -> None:
    asking.require_yes(yes=True, dry_run=False, as_json=True)
    asking.require_yes(yes=False, dry_run=True, as_json=True)
    asking.require_yes(yes=False, dry_run=False, as_json=False)
    with pytest.raises(BadInput, match="--yes, or --dry-run"):
        asking.require_yes(yes=False, dry_run=False, as_json=True)


def test_a_service_that_is_told_so_logs_json_whatever_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_LOG_FORMAT", "text")
    settings.cache_clear()
    write_json_lines(False)
    assert settings().log_format == "text"
    write_json_lines(True)
    assert settings().log_format == "json"
    settings.cache_clear()


@pytest.mark.parametrize("service", ["scheduler", "worker", "sms"])
def test_a_service_that_cannot_start_says_so_in_json(
    service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    monkeypatch.setenv("SLUICE_LOG_FORMAT", "text")
    monkeypatch.setenv("SLUICE_RPC_URL", "nonsense")
    settings.cache_clear()
    assert cli.run([service, "run", "--json"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert json.loads(told.err.splitlines()[-1])["exit_code"] == 2
    settings.cache_clear()


def test_the_parts_of_the_stack_that_would_start_or_stop_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    settings.cache_clear()
    runs = State(StackPart.MONGODB, True, True, "127.0.0.1:1", 7, None, "ours")
    down, theirs = replace(runs, part=StackPart.IPFS, answers=False, pid=None), replace(runs, ours=False, pid=None)
    silent = replace(theirs, answers=False)
    monkeypatch.setattr(status, "of", lambda *_: [runs, down, theirs, silent])

    def would(*words: str) -> list[str]:
        assert cli.run(["stack", *words, "--dry-run", "--json"]) == 0
        return [each["would"] for each in json.loads(capsys.readouterr().out)["would"]]

    assert [said.split(":")[0] for said in would("up")] == ["nothing", "start it", "nothing", "fail"]
    assert [said.split(":")[0] for said in would("down")] == ["stop it", "nothing", "nothing", "nothing"]
    assert all(said.endswith("remove its data") for said in would("down", "--wipe"))
    assert list(tmp_path.iterdir()) == []
    settings.cache_clear()


def test_a_wallet_and_a_certificate_that_would_be_made_are_not_there_afterwards(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "ask_needs", lambda _: (None, "no pool is named"))
    wallet, place = tmp_path / "wallet.json", tmp_path / "certificates"
    said = ["--password-file", str(tmp_path / "password"), "--dry-run", "--json"]
    assert cli.run(["worker", "init", "--keystore", str(wallet), *said]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["wallet"], made["done"], made["keystore"]) == (None, False, str(wallet))
    words = ["scheduler", "certificate", "pool.example", "--folder", str(place), "--json"]
    assert cli.run([*words, "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(tmp_path.iterdir()) == []
    assert cli.run(words) == 0
    assert json.loads(capsys.readouterr().out)["written"] == told["written"]
    assert {str(path) for path in place.iterdir()} == {*told["written"]}
    assert cli.run([*words, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == []
    wallet.touch()
    assert cli.run(["worker", "init", "--keystore", str(wallet), *said]) == 2
