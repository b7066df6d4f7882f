"""Tests lean on no machine's speed: none sleeps, and none takes a library's own time-out for its requests."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tests
from tests.sources import files

TESTS = Path(tests.__file__).parent
#: What opens connections with a time-out of 5 s unless it is told one.
REQUESTS = {f"httpx.{name}" for name in ("get", "post", "put", "delete", "request", "stream", "Client", "AsyncClient")}
#: Less than what is ample for anything.
SHORT_SECONDS = 60
#: What is in every file with a call that is judged here: to parse and walk all tests would take seconds.
_JUDGED = re.compile(r"\bhttpx\.|\bsleep\(|\.(?:wait|join|result)\(\s*[\d.]")
#: Played parts that answer late because a test asks for it.
PLAYED = {"faulty/node.py"}


@dataclass(frozen=True, slots=True)
class Called:
    """A call in a test: where, of what, and with which arguments by name (None: from a dict)."""

    place: str
    function: str
    given: frozenset[str | None]
    #: The number that is its first argument, if that is one.
    number: float | None


@cache
def called() -> Sequence[Called]:
    return [
        Called(
            f"{name}:{node.lineno}",
            ast.unparse(node.func),
            frozenset(word.arg for word in node.keywords),
            _number(node.args),
        )
        for path in files(TESTS, {".py"})
        if (name := str(path.relative_to(TESTS))) not in PLAYED and _JUDGED.search(text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
    ]


def _number(arguments: Sequence[ast.expr]) -> float | None:
    match arguments:
        case [ast.Constant(value=int() | float() as number), *_]:
            return number
    return None


def places(wrong: Callable[[Called], bool]) -> list[str]:
    return [call.place for call in called() if wrong(call)]


def test_every_request_of_a_test_has_a_time_out_of_its_own() -> None:
    def wrong(call: Called) -> bool:
        # What is played in this process, or takes its words from a dict, is not judged.
        return call.function in REQUESTS and not call.given & {"timeout", "transport", None}

    assert places(wrong) == []


def test_no_test_sleeps() -> None:
    # `asyncio.sleep(0)` lets others have their turn.
    assert places(lambda call: call.function in {"time.sleep", "asyncio.sleep"} and call.number != 0) == []


def test_no_wait_is_bounded_by_how_fast_a_machine_is() -> None:
    """By `tests.waiting.ample`, or not at all: seconds that are right here are too few on another machine."""

    def wrong(call: Called) -> bool:
        return call.function.endswith((".wait", ".join", ".result")) and 0 < (call.number or 0) < SHORT_SECONDS

    assert places(wrong) == []
