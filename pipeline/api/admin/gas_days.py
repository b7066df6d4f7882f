"""For how many days the scheduler's gas lasts: part of every status answer, and so computed once a minute at most."""

from __future__ import annotations

from dataclasses import dataclass

import pymongo
import structlog
from pymongo.errors import PyMongoError

from chain.lane.model.intent import LaneId
from pipeline.api.services import Services
from pipeline.domain.money.gas import days_left
from pipeline.store.client import database
from pipeline.store.money.gas import GasBook
from protocol.amounts import ether
from protocol.errors import Unavailable
from protocol.types import Wei

log = structlog.get_logger(__name__)

#: Seconds over which spending is averaged, and the least: a pool's first hours do not show what a day costs.
AVERAGE_SECONDS, LEAST_SECONDS = 7 * 86_400.0, 86_400.0
#: Fewer days than this are given to a tenth.
FEW_DAYS, _HOUR = 100, 3600.0
#: Seconds that the database may take to add up.
COUNT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class GasDays:
    """For how many days gas lasts, if that can be told, and in words what is known."""

    days: float | None = None
    says: str | None = None


def gas_days(services: Services, balance: Wei) -> GasDays:
    """For how long `balance` lasts at the average of the last days. Nothing is said if it is not known."""
    try:
        spent, seconds = services.slow_answers.get("gas", lambda: _spent(services))
    except (PyMongoError, Unavailable) as error:
        log.warning("The gas spent cannot be added up.", action="gas_unknown", why=type(error).__name__)
        return GasDays()
    if spent and seconds < LEAST_SECONDS:
        return GasDays(says=f"too young to tell for how long: {ether(spent)} were spent in {_length(seconds)}")
    days = days_left(max(0, balance - services.settings.keep_balance_wei), spent, seconds)
    if days is None:
        return GasDays()
    return GasDays(days, f"for {days:.{1 if days < FEW_DAYS else 0}f} days at what the last days cost")


def _length(seconds: float) -> str:
    """A length of time in hours, or in minutes below one hour."""
    return f"{seconds / _HOUR:.1f} h" if seconds >= _HOUR else f"{max(1.0, seconds / 60):.0f} min"


def _spent(services: Services) -> tuple[int, float]:
    """Wei spent on gas, and in how many seconds."""
    now = services.clock()
    book = GasBook(database(services.settings), LaneId(services.settings.chain_id, services.pool.scheduler))
    with pymongo.timeout(COUNT_SECONDS):
        spent, first = book.spent(now - AVERAGE_SECONDS)
    return spent, AVERAGE_SECONDS if first is None else now - first
