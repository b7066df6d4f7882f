"""How many blocks to ask for in one eth_getLogs: as many as the node takes. Pure.

Starts modest, doubles while all goes well, halves on an error or takes the size the error names, and grows in small
steps from then on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

FIRST, LEAST, MOST = 500, 1, 2000
#: Growth per success while no error was seen, and after one.
_FREE, _BURNT = 2.0, 1.05

#: "… Try with this block range [0x10, 0x2f]."
_SPAN = re.compile(r"\[\s*(0x[0-9a-f]+)\s*,\s*(0x[0-9a-f]+)\s*\]", re.IGNORECASE)
#: "limited to a 10,000 blocks range", "max block range 1000", "exceed maximum block range: 5000", "up to a 2K block …"
_LIMIT = re.compile(
    r"(?:limited to|up to|maximum|max|limit of|range(?: is)?:?)\D{0,24}?([\d,]+)(k?)\b(?!\s*(?:results|logs))",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class RangeSize:
    """`blocks` to ask for next; `burnt` once a node refused."""

    blocks: int = FIRST
    burnt: bool = False

    def succeeded(self) -> RangeSize:
        """The size after a range was answered."""
        grown = max(self.blocks + 1, int(self.blocks * (_BURNT if self.burnt else _FREE)))
        return replace(self, blocks=min(grown, MOST))

    def failed(self, message: str) -> RangeSize:
        """The size after an error or a timeout; `message`: the node's words, which may name its limit."""
        half = max(self.blocks // 2, LEAST)
        named = suggestion(message)
        return RangeSize(blocks=named if named is not None and named < self.blocks else half, burnt=True)

    @property
    def least(self) -> bool:
        """Whether the size cannot shrink any more."""
        return self.blocks <= LEAST


def suggestion(message: str) -> int | None:
    """The number of blocks that a node's error message names as its limit; None if it names none."""
    if span := _SPAN.search(message):
        first, last = (int(end, 16) for end in span.groups())
        return last - first + 1 if last >= first else None
    if limit := _LIMIT.search(message):
        digits, thousand = limit.groups()
        number = digits.replace(",", "")
        return int(number) * (1000 if thousand else 1) or None if number else None
    return None
