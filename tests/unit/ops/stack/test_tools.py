"""Finding and bringing programs: what is said when one is missing."""

from __future__ import annotations

import os
import shutil

import pytest

from ops.stack import mongodb, tools
from protocol.errors import MissingTool


@pytest.mark.parametrize(
    ("text", "numbers"), [("go1.26.4\n", (1, 26, 4)), ("1.25", (1, 25)), ("", ()), ("go1.27.3 X:a", (1, 27, 3))]
)
def test_go_versions_are_compared_as_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert tools.parse_go_version(text) == numbers


def test_an_installer_that_is_absent_is_named_with_the_way_out() -> None:
    with pytest.raises(MissingTool, match=r"anvil is missing .* npm-of-nowhere is not on this machine. Install Node."):
        tools.run(["npm-of-nowhere", "ci"], tool="anvil", fix="Install Node.")


def test_an_installer_that_fails_is_quoted_in_one_line() -> None:
    with pytest.raises(MissingTool, match=r"`sh -c .*failed: first \| second") as caught:
        tools.run(["sh", "-c", "echo first >&2; echo second >&2; exit 3"], tool="it", fix="Fix it.")
    assert "\n" not in str(caught.value)


def test_without_mongod_the_error_says_the_three_ways_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(mongodb, "WHEEL", "no-such-distribution")
    with pytest.raises(MissingTool, match=r"Install MongoDB 6 .* SLUICE_MONGODB_URI .*uv sync"):
        mongodb.server()


def test_debian_packages_need_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda *_: "/usr/bin/apt-get")
    with pytest.raises(MissingTool, match=r"needs root. Install it: apt-get install rabbitmq-server"):
        tools.debian("rabbitmq-server", program="rabbitmq-server")
