"""The two FastAPI applications: the public API, and the operator's with health and metrics. Both work offline."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool

from config.processes.supervisor import RECURSION_LIMIT
from pipeline.api import errors, operations, pool, reports, tasks, workers
from pipeline.api.admin import dead_letters, quarantine, web_page
from pipeline.api.admin import enrolment as admin_enrolment
from pipeline.api.admin import explain as admin_explain
from pipeline.api.admin import ledger as admin_ledger
from pipeline.api.admin import orders as admin_orders
from pipeline.api.admin import pool as admin_pool
from pipeline.api.admin import stake as admin_stake
from pipeline.api.admin import tasks as admin_tasks
from pipeline.api.admin import workers as admin_workers
from pipeline.api.admin.access import CurrentToken
from pipeline.api.admin.database_limit import DatabaseLimit
from pipeline.api.limits.body_limit import BodyLimit
from pipeline.api.limits.rate_limits import AddressLimit
from pipeline.api.limits.recent_answers import ANSWER_SECONDS, RecentAnswers
from pipeline.api.results import parts, upload
from pipeline.api.services import Services
from pipeline.api.version import VERSION
from protocol.results.zip_rules import largest_zip

DESCRIPTION = """
The scheduler of an iExec worker pool.

**Workers** sign in with an EIP-712 signature of their wallet, get a token and a RabbitMQ user of their own, and report
each step of the tasks they were given. **Requesters** read tasks and logs as the iExec SDK does.
Errors are JSON: `{"error": "what happened", "fix": "what to do"}`.
"""

#: Where the operator's port has the public API's OpenAPI document.
PUBLIC_DOCUMENT = "/public/openapi.json"

OPERATIONS = """
What the operator of the pool looks at and changes. Health and metrics ask for no password: keep
`SLUICE_OPERATIONS_PORT` from strangers. Below `/admin`, all that changes something needs the token
in `admin.token`, and so does reading from another machine.
"""


def create_app(services: Services) -> FastAPI:
    """The API over `services`, which it closes when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Whatever a library made of it: with a high limit, nested brackets in a body would crash the process.
        """What FastAPI does around the time in which it serves: remove old uploads meanwhile, close the services at the
        end.
        """
        sys.setrecursionlimit(RECURSION_LIMIT)
        tidying = asyncio.create_task(parts.remove_old_always(services.uploads, services.clock))
        yield
        tidying.cancel()
        await run_in_threadpool(services.close)

    # Its documentation is on the operator's port.
    app = FastAPI(
        title="Sluice",
        version=VERSION,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.services = services
    errors.install(app)
    _add_public_routes(app)
    app.add_middleware(BodyLimit, result_bytes=largest_zip(services.settings.max_result_bytes))
    # The last one added is asked first.
    app.add_middleware(AddressLimit, rates=services.rates)
    return app


def documents() -> tuple[dict[str, Any], dict[str, Any]]:
    """The OpenAPI documents of the public API and of the operator's port, without a pool: for the reference."""
    public = FastAPI(title="Sluice", version=VERSION, description=DESCRIPTION)
    operator = FastAPI(title="Sluice operations", version=VERSION, description=OPERATIONS)
    _add_public_routes(public)
    _add_operator_routes(operator)
    return public.openapi(), operator.openapi()


def _add_public_routes(app: FastAPI) -> None:
    """Add the routes for workers and requesters."""
    for routes in (pool, workers, reports, upload, tasks):
        app.include_router(routes.router)


def _add_operator_routes(app: FastAPI) -> None:
    """Add the operator's routes: health, metrics, and the API behind the commands."""
    app.include_router(operations.router, tags=["operations"])
    parts_of_admin = (admin_pool, admin_tasks, admin_workers, admin_explain, admin_ledger, admin_stake, admin_orders)
    for part in (*parts_of_admin, admin_enrolment, dead_letters, quarantine):
        app.include_router(part.router, prefix="/admin", tags=["admin"])


def create_operations_app(services: Services) -> FastAPI:
    """Health and metrics over the same services, for the port that only the operator reaches; and what the public API
    is, as an OpenAPI document.
    """
    # Pages of the documentation with scripts of their own: many networks do not reach a CDN, and some block it.
    app = FastAPIOffline(title="Sluice operations", version=VERSION, description=OPERATIONS)
    app.state.services = services
    app.state.answers = RecentAnswers(ANSWER_SECONDS)
    errors.install(app, bad_request="See `sluice … --help`, or /docs on this port.")
    app.state.admin_token = CurrentToken(services.settings)
    _add_operator_routes(app)
    app.include_router(web_page.router)
    app.add_middleware(DatabaseLimit)
    app.add_middleware(BodyLimit, result_bytes=0)

    @app.get(PUBLIC_DOCUMENT, summary="The public API as an OpenAPI document")
    def public_document() -> dict[str, Any]:
        return create_app(services).openapi()

    return app
