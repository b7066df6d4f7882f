"""Would a PoCo call succeed? The rules of IexecPoco2Facet, read back from viewTask and viewContribution.

PoCo reverts without a reason, so the same rules, applied at the block of a revert, explain it.

    method                  READY while                                           DONE if              else
    initialize              UNSET                                                 task exists          –
    contribute              ACTIVE, before contribution deadline, no own vote     own vote stands      UNSET: wait
    contributeAndFinalize   as contribute, and no other worker has voted          own vote, COMPLETED  UNSET: wait
    reveal                  REVEALING, before reveal deadline, own vote won       own vote revealed    ACTIVE: wait
    finalize                REVEALING, all winners revealed (or some, and late)   COMPLETED            wait
    reopen                  REVEALING, reveal deadline passed, nobody revealed    ACTIVE               wait
    claim                   ACTIVE or REVEALING, final deadline passed            FAILED               wait

With SLUICE_STATE=pending, what waits and may go early (`order.FOLLOWERS`) is judged again by the node's pending state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from operator import attrgetter

import structlog

from chain.contracts import calls
from chain.lane.model.intent import Intent
from chain.lane.model.policy import LanePolicy
from chain.lane.rules.behind import BehindPending
from chain.lane.rules.depth import AtDepth
from chain.lane.rules.encoding import METHODS, PocoEncoder
from chain.lane.rules.poco_facts import NO_VOTE, NOT_ASKED, TaskFacts, facts, may_name, view_task, view_vote
from chain.lane.rules.readiness import READY, Judgement, Moment, Readiness, ReadinessVerdict
from chain.lane.run import Lane
from chain.lane.signer import KeySigner
from chain.lane.store.port import LaneStore
from chain.rpc.answers import MISREAD, Reply
from chain.rpc.client import JsonRpc
from config.metrics import FAILURES, LANE_FAILED
from config.settings import Settings
from protocol.errors import BadSetting, RpcError
from protocol.ethereum.signing import Key
from protocol.poco.view import ContributionStatus, TaskStatus
from protocol.types import Contract, Timestamp

log = structlog.get_logger(__name__)


def judge(intent: Intent, task: TaskFacts, now: Timestamp) -> ReadinessVerdict:
    """Whether the intent's call would succeed in a block at Unix time `now`. Pure."""
    rule = _RULES.get(intent.method)
    return _judge_unasked(intent) if rule is None else rule(intent, task, now)


def _judge_unasked(intent: Intent) -> ReadinessVerdict:
    """The verdict on a call that needs no look at the chain: READY. WAIT for a method that this release does not know:
    a later release has stored the intent, and will send it.
    """
    return READY if intent.method in METHODS else _wait(f"this release knows no method {intent.method}")


def _judge_initialize(intent: Intent, task: TaskFacts, now: Timestamp) -> ReadinessVerdict:
    """Whether `initialize` would succeed now."""
    if task.status is not TaskStatus.UNSET:
        return _done(f"the task is already {task.status.name}")
    if not task.deal:
        return _wait("the deal is not on the chain")
    deadline = intent.args.get("deadline")
    if isinstance(deadline, int) and deadline <= now:
        return _late("contribution", Timestamp(deadline), now)
    return READY


def _judge_contribute(intent: Intent, task: TaskFacts, now: Timestamp) -> ReadinessVerdict:
    """Whether `contribute` (and `contributeAndFinalize`) would succeed now."""
    if task.vote is ContributionStatus.REJECTED:
        return _dead("this wallet's vote was rejected when the task was reopened; it cannot vote again")
    if task.vote is not ContributionStatus.UNSET:
        return _done(f"this wallet's vote stands already ({task.vote.name})")
    if task.status is TaskStatus.UNSET:
        return _wait("the task is not initialized yet")
    if task.status is not TaskStatus.ACTIVE:
        return _dead(f"the task is {task.status.name}; it takes no more contributions")
    if task.contribution_deadline <= now:
        return _late("contribution", task.contribution_deadline, now)
    if intent.method == "contributeAndFinalize" and task.contributors:
        return _dead("another worker has contributed; contributeAndFinalize must be the first")
    return READY


