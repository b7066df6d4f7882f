"""What each file with a desk of its own looks at it with."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests import prometheus
from tests.integration.pipeline.trouble.desk_pool import Desk
from tests.integration.pipeline.trouble.shell import Shell
from tests.prometheus import Prometheus


@pytest.fixture(scope="module")
def seen(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """The real Prometheus on the desk's operations port, with the alerts that are shipped."""
    port = desk.pool.settings.operations_port
    with prometheus.running(tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{port}") as server:
        yield server


@pytest.fixture
def shell(
    desk: Desk, seen: Prometheus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    opened = Shell(desk, seen, monkeypatch, capsys)
    yield opened
    opened.says("status", "The pool works.")
    sys.stdout.writelines(f"{seconds:.2f} s  sluice {words}\n" for seconds, words in opened.took)
