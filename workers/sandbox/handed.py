"""Variables that a program gets from the worker, so that no engine has them in a container's configuration: engines
write that to disk, show it to whoever may use them, and log it. Pure.

    create   entry point: the launcher, bound from this machine (`enclaves/cmd/launcher`)   command: the image's program
    attach   standard input, of one use: whoever sends goes, and the launcher ends
    start    the launcher reads the variables, and becomes the program
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from protocol.errors import BadMessage

#: Path of the launcher in a container.
LAUNCHER: Final = "/.sluice-launcher"


@dataclass(frozen=True, slots=True)
class HandedVariables:
    """The variables of one container. `launcher`: the program's path on the engine's machine."""

    launcher: str
    variables: Mapping[str, str] = field(repr=False)

    def content(self) -> bytes:
        """What the launcher reads: each variable, and an empty one. Raises BadMessage for what no program can have,
        and without its words, which may be secrets.
        """
        for name, value in self.variables.items():
            if not name or "=" in name or "\0" in name + value:
                raise BadMessage(why="a variable of the session has no name, or a zero byte, or = in its name")
        lines = (f"{name}={value}\0" for name, value in self.variables.items())
        return "".join(lines).encode() + b"\0"


def program_of(
    image_config: Mapping[str, Any] | None, entrypoint: Sequence[str] | None, command: Sequence[str]
) -> list[str]:
    """Program and arguments as the engine puts them together; empty if nobody names a program.

    `image_config`: the image's, as the engine inspects it; `entrypoint`, `command`: of the container, in its place.
    """
    if entrypoint:
        # The image's command is for its own entry point.
        return [*entrypoint, *command]
    config = image_config or {}
    return [*(config.get("Entrypoint") or ()), *(command or config.get("Cmd") or ())]
