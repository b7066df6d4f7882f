"""Routes that show machines and tell the pool how to use them."""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import APIRouter, Query

from pipeline.api.admin.access import Operator, Reader
from pipeline.api.admin.answers.lines import worker_line, wrong_votes
from pipeline.api.admin.answers.pool import Changed, WorkerLine, WorkerShow
from pipeline.api.admin.pool import DryRun
from pipeline.api.admin.tasks import task_lines
from pipeline.api.services import Services
from pipeline.domain.machines.enrolment import Listing
from pipeline.domain.machines.explain_worker import explain_worker
from pipeline.domain.records import WorkerRecord
from pipeline.flow.machines import bans
from pipeline.flow.machines.enrolment import policy_of
from pipeline.flow.machines.new_pool import decided_by
from pipeline.store.machine.enrolment import overridden
from protocol.errors import NotFound
from protocol.types import Wallet
from protocol.wire import SLOTS_LIMIT, HexAddress

log = structlog.get_logger(__name__)
router = APIRouter()

#: Machines in one answer.
MOST_LINES = 10_000
#: Waiting tasks that a machine is compared with, and its own tasks that are shown.
MOST_WAITING, MOST_TASKS = 200, 200
#: Wrong votes of a machine that are shown.
MOST_WRONG = 20


@router.get("/workers", summary="Machines that ever signed in, by wallet")
def list_workers(
    services: Reader,
    after: Annotated[HexAddress | None, Query(description="Only those behind this wallet: the next page.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LINES, description="Lines at most.")] = 1000,
) -> list[WorkerLine]:
    """Each with what it does now."""
    now, lost_after = services.clock(), services.settings.worker_lost_seconds
    found = services.store.census.all_workers(limit, after=None if after is None else Wallet(after))
    return [worker_line(worker, now, lost_after) for worker in found]


@router.get("/workers/{wallet}", summary="A machine, and why it gets work or does not")
def show_worker(wallet: HexAddress, services: Reader) -> WorkerShow:
    """What it offers, what the chain says of its wallet, its tasks, and what keeps it from more."""
    worker = known(services, wallet)
    now, lost_after = services.clock(), services.settings.worker_lost_seconds
    return WorkerShow(
        **worker_line(worker, now, lost_after).model_dump(),
        cpus=worker.cpus,
        memory_bytes=worker.memory_bytes,
        enrolled_at=worker.enrolled_at,
        score=worker.facts.score,
        weight=worker.facts.weight,
        checked_at=worker.checked_at,
        says=why_worker(services, worker),
        tasks=task_lines(services, services.store.lists.of_worker(worker.wallet, MOST_TASKS)),
        wrong_votes=wrong_votes(services.store.chain.logs.wrong_votes(worker.wallet, MOST_WRONG)),
    )


@router.post("/workers/{wallet}/drain", summary="Give a machine nothing new")
def drain(wallet: HexAddress, services: Operator, dry_run: DryRun = False) -> Changed:
    """Drain a machine: it finishes what it has and stays signed in; `undrain` takes that back."""
    return _limit_slots(services, wallet, 0, "is drained", dry_run=dry_run)


@router.post("/workers/{wallet}/undrain", summary="Give a machine work again, without a limit of slots")
def undrain(wallet: HexAddress, services: Operator, dry_run: DryRun = False) -> Changed:
    """Undo `drain` and `slots`."""
    return _limit_slots(services, wallet, None, "may use all the slots that it has earned", dry_run=dry_run)


@router.post("/workers/{wallet}/slots", summary="Limit the slots of a machine")
def slots(
    wallet: HexAddress,
    services: Operator,
    most: Annotated[int, Query(ge=0, le=SLOTS_LIMIT, description="Most slots that it may use; 0 drains it.")],
    dry_run: DryRun = False,
) -> Changed:
    """Limit how many slots of a machine are used. It keeps its tasks, and gets no more until fewer are in use."""
    return _limit_slots(services, wallet, most, f"may use {most} slots at most", dry_run=dry_run)


@router.post("/workers/{wallet}/ban", summary="Ban a machine")
def ban(wallet: HexAddress, services: Operator, dry_run: DryRun = False) -> Changed:
    """Ban a machine: it is cut off now and cannot sign in; its tasks go to others after their timeouts. Its votes stay
    on chain.
    """
    worker = known(services, wallet)
    if not dry_run:
        bans.ban(services.store.workers, services.broker, worker.wallet, services.clock())
        services.notifier.send_orders()
    return Changed(changed=not worker.banned, dry_run=dry_run, says=f"{worker.wallet} ({worker.name}) is banned.")


@router.post("/workers/{wallet}/unban", summary="Lift a ban")
def unban(wallet: HexAddress, services: Operator, dry_run: DryRun = False) -> Changed:
    """End a ban: the machine may sign in again, which it does by itself if it still runs."""
    worker = known(services, wallet)
    if not dry_run:
        bans.unban(services.store.workers, worker.wallet)
    who, listing = f"{worker.wallet} ({worker.name})", services.store.enrolment.listing(worker.wallet)
    says = f"{who} may sign in again."
    if listing is Listing.DENIED:
        says = f"{who} is banned no more, but it is on the deny list: `sluice enrol forget {worker.wallet}`."
    return Changed(changed=worker.banned, dry_run=dry_run, says=says)


def known(services: Services, wallet: str) -> WorkerRecord:
    """The stored record of a machine. Raises NotFound if the wallet never signed in, InQuarantine."""
    worker = services.store.workers.get_worker(Wallet(wallet))
    if worker is None:
        raise NotFound(what=f"worker {wallet}")
    return worker


def why_worker(services: Services, worker: WorkerRecord) -> list[str]:
    """Sentences that say why a machine gets work or does not, by the rules of `assign`."""
    now, paused = services.clock(), services.store.pause.state() is not None
    # As `assign` matches.
    waiting = services.store.tasks.tasks_wanting_workers(now, MOST_WAITING, begun=paused)
    waiting = decided_by(services.store.workers, waiting, now)
    says = ["The pool is paused and begins no task: `sluice pool resume`."] if paused else []
    if (holding := services.store.hold.state()) is not None:
        says.append(f"The pool holds and begins nothing new: {holding.rstrip('.')}.")
    lost_after, enrolment = services.settings.worker_lost_seconds, services.store.enrolment
    mode = overridden(policy_of(services.settings), enrolment.overrides()).mode
    listing = enrolment.listing(worker.wallet)
    return [*says, *explain_worker(worker, waiting, now, lost_after, mode=mode, listing=listing)]


def _limit_slots(services: Services, wallet: str, most: int | None, says: str, *, dry_run: bool) -> Changed:
    """Let a machine use at most `most` slots, None for no such limit; run `assign` if that leaves it free ones.

    `says`: the end of the answer's sentence about the machine. Raises NotFound, InQuarantine.
    """
    worker = known(services, wallet)
    if not dry_run:
        services.store.census.limit_slots(worker.wallet, most)
        if most is None or most > len(worker.held):
            services.notifier.send_assign()
        services.notifier.send_orders()
        log.info("A machine's slots are limited.", action="worker_slots", wallet=worker.wallet, most=most)
    changed = worker.operator_slots != most
    return Changed(changed=changed, dry_run=dry_run, says=f"{worker.wallet} ({worker.name}) {says}.")
