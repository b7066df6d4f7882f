"""Route of the ledger: what the pool earned and spent, and whether that equals the chain to the wei and nRLC."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated

import structlog
from fastapi import APIRouter, Query

from chain.contracts.hub import Hub
from pipeline.api.admin.access import Operator, Reader
from pipeline.api.admin.answers.money import AcceptedBlock, ForecastModel, Ledger, LedgerLine, OutsideLine, Reconciled
from pipeline.api.admin.answers.pool import Changed
from pipeline.api.admin.pool import DryRun
from pipeline.api.services import Services
from pipeline.domain.money.statement import By, Line, page, statement, total
from pipeline.flow.money.forecast import Forecast, forecast
from pipeline.flow.money.ledger import LedgerView, WalletLedger
from pipeline.store.money.ledger import Movements
from protocol.errors import RpcError, RpcUnavailable
from protocol.poco.money import EVEN, Kind, Movement
from protocol.types import BlockNumber, Wallet

log = structlog.get_logger(__name__)
router = APIRouter()

#: Lines in one answer, and seconds that final blocks are read for before it is given without them.
MOST_LINES, READ_SECONDS = 10_000, 10.0
#: What came from outside in one answer: anybody may send a wei every block.
MOST_OUTSIDE = 50
#: A place in a list: empty, or seconds and what the line is about.
_PLACE = r"^$|^[0-9]+(\.[0-9]+)?(e\+?[0-9]{1,2})?:"
_AFTER = "For all lines page by page, the oldest first: empty, then `next` of the answer before."
WEEK = 7 * 86_400.0


@router.get("/ledger", summary="What the pool earned and spent")
def show_ledger(
    services: Reader,
    by: Annotated[By, Query(description="What a line is about.")] = By.KIND,
    since: Annotated[float | None, Query(ge=0, le=1e11, description="Unix seconds; default: a week ago.")] = None,
    until: Annotated[float | None, Query(ge=0, le=1e11, description="Unix seconds; default: now.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LINES, description="Lines at most, the newest.")] = 1000,
    after: Annotated[str | None, Query(pattern=_PLACE, max_length=200, description=_AFTER)] = None,
) -> Ledger:
    """Gas of the scheduler's lane, and what the hub moved for its wallet; compared with the chain at one block."""
    ledger = _ledger(services)
    start = services.clock() - WEEK if since is None else since
    end = math.inf if until is None else until
    try:
        view = ledger.view(READ_SECONDS)
    except RpcError as error:
        raise RpcUnavailable(what=services.rpc.name, why=str(error)) from error
    moved = _movements(ledger, view, by, start, end)
    names = _machines(services, moved) if by is By.WORKER else {}
    costs = list(ledger.gas.since(start, end))
    lines = statement(by, view.wallet, costs, moved, names)
    # A transaction that several tasks share is one.
    whole = lines if by is By.WORKER else statement(By.KIND, view.wallet, costs, moved)
    shown = page(by, lines, limit, after)
    return Ledger(
        wallet=view.wallet,
        chain_id=services.settings.chain_id,
        hub=services.pool.hub,
        since=start,
        until=until,
        by=str(by),
        lines=[_line(each, names) for each in shown.lines],
        more=shown.more,
        next=shown.next,
        total=_line(total(whole), {}),
        reconciled=reconciled(view, ledger.movements, start, end),
        forecast=_forecast(services, Hub(services.rpc, services.pool.hub)),
    )


@router.post("/ledger/accept", summary="A difference is explained")
def accept(services: Operator, wanted: AcceptedBlock, dry_run: DryRun = False) -> Changed:
    """Accept the difference in native token around that block as the operator's own transfer: it is no longer reported,
    so that the next one is seen.
    """
    movements = _ledger(services).movements
    found = movements.differing_at(BlockNumber(wanted.block))
    if found is None:
        return Changed(changed=False, dry_run=dry_run, says=f"No native token differs at block {wanted.block}.")
    if not dry_run:
        movements.accept(BlockNumber(wanted.block), services.clock())
        log.info("A difference is accepted.", action="ledger_accepted", block=found.until, wei=str(found.wei))
    says = f"The {found.wei} wei between blocks {found.after} and {found.until} count as no difference."
    return Changed(changed=True, dry_run=dry_run, says=says)


def _ledger(services: Services) -> WalletLedger:
    """The ledger of the scheduler's wallet."""
    hub = Hub(services.rpc, services.pool.hub)
    return WalletLedger.of(services.settings, services.store, hub, services.pool.scheduler, services.clock)


def _movements(ledger: WalletLedger, view: LedgerView, by: By, start: float, end: float) -> list[Movement]:
    """The stored movements, summed for a list by `by`, and those above final depth; times are Unix seconds."""
    stored = ledger.movements.summed(by, start, view.books.block, end)
    live = () if view.passage is None else view.passage.movements
    return stored + [each for each in live if start <= each.at < end]


