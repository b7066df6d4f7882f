"""`sluice worker earnings`: what a machine's tasks brought and cost."""

from __future__ import annotations

import re
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

from chain.keystore import load_key
from chain.lane.model.intent import LaneId
from chain.lane.store.sqlite import SqliteStore
from chain.rpc.pool import connect
from config.settings import Settings
from ops.machine.here import machine_here
from protocol.errors import BadInput
from protocol.types import Contract
from workers.money.earnings import earnings
from workers.pool.saved_config import settings_from_pool
from workers.task.journal import Journal

_SPAN = re.compile(r"([0-9]{1,6})\s*([hdw])")
_SECONDS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}


@dataclass(frozen=True, slots=True)
class Row:
    """One task that is over. `reward`: nRLC, negative for a lost stake, None if unknown; `gas`: wei."""

    task_id: str
    #: Local time, ISO 8601.
    ended: str
    stage: str
    cause: str | None
    reward: int | None
    gas: int


@dataclass(frozen=True, slots=True)
class Income:
    """All tasks that ended since a moment. `reward`: nRLC; `gas`: wei of all transactions since then."""

    since: str
    tasks: tuple[Row, ...]
    reward: int
    gas: int
    #: Tasks whose end was not found on chain; they are not in `reward`.
    unknown: int


def moment_of(text: str, now: float) -> float:
    """Unix seconds of `7d`, or of an ISO date or moment (local unless it names a zone). Raises BadInput."""
    span = _SPAN.fullmatch(text.strip())
    if span is not None:
        return now - int(span[1]) * _SECONDS[span[2]]
    try:
        return datetime.fromisoformat(text.strip()).astimezone().timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise BadInput(what=f"{text!r} is no time: write it like `24h`, `7d`, `4w` or `2026-11-01`.") from error


def income(settings: Settings, since: str) -> Income:
    """What was earned and spent. Raises BadInput, BadKeystore, BadSetting, RpcUnavailable, RpcError."""
    start = moment_of(since, time.time())
    wallet = load_key(settings).wallet
    layout = machine_here(settings, wallet)
    if not layout.journal.exists():
        return Income(_local(start), (), 0, 0, 0)
    own = settings_from_pool(settings, wallet)
    lane = LaneId(own.chain_id, wallet)
    with (
        closing(connect(own)) as rpc,
        closing(Journal(layout.journal)) as journal,
        closing(SqliteStore(layout.lane)) as store,
    ):
        found = earnings(rpc, Contract(str(own.hub).lower()), lane, store, journal, start, own.block_time)
    rows = tuple(
        Row(item.task_id, _local(item.ended_at), item.stage, item.cause, item.reward, item.gas) for item in found.tasks
    )
    return Income(_local(start), rows, found.reward, found.gas, sum(row.reward is None for row in rows))


def _local(moment: float) -> str:
    """A moment in this machine's time zone, ISO 8601."""
    return datetime.fromtimestamp(moment).astimezone().isoformat(timespec="seconds")
