"""Routes on the operator's own port: whether each part of the pool works, and what it counts."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pymongo
import structlog
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest, multiprocess
from prometheus_client.core import GaugeMetricFamily
from pydantic import BaseModel
from pymongo.errors import PyMongoError

from config import metrics_folder
from pipeline.api.auth.access import Access
from pipeline.api.pool import latest
from pipeline.domain.health import DatabaseFacts, HealthPart, NodeFacts, task_cost

log = structlog.get_logger(__name__)

router = APIRouter(tags=["operations"])

#: Seconds that the database may take to count; the other metrics do not wait longer for it.
COUNT_SECONDS = 3.0


class PartModel(BaseModel):
    """One thing the pool needs: whether it is well, in words with numbers, and if not, what to do."""

    ok: bool
    detail: str
    fix: str = ""


class Health(BaseModel):
    """All parts of the pool by name; `ok` if each is."""

    ok: bool
    parts: dict[str, PartModel]


@router.get("/health", summary="Whether each part of the pool can do its share")
async def health(request: Request, response: Response) -> Health:
    """MongoDB, RabbitMQ, IPFS, chain, clock, watcher, ownership, gas, lane and machines; 503 if one is not well.

    A part is left out while the server that knows it does not answer.
    """
    report = await latest(request.app.state.services.monitor)
    if report is None:
        response.status_code = 503
        said = HealthPart(ok=False, detail="no report could be made in time", fix="See the log of the process `api`.")
        return Health(ok=False, parts={"monitor": _model(said)})
    response.status_code = 200 if report.ok else 503
    return Health(ok=report.ok, parts={name: _model(part) for name, part in report.parts.items()})


def _model(part: HealthPart) -> PartModel:
    return PartModel(ok=part.ok, detail=part.detail, fix=part.fix)


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
def metrics(services: Access, request: Request) -> Response:
    """What all processes that share SLUICE_METRICS_DIR count, how tasks stand, and the last report on the pool."""
    text: bytes = request.app.state.answers.get("metrics", lambda: _metrics(services))
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _metrics(services: Access) -> bytes:
    registry = REGISTRY
    if metrics_folder.VARIABLE in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # the library has no types here
    present = CollectorRegistry()
    present.register(_Present(services))
    return generate_latest(registry) + generate_latest(present)


class _Present:
    """Gauges read at each scrape. Labels are names of ours, so their number is bounded."""

    def __init__(self, services: Access) -> None:
        self._services = services

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Tasks by stage, and the last report."""
        yield from self._stages()
        report = self._services.monitor.last
        if report is None:
            return
        health = GaugeMetricFamily("sluice_part_ok", "1 if the part of the pool is well.", labels=["part"])
        for name, part in report.parts.items():
            health.add_metric([name], part.ok)
        yield health
        facts = report.facts
        if isinstance(facts.node, NodeFacts):
            need = task_cost(facts.node.max_fee, self._services.settings.keep_balance_wei)
            yield _gauge("sluice_chain_head", "Newest block of the node.", facts.node.head)
            yield _gauge("sluice_wallet_balance_wei", "What the scheduler's wallet holds for gas.", facts.node.balance)
            yield _gauge("sluice_task_cost_wei", "What the wallet must hold to carry a task through.", need)
        if isinstance(facts.database, DatabaseFacts) and facts.database.cursor is not None:
            yield _gauge("sluice_watcher_block", "Last block that the watcher stored.", facts.database.cursor.number)
        if facts.machines is not None:
            yield _gauge("sluice_workers_able", "Machines that can take work.", facts.machines.able)

    def _stages(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily("sluice_tasks", "Tasks by stage.", labels=["stage"])
        try:
            with pymongo.timeout(COUNT_SECONDS):
                counts = self._services.store.lists.count_by_stage()
        except PyMongoError as error:
            log.warning("Tasks cannot be counted.", action="metrics_database", why=str(error).partition(" (")[0])
            return
        for stage, count in counts.items():
            family.add_metric([str(stage)], count.count)
        yield family


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value=value)
