"""What this machine has spent, may spend and risks now: read from its journal and its lane's file, without the node.

Only what a vote on a deal's tasks locks is asked of the chain, once for each deal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from chain.contracts.calls import GAS_LIMITS
from chain.contracts.hub import Hub
from chain.lane.model.intent import Intent, IntentState, LaneId
from chain.lane.model.nonce import NonceState
from chain.lane.model.policy import LanePolicy
from chain.lane.phases.send import DAY_SECONDS
from chain.lane.store.port import LaneStore
from chain.lane.store.sqlite import SqliteStore
from chain.rpc.answers import Known
from config.settings import Settings
from protocol.errors import RpcUnavailable
from protocol.types import DealId, NRlc, TaskId, Wallet, Wei
from protocol.wire import Assignment, Mode
from workers.data.layout import Layout
from workers.money import limits, market
from workers.money.limits import Budget, Caps
from workers.task.journal import Journal
from workers.task.votes import REVEAL

#: Deals that are asked for at once, and queued transactions that are counted one by one.
_DEALS, _QUEUED = 50, 1000
#: Seconds for which the node is asked again what a task would lock, while its app waits to be started.
_ASK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Ledger:
    """The money of one machine, for one process. `clock`: returns Unix seconds; `hub`: opens the connection to the
    chain.
    """

    settings: Settings
    policy: LanePolicy
    layout: Layout
    journal: Journal
    store: LaneStore
    lane: LaneId
    clock: Callable[[], float]
    hub: Callable[[], Hub]

    @property
    def caps(self) -> Caps:
        """This machine's own limits."""
        return limits.caps_of(self.settings)

    def budget(self, before: TaskId | None = None) -> Budget:
        """What this machine has spent and risks now. `before`: count only the tasks that were stored before
        this one.
        """
        replicates = self.journal.all_replicates() if before is None else self.journal.costly_before(before)
        signed = self.store.records(self.lane, (NonceState.OPEN,))
        queued = self.store.in_state(self.lane, (IntentState.QUEUED,), _QUEUED)
        surcharge = market.noted_surcharge(self.layout)
        return limits.budget_of(
            self.policy,
            market.noted(self.layout),
            spent=self.store.spent_since(self.lane, self.clock() - DAY_SECONDS),
            signed=Wei(sum(record.gas_limit * record.newest.fees.max_fee for record in signed)),
            queued_gas=sum(_gas_of(item) + surcharge.get(item.method, 0) for item in queued),
            replicates=replicates,
            stakes=self.journal.stakes(),
            surcharge=surcharge,
        )

    def why_not(self, assignment: Assignment) -> str | None:
        """Why a task is not taken; None if it is within the limits. Raises RpcUnavailable if its stake
        cannot be read.
        """
        solo = assignment.mode is Mode.SOLO
        stake = NRlc(0) if solo or self.caps.stake is None else self._stake(DealId(assignment.deal_id))
        budget = self.budget(TaskId(assignment.task_id))
        return limits.why_not(budget, self.caps, limits.task_gas(solo=solo, surcharge=budget.surcharge), stake)

    def why_no_work(self, least_stake: int | None) -> str | None:
        """Why this machine takes no task at all now; None if it does. `least_stake`: PoolConfig.least_stake."""
        return limits.why_no_task(self.budget(), self.caps, NRlc(least_stake or 0))

    def worth(self, deal_id: str) -> int:
        """Wei that this machine loses with an unrevealed vote on a task of the deal: the stake, as
        `limits.worth_in_wei` counts it.

        0 while the stake is not known.
        """
        return limits.worth_in_wei(self.journal.stakes().get(deal_id, NRlc(0)), self.settings)

    def worth_of(self, intent: Intent) -> int:
        """Wei that this machine loses unless the intent succeeds; the lane bids up to that. By what is known of the
        task's deal.
        """
        replicate = self.journal.find(TaskId(intent.subject)) if intent.method == REVEAL else None
        return intent.worth if replicate is None else max(intent.worth, self.worth(replicate.assignment.deal_id))

    def note_stakes(self) -> None:
        """Read the stakes of the deals of this machine's tasks, as far as they are not known yet. Raises
        RpcUnavailable.
        """
        known = self.journal.stakes()
        here = {item.assignment.deal_id for item in self.journal.all_replicates() if limits.locks_stake(item)}
        missing = sorted(here - known.keys())
        for start in range(0, len(missing), _DEALS):
            self._ask(missing[start : start + _DEALS])

    def _stake(self, deal_id: DealId) -> NRlc:
        """What a vote on a task of this deal locks; the stakes of all tasks before it become known as well."""
        here = {item.assignment.deal_id for item in self.journal.all_replicates() if limits.locks_stake(item)}
        missing = sorted({deal_id, *here} - self.journal.stakes().keys())
        retrying = Retrying(
            retry=retry_if_exception_type(RpcUnavailable),
            wait=wait_fixed(0.5),
            stop=stop_after_delay(_ASK_SECONDS),
            reraise=True,
        )
        found = {**self.journal.stakes(), **(retrying(self._ask, missing) if missing else {})}
        return found[deal_id]

    def _ask(self, deal_ids: Collection[str]) -> Mapping[str, NRlc]:
        """The stake that a vote locks in each deal, by the chain; noted in the journal. Raises RpcUnavailable."""
        hub = self.hub()
        found: dict[str, NRlc] = {}
        for deal_id, answer in zip(deal_ids, hub.deals([DealId(each) for each in deal_ids]), strict=True):
            if isinstance(answer, Known):
                found[deal_id] = answer.value.worker_stake
        self.journal.note_stakes(found, self.clock())
        if len(found) < len(deal_ids):
            raise RpcUnavailable(what=hub.rpc.name, why="it does not show what votes on a deal's tasks lock")
        return found


@contextmanager
def open_ledger(
    settings: Settings, policy: LanePolicy, layout: Layout, wallet: Wallet, hub: Hub | None = None
) -> Iterator[Ledger]:
    """The ledger of a machine that need not be running, for commands; it asks no node without `hub`. The machine's
    folder exists.
    """

    def known_hub() -> Hub:
        """The hub. Raises RpcUnavailable for a command that asks no node."""
        if hub is None:
            raise RpcUnavailable(what="the node", why="this command does not ask it")
        return hub

    journal, store = Journal(layout.journal), SqliteStore(layout.lane)
    try:
        yield Ledger(settings, policy, layout, journal, store, LaneId(settings.chain_id, wallet), time.time, known_hub)
    finally:
        journal.close()
        store.close()


def _gas_of(queued: Intent) -> int:
    """Gas limit of an intent that has no nonce yet, as the lane computes it."""
    return int(str(queued.args["gas"])) if queued.method == "call" else GAS_LIMITS[queued.method].base
