"""Draws answers of the operator's API in a terminal. Pure but for `show` and `clock`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="Lines at most.")]

#: Columns of a page whose cells must not be cut: ids are there to be copied.
WIDE = 1000
#: Style of columns whose content people copy.
_IDS = frozenset({"task", "deal", "wallet", "intent", "row", "of"})
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def show(answer: Any, drawn: RenderableType, *, as_json: bool) -> None:
    """Print an answer as JSON, or as it is drawn for people; soft-wrapped, so that ids can be copied whole."""
    if as_json:
        print(json.dumps(answer, indent=1))
    else:
        console().print(drawn)


def clock() -> float:
    """This machine's time, Unix seconds: commands tell ages by it."""
    return time.time()


def console() -> Console:
    """Standard output, soft-wrapped; as wide as need be where it is no terminal."""
    return Console(soft_wrap=True, highlight=False, width=WIDE if not Console().is_terminal else None)


def printable(text: object) -> str:
    """Text without characters that a terminal obeys: requesters and machines write names, arguments and image names."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(text))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> RenderableType:
    """A table without lines, or `empty` if it has no row. Cells are text, never markup: strangers write some of it."""
    made = Table(box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, no_wrap=column in _IDS, overflow="fold")
    for row in rows:
        made.add_row(*(Text(printable(cell)) for cell in row))
    return made if made.row_count else Text(empty)


def pairs(found: Mapping[str, object]) -> RenderableType:
    """Names and values below each other; those without a value are left out."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in found.items():
        if value is not None:
            made.add_row(name, Text(printable(value)))
    return made


def stacked(*parts: RenderableType | None) -> Group:
    """The parts below each other, without those that are None."""
    return Group(*(part for part in parts if part is not None))


def age(seconds: float | None) -> str:
    """A length of time for people: 12 s, 3 min, 5.2 h, 3 days; a dash for none."""
    if seconds is None:
        return "–"
    if seconds < 2 * _MINUTE:
        return f"{max(0, seconds):.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h" if seconds < 2 * _DAY else f"{seconds / _DAY:.0f} days"


def native(wei: int | None) -> str | None:
    """An amount of the native token for people."""
    return None if wei is None else f"{wei / 10**18:.6g} (native token)"


def changed(answer: Mapping[str, Any]) -> Text:
    """What a command did, or would do."""
    says = printable(answer["says"])
    if answer["dry_run"]:
        return Text(f"Would be: {says}" if answer["changed"] else "Nothing would change.")
    return Text(says if answer["changed"] else f"Nothing changed. {says}")
