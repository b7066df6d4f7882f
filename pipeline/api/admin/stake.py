"""Routes of the scheduler's stake in the hub: what there is, and deposits and withdrawals through the scheduler's lane.

This process signs nothing: it stores what was asked for, hands it to the lane and wakes it.
"""

from __future__ import annotations

import structlog
from fastapi import APIRouter

from chain.contracts.hub import Hub
from chain.lane.model.intent import LaneId
from chain.lane.model.policy import LanePolicy
from chain.lane.phases.send import DAY_SECONDS
from chain.lane.store.mongo import MongoStore
from chain.lane.transfer import Direction, plan, sentence
from pipeline.api.admin.access import Operator, Reader
from pipeline.api.admin.answers.money import SpendCap, StakeAmount, StakePlan, StakeShow, TransferModel, TransferShow
from pipeline.api.admin.answers.pool import Changed
from pipeline.api.admin.gas_days import gas_days
from pipeline.api.admin.pool import DryRun
from pipeline.api.services import Services
from pipeline.domain.money.ledger import WEI_PER_NRLC
from pipeline.flow.money.forecast import forecast, terms
from pipeline.flow.money.stake_transfer import Progress, StakeTransfers
from pipeline.store.client import database
from pipeline.store.money.gas import GasBook
from protocol.errors import BadInput, NotPossible, RpcError, RpcUnavailable
from protocol.poco.money import pool_stake
from protocol.types import ZERO_ADDRESS, NRlc, Wei

log = structlog.get_logger(__name__)
router = APIRouter()


@router.get("/stake", summary="The scheduler's stake, gas and spend cap")
def show_stake(services: Reader) -> StakeShow:
    """The scheduler's stake: what is free and locked, what locks it, and for how many more tasks the rest is enough."""
    hub, wallet = _hub(services), services.pool.scheduler
    try:
        head = hub.head()
        account, (balance,) = hub.account(wallet, head), hub.balances([wallet], head)
        token, open_deals = hub.token(), forecast(services.store, hub)
        outside = balance // WEI_PER_NRLC if token == ZERO_ADDRESS else hub.rlc(token, wallet)
        price = _last_price(services, hub)
    except RpcError as error:
        raise RpcUnavailable(what=services.rpc.name, why=str(error)) from error
    locks = None if price is None else pool_stake(price)
    found, lasts = _transfers(services).progress(), gas_days(services, Wei(balance))
    return StakeShow(
        wallet=wallet,
        block=head,
        free_nrlc=account.stake,
        locked_nrlc=account.locked,
        locked_by_open_nrlc=open_deals.locked,
        open_tasks=open_deals.tasks,
        open_deals=open_deals.deals,
        unknown_tasks=open_deals.unknown_tasks,
        outside_nrlc=outside,
        price_nrlc=price,
        locks_per_task_nrlc=locks,
        tasks_paid_for=account.stake // locks if locks else None,
        native_wei=balance,
        gas_days=lasts.days,
        gas_says=lasts.says,
        spend=_spend(services),
        transfer=None if found is None else _model(found),
    )


@router.post("/stake/deposit", summary="Deposit RLC of the scheduler's wallet as stake")
def deposit(services: Operator, wanted: StakeAmount, dry_run: DryRun = False) -> StakePlan | TransferModel:
    """Deposit stake. The lane sends it once, whatever crashes: a repeated request continues the first one."""
    return _move(services, "deposit", NRlc(wanted.amount_nrlc), dry_run=dry_run)


@router.post("/stake/withdraw", summary="Withdraw free stake to the scheduler's wallet")
def withdraw(services: Operator, wanted: StakeAmount, dry_run: DryRun = False) -> StakePlan | TransferModel:
    """Withdraw stake that no deal locks, as `deposit`. Without free stake no further deal can be matched."""
    return _move(services, "withdraw", NRlc(wanted.amount_nrlc), dry_run=dry_run)


