"""How many more workers a task needs, and which result it may be finalized with. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from config.early_steps import early_steps
from config.settings import Settings
from config.values.endpoints import secret_services
from pipeline.domain.actions import Want
from pipeline.domain.records import CLOCKS_APART, MOST_NEWCOMERS, Replicate, ReplicateState, Standing, TaskRecord
from protocol.assignment import most_seconds
from protocol.poco import weights
from protocol.poco.seal import result_hash
from protocol.poco.tags import Framework
from protocol.poco.view import ChainView, ContributionStatus, TaskStatus
from protocol.results.error_result import blames_task
from protocol.types import Hash32, Wallet
from protocol.wire import Mode, Step

#: Workers that may report that the app or the deal is at fault before no other worker is asked. Half of them at most
#: may be workers that have stake and nothing else, and newcomers do not count: wallets are free, and five of them must
#: not end a deal that honest machines were never asked for.
MAX_BLAMING = 5
#: Cause of replicates that were dropped after a timeout.
TOO_LATE = "Nothing was heard of it in time."
#: Most doublings of the pause between two requests: 64 times 5 s is longer than any start timeout.
MOST_DOUBLINGS = 6
#: Workers that failed for any reason or exceeded a timeout, together, before no other is asked: neither a frozen chain
#: nor a broken app may use up the whole pool. Counted like those above.
MAX_SPENT = 10
#: Longest that a large result may be on its way, seconds: at the least rate that the API takes, 256 MiB take half an
#: hour, and the part that came before a cut is kept for an hour.
UPLOAD_SECONDS = 3600.0
#: The highest trust that workers never right on chain may decide alone: four of them, where proven ones stay busy for
#: `Timeouts.proven_share`. Above it, a result needs the vote of one that was right before, if the pool has any
#: (`PROVEN_SECONDS`).
NEWCOMERS_DECIDE = 16
#: Seconds after which a proven worker that is not heard of no longer has others wait for it: a day, so that machines
#: that are away together, or behind a scheduler that was, leave nothing to newcomers.
PROVEN_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait before a request is repeated or sent to another worker; seconds."""

    block_time: float = 1.0
    #: Blocks that transactions wait for what justifies them to be settled (SLUICE_SPEND_DEPTH).
    spend_depth: int = 0
    #: Share of its category's time for which a task of low trust is given to proven workers only, while some that were
    #: not asked are busy (SLUICE_PROVEN_SHARE): a newcomer that votes and does not reveal costs twice that time.
    proven_share: float = 0.0
    #: Whether steps may go out behind others that are not in a block yet (SLUICE_STATE).
    early_steps: bool = False
    #: Kinds of enclave for which the pool names a secret service, so that it serves their tasks.
    enclaves: frozenset[Framework] = frozenset()
    #: When machines could last not be heard, Unix seconds; 0: never. What they could not report meanwhile may come
    #: after it.
    unheard_at: float = 0.0

    @classmethod
    def of(cls, settings: Settings) -> Timeouts:
        """The timeouts that these settings lead to."""
        return cls(
            settings.block_time,
            settings.spend_depth,
            settings.proven_share,
            early_steps=early_steps(settings),
            enclaves=frozenset(secret_services(settings)),
        )

    @property
    def reask(self) -> float:
        """Seconds after which a request without visible effect is repeated: three blocks, not under 5 s."""
        return max(3 * self.block_time, 5.0)

    def resend(self, times: int) -> float:
        """Seconds until a compute segment is published again that was published again `times` times;
        doubles each time.
        """
        return self.reask * (1 << min(times, MOST_DOUBLINGS))

    @property
    def resubmit(self) -> float:
        """Seconds after which a transaction is handed to the lane again; the lane itself rebroadcasts much sooner."""
        return max(20 * self.block_time, 30.0)

    @property
    def start_timeout(self) -> float:
        """Seconds from the assignment to the report STARTED.

        A machine with a free slot has an empty queue, so one that does not start is dead or stuck.
        """
        return max(10 * self.block_time, 60.0)

    @property
    def contribute_timeout(self) -> float:
        """Seconds from COMPUTED to the vote in a block: the deal must be deep enough, then the task."""
        return max((20 + 2 * self.spend_depth) * self.block_time, 60.0)

    @property
    def upload_timeout(self) -> float:
        """Seconds from the request for an upload until another winner is asked too; results may be large."""
        return max(3 * self.block_time, 15.0)

    @property
    def backup_timeout(self) -> float:
        """Seconds from the assignment to an unproven worker until an idle proven worker gets the task too.

        As long as a few no-op tasks take: an honest newcomer that is slower loses one task's reward, no more.
        """
        return max(5 * self.block_time, 10.0)

    def compute_timeout(self, category_seconds: int) -> float:
        """Seconds from assignment to the report COMPUTED."""
        return most_seconds(category_seconds)


