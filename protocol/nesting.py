"""How deep untrusted JSON nests, checked before it is parsed.

A million brackets can overflow the C stack of Python's parser wherever the recursion limit was raised, and that kills
the process.
"""

from __future__ import annotations

import re

#: Brackets, and strings so that brackets inside them are passed over; an unclosed one runs to the end, else a text
#: of open quotes would be read once for each.
_NESTING = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


def nests_deeper(content: str, limit: int) -> bool:
    """Whether the first value in `content` has more than `limit` levels of brackets."""
    depth = 0
    for token in _NESTING.finditer(content):
        depth += _STEP.get(token[0], 0)
        if depth == 0:
            return False
        if depth > limit:
            return True
    return False
