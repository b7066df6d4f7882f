"""A worker's wallet that only this test process uses.

Test processes run side by side against one Docker engine, where a machine's containers are told apart by its wallet.
"""

from __future__ import annotations

import hashlib
import os

from protocol.ethereum.signing import Key
from protocol.poco.authorization import sign_authorization
from protocol.wire import Assignment
from tests.unit.workers import assignments
from tests.unit.workers.assignments import SCHEDULER_KEY, task_id

_PROCESS = os.environ.get("PYTEST_XDIST_TESTRUNUID", "") + os.environ.get("PYTEST_XDIST_WORKER", "")
#: Holds nothing anywhere.
WORKER_KEY = Key(hashlib.sha256(f"worker of {_PROCESS}".encode()).digest())


def assignment(number: int = 1, **fields: object) -> Assignment:
    """A task for WORKER_KEY's wallet, with any field replaced."""
    wallet = WORKER_KEY.wallet
    own: dict[str, object] = {
        "wallet": wallet,
        "authorization": sign_authorization(SCHEDULER_KEY, wallet, task_id(number)),
    }
    return assignments.assignment(number, **own | fields)