def waits(since: float, seconds: float, now: float) -> bool:
    """Whether it is too soon to repeat a request made at `since`: not once `seconds` have passed, and not if `since` is
    in the future, which only a wrong clock can have written.
    """
    return since - CLOCKS_APART <= now < since + seconds


def replicate_of_voter(task: TaskRecord, wallet: Wallet, now: float) -> Replicate:
    """The replicate to add for a worker whose vote is on chain while the task's record does not have the worker.

    Our signature is behind the vote, so the worker was asked: the record was lost with a database, or an older release
    sent the request without storing it.
    """
    return Replicate(
        wallet,
        task.mode,
        weights.NEWCOMER_WEIGHT,
        now,
        ReplicateState.COMPUTED,
        published_at=now,
        holds_slot=False,
    )


def vote_due_since(replicate: Replicate) -> float:
    """Since when the vote of a replicate that computed could come, Unix seconds, as far as its worker goes.

    Alone, it carries the link of the result, which the pool has to receive and store first, for UPLOAD_SECONDS at most.
    """
    computed = replicate.steps.get(Step.COMPUTED, replicate.assigned_at)
    if replicate.mode is not Mode.SOLO:
        return computed
    begun = computed if replicate.upload_begun_at is None else replicate.upload_begun_at
    coming = max(begun, replicate.upload_coming_at or 0.0, replicate.steps.get(Step.UPLOADED, 0.0))
    return max(computed, min(coming, begun + UPLOAD_SECONDS))


def as_on_chain(task: TaskRecord, view: ChainView) -> TaskRecord:
    """The task with whether it was reopened, as the chain shows it; the same object where the record has that."""
    reopened = any(vote.status is ContributionStatus.REJECTED for vote in view.contributions)
    return task if reopened == task.reopened else replace(task, reopened=reopened)


def lacks_reopening(task: TaskRecord, folded: ChainView) -> bool:
    """Whether the contract once showed a reopening that these events lack: one is missing, or a reorg took it back."""
    return task.reopened and not as_on_chain(task, folded).reopened


def late(task: TaskRecord, item: Replicate, view: ChainView, now: float, timeouts: Timeouts) -> bool:
    """Whether a live replicate has exceeded its timeout; its result still counts if it comes, but another worker is
    asked. Who computed before the task was on chain cannot vote before, and is not late.
    """
    # A moment that is still to come is of a clock that was wrong. The wait for the next request is part of it: it is
    # answered with all that was reported without an answer.
    unheard = item.assigned_at <= timeouts.unheard_at <= now + CLOCKS_APART
    hearable = timeouts.unheard_at + timeouts.start_timeout + timeouts.resend(item.resends) if unheard else 0.0
    match item.state:
        case ReplicateState.ASSIGNED:
            return now > max(hearable, item.assigned_at + timeouts.start_timeout)
        case ReplicateState.STARTED:
            return now > max(hearable, item.assigned_at + timeouts.compute_timeout(task.category_seconds))
        case ReplicateState.COMPUTED if view.status is TaskStatus.UNSET:
            return False
        case ReplicateState.COMPUTED:
            return now > able_since(item, view) + timeouts.contribute_timeout
        case _:
            return True


def able_since(item: Replicate, view: ChainView) -> float:
    """Since when the vote of a replicate that computed could come, Unix seconds, as far as the task is on chain."""
    return max(vote_due_since(item), float(view.initialized_at or 0))


def pending(task: TaskRecord, view: ChainView, now: float, timeouts: Timeouts) -> list[Replicate]:
    """Replicates whose contribution is still to come and counted on."""
    return [
        item
        for item in task.replicates
        if item.live
        and item.mode in (task.mode, Mode.VOTE)
        and view.contribution(item.wallet) is None
        and not late(task, item, view, now, timeouts)
        and not _leaves_no_time(task, item, view, now, timeouts)
    ]


