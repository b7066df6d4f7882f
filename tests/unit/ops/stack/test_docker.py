"""How the stack's own Docker engine is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from ops.stack.servers import docker
from protocol.errors import NotReady


class Engine:
    """A program that ends at its start with one of these last words after the other, and then runs."""

    def __init__(self, *words: str) -> None:
        self.words = list(words)

    def ensure(self, *_: Any, **__: Any) -> str:
        if self.words:
            raise NotReady(part="Docker engine", seconds=1, log="log", why=f"It ended. {self.words.pop(0)}")
        return "running"


def started(engine: Engine, seconds: float = 60.0) -> str:
    return cast("str", docker.ensure(cast("Any", engine), Path("/nowhere"), seconds=seconds))


def test_an_engine_whose_containerd_was_slow_is_started_again() -> None:
    slow = "failed to start containerd: timeout waiting for containerd to start"
    assert started(Engine(slow, slow)) == "running"
    with pytest.raises(NotReady, match="timeout waiting"):
        started(Engine(slow), seconds=-1.0)


def test_an_engine_that_ends_for_another_reason_is_not() -> None:
    with pytest.raises(NotReady, match="no space left"):
        started(Engine("no space left on device"))