def _judge_reveal(_: Intent, task: TaskFacts, now: Timestamp) -> ReadinessVerdict:
    """Whether `reveal` would succeed now."""
    if task.vote is ContributionStatus.REVEALED:
        return _done("this wallet has revealed already")
    if task.vote is ContributionStatus.REJECTED:
        return _dead("this wallet's vote was rejected when the task was reopened")
    if task.status in (TaskStatus.UNSET, TaskStatus.ACTIVE):
        return _wait("there is no consensus yet")
    if task.status is not TaskStatus.REVEALING:
        return _dead(f"the task is {task.status.name}; nobody can reveal any more")
    if task.vote is ContributionStatus.UNSET or task.vote_hash != task.consensus:
        return _dead("the consensus is not this wallet's vote")
    if task.reveal_deadline <= now:
        return _late("reveal", task.reveal_deadline, now)
    return READY


#: A node that is some blocks behind, or a reorg, shows a task as it was before its first step: that ends nothing.
_UNSET = "the task is not initialized yet"


def _judge_finalize(intent: Intent, task: TaskFacts, now: Timestamp) -> ReadinessVerdict:
    """Whether `finalize` would succeed now, for the `consensus` of the intent if it names one."""
    if task.status is TaskStatus.COMPLETED:
        return _done("the task is already COMPLETED")
    if task.status is TaskStatus.FAILED:
        return _dead("the task is FAILED; it was claimed")
    if task.status is not TaskStatus.REVEALING:
        return _wait(f"the task is {task.status.name}, not REVEALING")
    if intent.args.get("consensus") not in (None, task.consensus):
        return _dead("the consensus is another than the result that it names")
    if task.final_deadline <= now:
        return _late("final", task.final_deadline, now)
    if task.revealed == task.winners or (task.revealed and task.reveal_deadline <= now):
        return READY
    return _wait(f"{task.revealed} of {task.winners} winners have revealed")


def _judge_reopen(_: Intent, task: TaskFacts, now: Timestamp) -> ReadinessVerdict:
    """Whether `reopen` would succeed now."""
    if task.status is TaskStatus.ACTIVE:
        return _done("the task is ACTIVE")
    if task.status is TaskStatus.UNSET:
        return _wait(_UNSET)
    if task.status is not TaskStatus.REVEALING:
        return _dead(f"the task is {task.status.name}; only a REVEALING task can be reopened")
    if task.revealed:
        return _dead(f"{task.revealed} of {task.winners} winners have revealed; the task can be finalized")
    if task.final_deadline <= now:
        return _late("final", task.final_deadline, now)
    return READY if task.reveal_deadline <= now else _wait("the reveal deadline has not passed")


def _judge_claim(_: Intent, task: TaskFacts, now: Timestamp) -> ReadinessVerdict:
    """Whether `claim` would succeed now."""
    if task.status is TaskStatus.FAILED:
        return _done("the task is already FAILED")
    if task.status is TaskStatus.COMPLETED:
        return _dead("the task is COMPLETED; there is nothing to claim")
    if task.status is TaskStatus.UNSET:
        return _wait(_UNSET)
    return READY if task.final_deadline <= now else _wait("the final deadline has not passed")


_RULES: dict[str, Callable[[Intent, TaskFacts, Timestamp], ReadinessVerdict]] = {
    "initialize": _judge_initialize,
    "contribute": _judge_contribute,
    "contributeAndFinalize": _judge_contribute,
    "reveal": _judge_reveal,
    "finalize": _judge_finalize,
    "reopen": _judge_reopen,
    "claim": _judge_claim,
}
#: Seconds between two warnings that a node lacks old state.
_WARN_SECONDS = 300.0
#: Methods whose rule depends on the wallet's own vote.
_VOTING = frozenset({"contribute", "contributeAndFinalize", "reveal"})


