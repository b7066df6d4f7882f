"""What the tests of faults do, read from their source: which alerts each waits for, and which commands it runs.

An alert or a command counts only where a test that pytest runs calls the helper that waits for it, or runs it: a name
in a comment, in a text or in a test that is skipped is nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ops import cli
from ops.command_table import commands

#: Calls that wait until the alerts they name fire.
_ALARMS = frozenset({"begin", "alarms"})
#: Calls that run a command: with all of it as the first text, or a word in each argument.
_ONE_TEXT, _WORDS = frozenset({"says"}), frozenset({"run", "sluice"})
#: Marks of tests that do not run.
_OFF = frozenset({"skip", "skipif", "xfail"})
#: In the place of what a test fills in.
_FILLED = "0x…"
#: The words of every command.
_KNOWN = frozenset(row.words for row in commands(cli.every_command()))


@dataclass(frozen=True, slots=True)
class Command:
    """A command of `sluice` as it is typed: its words, and the names of its options."""

    words: tuple[str, ...]
    options: frozenset[str] = frozenset()

    def is_run_by(self, other: Command) -> bool:
        """Whether `other` is this command with these options, and others at most beside them; a trial is no run."""
        more = other.options - self.options
        return self.words == other.words and self.options <= other.options and "--dry-run" not in more

    def __str__(self) -> str:
        return " ".join((*self.words, *sorted(self.options)))


@dataclass(frozen=True, slots=True)
class FaultTest:
    """One test: the alerts that it waits for, and the commands that it runs."""

    name: str
    alerts: frozenset[str]
    commands: frozenset[Command]


def command(words: Sequence[str]) -> Command | None:
    """The command that these words begin with, without its arguments; None if none does."""
    for length in (3, 2, 1):
        if tuple(words[:length]) in _KNOWN:
            options = {word.partition("=")[0] for word in words[length:] if word.startswith("--")}
            return Command(tuple(words[:length]), frozenset(options))
    return None


def fault_tests(path: Path) -> list[FaultTest]:
    """The tests of a file that pytest runs."""
    return [
        FaultTest(item.name, frozenset(_alerts(item)), frozenset(_commands(item)))
        for item in ast.parse(path.read_text()).body
        if isinstance(item, ast.FunctionDef) and item.name.startswith("test_") and not _is_off(item)
    ]


def sections(runbook: str) -> dict[str, set[Command]]:
    """The commands of each section of the runbook, by its heading; words of a group alone are no command."""
    found = re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", runbook, re.MULTILINE | re.DOTALL)
    return {
        name: {
            known
            for typed in re.findall(r"`sluice ([^`]+)`", " ".join(text.split()))
            if (known := command(typed.split())) is not None
        }
        for name, text in found
    }


def _is_off(test: ast.FunctionDef) -> bool:
    """Whether a mark keeps pytest from running the test, or from failing with it."""
    names = {node.attr for mark in test.decorator_list for node in ast.walk(mark) if isinstance(node, ast.Attribute)}
    return bool(names & _OFF)


def _calls(test: ast.FunctionDef, names: frozenset[str]) -> Iterator[ast.Call]:
    """Calls of functions or methods with one of these names."""
    for node in ast.walk(test):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in names:
                yield node


def _alerts(test: ast.FunctionDef) -> Iterator[str]:
    """The alerts that a test waits for."""
    for call in _calls(test, _ALARMS):
        yield from (str(given.value) for given in call.args if isinstance(given, ast.Constant))


def _commands(test: ast.FunctionDef) -> Iterator[Command]:
    """The commands that a test runs."""
    typed = [_text(call.args[0]).split() for call in _calls(test, _ONE_TEXT)]
    typed += [[word for given in call.args for word in [_text(given)]] for call in _calls(test, _WORDS)]
    yield from (known for words in typed if (known := command(words)) is not None)


def _text(given: ast.expr) -> str:
    """A text of a test's source; what it fills in stands for an id."""
    if isinstance(given, ast.Constant):
        return str(given.value)
    if isinstance(given, ast.JoinedStr):
        return "".join(_text(part) for part in given.values)
    return _FILLED
