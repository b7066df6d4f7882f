"""A process imports nothing that it does not use: each module here costs every start of its kind, or its memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pytest
from coincurve.utils import GROUP_ORDER_INT

from config.processes import collector
from protocol.ethereum import library

ROOT = Path(__file__).parents[2]
#: What a process has imported, and how its garbage collector and its stack are set.
LOOK = """
import gc, json, sys
print(json.dumps([sorted(sys.modules), gc.get_freeze_count(), gc.get_threshold(), sys.getrecursionlimit()]))
"""

#: What a machine that imports `pipeline`, and so all of the scheduler, would be bound to.
OF_THE_SCHEDULER = {"pipeline", "pymongo", "fastapi", "starlette", "uvicorn", "limits"}
#: Celery's own command line and Flower, which is a program of its own.
FOR_A_PROMPT = {"celery.bin.celery", "prompt_toolkit", "flower"}
#: What libraries import where it is installed, as it is for tests.
IF_INSTALLED = {"trio", "yaml", "OpenSSL", "limits.aio.storage"}
#: (what it imports until its children are forked or its command runs, what must not be among it)
KINDS: dict[str, tuple[str, Collection[str]]] = {
    "sluice settings": (
        "import ops.cli, ops.commands.care.settings",
        {"web3", "eth_account", "eth_abi", "celery", "kombu", "docker", "requests", "aiohttp", "cryptography"}
        | OF_THE_SCHEDULER
        | FOR_A_PROMPT,
    ),
    "sluice scheduler run": (
        """
import ops.cli
with ops.cli.lean_imports(): import ops.commands.run.scheduler, ops.preflight, ops.scheduler
ops.scheduler.celery_apps.warm_up(ops.scheduler.app)
ops.scheduler.preload_web3()
""",
        {"py_ecc", "aiohttp", "docker", "workers"} | FOR_A_PROMPT | IF_INSTALLED,
    ),
    "sluice worker run": (
        """
import ops.cli
with ops.cli.lean_imports(): import ops.commands.run.worker, workers.machine
from config.celery_apps import machine_app
workers.machine.warm_up(machine_app("0x" + "11" * 20))
workers.machine.preload_web3()
""",
        {"py_ecc", "aiohttp"} | OF_THE_SCHEDULER | FOR_A_PROMPT | IF_INSTALLED,
    ),
}


@dataclass(frozen=True, slots=True)
class Started:
    """A process as it is before its first work."""

    modules: frozenset[str]
    frozen: int
    threshold: tuple[int, int, int]
    recursion: int


def started(code: str) -> Started:
    environment = os.environ | {"SLUICE_PRIVATE_KEY": "11" * 32}
    words = [sys.executable, "-c", code + LOOK]
    ended = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    modules, frozen, threshold, recursion = json.loads(ended.stdout.splitlines()[-1])
    return Started(frozenset(modules), frozen, tuple(threshold), recursion)


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_imports_nothing_that_it_does_not_use(kind: str) -> None:
    code, unused = KINDS[kind]
    process = started(code)

    assert sorted(process.modules & set(unused)) == []
    assert process.recursion == 1000
    if kind != "sluice settings":
        assert process.frozen > 0, "a collection in a child would copy the pages that it shares with its parent"
        assert process.threshold == collector.AT_WORK


def test_what_stands_in_for_py_ecc_has_its_numbers() -> None:
    parameter = -0xD201000000010000  # of the BLS12-381 curve: its group has z⁴ - z² + 1 elements

    assert parameter**4 - parameter**2 + 1 == library._BLS12_381_ORDER
    assert library._SECP256K1_ORDER == GROUP_ORDER_INT


def test_releases_that_need_more_of_what_is_stood_in_for_get_it() -> None:
    process = started(
        "from chain.rpc import library as ours; from protocol.ethereum import library\n"
        "library._STAND_INS['py_ecc.bls'].clear(); del ours._STAND_INS['aiohttp']['ClientError']\n"
        "ours.load_web3().Account.from_key('0x' + '11' * 32); import web3.providers.persistent"
    )

    assert process.modules >= {"py_ecc", "aiohttp"}
    assert process.recursion == 1000
