"""Names of Celery tasks and queues: each is written in `config.topology` and nowhere else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from config import topology
from protocol.types import Wallet
from tests.sources import files

ROOT = Path(__file__).parents[3]
CODE = ("beat", "bench", "chain", "config", "ops", "pipeline", "protocol", "sms", "workers")
WALLET = Wallet("0x" + "ab" * 20)
#: Names with a dot are never an ordinary word: all tasks, and all queues but `pipeline` and `dead`.
NAMES = frozenset(
    value
    for value in vars(topology).values()
    if isinstance(value, str) and value.startswith(("pipeline.", "lane.", "worker."))
)


def test_the_names_are_those_of_tasks_and_queues() -> None:
    assert {topology.COMPUTE, topology.RUN_LANE, topology.SWEEP_QUEUE, topology.RETRY_QUEUE} < NAMES


@pytest.mark.parametrize("folder", CODE)
def test_no_other_module_writes_the_name_of_a_task_or_a_queue(folder: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}"
        for path in files(ROOT / folder, frozenset((".py",)))
        if path != Path(topology.__file__)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and (node.value in NAMES or node.value.startswith(("lane.0x", "w.0x")) or node.value in {"lane.", "w."})
    ]
    assert not found


def test_the_machine_of_a_queue_is_found_by_the_name_of_its_queue_for_work_only() -> None:
    assert topology.wallet_of_queue(topology.compute_queue_name(WALLET)) == WALLET
    for other in (topology.tx_queue_name(WALLET), topology.lane_queue_name(WALLET), WALLET, "w.0x12", ""):
        assert topology.wallet_of_queue(other) is None
