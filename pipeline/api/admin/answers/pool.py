"""Answers of the operator's API. Times are Unix seconds, amounts in the unit that the field's name ends with."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Model(BaseModel):
    """Base of this module's models: frozen."""

    model_config = ConfigDict(frozen=True)


class Alert(_Model):
    """Something that needs the operator, and what to do."""

    part: str
    says: str
    fix: str


class StageLine(_Model):
    """Tasks of one stage, and how long ago the oldest was matched."""

    stage: str
    count: int
    oldest_seconds: float | None


class PauseModel(_Model):
    """Since when the pool begins no task, and why."""

    since: float
    why: str


class PoolState(_Model):
    """Whether the pool begins tasks: both None if it does."""

    #: By the operator, until `sluice pool resume`.
    paused: PauseModel | None
    #: Because something that work needs is away; it goes on by itself.
    holding: PauseModel | None
    #: Parts that are not well, which `sluice status` tells more of; with some of them what is begun does not get far.
    not_well: list[str]


class Work(_Model):
    """What the database tells of the pool's work."""

    open_tasks: int
    #: Tasks that a machine is at or has voted on, and that can still be completed.
    begun_tasks: int
    stages: list[StageLine]
    #: None while the chain's head is not known.
    deals_last_hour: int | None
    completed_last_hour: int | None
    #: Machines by what they do now (`pipeline.domain.machines.worker_state`); of those gone for good, `away` and `lost`
    #: are counted up to 10,000 each.
    machines: dict[str, int]
    #: Transactions of the scheduler's wallet that wait for a nonce or for a block.
    transactions_open: int
    quarantined: int
    paused: PauseModel | None


class LaneLine(_Model):
    """The scheduler's wallet's transactions."""

    #: Why it is halted until the operator decides, and what it waits for and cannot repair; None if neither.
    halted: str | None
    waits: str | None
    #: Age of the oldest transaction that is not mined, and what that waits for; None and empty if there is none.
    oldest_seconds: float | None
    why: str


class QueueCount(_Model):
    """Messages of a queue of RabbitMQ. That of the scheduler's lane is called `lane`; those of all machines are one."""

    name: str
    ready: int
    unacknowledged: int


class Status(_Model):
    """The pool on one screen."""

    ok: bool
    now: float
    workerpool: str
    scheduler: str
    chain_id: int
    alerts: list[Alert]
    #: By part of the pool: how it is, in words.
    parts: dict[str, str]
    #: None: nothing that work needs is away.
    holding: PauseModel | None
    #: Newest block of the node; blocks that the watcher has still to read.
    head: int | None
    behind_blocks: int | None
    gas_balance_wei: int | None
    #: Tasks that the wallet's balance carries through at the present price.
    gas_for_tasks: int | None
    #: Days for which it lasts at what was spent in the last days; None if nothing was, or that is not known.
    gas_days: float | None
    #: The same in words, or why it cannot be told yet.
    gas_says: str | None
    #: RLC of the scheduler's wallet in the hub, in nRLC; None: the node did not say.
    stake_free_nrlc: int | None
    stake_locked_nrlc: int | None
    #: None: not known.
    lane: LaneLine | None
    #: None: RabbitMQ did not count them.
    queues: list[QueueCount] | None
    #: Where the scheduler's host has Flower, and RabbitMQ's management with its web page.
    flower: str
    rabbitmq: str
    #: The user for both, who can only look; its password is in the scheduler's SLUICE_HOME.
    monitor: str
    #: None while MongoDB does not answer, or not in time, which an alert tells.
    work: Work | None


class TaskLine(_Model):
    """A task in a list."""

    task_id: str
    deal_id: str
    index: int
    stage: str
    trust: int
    tag: str
    requester: str
    matched_block: int
    matched_at: int
    contribution_deadline: int
    final_deadline: int
    workers: int
    why: str | None


