"""Assignments for tests: a complete one, with any field replaced."""

from __future__ import annotations

from protocol.assignment import sign_assignment
from protocol.ethereum.signing import Key
from protocol.poco.authorization import sign_authorization
from protocol.types import ZERO_ADDRESS, TaskId, Wallet
from protocol.wire import Assignment, Mode

#: A worker's and a scheduler's key that hold nothing anywhere.
WORKER_KEY = Key(b"\x11" * 32)
SCHEDULER_KEY = Key(b"\x22" * 32)
#: The pool that signs.
CHAIN_ID, WORKERPOOL = 31337, "0x" + "bb" * 20
#: Far in the future, Unix seconds.
LATER = 4_000_000_000


def task_id(number: int) -> TaskId:
    """A task id that a person can read."""
    return TaskId("0x" + f"{number:064x}")


def assignment(number: int = 1, **fields: object) -> Assignment:
    """A task for WORKER_KEY's wallet, authorized and, with all its fields, signed by SCHEDULER_KEY."""
    wallet = WORKER_KEY.wallet
    values: dict[str, object] = {
        "task_id": task_id(number),
        "deal_id": "0x" + "dd" * 32,
        "index": 3,
        "mode": Mode.VOTE,
        "trust": 1,
        "tag": "0x" + "0" * 64,
        "wallet": wallet,
        "app": "0x" + "aa" * 20,
        "image": "sluice/test-app:1",
        "image_checksum": "0x" + "0" * 64,
        "dataset": None,
        "params": "{}",
        "callback": ZERO_ADDRESS,
        "bot_first": 2,
        "bot_size": 5,
        "category_seconds": 30,
        "contribution_deadline": LATER,
        "final_deadline": LATER,
        "authorization": sign_authorization(SCHEDULER_KEY, Wallet(wallet), task_id(number)),
        "enclave_challenge": ZERO_ADDRESS,
    }
    whole = Assignment.model_validate(values | fields)
    return whole if "signature" in fields else sign_assignment(SCHEDULER_KEY, whole, CHAIN_ID, WORKERPOOL)
