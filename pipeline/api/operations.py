"""Routes on the operator's own port: whether each part of the pool works, and what it counts."""

from __future__ import annotations

import os

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest, multiprocess
from pydantic import BaseModel

from config import metrics_folder
from pipeline.api.auth.access import Access
from pipeline.api.platform_metrics import platform_metric
from pipeline.api.pool import latest
from pipeline.api.readings import Readings
from pipeline.domain.condition.health import HealthPart

router = APIRouter(tags=["operations"])

_JSON = "application/json"


class PartModel(BaseModel):
    """One thing the pool needs: whether it is well, in words with numbers, and if not, what to do."""

    ok: bool
    detail: str
    fix: str = ""


class Health(BaseModel):
    """All parts of the pool by name; `ok` if each is. `holding`: why nothing new is begun, None if the pool works."""

    ok: bool
    holding: str | None = None
    parts: dict[str, PartModel]


@router.get("/health", summary="Whether each part of the pool can do its share")
async def health(request: Request, response: Response) -> Health:
    """MongoDB, RabbitMQ, IPFS, chain, clock, watcher, ownership, gas, lane, results, machines; 503 if one is not well.

    A part is left out while the server that knows it does not answer.
    """
    report = await latest(request.app.state.services.monitor)
    if report is None:
        response.status_code = 503
        said = HealthPart(ok=False, detail="no report could be made in time", fix="See the log of the process `api`.")
        return Health(ok=False, parts={"monitor": _model(said)})
    response.status_code = 200 if report.ok else 503
    return Health(
        ok=report.ok,
        holding=None if report.hold is None else report.hold.why,
        parts={name: _model(part) for name, part in report.parts.items()},
    )


def _model(part: HealthPart) -> PartModel:
    """A part of the pool's health as `/health` shows it."""
    return PartModel(ok=part.ok, detail=part.detail, fix=part.fix)


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
def metrics(services: Access, request: Request) -> Response:
    """What all processes that share SLUICE_METRICS_DIR count, how tasks stand, and the last report on the pool.

    With `Accept: application/json`, the machines, tasks and deals in the shape of iExec Core's `/metrics`.
    """
    if _JSON in request.headers.get("accept", ""):
        found = request.app.state.answers.get(
            "platform", lambda: platform_metric(services.store, services.settings, services.clock())
        )
        return Response(found.model_dump_json(by_alias=True), media_type=_JSON)
    text: bytes = request.app.state.answers.get("metrics", lambda: _metrics(services))
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _metrics(services: Access) -> bytes:
    """All metrics in Prometheus' text format: counted by every process, and read now."""
    registry = REGISTRY
    if metrics_folder.VARIABLE in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # the library has no types here
    present = CollectorRegistry()
    present.register(Readings(services))
    return generate_latest(registry) + generate_latest(present)
