"""How long the database may take for a request of the operator's API."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pymongo import _csot
from starlette.concurrency import run_in_threadpool

from pipeline.api.admin.database_limit import ANSWER_SECONDS, DatabaseLimit


@pytest.mark.parametrize(
    ("path", "seconds"),
    [("/admin/tasks", ANSWER_SECONDS), ("/admin/live", None), ("/health", None), ("/page/", None)],
)
def test_routes_of_the_operator_limit_the_database_also_in_the_threads_that_ask_it(
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
