"""Pages name only what exists, and no code block escapes the test that runs them (in tests/integration/pool)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from config.settings import VARIABLES
from ops import cli
from tests import documents
from tests.documents import FILES, NOT_RUN, PAGES, PICTURE, SHELL, blocks, inline_commands, not_run

_COMMAND = re.compile(r"^(?:\$ .*|(?:sluice|make|docker|curl|npm|node|export) .*)$", re.MULTILINE)
#: Made here, since libraries that it imports open a socket when they are imported.
COMMANDS = typer.main.get_command(cli._build_app([]))
BLOCKS = [block for page in PAGES for block in blocks(page)]


def test_every_block_has_a_language_that_is_run_or_shows_no_command() -> None:
    for block in BLOCKS:
        assert block.language in {SHELL, PICTURE, *FILES}, f"{block.place}: who would run {block.language}?"
        if block.language == PICTURE:
            commands = _COMMAND.findall(block.text)
            assert not commands, f"{block.place} looks like commands, so it should be `sh`: {commands}"


def test_what_is_not_run_is_still_on_some_page() -> None:
    printed = [command for block in BLOCKS if block.language == SHELL for command in block.commands()]
    assert {why for command in printed if (why := not_run(command))} == set(NOT_RUN.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(documents.ROOT)))
def test_every_variable_on_a_page_exists(page: Path) -> None:
    unknown = set(re.findall(r"SLUICE_[A-Z0-9_]*[A-Z0-9]", page.read_text())) - VARIABLES
    assert not unknown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(documents.ROOT)))
def test_every_command_on_a_page_exists_with_its_options(page: Path) -> None:
    shell = [command for block in blocks(page) if block.language == SHELL for command in block.commands()]
    for command in [*inline_commands(page), *(line for line in shell if line.startswith("sluice "))]:
        _exists(shlex.split(command, comments=True)[1:], command)


def _exists(words: list[str], command: str) -> None:
    # Of click as typer brings it along.
    found: Any = COMMANDS
    # What stands for several: `sluice stack up | status | down`.
    words = [word for word in words if word not in {"|", "…"}]
    value = False
    for word in words:
        if value:
            # Of the option before it: a group takes options too.
            value = False
        elif word.startswith("-"):
            named = [parameter for parameter in found.params if word in parameter.opts]
            assert named or word == "--help", f"`{command}`: no option {word}"
            value = hasattr(found, "commands") and bool(named) and not named[0].is_flag
        elif hasattr(found, "commands"):
            assert word in found.commands or _siblings(found, words), f"`{command}`: no command {word}"
            found = found.commands.get(word, found)


def _siblings(group: Any, words: list[str]) -> bool:
    return any(word in group.commands for word in words)
