"""iExec's own answers (tests/data/vectors.json), and the values of its documented examples."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from protocol.ethereum.signing import Key
from protocol.types import DealId, Hash32, TaskId, Wallet

_FILE = Path(__file__).parents[2] / "data" / "vectors.json"

WORKER = Key(b"\x11" * 32)
POOL_OWNER = Key(b"\x22" * 32)
ENCLAVE = Key(b"\x33" * 32)
WORKER_WALLET = Wallet("0x19e7e376e7c213b7e7e7e46cc70a5dd086daff2a")
POOL_OWNER_WALLET = Wallet("0x1563915e194d8cfba1943570603f7606a3115508")
ENCLAVE_WALLET = Wallet("0x5cbdd86a2fa8dc4bddd8a8f69dba48572eec07fb")
DEAL = DealId("0x" + "d1" * 32)
TASK = TaskId("0x1b293e4eb86240288f63652bfb856771bbb605d76217a27917774cd87ccee4b4")
DIGEST = Hash32("0x3e414b345ce4e8d016eff459b112b41de5bc488237863d83187f93ba096a9666")
RESULT_HASH = Hash32("0xf530f3659937f3a4ff113278e5ca2448c53493202e785491fe03b73f539ae31f")
RESULT_SEAL = Hash32("0xb5483a0677d1ec372123294b67901ff07beaa7459baa2534652d620994c03924")


@cache
def _all() -> dict[str, list[dict[str, Any]]]:
    content = json.loads(_FILE.read_text(encoding="utf-8"))
    return {name: cases for name, cases in content.items() if isinstance(cases, list)}


def cases(name: str) -> list[dict[str, Any]]:
    """All cases of one kind."""
    return _all()[name]


def names() -> set[str]:
    """The kinds of cases there are."""
    return set(_all())