def _done(reason: str) -> ReadinessVerdict:
    """Verdict: the call's effect is there already."""
    return ReadinessVerdict(Judgement.DONE, reason)


def _wait(reason: str) -> ReadinessVerdict:
    """Verdict: the call may succeed later."""
    return ReadinessVerdict(Judgement.WAIT, reason)


def _dead(reason: str) -> ReadinessVerdict:
    """Verdict: the call can never succeed."""
    return ReadinessVerdict(Judgement.DEAD, reason)


def _late(which: str, deadline: Timestamp, now: Timestamp) -> ReadinessVerdict:
    """Verdict DEAD: a deadline of the task has passed. `which`: the deadline's name."""
    return _dead(f"{which} deadline passed {now - deadline} s before")


# -- reading -----------------------------------------------------------------------------------------------------------


class PocoReadiness:
    """`Readiness` by the hub's views, all at one block, in one batch.

    `strict` is for blocks below the head: deals are asked for too, and reveals wait for an answer as well. `pending`
    asks, as strictly, for the state behind the transactions that wait for the next block, whatever block is named.
    """

    def __init__(self, rpc: JsonRpc, hub: Contract, *, strict: bool = False, pending: bool = False) -> None:
        self._rpc = rpc
        self._hub = hub
        self._strict = strict or pending
        self._pending = pending
        #: `time.monotonic` of the last warning that the node cannot tell.
        self._warned = -math.inf

    def check(self, intents: Sequence[Intent], at: Moment) -> list[ReadinessVerdict]:
        """A verdict for each intent, in order; WAIT where the node cannot answer a view.

        Only a reveal is READY then, once and not if `strict`: a vote that is not revealed loses its stake. A wallet's
        own vote is asked for only where the task names the wallet among its contributors.
        """
        asked, voting, deals = self._asked(intents)
        answers = self._call([*map(view_task, asked), *map(calls.VIEW_DEAL.encode, deals)], at)
        tasks = dict(zip((intent.key for intent in asked), answers, strict=False))
        votes: dict[str, Reply] = dict.fromkeys((intent.key for intent in voting), NO_VOTE)
        voted = [intent for intent in voting if may_name(tasks[intent.key], intent.lane.wallet)]
        votes |= zip((intent.key for intent in voted), self._call([*map(view_vote, voted)], at), strict=True)
        return self._judge(intents, tasks, votes, dict(zip(deals, answers[len(asked) :], strict=True)), at)

    def _call(self, views: Sequence[str], at: Moment) -> list[Reply]:
        """The hub's answers to these calldata at the block of `at`, or in the pending state."""
        if not views:
            return []
        block = "pending" if self._pending else hex(at.block)
        return self._rpc.batch([("eth_call", ({"to": self._hub, "data": data}, block)) for data in views])

    def views(self, intents: Sequence[Intent]) -> list[str]:
        """Calldata of the views that tell what the rules need to know of these intents."""
        asked, voting, deals = self._asked(intents)
        return [*map(view_task, asked), *map(view_vote, voting), *map(calls.VIEW_DEAL.encode, deals)]

    def judge_all(self, intents: Sequence[Intent], answers: Sequence[Reply], at: Moment) -> list[ReadinessVerdict]:
        """A verdict for each intent by the `answers` of `views`, as they are at the time of `at`."""
        asked, voting, deals = self._asked(intents)
        rest = iter(answers)
        tasks = {intent.key: next(rest) for intent in asked}
        votes = {intent.key: next(rest) for intent in voting}
        return self._judge(intents, tasks, votes, {deal_id: next(rest) for deal_id in deals}, at)

    def _judge(
        self,
        intents: Sequence[Intent],
        tasks: Mapping[str, Reply],
        votes: Mapping[str, Reply],
        deals: Mapping[str, Reply],
        at: Moment,
    ) -> list[ReadinessVerdict]:
        """Verdicts from answers of viewTask and viewContribution by the key of their intent, of viewDeal by its id."""
        return [
            self._judge_answers(
                intent,
                tasks[intent.key],
                votes.get(intent.key, NOT_ASKED),
                deals.get(str(intent.args.get("deal_id")), NOT_ASKED),
                at,
            )
            if intent.key in tasks
            else _judge_unasked(intent)
            for intent in intents
        ]

    def _asked(self, intents: Sequence[Intent]) -> tuple[list[Intent], list[Intent], list[str]]:
        """The intents that have a rule, those among them whose own vote it looks at, and the deals that it looks at."""
        asked = [intent for intent in intents if intent.method in _RULES]
        voting = [intent for intent in asked if intent.method in _VOTING]
        deals = {str(intent.args["deal_id"]) for intent in asked if "deal_id" in intent.args and self._strict}
        return asked, voting, sorted(deals)

    def _judge_answers(self, intent: Intent, task: Reply, vote: Reply, deal: Reply, at: Moment) -> ReadinessVerdict:
        """The verdict on one intent from the answers of viewTask, viewContribution and viewDeal."""
        try:
            seen = facts(task, vote, deal)
        except (RpcError, *MISREAD) as error:
            # One that reverted was too early, or never right: sent blindly again, it would burn gas in every block.
            if intent.method == "reveal" and not intent.generation and not self._strict:
                log.warning(
                    "Cannot ask the hub; sending unasked.", action="lane_unchecked", intent=intent.key, why=str(error)
                )
                return READY
            self._warn_rarely(at, error)
            why = f"the hub cannot be asked at block {at.block}: {error}"
            return ReadinessVerdict(Judgement.WAIT, why, unanswered=True)
        return judge(intent, seen, at.timestamp)

    def _warn_rarely(self, at: Moment, error: Exception) -> None:
        """Log, at most once in `_WARN_SECONDS`, that all intents wait for a state that the node cannot tell."""
        if time.monotonic() - self._warned < _WARN_SECONDS:
            return
        self._warned = time.monotonic()
        if self._pending:
            log.warning(
                "The node cannot tell its pending state: nothing is sent early until one can.",
                action="lane_pending_unknown",
                why=str(error),
            )
            return
        if not self._strict:
            log.warning(
                "The node cannot tell what the contract allows: only reveals are sent until one can.",
                action="lane_unanswered",
                block=at.block,
                why=str(error),
            )
            return
        log.warning(
            "The node cannot tell the state that SLUICE_SPEND_DEPTH asks for: nothing is sent until one can.",
            action="lane_depth_unknown",
            block=at.block,
            why=str(error),
        )


