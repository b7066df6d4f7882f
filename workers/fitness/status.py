"""`sluice worker status`: a machine's tasks and funds, from its journal, the pool and the chain; it need not be
running.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass

from chain.contracts.hub import Hub
from chain.keystore import load_key
from chain.rpc.pool import connect
from config.settings import Settings
from protocol.amounts import ether, rlc
from protocol.errors import NotFound, SluiceError
from protocol.ethereum.signing import Key
from protocol.types import Contract, Wallet
from protocol.wire import PoolConfig, WorkerModel
from workers.data.layout import Layout, layout_of
from workers.fitness import doctor
from workers.fitness.rules import CheckResult, money_words
from workers.money.ledger import open_ledger
from workers.pool.api import PoolApi
from workers.pool.release import upgrade_notice
from workers.pool.saved_config import completed_by_pool, load_pool_config, policy_of
from workers.task.journal import Journal


@dataclass(frozen=True, slots=True)
class LocalTask:
    """One task in this machine's journal. `seconds`: since its last change."""

    task_id: str
    mode: str
    stage: str
    seconds: float
    digest: str | None
    cause: str | None
    link: str | None


@dataclass(frozen=True, slots=True)
class Money:
    """What a machine spends and risks, against its own limits."""

    #: Wei: fees of the last 24 hours, and the most that what is under way may cost.
    spent_wei: int
    in_flight_wei: int
    #: nRLC that tasks of the pool lock.
    at_stake_nrlc: int
    #: The limits: wei in 24 hours, wei per gas, nRLC (None: the deposit).
    day_cap_wei: int
    price_cap_wei: int
    stake_cap_nrlc: int | None
    #: Why no new task is taken, if one of them is reached.
    limit_reached: str | None
    #: The figures in words.
    says: str


@dataclass(frozen=True, slots=True)
class Status:
    """One machine. Amounts in nRLC and wei; None: not known, and `trouble` says why."""

    wallet: str
    name: str
    running: bool
    #: `auto`: as many as fit the engine.
    slots: int | str
    tasks: tuple[LocalTask, ...]
    #: Seconds since the pool last accepted a ping of this machine.
    last_ping_seconds: float | None
    #: As the pool reports them: slots that the machine signed in with, those it may use, those in use, and whether it
    #: counts as silent.
    signed_in_slots: int | None = None
    usable: int | None = None
    busy: int | None = None
    lost: bool | None = None
    banned: bool | None = None
    #: The hub's account of the wallet: what it has deposited and earned, and what its votes lock.
    free_nrlc: int | None = None
    locked_nrlc: int | None = None
    balance_wei: int | None = None
    money: Money | None = None
    #: If the pool runs a newer release than this machine: that, and what to do.
    upgrade: str | None = None
    #: What keeps this machine from being given work, part by part (`workers.fitness.doctor`).
    unfit: tuple[CheckResult, ...] = ()
    #: Which apps this machine could not serve, if it can serve most.
    images: str | None = None
    trouble: tuple[str, ...] = ()


def local_tasks(layout: Layout) -> list[LocalTask]:
    """Every task not yet forgotten, oldest change first; none if this machine never ran."""
    if not layout.journal.exists():
        return []
    with closing(Journal(layout.journal)) as journal:
        return [
            LocalTask(
                task_id=item.task_id,
                mode=item.assignment.mode,
                stage=item.stage,
                seconds=round(time.time() - item.updated_at, 1),
                digest=item.digest,
                cause=item.cause,
                link=item.link.location if item.link else None,
            )
            for item in journal.all_replicates()
        ]


def status(settings: Settings, key: Key | None = None) -> Status:
    """Collect everything that `sluice worker status` shows. `key`: of callers that have opened the keystore already.

    Raises BadKeystore, BadSetting.
    """
    key = key or load_key(settings)
    wallet = key.wallet
    layout = layout_of(settings.home, wallet)
    pinged = layout.last_ping()
    trouble: list[str] = []
    known = _at_pool(settings, wallet, trouble)
    own, pool = _completed(settings, wallet, trouble)
    account = None if own is None else _on_chain(own, wallet, trouble)
    findings = list(doctor.examine(settings, key, thorough=False))
    return Status(
        wallet=wallet,
        name=settings.worker_name,
        running=_runs(layout),
        slots=settings.slots,
        tasks=tuple(local_tasks(layout)),
        last_ping_seconds=None if pinged is None else round(max(time.time() - pinged, 0.0), 1),
        signed_in_slots=None if known is None else known.slots,
        usable=None if known is None else known.usable,
        busy=None if known is None else known.busy,
        lost=None if known is None else known.lost,
        banned=None if known is None else known.banned,
        free_nrlc=None if account is None else account[0],
        locked_nrlc=None if account is None else account[1],
        balance_wei=None if account is None else account[2],
        money=None if own is None else _money(own, layout, wallet),
        upgrade=None if pool is None else upgrade_notice(pool.version),
        unfit=tuple(
            finding
            for finding in findings
            if not finding.ok and not finding.says.startswith(doctor.NOT_ASKED) and finding.says not in trouble
        ),
        images=next(
            (it.says for it in findings if it.part == doctor.IMAGES and it.numbers.get("other_platform")), None
        ),
        trouble=tuple(trouble),
    )


