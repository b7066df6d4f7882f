"""What the launcher is sent, and what it is told to start."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.errors import BadMessage
from workers.sandbox.handed import HandedVariables, program_of


def test_each_variable_ends_with_a_zero_byte_and_an_empty_one_ends_them() -> None:
    assert HandedVariables("/l", {"A": "1", "B": "x=y\né"}).content() == b"A=1\0B=x=y\n\xc3\xa9\0\0"
    assert HandedVariables("/l", {}).content() == b"\0"


@pytest.mark.parametrize("name", ["", "A=B", "A\0B"])
def test_a_name_that_no_variable_can_have_is_refused_without_a_word_of_it(name: str) -> None:
    with pytest.raises(BadMessage) as refused:
        HandedVariables("/l", {name: "the-value"}).content()
    assert "the-value" not in str(refused.value)


def test_a_value_cannot_bring_another_variable() -> None:
    with pytest.raises(BadMessage):
        HandedVariables("/l", {"A": "1\0LD_PRELOAD=/evil.so"}).content()


def test_no_value_is_in_a_repr() -> None:
    assert "the-value" not in repr(HandedVariables("/l", {"A": "the-value"}))


@pytest.mark.parametrize(
    ("config", "entrypoint", "command", "program"),
    [
        ({"Entrypoint": ["/app"], "Cmd": ["a"]}, None, (), ["/app", "a"]),
        ({"Entrypoint": ["/app"], "Cmd": ["a"]}, None, ("b", "c"), ["/app", "b", "c"]),
        ({"Entrypoint": None, "Cmd": ["/app", "a"]}, None, (), ["/app", "a"]),
        ({"Entrypoint": None, "Cmd": ["/app", "a"]}, None, ("b",), ["b"]),
        ({"Entrypoint": ["/bin/sh", "-c", "app $X"], "Cmd": None}, None, (), ["/bin/sh", "-c", "app $X"]),
        # The image's command is for the image's own entry point.
        ({"Entrypoint": ["/app"], "Cmd": ["a"]}, ("/other",), (), ["/other"]),
        ({"Entrypoint": ["/app"], "Cmd": ["a"]}, ("/other",), ("b",), ["/other", "b"]),
        ({"Entrypoint": [], "Cmd": []}, None, (), []),
        (None, None, (), []),
    ],
)
def test_the_program_is_put_together_as_the_engine_does(
    config: Any, entrypoint: Any, command: tuple[str, ...], program: list[str]
) -> None:
    assert program_of(config, entrypoint, command) == program
