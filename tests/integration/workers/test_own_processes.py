"""A worker in a container with processes of its own: it cannot enter its containers' network, and says so at start."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing

import pytest

from tests.integration.workers.conftest import engine_host
from tests.waiting import ample
from workers.enclave.surrounding import require_reach
from workers.sandbox.engine.container import Engine

__all__ = ["engine_host"]

ASKS = """
import sys
from protocol.errors import BadSetting
from workers.enclave.surrounding import require_reach
from workers.sandbox.engine.container import Engine

try:
    require_reach(Engine(sys.argv[1]))
except BadSetting as refusal:
    print(refusal)
"""


@pytest.mark.parametrize(
    ("around", "words"),
    [
        (["unshare", "--pid", "--fork", "--mount-proc"], "it has a PID namespace of its own"),
        (["setpriv", "--bounding-set", "-sys_admin"], "it may not enter other processes' networks"),
    ],
    ids=["processes of its own", "no right to enter"],
)
def test_a_worker_that_cannot_enter_its_containers_network_is_refused_with_the_way_out(
    engine_host: str, around: list[str], words: str
) -> None:
    command = [*around, sys.executable, "-c", ASKS, engine_host]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=ample(60.0), check=False)
    assert asked.returncode == 0, asked.stderr
    assert words in asked.stdout
    assert "--pid host --privileged" in asked.stdout


def test_a_worker_beside_its_engine_can_enter_its_containers_network(engine_host: str) -> None:
    with closing(Engine(engine_host)) as engine:
        require_reach(engine)
