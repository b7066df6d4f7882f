"""The command line as a whole: exit codes, help, and errors as one line."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from pymongo.errors import ServerSelectionTimeoutError

from chain.lane.run import Lane
from chain.watch.status import NodeStatus
from config.settings import read_settings, settings
from ops import cli
from ops.command_table import commands, markdown
from ops.commands.money import tx
from ops.commands.pool import chain
from ops.stack import stack
from pipeline.domain.records import TaskStage
from protocol.errors import NotReady


def test_help_lists_every_command_and_succeeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    assert "stack" in capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"sluice {version('sluice')}\n"


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("sluice work", {"worker"}),
        ("sluice worker dr", {"drain"}),
        ("sluice support", {"support-bundle"}),
        ("sluice support-bundle --l", {"--log"}),
        ("sluice keys rotate ad", {"admin"}),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_options_and_choices(
    line: str, offered: set[str], shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_SLUICE_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    assert cli.run([]) == 0
    said = capsys.readouterr().out
    # zsh and fish are told what each word means, too.
    assert offered <= set(said.replace("\t", " ").replace('"', " ").replace(":", " ").split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_a_shell_is_shown_and_installed(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    assert cli.run(["--show-completion", shell]) == 0
    assert "_SLUICE_COMPLETE" in capsys.readouterr().out
    assert cli.run(["--install-completion", shell]) == 0
    assert any("_SLUICE_COMPLETE" in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(("short", "long"), [("doctor", "scheduler doctor"), ("config show", "settings")])
def test_what_other_programs_call_so_is_here_by_the_same_name(short: str, long: str) -> None:
    told = []
    for words in (short, long):
        found = cli.every_command()
        for word in words.split():
            found = found.commands[word]
        told.append((found.help, [parameter.opts for parameter in found.params]))
    assert told[0] == told[1]


def test_help_says_where_to_begin_and_what_exit_codes_mean(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for word in ("sluice init", "sluice status", "sluice explain", "sluice commands", "Exit codes: 0 done"):
        assert word in told


def test_help_names_every_stage_of_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["task", "ls", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert ", ".join(TaskStage) in told


def test_the_page_of_commands_is_what_there_is() -> None:
    page = Path(__file__).parents[3] / "docs" / "commands.md"
    every = cli.every_command()
    assert page.read_text() == markdown(every), "run: sluice commands --markdown > docs/commands.md"
    for row in commands(every):
        assert row.about.endswith("."), row.name


def test_settings_show_no_key_that_is_inside_of_an_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLUICE_RPC_URL", "https://node.example/v2/s3cret, https://other.example?key=s3cret")
    monkeypatch.setenv("SLUICE_AMQP_URL", "amqp://me:s3cret@broker")
    for words in (["settings"], ["settings", "--json"]):
        settings.cache_clear()
        assert cli.run(words) == 0
        said = capsys.readouterr().out
        assert "node.example" in said
        assert "s3cret" not in said
    settings.cache_clear()


@pytest.mark.parametrize("words", [["nonsense"], ["stack", "fly"], ["stack", "up", "no-such-part"]])
def test_words_that_mean_nothing_exit_with_2(words: list[str]) -> None:
    assert cli.run(words) == 2


def test_a_wrong_setting_is_one_line_that_names_it_and_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLUICE_STACK_RPC_PORT", "70000")
    assert cli.run(["stack", "status"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("sluice: Setting SLUICE_STACK_RPC_PORT is wrong")
    assert said.err.count("\n") == 1


def test_a_failure_is_one_line_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NotReady(part="MongoDB", seconds=3, log="there", why="It\nended.")

    monkeypatch.setattr(stack, "up", fail)
    assert cli.run(["stack", "up", "--json"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    says = "MongoDB did not become ready within 3 s; its log is there. It ended."
    assert json.loads(said.err) == {"error": says, "kind": "NotReady", "exit_code": 1}
    assert cli.run(["stack", "up"]) == 1
    assert capsys.readouterr().err == f"sluice: {says}\n"


def error_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The one JSON object on standard error, with nothing on standard output."""
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1), said
    told = json.loads(said.err)
    assert set(told) == {"error", "kind", "exit_code"}
    return dict(told)


