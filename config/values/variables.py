"""Which `SLUICE_…` variables exist. A misspelt one is refused by name: else its default would be used silently."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from pydantic import ValidationError

from protocol.errors import BadSetting

PREFIX = "SLUICE_"


def refuse_unknown(given: Iterable[str], known: Collection[str]) -> None:
    """Raise BadSetting for the first variable in `given`, by name, that has our prefix and is not `known`.

    Upper and lower case are the same, as for the settings themselves. Variables of other programs are ignored.
    """
    for name in sorted(given):
        if not name.upper().startswith(PREFIX) or name.upper() in known:
            continue
        close = get_close_matches(name.upper(), sorted(known), n=1)
        fix = f"Did you mean {close[0]}?" if close else "Unset it."
        raise BadSetting(name=name, why="there is no such setting", fix=f"{fix} See docs/settings.md.")


def wrong_variable(prefix: str, error: ValidationError) -> BadSetting:
    """What to raise for the first wrong variable of settings that pydantic refused. `prefix`: of their names."""
    first = error.errors()[0]
    name = prefix + "_".join(str(part) for part in first["loc"]).upper()
    return BadSetting(name=name, why=first["msg"].removeprefix("Value error, "), fix="See docs/settings.md.")
