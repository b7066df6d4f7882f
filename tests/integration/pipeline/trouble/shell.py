"""The shell of an operator who has a pool in trouble, and Prometheus beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from config.settings import settings
from ops import cli
from pipeline.api.admin.access import operator_token
from tests.integration.pipeline.trouble.operated_pool import OperatedPool
from tests.prometheus import Prometheus
from tests.waiting import ample


@dataclass
class Shell:
    """The operator's shell: `sluice` as it is on the path, and Prometheus."""

    operated: OperatedPool
    seen: Prometheus
    patch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    #: (seconds, command).
    took: list[tuple[float, str]] = field(default_factory=list)
    #: Settings in the place of the scheduler's.
    changed: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str) -> tuple[int, str]:
        """Exit code, and all that is printed."""
        self.capsys.readouterr()
        settings.cache_clear()
        with self.patch.context() as patch:
            for name, value in (self.operated.environment() | self.changed).items():
                patch.setenv(name, value)
            patch.setenv("SLUICE_ADMIN_TOKEN", operator_token(self.operated.pool.settings))
            # Commands tell ages by this machine's clock.
            patch.setattr("ops.admin.screen.clock", self.operated.pool.clock)
            began = time.perf_counter()
            code = cli.run(words)
            self.took.append((time.perf_counter() - began, " ".join(words[:2])))
        # Other tests read the settings anew.
        settings.cache_clear()
        out, err = self.capsys.readouterr()
        return code, out + err

    @contextmanager
    def told(self, **changed: str) -> Iterator[None]:
        """The shell has these settings in the block."""
        self.changed = changed
        yield
        self.changed = {}

    def says(self, words: str, *wanted: str, code: int = 0) -> str:
        """Run `sluice WORDS`; fails unless it prints each of `wanted` and ends with `code`."""
        ended, said = self.run(*words.split())
        # Tables may fold.
        flat = " ".join(said.split())
        missing = [each for each in wanted if each not in flat]
        if missing or ended != code:
            raise AssertionError(f"sluice {words} does not say {missing} and ends with {ended}:\n{said}")
        return said

    def alarms(self, *names: str) -> None:
        """Wait until these alerts fire."""
        self.seen.alarms(*names)

    def health(self) -> set[str]:
        """The parts that `/health` calls not well; its HTTP status agrees."""
        answer = httpx.get(f"http://127.0.0.1:{self.operated.pool.settings.operations_port}/health", timeout=ample(10))
        bad = {name for name, part in answer.json()["parts"].items() if not part["ok"]}
        assert answer.status_code == (503 if bad else 200)
        return bad