class Moment(_Model):
    """Something that happened to a task: on chain (with block and transaction) or by a report (without)."""

    at: float
    what: str
    wallet: str | None = None
    block: int | None = None
    tx: str | None = None


class ReplicateLine(_Model):
    """A worker's attempt at a task."""

    wallet: str
    name: str | None
    state: str
    assigned_at: float
    standing: str
    cause: str | None
    exit_code: int | None
    vote: str | None
    result_stored: bool
    reveal_asked_at: float | None
    upload_asked_at: float | None


class SubmissionLine(_Model):
    """A transaction of the task that was handed to the scheduler's lane."""

    method: str
    at: float
    tries_failed: int


class TaskShow(TaskLine):
    """A task with all that is known of it."""

    image: str | None
    category_seconds: int
    consensus: str | None
    result: str | None
    moments: list[Moment]
    replicates: list[ReplicateLine]
    submitted: list[SubmissionLine]


class DealLine(_Model):
    """A deal in a list. What the chain was not read for yet is empty."""

    deal_id: str
    state: str
    block: int
    why: str | None
    requester: str | None
    image: str | None
    trust: int | None
    tag: str | None
    tasks: int | None
    open_tasks: int


class WrongVote(_Model):
    """A vote with which a machine was wrong and lost its stake."""

    wallet: str
    task_id: str
    block: int
    tx: str


class DealShow(DealLine):
    """A deal with its terms and its tasks, a page of them."""

    app: str | None
    dataset: str | None
    beneficiary: str | None
    callback: str | None
    params: str | None
    category_seconds: int | None
    worker_stake_nrlc: int | None
    contribution_deadline: int | None
    final_deadline: int | None
    shown: list[TaskLine]
    #: Of the tasks that are shown.
    wrong_votes: list[WrongVote]


class WorkerLine(_Model):
    """A machine in a list. `state`: the first that holds of banned, drained, away, lost, no gas, cooling down, busy,
    idle.
    """

    wallet: str
    name: str
    state: str
    version: str
    slots: int
    usable_slots: int
    operator_slots: int | None
    busy_slots: int
    unvoted: int
    successes: int
    failures: int
    stake_nrlc: int
    native_wei: int
    tag: str
    seen_at: float
    rest_until: float
    address: str


class WorkerShow(WorkerLine):
    """A machine with what it has, and why it gets no more."""

    cpus: int
    memory_bytes: int
    enrolled_at: float
    score: int
    weight: int
    checked_at: float
    says: list[str]
    tasks: list[TaskLine]
    #: The newest ones.
    wrong_votes: list[WrongVote]


class Explanation(_Model):
    """Why something does not go on."""

    kind: str
    id: str
    says: list[str]


class QueueLine(_Model):
    """A queue of RabbitMQ, or all queues of the machines together (`machines`: how many queues)."""

    name: str
    ready: int
    unacknowledged: int
    consumers: int
    machines: int | None = None


class Changed(_Model):
    """What a command changed, or would change (`dry_run`)."""

    changed: bool
    dry_run: bool
    says: str


class DeadLine(_Model):
    """A message that was delivered too often without success. `queue`: where."""

    id: str
    task: str
    arguments: str
    queue: str
    reason: str
    died_at: float | None


class QuarantinedLine(_Model):
    """A stored row that this release cannot use. `key`: its id; `until`: when it is read again."""

    collection: str
    key: str
    why: str
    since: float
    until: float
    #: How often it was quarantined.
    times: int
    #: Whether the operator has accepted it: it is not counted any more.
    accepted: bool


class QuarantineChanged(_Model):
    """How many quarantined rows were changed, or would be (`dry_run`). `accepted`: None if they are only read again."""

    rows: int
    accepted: bool | None
    dry_run: bool


class DeadMoved(_Model):
    """Ids of dead letters that were delivered again or removed, or would be (`dry_run`)."""

    action: str
    dry_run: bool
    messages: list[str]