def poco_lane(
    settings: Settings,
    rpc: JsonRpc,
    key: Key,
    store: LaneStore,
    policy: LanePolicy | None = None,
    *,
    worth: Callable[[Intent], int] = attrgetter("worth"),
) -> Lane:
    """The lane of `key`'s wallet on the hub of the settings; scheduler and worker make one per process.

    `worth`: wei that are lost unless an intent succeeds, asked whenever it is sent or replaced.
    """
    if settings.hub is None:
        raise BadSetting(name="SLUICE_HUB", why="it is not set", fix="Set it to the address of the PoCo hub.")
    for method, reason in product(METHODS, FAILURES):
        # From the start, with 0 (`config.metrics`).
        LANE_FAILED.labels(method, reason)
    hub = Contract(settings.hub.lower())
    readiness: Readiness = PocoReadiness(rpc, hub)
    policy = policy or LanePolicy.of(settings)
    pending_readiness: Readiness | None = None
    if policy.order is not None and not settings.spend_depth:
        pending_readiness = BehindPending(rpc, hub, PocoReadiness(rpc, hub, pending=True))
    if settings.spend_depth:
        readiness = AtDepth(readiness, PocoReadiness(rpc, hub, strict=True), settings.spend_depth)
    return Lane(
        settings.chain_id,
        store,
        rpc,
        KeySigner(key),
        readiness,
        PocoEncoder(hub, batch=settings.initialize_batch, max_gas=settings.max_transaction_gas),
        policy,
        worth=worth,
        pending_readiness=pending_readiness,
    )