def _leaves_no_time(task: TaskRecord, item: Replicate, view: ChainView, now: float, timeouts: Timeouts) -> bool:
    """Whether a result has been coming for so long that another machine, asked any later, could not do the task in
    time: whoever sends slowly enough would else have the task to itself until it can only be claimed.
    """
    if item.state is not ReplicateState.COMPUTED or view.status is TaskStatus.UNSET:
        return False
    able = max(item.steps.get(Step.COMPUTED, item.assigned_at), float(view.initialized_at or 0))
    last = task.contribution_deadline - timeouts.compute_timeout(task.category_seconds)
    return now > able + timeouts.contribute_timeout and view.past(last, now)


def wanted(task: TaskRecord, view: ChainView, now: float, timeouts: Timeouts) -> Want:
    """How many more replicates to assign now, supposing that newcomers take them and all agree.

    Signing in is free, so unproven workers may take work and never do it. Therefore what only unproven workers have had
    for `timeouts.backup_timeout` seconds is given to a proven worker too; whichever of them votes first counts.
    """
    if view.status not in (TaskStatus.UNSET, TaskStatus.ACTIVE) or view.past(task.contribution_deadline, now):
        return Want(0)
    if given_up(task, view, now, timeouts):
        return Want(0)
    waiting = pending(task, view, now, timeouts)
    newcomers = newcomers_left(task, view, now, timeouts)
    if count := _needed(task, view, waiting):
        return Want(count, *_forecast(task, view, waiting), newcomers=newcomers)
    sure = [
        item for item in waiting if item.standing is Standing.PROVEN or now < item.assigned_at + timeouts.backup_timeout
    ]
    count = _needed(task, view, sure)
    return Want(count, *_forecast(task, view, sure), backup=True, newcomers=newcomers) if count else Want(0)


def newcomers_left(task: TaskRecord, view: ChainView, now: float, timeouts: Timeouts) -> int:
    """How many more newcomers (workers that were never right on chain) may be asked.

    An authorization never expires: newcomers that kept silent may still vote, all at once. So above trust
    `NEWCOMERS_DECIDE`, only so many are asked that all of them together, with the votes on chain now, cannot make a
    result win that no proven worker voted for. Below it, none is asked while a proven worker may get free.
    """
    if task.mode is Mode.SOLO or task.trust <= NEWCOMERS_DECIDE:
        return 0 if now < proven_until(task, timeouts) else MOST_NEWCOMERS
    proven = {item.wallet for item in task.replicates if item.standing is Standing.PROVEN}
    unsaid = [item for item in task.replicates if item.wallet not in proven and view.contribution(item.wallet) is None]
    backed = {
        vote.result_hash
        for vote in view.contributions
        if vote.worker in proven and vote.status is not ContributionStatus.REJECTED
    }
    groups = {result: weights.group_weight(group) for result, group in votes(task, view).items()}
    best = max((weight for result, weight in groups.items() if result not in backed), default=0)
    others = sum(groups.values()) - best
    group = weights.group_weight((max(best, 1), *(item.weight for item in unsaid)))
    left = 0
    while left < MOST_NEWCOMERS:
        group *= weights.NEWCOMER_WEIGHT
        if weights.consensus_reached(task.trust, group, others):
            break
        left += 1
    return left


def proven_until(task: TaskRecord, timeouts: Timeouts) -> float:
    """Unix time until which the task waits for proven workers that are busy.

    0: it does not wait, since it needs no vote (trust 1), or its trust is above NEWCOMERS_DECIDE.
    """
    low = task.mode is Mode.VOTE and task.trust <= NEWCOMERS_DECIDE
    return task.matched_at + timeouts.proven_share * task.category_seconds if low else 0.0


def let_newcomers_decide(task: TaskRecord) -> TaskRecord:
    """The task, with as many newcomers allowed as it takes to decide it by their votes alone."""
    return replace(task, newcomers=MOST_NEWCOMERS)


def _needed(task: TaskRecord, view: ChainView, counted: Sequence[Replicate]) -> int:
    """Replicates to assign, if only these bring the votes that are still to come.

    At least one if none of them does: the contract looks for a consensus when a vote comes, and at no other time. Votes
    that seem to suffice may weigh less there than when they were assigned, since a wrong vote elsewhere lowers a score;
    or they suffice only since a reopening has rejected those that won before.
    """
    if task.mode is Mode.SOLO:
        return 0 if counted or view.contributions else 1
    needed = weights.replicates_needed(task.trust, votes(task, view), [item.weight for item in counted])
    return needed if counted else max(needed, 1)