def _completed(
    settings: Settings, wallet: Wallet, trouble: list[str]
) -> tuple[Settings, PoolConfig | None] | tuple[None, None]:
    """The settings completed by the pool; nothing, with why added to `trouble`, if it does not answer."""
    try:
        return completed_by_pool(settings, wallet)
    except SluiceError as error:
        if str(error) not in trouble:
            trouble.append(str(error))
        return None, None


def _money(own: Settings, layout: Layout, wallet: Wallet) -> Money | None:
    """What this machine spends and risks; None if it never ran."""
    if not layout.journal.exists():
        return None
    pool = load_pool_config(own, wallet)
    with open_ledger(own, policy_of(own), layout, wallet) as ledger:
        budget, caps = ledger.budget(), ledger.caps
        return Money(
            spent_wei=budget.spent,
            in_flight_wei=budget.in_flight,
            at_stake_nrlc=budget.locked,
            day_cap_wei=caps.day,
            price_cap_wei=caps.price,
            stake_cap_nrlc=caps.stake,
            limit_reached=ledger.why_no_work(None if pool is None else pool.least_stake),
            says=money_words(budget, caps),
        )


def _runs(layout: Layout) -> bool:
    """Whether the machine runs: it holds its lock then."""
    if not layout.locks.exists():
        return False
    with layout.lock("machine", wait=False) as free:
        return not free


def _at_pool(settings: Settings, wallet: Wallet, trouble: list[str]) -> WorkerModel | None:
    """The machine as the pool knows it; None, with why added to `trouble`."""
    try:
        with closing(PoolApi.of(settings)) as api:
            return api.worker(wallet)
    except NotFound:
        trouble.append("The pool does not know this machine: it has never signed in there.")
        return None
    except SluiceError as error:
        trouble.append(str(error))
        return None


def _on_chain(own: Settings, wallet: Wallet, trouble: list[str]) -> tuple[int, int, int] | None:
    """Free stake, locked stake and balance of the wallet; None, with why added to `trouble`."""
    try:
        with closing(connect(own)) as rpc:
            hub = Hub(rpc, Contract(str(own.hub)))
            account, (balance,) = hub.account(wallet), hub.balances([wallet])
    except SluiceError as error:
        if str(error) not in trouble:
            trouble.append(str(error))
        return None
    return account.stake, account.locked, balance


def _slots_at_pool(found: Status) -> str:
    """How many slots are in use, and how many the pool gives the machine if those are fewer than it has."""
    if found.usable is None or found.signed_in_slots is None or found.usable >= found.signed_in_slots:
        return f"{found.busy} slots in use"
    return f"{found.busy} of {found.usable} slots in use; more of its {found.signed_in_slots} once its votes were right"


def lines(found: Status) -> list[str]:
    """The machine as lines for people; its tasks are printed separately."""
    said = [
        f"wallet     {found.wallet}",
        f"machine    {found.name}, {'running' if found.running else 'not running'}, {found.slots} slots",
    ]
    if found.last_ping_seconds is None:
        said.append("pool       it never accepted a ping of this machine")
    else:
        said.append(f"pool       accepted a ping {found.last_ping_seconds:.0f} s ago")
    if found.busy is not None:
        words = [_slots_at_pool(found)]
        words += ["counts as silent: it gets no new task"] if found.lost else []
        words += ["banned"] if found.banned else []
        said[-1] += f"; it reports: {', '.join(words)}"
    if found.free_nrlc is not None and found.locked_nrlc is not None and found.balance_wei is not None:
        said.append(
            f"hub        {rlc(found.free_nrlc)} RLC free (deposits and earnings), {rlc(found.locked_nrlc)} RLC locked"
        )
        said.append(f"gas        {ether(found.balance_wei)} of the native token")
    if found.upgrade is not None:
        said.append(f"upgrade    {found.upgrade}")
    if found.money is not None:
        said.append(f"limits     {found.money.says}")
    if found.money is not None and found.money.limit_reached is not None:
        said.append(f"no task    {found.money.limit_reached}; votes are still revealed")
    if found.images is not None and doctor.IMAGES not in {finding.part for finding in found.unfit}:
        said.append(f"images     {found.images}")
    said += [f"not fit    {finding.part}: {finding.says}" for finding in found.unfit]
    return [*said, *(f"unknown    {why}" for why in found.trouble)]
