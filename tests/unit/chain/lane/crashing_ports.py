"""Ports of a lane (store, node, signer) that end their process at the n-th operation, as `kill -9` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Crash(BaseException):
    """`kill -9`: not even `finally` writes anything."""


class Fragile:
    """A port that dies at its n-th operation, before or after carrying it out, and stays dead."""

    def __init__(self, port: Any, countdown: list[int], strike: Callable[[], None], *, after: bool) -> None:
        self._port = port
        self._countdown = countdown
        self._strike = strike
        self._after = after

    @property
    def name(self) -> str:
        return "fragile"

    def __getattr__(self, operation: str) -> Any:
        target = getattr(self._port, operation)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._countdown[0] -= 1
            due = self._countdown[0] == 0
            if due and not self._after:
                self._strike()
            answer = target(*args, **kwargs)
            if due and self._after:
                self._strike()
            return answer

        return call


class MuteWhenDead:
    """A dead process's port: nothing gets through any more."""

    def __init__(self, port: Any, dead: list[bool]) -> None:
        self._port = port
        self._dead = dead

    def __getattr__(self, operation: str) -> Any:
        if self._dead and operation != "name":
            raise Crash
        return getattr(self._port, operation)
