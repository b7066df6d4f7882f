"""Routes for machines and monitors: what the pool is, whether it works, what it counts."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest, multiprocess
from prometheus_client.core import GaugeMetricFamily
from pydantic import BaseModel
from pymongo.errors import PyMongoError

from chain.lane.intent import LaneId
from chain.lane.store_mongo import MongoStore
from config import metrics_folder
from config.endpoints import public_endpoints
from pipeline.api.access import Access
from pipeline.store.client import database
from protocol.errors import LaneError, RpcError, Unavailable
from protocol.wire import PoolConfig

router = APIRouter(tags=["operations"])

#: Version told to workers.
VERSION = version("sluice")
#: A head older than this many block times, and this many seconds, means that node or chain stands still.
STALE_BLOCKS, STALE_SECONDS = 10, 30.0


class Part(BaseModel):
    """One thing the API needs."""

    ok: bool
    detail: str


class Health(BaseModel):
    """All of them; `ok` if each is."""

    ok: bool
    parts: dict[str, Part]


@router.get("/config", summary="What a worker must know before it signs in")
def config(services: Access) -> PoolConfig:
    """Contracts, chain and addresses of this pool."""
    settings, pool = services.settings, services.pool
    rpc_url, ws_url = public_endpoints(settings)
    return PoolConfig(
        chain_id=settings.chain_id,
        hub=pool.hub,
        workerpool=pool.workerpool,
        scheduler=pool.scheduler,
        rpc_url=rpc_url,
        ws_url=ws_url,
        block_time=settings.block_time,
        ipfs_gateway=settings.ipfs_gateway,
        version=VERSION,
        memory_per_slot=settings.memory_per_slot,
        download_max_bytes=settings.download_max_bytes,
        max_result_bytes=settings.max_result_bytes,
    )


@router.get("/health", summary="Whether the pool's parts answer")
def health(services: Access, request: Request, response: Response) -> Health:
    """Database, broker, chain and lane; 503 if one does not answer, the chain's head is old or the lane has stopped."""
    answer: Health = request.app.state.answers.get("health", lambda: _health(services))
    response.status_code = 200 if answer.ok else 503
    return answer


def _health(services: Access) -> Health:
    parts = {
        "mongodb": _probe(lambda: _database(services)),
        "rabbitmq": _probe(lambda: _broker(services)),
        "chain": _probe(lambda: _chain(services)),
        "lane": _probe(lambda: _lane(services)),
    }
    return Health(ok=all(part.ok for part in parts.values()), parts=parts)


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
def metrics(services: Access, request: Request) -> Response:
    """What all processes that share SLUICE_METRICS_DIR count, and how many tasks stand at each stage but the last."""
    text: bytes = request.app.state.answers.get("metrics", lambda: _metrics(services))
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _metrics(services: Access) -> bytes:
    registry = REGISTRY
    if metrics_folder.VARIABLE in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # the library has no types here
    stages = CollectorRegistry()
    stages.register(_Stages(services))
    return generate_latest(registry) + generate_latest(stages)


class _Stages:
    """Gauges read from the store at each scrape."""

    def __init__(self, services: Access) -> None:
        self._services = services

    def collect(self) -> list[GaugeMetricFamily]:
        """Tasks by stage."""
        family = GaugeMetricFamily("sluice_tasks", "Tasks by stage.", labels=["stage"])
        for stage, count in self._services.store.tasks.count_by_stage().items():
            family.add_metric([str(stage)], count)
        return [family]


def _probe(check: Callable[[], str]) -> Part:
    try:
        return Part(ok=True, detail=check())
    except (Unavailable, LaneError, RpcError, PyMongoError) as error:
        # PyMongo's words may hold the server's address, never a password; ours are redacted at their source.
        return Part(ok=False, detail=str(error)[:300])


def _database(services: Access) -> str:
    cursor = services.store.chain.cursor()
    return "no block read yet" if cursor is None else f"read up to block {cursor.number}"


def _broker(services: Access) -> str:
    services.broker.check()
    return "no alarm"


def _chain(services: Access) -> str:
    head = services.rpc.call("eth_getBlockByNumber", "latest", False)
    number, age = int(head["number"], 16), services.clock() - int(head["timestamp"], 16)
    if age > max(STALE_SECONDS, STALE_BLOCKS * services.settings.block_time):
        raise Unavailable(what="the chain", why=f"its head, block {number}, is {age:.0f} s old")
    return f"head is block {number}, {max(0.0, age):.0f} s old"


def _lane(services: Access) -> str:
    lane = LaneId(services.settings.chain_id, services.pool.scheduler)
    why = MongoStore(database(services.settings)).halted(lane)
    if why is not None:
        raise LaneError(wallet=lane.wallet, why=why)
    return "no operator is needed"
