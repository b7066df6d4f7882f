"""Imports without optional packages that Sluice does not use: 7 % of what a scheduler's start would import."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

from protocol.ethereum.library import stand_ins

#: Packages that libraries use if they are installed, as some are for tests only.
_ABSENT: Final = (
    "trio",  # httpcore, for programs that run on trio
    "yaml",  # kombu, for messages in YAML: ours are JSON
    "pymongo.pyopenssl_context",  # pymongo, for PyOpenSSL in place of Python's own ssl; it imports cryptography first
)
#: The half of `limits` for asyncio: every import of `limits` brings it along.
_EMPTY: Final = {"limits.aio": dict[str, object]()}


def lean_imports() -> AbstractContextManager[None]:
    """Within the block, hide optional packages of libraries that Sluice does not use.

    One that this process has imported before stays.

    Around the imports of commands and services, before anything else imports the libraries concerned.
    """
    return stand_ins(_EMPTY, _ABSENT)
