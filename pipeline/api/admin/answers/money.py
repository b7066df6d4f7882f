"""Answers of the operator's API about money. Integers: wei and nRLC, as the field's name ends. Times: Unix seconds."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from chain.contracts.views import MOST
from chain.lane.transfer import Direction


class _Model(BaseModel):
    """Base of this module's models: frozen."""

    model_config = ConfigDict(frozen=True)


class LedgerLine(_Model):
    """Sums of one task, day, worker or kind. `earned`: rewards less what was seized."""

    key: str
    #: Of a machine.
    name: str | None
    at: float
    transactions: int
    gas_wei: int
    sent_wei: int
    deposit_nrlc: int
    withdrawal_nrlc: int
    lock_nrlc: int
    unlock_nrlc: int
    reward_nrlc: int
    kitty_nrlc: int
    seize_nrlc: int
    sent_nrlc: int
    received_nrlc: int
    earned_nrlc: int


class OutsideLine(_Model):
    """Native token that came (or went, negative) between two blocks beside the lane's transactions."""

    after_block: int
    until_block: int
    wei: int
    #: Transactions of the wallet that the lane did not send.
    foreign_transactions: int
    #: Those that did it, as far as they are known; `explained`: they account for every wei.
    transactions: list[str]
    explained: bool
    #: The operator accepted it as known; `differs`: neither the node nor the operator accounts for it.
    accepted: bool
    differs: bool


class Reconciled(_Model):
    """Whether the books equal the chain. Differences: what the chain shows more than the books say; None: not known."""

    #: Block at which the chain was asked, and the first block of the books.
    block: int | None
    first_block: int
    #: Final blocks that are still to be read; until then nothing can be said. None: the node does not answer.
    unread_blocks: int | None
    #: By the hub, at `block`.
    stake_nrlc: int | None
    locked_nrlc: int | None
    #: By the node, at `block`.
    native_wei: int | None
    opening_stake_nrlc: int | None
    opening_locked_nrlc: int | None
    opening_native_wei: int | None
    differs_stake_nrlc: int | None
    differs_locked_nrlc: int | None
    differs_wei: int | None
    #: In how many places the native token differs: what went and came may add up to 0.
    differing: int
    #: Last block at which all was equal.
    equal_until_block: int | None
    #: Native token that others sent to the wallet, and what else is not of the lane: the newest since the moment asked
    #: for, and all that differs; then how often it happened beside these since the books began, and the sum.
    outside: list[OutsideLine]
    outside_more: int
    outside_more_wei: int
    says: str


class ForecastModel(_Model):
    """What the open tasks bring if all of them complete."""

    deals: int
    tasks: int
    scheduler_nrlc: int
    workers_nrlc: int
    locked_nrlc: int
    unknown_tasks: int


class Ledger(_Model):
    """What the pool earned and spent since a moment."""

    wallet: str
    chain_id: int
    hub: str
    since: float
    #: None: up to now.
    until: float | None
    by: str
    lines: list[LedgerLine]
    #: Lines that are left out: the oldest; with `after`, those that come next.
    more: int
    #: `after` of the next page; None: there is none.
    next: str | None
    total: LedgerLine
    reconciled: Reconciled
    #: None: the node does not answer now.
    forecast: ForecastModel | None


class SpendCap(_Model):
    """SLUICE_DAILY_SPEND_CAP_WEI and what is spent of it."""

    cap_wei: int | None
    spent_wei: int
    left_wei: int | None


class TransferModel(_Model):
    """A deposit or withdrawal of the scheduler's stake. `stage`: waits for the lane, sent, made, dropped."""

    direction: Direction
    amount_nrlc: int
    begun_at: float
    stage: str
    tx: str | None
    block: int | None
    fee_wei: int | None
    why: str | None
    #: An earlier command had begun it; no second transfer was made.
    resumed: bool = False


class TransferShow(_Model):
    """The transfer that is under way, or that ended and was not reported yet; None: there is none."""

    transfer: TransferModel | None


class StakeShow(_Model):
    """The scheduler's account in the hub, and what it is good for."""

    wallet: str
    block: int
    free_nrlc: int
    locked_nrlc: int
    #: Of what is locked: by how many open tasks of how many deals.
    locked_by_open_nrlc: int
    open_tasks: int
    open_deals: int
    unknown_tasks: int
    #: RLC of the wallet outside the hub.
    outside_nrlc: int
    #: Workerpool price of the deal that was matched last, what a task of that price locks, and for how many more the
    #: free stake is enough; None without a deal, or without a price.
    price_nrlc: int | None
    locks_per_task_nrlc: int | None
    tasks_paid_for: int | None
    native_wei: int
    gas_days: float | None
    #: The same in words, or why it cannot be told yet.
    gas_says: str | None
    spend: SpendCap
    #: Under way, or ended and not reported yet.
    transfer: TransferModel | None


class StakePlan(_Model):
    """A deposit or withdrawal that could be made now, and its highest cost in gas."""

    direction: Direction
    amount_nrlc: int
    free_nrlc: int
    locked_nrlc: int
    outside_nrlc: int
    cost_wei: int
    chain_id: int
    hub: str
    says: str
    done: bool = False


class StakeAmount(BaseModel):
    """How much to move."""

    amount_nrlc: int = Field(gt=0, le=MOST)


class AcceptedBlock(BaseModel):
    """A block of a difference that the operator knows the reason of."""

    block: int = Field(ge=1, le=2**53)
