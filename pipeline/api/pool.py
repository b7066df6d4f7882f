"""Public routes about the pool: its configuration, and whether it works. Details are on the operator's port only."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from pymongo.errors import PyMongoError

from config.connections.broker_nodes import public_nodes
from config.values.endpoints import public_endpoints, secret_services
from pipeline.api.auth.access import Access
from pipeline.api.monitor import HealthReport, Monitor
from pipeline.api.version import VERSION
from protocol.poco.tags import Framework
from protocol.types import NRlc
from protocol.wire import PoolConfig

router = APIRouter(tags=["pool"])

#: Seconds that a request waits for a report; servers that do not answer are given up before that.
REPORT_SECONDS = 8.0
#: Deals that stand for what the pool sells now.
NEWEST_DEALS = 20


class Works(BaseModel):
    """Whether the pool can do its work."""

    ok: bool


@router.get("/config", summary="What a worker must know before it signs in")
def config(services: Access) -> PoolConfig:
    """Contracts, chain and addresses of this pool."""
    settings, pool = services.settings, services.pool
    rpc_url, ws_url = public_endpoints(settings)
    node, *others = public_nodes(settings)
    enclaves = secret_services(settings)
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
        amqp_host=node.host,
        amqp_port=node.port,
        amqp_tls=settings.amqp_public_tls,
        amqp_others=tuple(others),
        least_stake=_least_stake(services),
        most_slots=settings.worker_most_slots,
        sms_url=enclaves.get(Framework.TDX),
        sms_urls={kind.value: url for kind, url in enclaves.items()},
    )


def _least_stake(services: Access) -> NRlc | None:
    """The least stake that a vote in recent deals locks, nRLC; None if MongoDB does not answer."""
    try:
        return services.store.deals.least_stake(NEWEST_DEALS)
    except PyMongoError:
        # A hint for people: without the database the rest of the answer still holds.
        return None


@router.get("/health", summary="Whether the pool works")
async def health(request: Request, response: Response) -> Works:
    """200 if the pool works, else 503. The reasons are shown to its operator only, on the operations port."""
    report = await latest(request.app.state.services.monitor)
    response.status_code = 200 if report is not None and report.ok else 503
    return Works(ok=report is not None and report.ok)


@router.get("/live", summary="Whether the API answers")
async def live() -> Works:
    """For load balancers: 200 as long as this process serves, so that machines can sign in to a pool without any."""
    return Works(ok=True)


async def latest(monitor: Monitor) -> HealthReport | None:
    """A report that is seconds old; None if none could be made in time. Holds no thread while it waits."""
    try:
        return await asyncio.wait_for(asyncio.wrap_future(monitor.report()), REPORT_SECONDS)
    except TimeoutError:
        return None
