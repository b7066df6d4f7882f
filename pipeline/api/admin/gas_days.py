"""For how many days the scheduler's gas lasts: asked by every look at the pool, and so counted once a minute."""

from __future__ import annotations

import pymongo
import structlog
from pymongo.errors import PyMongoError

from chain.lane.model.intent import LaneId
from pipeline.api.services import Services
from pipeline.domain.gas import days_left
from pipeline.store.client import database
from pipeline.store.gas import GasBook
from protocol.errors import Unavailable
from protocol.types import Wei

log = structlog.get_logger(__name__)

#: Seconds of the past that the average is of, and the least: a pool's first minutes say nothing of its days.
AVERAGE_SECONDS, LEAST_SECONDS = 7 * 86_400.0, 3600.0
#: Seconds that the database may take to add up.
COUNT_SECONDS = 3.0


def gas_days(services: Services, balance: Wei) -> float | None:
    """Days for which `balance` lasts at the average of the last days; None if nothing was spent, or it is not known."""
    try:
        spent, seconds = services.slow_answers.get("gas", lambda: _spent(services))
    except (PyMongoError, Unavailable) as error:
        log.warning("The gas spent cannot be added up.", action="gas_unknown", why=type(error).__name__)
        return None
    return days_left(max(0, balance - services.settings.keep_balance_wei), spent, seconds)


def _spent(services: Services) -> tuple[int, float]:
    """Wei spent on gas, and in how many seconds."""
    now = services.clock()
    book = GasBook(database(services.settings), LaneId(services.settings.chain_id, services.pool.scheduler))
    with pymongo.timeout(COUNT_SECONDS):
        spent, first = book.spent(now - AVERAGE_SECONDS)
    return spent, AVERAGE_SECONDS if first is None else max(LEAST_SECONDS, now - first)
