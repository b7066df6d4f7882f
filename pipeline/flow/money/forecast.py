"""What the open deals will bring, and what they lock: their terms are read from the hub, which never changes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chain.contracts.hub import Hub
from chain.contracts.views import Deal
from chain.rpc.answers import Known
from config.processes.per_process import PerProcess
from pipeline.store.client import Store
from protocol.poco.money import pool_stake, scheduler_share
from protocol.types import DealId

#: Deals whose terms are asked for at once, and terms kept in memory by a process.
TOGETHER, KEPT = 100, 5000
#: This process's terms of deals.
_terms: PerProcess[dict[DealId, Deal]] = PerProcess(dict)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the open tasks bring if all of them complete; nRLC."""

    deals: int
    tasks: int
    #: To the scheduler, at least; to all workers together, at most.
    scheduler: int
    workers: int
    #: Of the scheduler's stake: unlocked again task by task, seized for each that expires.
    locked: int
    #: Tasks of deals whose terms the node did not give; they are in none of the sums.
    unknown_tasks: int


def forecast(store: Store, hub: Hub) -> Forecast:
    """The forecast of all deals with open tasks. Raises RpcUnavailable, PyMongoError."""
    counts = store.lists.open_by_deal()
    return sums(counts, terms(hub, list(counts)))


def sums(counts: Mapping[DealId, int], known: Mapping[DealId, Deal]) -> Forecast:
    """The forecast of so many open tasks by deal, as far as the deals' terms are known. Pure."""
    scheduler = workers = locked = 0
    for deal_id, deal in known.items():
        count, price = counts[deal_id], deal.workerpool_price
        share = scheduler_share(price, deal.scheduler_reward_ratio)
        scheduler += count * share
        workers += count * (price - share)
        locked += count * pool_stake(price)
    tasks = sum(counts.values())
    unknown = tasks - sum(counts[deal_id] for deal_id in known)
    return Forecast(len(counts), tasks, scheduler, workers, locked, unknown)


def terms(hub: Hub, deal_ids: Sequence[DealId]) -> dict[DealId, Deal]:
    """The terms of these deals, as far as the node gives them. Raises RpcUnavailable."""
    kept = _terms.get()
    found = {deal_id: deal for deal_id in deal_ids if (deal := kept.get(deal_id)) is not None}
    missing = [deal_id for deal_id in deal_ids if deal_id not in found]
    for start in range(0, len(missing), TOGETHER):
        some = missing[start : start + TOGETHER]
        answers = zip(some, hub.deals(some), strict=True)
        found.update({deal_id: answer.value for deal_id, answer in answers if isinstance(answer, Known)})
    if len(kept) + len(missing) > KEPT:
        kept.clear()
    kept.update(found)
    return found
