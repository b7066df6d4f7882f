"""Answers of the operator's API about workerpool orders. Times are Unix seconds."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

OrderHash = Annotated[str, StringConstraints(pattern="^0x[0-9a-f]{64}$")]


class _Model(BaseModel):
    """Base of this module's models: frozen."""

    model_config = ConfigDict(frozen=True)


class OrderLine(_Model):
    """One order."""

    order_hash: str
    number: int
    stage: str
    category: int
    trust: int
    tag: str
    price_nrlc: int
    #: Tasks that it was signed for, and how many of them can still be bought on chain.
    volume: int
    remaining: int
    market: str
    signed_at: float
    #: Whether it was ever sent to the market, and whether the market may list it.
    shown: bool
    listed: bool
    why: str | None
    withdrawn_at: float | None
    #: What the market said last if it did not do what was asked for, and when it is asked again.
    says: str
    retry_at: float
    #: How far its close on chain is; None if it was not handed to the lane.
    close: str | None
    close_tx: str | None
    close_fee_wei: int | None


class OrdersShow(_Model):
    """The orders, and what holds for all of them."""

    #: None: nothing is offered on a market.
    market: str | None
    #: Why the policy's file cannot be read; empty if it can.
    trouble: str
    held: bool
    paused: bool
    #: Tasks that can be bought with orders that are not withdrawn.
    offered: int
    orders: list[OrderLine]


class PlannedAction(_Model):
    """What would be done next."""

    action: str
    order_hash: str | None
    category: int
    trust: int
    tag: str
    price_nrlc: int
    volume: int
    why: str | None
    #: Of gas at most; None: nothing, or the node does not tell.
    cost_wei: int | None


class OrdersPlan(_Model):
    """What the pool could serve, and what would be done about its orders."""

    market: str | None
    trouble: str
    held: bool
    paused: bool
    #: Machines that could be given a task now, their free slots, and tasks that are sold and wait for one.
    machines: int
    free_slots: int
    waiting_tasks: int
    #: Whether all deals are read; nothing is signed before.
    settled: bool
    stake_nrlc: int | None
    offered: int
    actions: list[PlannedAction]


class CancelledOrders(_Model):
    """Which orders are cancelled: those named, or all of them and every offer until `publish`."""

    orders: list[OrderHash] = Field([], max_length=1000)
    all: bool = False


class OrdersCancelled(_Model):
    """What was cancelled, and what closing that on chain costs at most."""

    changed: bool
    dry_run: bool
    says: str
    orders: list[str]
    #: Orders that are closed on chain, since somebody may have a copy of them.
    closes: int
    #: None while the node does not tell.
    cost_wei: int | None