def _machines(services: Services, moved: Iterable[Movement]) -> Mapping[Wallet, str]:
    """Names of the machines that these movements paid or took from, by wallet."""
    owners = {each.owner for each in moved}
    return {worker.wallet: worker.name for worker in services.store.workers.load_workers(owners)}


def _forecast(services: Services, hub: Hub) -> ForecastModel | None:
    """What the open deals will bring; None if the node does not show their terms."""
    try:
        found: Forecast = forecast(services.store, hub)
    except (RpcUnavailable, RpcError) as error:
        log.warning("The open deals' terms cannot be read.", action="forecast_unknown", why=str(error))
        return None
    return ForecastModel(
        deals=found.deals,
        tasks=found.tasks,
        scheduler_nrlc=found.scheduler,
        workers_nrlc=found.workers,
        locked_nrlc=found.locked,
        unknown_tasks=found.unknown_tasks,
    )


def _line(found: Line, names: Mapping[Wallet, str]) -> LedgerLine:
    """A line of the ledger as the operator's API shows it."""
    amounts = {f"{kind}_nrlc": found.amounts.get(kind, 0) for kind in Kind}
    return LedgerLine(
        key=found.key,
        name=names.get(Wallet(found.key)),
        at=found.at,
        transactions=found.transactions,
        gas_wei=found.gas_wei,
        sent_wei=found.sent_wei,
        earned_nrlc=found.earned,
        **amounts,
    )


def reconciled(view: LedgerView, movements: Movements, start: float, end: float) -> Reconciled:
    """The books compared with the chain, and native token that came or went without the lane from `start` to `end`
    (Unix seconds).

    Raises PyMongoError.
    """
    differing, recent = movements.differing(), movements.outside(start, MOST_OUTSIDE, end)
    noted = sorted({*differing[:MOST_OUTSIDE], *recent}, key=lambda each: each.until)
    live = [] if view.outside is None else [view.outside]
    books, passage, differs = view.books, view.passage, view.difference
    holdings = None if passage is None else passage.holdings
    wrong = differing + [each for each in live if each.differs]
    differs_wei = None if holdings is None or view.native_unknown else sum(each.wei for each in wrong)
    even = differs is not None and differs.stake == differs.locked == 0
    since = books.proved if not even else min((each.after for each in wrong), default=view.books.block)
    if even and not wrong and passage is not None:
        since = passage.last.number
    return Reconciled(
        block=None if passage is None else passage.last.number,
        first_block=books.first,
        unread_blocks=None if view.final is None else view.final - books.block,
        stake_nrlc=None if holdings is None else holdings.account.stake,
        locked_nrlc=None if holdings is None else holdings.account.locked,
        native_wei=None if holdings is None else holdings.balance,
        opening_stake_nrlc=None if books.opening is None else books.opening.stake,
        opening_locked_nrlc=None if books.opening is None else books.opening.locked,
        opening_native_wei=None if books.native_opening is None else books.native_opening.balance,
        differs_stake_nrlc=None if differs is None else differs.stake,
        differs_locked_nrlc=None if differs is None else differs.locked,
        differs_wei=differs_wei,
        differing=len(wrong),
        equal_until_block=since,
        outside=[
            OutsideLine(
                after_block=each.after,
                until_block=each.until,
                wei=each.wei,
                foreign_transactions=each.foreign,
                transactions=list(each.transactions),
                explained=each.explained,
                accepted=each.accepted,
                differs=each.differs,
            )
            for each in noted + live
        ],
        outside_more=max(0, books.outside_count - len(noted)),
        outside_more_wei=books.outside_wei - sum(each.wei for each in noted),
        says=_says(view, differs_wei, since, even=even and not wrong),
    )


def _says(view: LedgerView, differs_wei: int | None, since: int | None, *, even: bool) -> str:
    """The sentence about the comparison with the chain. `since`: the last block at which books and chain were equal."""
    if view.final is None:
        return f"These are the books up to block {view.books.block}; they cannot be compared now: {view.native_unknown}"
    if view.passage is None:
        return f"{view.final - view.books.block} final blocks are still to be read; ask again."
    at, differs = f"At block {view.passage.last.number} it", view.difference
    if differs is None:
        nrlc = "the node does not tell the account in the hub"
    elif differs == EVEN:
        nrlc = "0 nRLC"
    else:
        nrlc = f"{differs.stake} nRLC of free and {differs.locked} nRLC of locked stake"
    if differs_wei is None:
        return f"{at} differs by {nrlc}; of wei it is not known: {view.native_unknown}."
    words = f"{at} differs by {differs_wei} wei and {nrlc}"
    return f"{words}." if even else f"{words}; all was equal until block {since}."