def _forecast(task: TaskRecord, view: ChainView, counted: Sequence[Replicate]) -> tuple[int, int]:
    """(weight of the leading result once these replicates have voted for it, weight of all other results)."""
    groups = sorted((weights.group_weight(group) for group in votes(task, view).values()), reverse=True)
    return weights.group_weight((*groups[:1], *(item.weight for item in counted))), sum(groups[1:])


def given_up(task: TaskRecord, view: ChainView, now: float, timeouts: Timeouts) -> bool:
    """Whether so many workers failed that another one would too, and more than half of those asked.

    A machine's own trouble, or a vote refused by its lane, says nothing about the task: it counts towards MAX_SPENT
    only. A machine that was lost as a whole, or stopped by us, does not count at all.
    """
    failed, silent = _without_vote(task, view, now, timeouts)
    blaming = [item for item in failed if blames_task(item.cause)]
    left = [item for item in task.replicates if item.state in _LEFT and item not in silent]
    asked = _known(task.replicates) - _known(left)
    return any(
        _count(against, most) >= most and 2 * _known(against) > asked
        for against, most in ((blaming, MAX_BLAMING), ([*failed, *silent], MAX_SPENT))
    )


def spent_newcomers(task: TaskRecord) -> int:
    """How many newcomers (workers that were never right on chain) have failed the task or were lost with it."""
    return sum(
        item.standing < Standing.PROVEN and item.state in (ReplicateState.FAILED, ReplicateState.LOST)
        for item in task.replicates
    )


_LEFT = (ReplicateState.LOST, ReplicateState.ABORTED)


def _without_vote(
    task: TaskRecord, view: ChainView, now: float, timeouts: Timeouts
) -> tuple[list[Replicate], list[Replicate]]:
    """Replicates that failed, and those that exceeded a timeout."""
    without_vote = [item for item in task.replicates if view.contribution(item.wallet) is None]
    failed = [item for item in without_vote if item.state is ReplicateState.FAILED]
    silent = [
        item
        for item in without_vote
        if (
            item.cause == TOO_LATE
            if item.state is ReplicateState.LOST
            else item.live and late(task, item, view, now, timeouts)
        )
    ]
    return failed, silent


def _known(items: Sequence[Replicate]) -> int:
    """How many of these replicates are by workers with stake or right votes: all but newcomers."""
    return sum(item.standing > Standing.NEWCOMER for item in items)


def _count(items: Sequence[Replicate], most: int) -> int:
    """How many replicates count towards `most`: all by proven workers, at most half of `most` by staked ones."""
    proven = sum(item.standing is Standing.PROVEN for item in items)
    return proven + min(_known(items) - proven, most // 2)


def takes_votes(task: TaskRecord, view: ChainView) -> bool:
    """Whether the contract still takes a further worker's vote, as far as others' votes decide that."""
    return view.status in (TaskStatus.UNSET, TaskStatus.ACTIVE) and not (
        task.mode is Mode.SOLO and bool(view.contributions)
    )


def votes(task: TaskRecord, view: ChainView) -> dict[Hash32, list[int]]:
    """Weights of the votes that count, by result hash."""
    groups: dict[Hash32, list[int]] = defaultdict(list)
    for vote in view.contributions:
        if vote.status is not ContributionStatus.REJECTED:
            groups[vote.result_hash].append(weight_of(task, vote.worker))
    return dict(groups)


def weight_of(task: TaskRecord, wallet: Wallet) -> int:
    """A worker's weight when it was assigned to the task; NEWCOMER_WEIGHT if we did not assign it."""
    replicate = task.replicate(wallet)
    return replicate.weight if replicate else weights.NEWCOMER_WEIGHT


def usable_result(task: TaskRecord, view: ChainView) -> Replicate | None:
    """A replicate whose stored result is the one that won the vote, complete for finalize; None if there is none."""
    for item in task.replicates:
        if item.link is None or item.digest is None or (task.has_callback and item.callback_data is None):
            continue
        if view.consensus == result_hash(task.task_id, item.digest):
            return item
    return None
