"""Bans a worker and lifts the ban."""

from __future__ import annotations

import structlog

from pipeline.broker.admin import BrokerAdmin
from pipeline.store.machine.workers import Workers
from protocol.errors import NotFound
from protocol.types import Wallet

log = structlog.get_logger(__name__)


def ban(workers: Workers, broker: BrokerAdmin, wallet: Wallet, now: float) -> None:
    """Ban a wallet: it gets no new task and cannot sign in; its token and connections end now.

    What it has contributed stays on chain; its tasks go to others after their timeouts. Raises NotFound,
    BrokerUnavailable.
    """
    # First the ban: a machine that is only cut off would sign in again.
    known = workers.set_banned(wallet, banned=True)
    # For the day on which the ban is lifted.
    workers.end_tokens(wallet, now)
    if not known:
        raise NotFound(what=f"worker {wallet}")
    broker.revoke(wallet)
    log.info("Worker is banned.", action="worker_banned", wallet=wallet)


def unban(workers: Workers, wallet: Wallet) -> None:
    """Let a worker sign in again, which gives it a new broker user. Raises NotFound."""
    if not workers.set_banned(wallet, banned=False):
        raise NotFound(what=f"worker {wallet}")
    log.info("Worker may sign in again.", action="worker_unbanned", wallet=wallet)
