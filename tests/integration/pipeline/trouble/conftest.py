"""What each file with a pool of its own looks at it with."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests import prometheus
from tests.integration.pipeline.trouble.operated_pool import OperatedPool
from tests.integration.pipeline.trouble.shell import Shell
from tests.prometheus import SOON, Prometheus
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def seen(operated: OperatedPool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """The real Prometheus on the pool's operations port, with the alerts that are shipped, which wait for seconds."""
    target, folder = f"127.0.0.1:{operated.pool.settings.operations_port}", tmp_path_factory.mktemp("prometheus")
    with prometheus.running(folder, target, waits=SOON) as server:
        # What grows is compared with before.
        wait_until(lambda: server.value('up{job="sluice"}') == 1, 30, what="the first scrape")
        yield server


@pytest.fixture
def shell(open_shell: Shell) -> Iterator[Shell]:
    """A shell in which the pool works again at the end."""
    yield open_shell
    open_shell.says("status", "The pool works.")


@pytest.fixture
def open_shell(
    operated: OperatedPool, seen: Prometheus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    """A shell for troubles that the pool does not get over by itself."""
    opened = Shell(operated, seen, monkeypatch, capsys)
    yield opened
    sys.stdout.writelines(f"{seconds:.2f} s  sluice {words}\n" for seconds, words in opened.took)
