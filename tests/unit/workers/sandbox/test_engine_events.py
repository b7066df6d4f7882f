"""What an engine's events tell of a container's end."""

from __future__ import annotations

import json

import pytest

from workers.sandbox.engine.events import first_of


def lines(*actions: object) -> list[bytes]:
    return [json.dumps({"Type": "container", "Action": action}).encode() for action in actions]


@pytest.mark.parametrize(
    ("actions", "told"),
    [
        (["die"], False),
        (["died"], False),
        (["kill", "die"], True),
        (["create", "start", "die"], False),
        (["create", "start", "kill", "kill", "die", "stop"], True),
        (["start"], None),
        ([], None),
    ],
    ids=str,
)
def test_a_signal_before_the_end_came_from_somebody_else(actions: list[str], told: bool | None) -> None:
    assert first_of(lines(*actions)) is told


@pytest.mark.parametrize("line", [b"", b"{", b"null", b"[]", b"{}", b'{"Action": 1}', b"\xff"], ids=repr)
def test_a_line_that_is_no_event_is_no_answer(line: bytes) -> None:
    with pytest.raises(ValueError):
        first_of([line, *lines("die")])