@router.get("/stake/transfer", summary="The deposit or withdrawal that is under way")
def show_transfer(services: Reader) -> TransferShow:
    """The transfer that is under way, or that ended and was not reported to anybody yet."""
    found = _transfers(services).progress()
    return TransferShow(transfer=None if found is None else _model(found, resumed=True))


@router.post("/stake/transfer/told", summary="Forget a transfer that is over")
def end_transfer(services: Operator) -> Changed:
    """Forget a transfer that has ended, once the operator was told how; then the next one may begin."""
    done = _transfers(services).finish()
    return Changed(changed=done, dry_run=False, says="The transfer is over." if done else "No transfer is under way.")


def _move(services: Services, direction: Direction, amount: NRlc, *, dry_run: bool) -> StakePlan | TransferModel:
    """Hand a transfer of `amount` nRLC to the lane, or go on with an equal one; with `dry_run` only its plan.

    Raises NotPossible, RpcUnavailable.
    """
    settings, transfers = services.settings, _transfers(services)
    before = transfers.progress()
    if before is not None and not dry_run and (before.wish.direction, before.wish.amount) == (direction, amount):
        return _model(before, resumed=True)
    if settings.lane_dry_run and not dry_run:
        raise NotPossible(what="With SLUICE_LANE_DRY_RUN nothing is ever sent.")
    try:
        made = plan(_hub(services), transfers.lane, LanePolicy.of(settings), transfers.lane_store, direction, amount)
    except BadInput as error:
        raise NotPossible(what=str(error)) from error
    except RpcError as error:
        raise RpcUnavailable(what=services.rpc.name, why=str(error)) from error
    if dry_run:
        return StakePlan(
            direction=direction,
            amount_nrlc=amount,
            free_nrlc=made.free,
            locked_nrlc=made.locked,
            outside_nrlc=made.outside,
            cost_wei=made.cost,
            chain_id=settings.chain_id,
            hub=services.pool.hub,
            says=sentence(made),
        )
    found, resumed = transfers.begin(made)
    log.info("The stake is moved.", action="stake_moved", direction=direction, nrlc=amount, resumed=resumed)
    return _model(found, resumed=resumed)


def _model(found: Progress, *, resumed: bool = False) -> TransferModel:
    """A deposit or withdrawal as the operator's API shows it."""
    return TransferModel(
        direction=found.wish.direction,
        amount_nrlc=found.wish.amount,
        begun_at=found.wish.begun_at,
        stage=str(found.stage),
        tx=found.tx,
        block=found.block,
        fee_wei=found.fee,
        why=found.why,
        resumed=resumed,
    )


def _spend(services: Services) -> SpendCap:
    """What the lane has spent in the last day, and what the cap leaves."""
    cap = services.settings.daily_spend_cap_wei
    spent, _ = GasBook(database(services.settings), _lane(services)).spent(services.clock() - DAY_SECONDS)
    return SpendCap(cap_wei=cap, spent_wei=spent, left_wei=None if cap is None else max(0, cap - spent))


def _last_price(services: Services, hub: Hub) -> int | None:
    """Workerpool price of the deal that was matched last; None without one, or if the node does not tell it."""
    newest = services.store.deals.newest(1)
    found = terms(hub, [deal.deal_id for deal in newest])
    return next((deal.workerpool_price for deal in found.values()), None)


def _transfers(services: Services) -> StakeTransfers:
    """Deposits and withdrawals by the scheduler's lane."""
    db = database(services.settings)
    return StakeTransfers(
        services.store.transfers, _lane(services), MongoStore(db), services.notifier.send_lane, services.clock
    )


def _lane(services: Services) -> LaneId:
    """The scheduler's lane."""
    return LaneId(services.settings.chain_id, services.pool.scheduler)


def _hub(services: Services) -> Hub:
    """The hub, for reads."""
    return Hub(services.rpc, services.pool.hub)
