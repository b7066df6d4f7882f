"""How long the database may take for a request of the operator's API."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pymongo import _csot
from starlette.concurrency import run_in_threadpool

from pipeline.api.admin.database_limit import ANSWER_SECONDS, UNLIMITED, DatabaseLimit


@pytest.mark.parametrize(
    ("path", "seconds"),
    [
        ("/admin/tasks", ANSWER_SECONDS),
        ("/admin/workers/0x/drain", ANSWER_SECONDS),
        *((path, None) for path in UNLIMITED),
        ("/admin/ledger/accept", None),
        ("/admin/stake/deposit", None),
        ("/health", None),
        ("/page/", None),
    ],
)
def test_routes_that_ask_only_the_database_limit_it_also_in_the_threads_that_ask(
    path: str, seconds: float | None
) -> None:
    seen: list[float | None] = []

    async def route(*_: Any) -> None:
        seen.append(await run_in_threadpool(_csot.get_timeout))

    async def nothing(*_: Any) -> Any:
        return None

    asyncio.run(DatabaseLimit(route)({"type": "http", "path": path}, nothing, nothing))
    assert seen == [seconds]
    assert _csot.get_timeout() is None
