"""What each file with a pool of its own looks at it with."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests import prometheus
from tests.integration.pipeline.trouble.operated_pool import OperatedPool
from tests.integration.pipeline.trouble.shell import Shell
from tests.prometheus import Prometheus


@pytest.fixture(scope="module")
def seen(operated: OperatedPool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """The real Prometheus on the pool's operations port, with the alerts that are shipped."""
    port = operated.pool.settings.operations_port
    with prometheus.running(tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{port}") as server:
        yield server


@pytest.fixture
def shell(
    operated: OperatedPool, seen: Prometheus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    opened = Shell(operated, seen, monkeypatch, capsys)
    yield opened
    opened.says("status", "The pool works.")
    sys.stdout.writelines(f"{seconds:.2f} s  sluice {words}\n" for seconds, words in opened.took)
