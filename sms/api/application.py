"""The FastAPI application of the secret service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from config.http_server.address import origin_of_scope
from config.http_server.rates import RateLimits
from sms.api import answers, secrets, tee
from sms.service import SecretService


def create_app(service: SecretService, rates: RateLimits) -> FastAPI:
    """The API over `service`. `rates`: limits `requests` (all), and of those with a body `secrets` and `tasks`."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        """What FastAPI does around the time in which it serves: close the connections at the end."""
        yield
        await run_in_threadpool(service.provisioner.close)
        await run_in_threadpool(service.files.close)

    app = FastAPI(title="Sluice secret service", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service, app.state.rates = service, rates
    answers.install(app)
    app.include_router(secrets.router)
    app.include_router(tee.router)
    app.add_middleware(AddressLimit, rates=rates)

    @app.get("/health")
    def health() -> JSONResponse:
        """Whether secrets can be read; 503 while the database is away."""
        service.store.has("nothing")
        return JSONResponse({"status": "UP"})

    return app


class AddressLimit:
    """ASGI middleware: counts each request of an address; answers 429."""

    def __init__(self, app: ASGIApp, *, rates: RateLimits) -> None:
        self._app, self._rates = app, rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, unless it is one too many."""
        refused = self._rates.refused("requests", origin_of_scope(scope)) if scope["type"] == "http" else None
        if refused is not None:
            await answers.answer(refused)(scope, receive, send)
            return
        await self._app(scope, receive, send)
