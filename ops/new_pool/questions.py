"""Asks for what no option gave. Each answer is checked at once; after a wrong one the question is repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import typer

from protocol.errors import BadInput, SluiceError

T = TypeVar("T")


class Questions:
    """Options, defaults and, with `people`, a person who answers. Questions go to standard error."""

    def __init__(self, *, people: bool, defaults: bool) -> None:
        """`defaults`: take them without a question. Without `people`, what has no default must be an option."""
        self._people = people
        self._defaults = defaults

    def ask(
        self, option: str, given: str | None, text: str, check: Callable[[str], T], *, default: str | None = None
    ) -> T:
        """The option's value, the default, or an answer, after `check` has converted it.

        Raises BadInput if nobody gave it, and what `check` raises for an option or a default.
        """
        if given is not None:
            return check(given)
        if default is not None and (self._defaults or not self._people):
            return check(default)
        if not self._people:
            raise BadInput(what=f"{option} is not given ({text}), and there is nobody to ask.")
        while True:
            answer = str(typer.prompt(f"{text} ({option})", default=default, err=True)).strip()
            try:
                return check(answer)
            except SluiceError as error:
                typer.echo(str(error), err=True)

    def ask_password(self, option: str, text: str) -> str:
        """A password that is not shown. Raises BadInput if there is nobody to ask."""
        if not self._people:
            raise BadInput(what=f"{option} is not given ({text}), and there is nobody to ask.")
        return str(typer.prompt(text, hide_input=True, err=True))
