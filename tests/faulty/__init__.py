"""Servers that misbehave on demand, in front of real ones or in their place: a Docker engine's socket, a registry, a
file server. A test gives each a function from a request to its fault, so that named tests and drawn ones share them.

An Ethereum node has its own faults: answers.py (what it may answer), draws.py (drawn), node.py (served), contract.py (a
hub in memory, for unit tests).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer in place of the right one."""

    status: int
    body: bytes = b""
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HangUp:
    """The connection is closed after so many bytes of a promised body."""

    after: int = 0


Fault = Answer | HangUp