USAGE = [
    ("task show --json", "Missing argument"),
    ("backup --json", "Missing argument 'PATH'"),
    ("keys rotate --json", "Missing argument"),
    ("keys rotate nonsense --json", "nonsense"),
    ("stack up no-such-part --json", "no-such-part"),
    ("stack fly --json", "fly"),
    ("enrol invite --uses 0 --json", "--uses"),
    ("status --no-such-option --json", "--no-such-option"),
    ("restore pool.backup --wait soon --json", "'--wait'"),
    ("nonsense --json", "nonsense"),
    ("--json", "--json"),
]


@pytest.mark.parametrize(("line", "names"), USAGE, ids=[line for line, _ in USAGE])
def test_wrong_words_are_one_json_object_too(line: str, names: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(line.split()) == 2
    told = error_of(capsys)
    assert (names in told["error"], told["exit_code"]) == (True, 2)
    # The same words without --json are for people, as ever.
    assert cli.run([word for word in line.split() if word != "--json"] or ["--wrong"]) == 2


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (PermissionError(13, "Permission denied", "/etc/secret"), 2, "/etc/secret: Permission denied."),
        (FileNotFoundError(2, "No such file or directory", b"/no\xff"), 2, "/no\\udcff: No such file or directory."),
        (OSError(28, "No space left on device"), 1, "No space left on device."),
        (ConnectionResetError(), 1, "ConnectionResetError."),
    ],
)
@pytest.mark.parametrize("command", ["stack up", "stack down", "stack status"])
def test_what_the_system_refuses_is_one_line(
    error: OSError,
    code: int,
    says: str,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(f"ops.stack.{'status.of' if command == 'stack status' else command.replace(' ', '.')}", fail)
    assert cli.run([*command.split(), "--json"]) == code
    assert error_of(capsys) == {"error": says, "kind": type(error).__name__, "exit_code": code}
    assert cli.run(command.split()) == code
    assert capsys.readouterr().err == f"sluice: {says}\n"


def test_what_somebody_breaks_off_and_what_a_command_ends_with_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends(error: BaseException) -> int:
        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(stack, "up", fail)
        return cli.run(["stack", "up", "--json"])

    assert ends(typer.Exit(3)) == 3
    assert capsys.readouterr().err == ""
    assert ends(typer.Abort()) == 1
    assert error_of(capsys)["error"] == "It was broken off."


def test_what_is_broken_off_before_a_command_runs_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken_off(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ops.cli.importlib.import_module", broken_off)
    assert cli.run(["stack", "status", "--json"]) == 130
    assert error_of(capsys)["error"] == "It was broken off."


@pytest.mark.parametrize("words", ["ls", "show 1", "bump 1", "cancel 1", "rebroadcast", "fill-gap", "resume", "audit"])
def test_a_database_that_is_away_is_said_in_one_sentence(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_lane(worker: bool) -> Lane:
        raise ServerSelectionTimeoutError("127.0.0.1:1: Connection refused (configured timeouts: 20 s)")

    monkeypatch.setattr(tx, "_open_lane", no_lane)
    assert cli.run(["tx", *words.split()]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "sluice: MongoDB does not answer: 127.0.0.1:1: Connection refused.\n"


@pytest.mark.parametrize("uri", ["mongodb://u:s3c/r3t@host/", "mongodb://u:s3cr3t@host:99999/", "http://u:s3cr3t@host"])
def test_a_wrong_database_address_is_one_line_without_a_word_of_it(
    uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chain, "settings", lambda: read_settings(mongodb_uri=uri))
    assert cli.run(["chain", "status", "--json"]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert json.loads(said.err)["error"].startswith("Setting SLUICE_MONGODB_URI is wrong")
    assert "s3c" not in said.err
    assert "r3t" not in said.err


def test_status_shows_a_node_behind_an_ipv6_address_and_its_words_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    node, sentence = "http://[fd00::1]:8545", "http://[fd00::1]:8545 says [/oops]"
    found = {"cursor": None, "lag": None, "deals": 0, "deals_waiting": 0, "logs": 0, "odd": [sentence]}

    chain._print_status(found, [NodeStatus(node)], [])

    said = capsys.readouterr().out.splitlines()
    assert said[-2].split()[0] == node
    assert said[-1] == sentence
