"""Tests lean on no machine's speed: none sleeps, and none takes a library's own time-out for its requests."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import tests

TESTS = Path(tests.__file__).parent
#: What opens connections with a time-out of 5 s unless it is told one.
REQUESTS = {f"httpx.{name}" for name in ("get", "post", "put", "delete", "request", "stream", "Client", "AsyncClient")}
#: Played parts that answer late because a test asks for it.
PLAYED = {"faulty/node.py"}


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def places(wrong: Callable[[ast.Call], bool]) -> list[str]:
    return [
        f"{name}:{call.lineno}"
        for path in sorted(TESTS.rglob("*.py"))
        if (name := str(path.relative_to(TESTS))) not in PLAYED
        for call in calls(path)
        if wrong(call)
    ]


def test_every_request_of_a_test_has_a_time_out_of_its_own() -> None:
    def wrong(call: ast.Call) -> bool:
        given = {word.arg for word in call.keywords}
        # What is played in this process, or takes its words from a dict, is not judged.
        return ast.unparse(call.func) in REQUESTS and not given & {"timeout", "transport", None}

    assert places(wrong) == []


def test_no_test_sleeps() -> None:
    assert places(lambda call: ast.unparse(call.func) in {"time.sleep", "asyncio.sleep"}) == []
