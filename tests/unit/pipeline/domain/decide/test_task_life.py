"""A task's life against a model chain: liars, silence, lost messages, failed transactions, reorgs; then calm.

Whatever happened, once calm returns the task must end, nobody must be asked for what the contract would refuse, and no
slot may stay taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline.domain.actions import Action, AskReveal, AskUpload, Free, Method, Pledge, Resend, Submit
from pipeline.domain.decide import decide
from pipeline.domain.match import match
from pipeline.domain.progress import after
from pipeline.domain.records import Replicate, ReplicateState, TaskRecord
from pipeline.domain.tries import counted_as
from protocol.poco import events, weights
from protocol.poco.seal import result_hash
from protocol.poco.view import ChainView, ContributionStatus, TaskStatus, fold
from protocol.types import Hash32, Wallet
from protocol.wire import Mode, Step
from tests.unit.pipeline.builders import (
    CONTRIBUTE_UNTIL,
    FINAL,
    LIE,
    LINK,
    PACE,
    SECONDS,
    START,
    TASK,
    TRUTH,
    agreed,
    claimed,
    finalized,
    initialized,
    reopened,
    seen,
    task,
    wallet,
    worker,
)

WORKERS = 12


@dataclass
class ModelChain:
    """One task on PoCo, by its rules; a block per transaction."""

    trust: int
    history: list[events.Seen] = field(default_factory=list)

    @property
    def view(self) -> ChainView:
        return fold(TASK, self.history, category_seconds=SECONDS)

    def mine(self, event: events.Event, now: float) -> None:
        self.history.append(seen(event, len(self.history), int(now)))

    def vote(self, who: Wallet, digest: Hash32, now: float) -> bool:
        view = self.view
        if view.status is not TaskStatus.ACTIVE or view.contribution(who) or now >= CONTRIBUTE_UNTIL:
            return False
        self.mine(events.TaskContribute(TASK, who, result_hash(TASK, digest)), now)
        groups: dict[Hash32, list[int]] = {}
        for item in self.view.contributions:
            if item.status is not ContributionStatus.REJECTED:
                groups.setdefault(item.result_hash, []).append(2)
        own = weights.group_weight(groups[result_hash(TASK, digest)])
        others = sum(
            weights.group_weight(group) for value, group in groups.items() if value != result_hash(TASK, digest)
        )
        if weights.consensus_reached(self.trust, own, others):
            self.mine(agreed(digest), now)
        return True

    def finalize_alone(self, who: Wallet, now: float) -> bool:
        """`contributeAndFinalize`, which is only for the first that contributes at all."""
        view = self.view
        if view.status is not TaskStatus.ACTIVE or view.contributions or now >= CONTRIBUTE_UNTIL:
            return False
        self.mine(events.TaskContribute(TASK, who, result_hash(TASK, TRUTH)), now)
        self.mine(agreed(TRUTH), now)
        self.mine(events.TaskReveal(TASK, who, TRUTH), now)
        self.mine(finalized(), now)
        return True

    def reveal(self, who: Wallet, now: float) -> None:
        view = self.view
        due = view.reveal_deadline is not None and now < view.reveal_deadline
        if (
            view.status is TaskStatus.REVEALING
            and due
            and any(item.worker == who and item.status is ContributionStatus.CONTRIBUTED for item in view.winners)
        ):
            self.mine(events.TaskReveal(TASK, who, TRUTH), now)

    def send(self, method: Method, now: float) -> bool:
        """A transaction of the scheduler; whether the contract took it."""
        view = self.view
        over = view.reveal_deadline is not None and now >= view.reveal_deadline
        enough = len(view.revealed) == len(view.winners) or (bool(view.revealed) and over)
        rules: dict[Method, tuple[bool, Callable[[], events.Event]]] = {
            Method.INITIALIZE: (view.status is TaskStatus.UNSET, initialized),
            Method.FINALIZE: (
                view.status is TaskStatus.REVEALING and now < FINAL and enough,
                finalized,
            ),
            Method.REOPEN: (
                view.status is TaskStatus.REVEALING and over and not view.revealed and now < FINAL,
                reopened,
            ),
            Method.CLAIM: (
                view.status in (TaskStatus.ACTIVE, TaskStatus.REVEALING) and now >= FINAL,
                claimed,
            ),
        }
        allowed, event = rules[method]
        if allowed:
            self.mine(event(), now)
        return allowed

    def is_so(self, method: Method) -> bool:
        """Whether the chain is already where the transaction would bring it."""
        status = self.view.status
        return {
            Method.INITIALIZE: status is not TaskStatus.UNSET,
            Method.FINALIZE: status is TaskStatus.COMPLETED,
            Method.REOPEN: status is TaskStatus.ACTIVE,
            Method.CLAIM: status is TaskStatus.FAILED,
        }[method]


class TaskLife(RuleBasedStateMachine):
    """Random trouble; `calm` at the end must finish the task."""

    @initialize(trust=st.sampled_from([1, 3, 5]))
    def begin(self, trust: int) -> None:
        self.now = float(START)
        self.chain = ModelChain(trust)
        self.record = task(trust=trust)
        self.slots = {wallet(n): set[str]() for n in range(WORKERS)}
        self.queue: list[Submit] = []
        self.mail: list[tuple[str, Wallet]] = []
        self.keys: dict[tuple[Method, int], str] = {}

    # -- the scheduler -------------------------------------------------------------------------------------------------

    @rule()
    def wake(self) -> None:
        actions = decide(self.record, self.chain.view, self.now, PACE)
        self.check(actions)
        self.record = after(self.record, self.chain.view, actions, self.now, PACE)
        for action in actions:
            self.act(action)

    def act(self, action: Action) -> None:
        match_action = action
        match match_action:
            case Submit() as submit:
                self.hand_over(submit)
            case Free(wallet=who) | Pledge(wallet=who):
                self.slots[who].discard(TASK)
            case AskReveal(wallet=who, upload=upload):
                self.mail.append(("reveal", who))
                if upload:
                    self.mail.append(("upload", who))
            case AskUpload(wallet=who):
                self.mail.append(("upload", who))
            case Resend(wallet=who):
                self.mail.append(("compute", who))
            case _:
                return

    def hand_over(self, submit: Submit) -> None:
        """As `pipeline.flow.transactions` and the lane do: a key is kept once, and asked after when it comes again."""
        key = (submit.method, submit.generation)
        if self.keys.get(key) == "failed":
            if submit.again:
                self.note_failure(submit)
        elif self.keys.get(key) != "queued":
            self.keys[key] = "queued"
            self.queue.append(submit)

    def check(self, actions: list[Action]) -> None:
        view = self.chain.view
        winners = {item.worker for item in view.winners}
        for action in actions:
            if isinstance(action, AskReveal | AskUpload):
                assert action.wallet in winners, "Only a winner has anything to reveal or upload."
            if isinstance(action, Submit):
                assert action.method is not Method.CLAIM or self.now >= FINAL

    @rule()
    def assign(self) -> None:
        if not self.record.wants or self.now >= CONTRIBUTE_UNTIL:
            return
        workers = [worker(n) for n in range(WORKERS) if not self.slots[wallet(n)]]
        for found in match([self.record], workers):
            fresh = tuple(
                Replicate(item.wallet, self.record.mode, 2, self.now, published_at=self.now) for item in found.workers
            )
            for item in fresh:
                self.slots[item.wallet].add(TASK)
                self.mail.append(("compute", item.wallet))
            self.record = replace(
                self.record,
                replicates=(*self.record.replicates, *fresh),
                wants=found.wants,
                leading=found.leading,
                changed_at=self.now,
            )

    # -- the world -----------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 3.0, 10.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def a_transaction_is_mined_or_fails(self) -> None:
        if self.queue:
            submit = self.queue.pop(0)
            done = self.chain.send(submit.method, self.now) or self.chain.is_so(submit.method)
            self.keys[submit.method, submit.generation] = "done" if done else "failed"
            if not done:
                self.note_failure(submit)

    def note_failure(self, submit: Submit) -> None:
        sent = dict(self.record.sent)
        known = sent.pop(str(submit.method), None)
        if known is not None and known.generation == submit.generation:
            name = counted_as(submit.method, submit.args, self.now)
            failed = self.record.failed.get(name, 0) + 1
            self.record = replace(self.record, sent=sent, failed={**self.record.failed, name: failed})

    @rule(what=st.sampled_from(["honest", "lies", "fails", "is silent"]))
    def a_worker_gets_its_mail(self, what: str) -> None:
        if not self.mail:
            return
        name, who = self.mail.pop(0)
        if what == "is silent":
            return
        if name == "compute":
            self.compute(who, what)
        elif name == "vote" and self.chain.view.status is TaskStatus.UNSET:
            # Its lane waits for initialize.
            self.mail.append((name, who))
        elif name == "vote" and what != "lies" and self.works_alone(who):
            self.chain.finalize_alone(who, self.now)
        elif name == "vote":
            self.chain.vote(who, LIE if what == "lies" else TRUTH, self.now)
        elif name == "reveal" and what != "fails":
            self.chain.reveal(who, self.now)
        elif name == "upload" and what == "honest":
            self.upload(who)

    def works_alone(self, who: Wallet) -> bool:
        item = self.record.replicate(who)
        return item is not None and item.mode is Mode.SOLO

    def compute(self, who: Wallet, what: str) -> None:
        if what == "fails":
            self.report(who, ReplicateState.FAILED)
            return
        self.report(who, ReplicateState.COMPUTED)
        self.mail.append(("vote", who))

    def report(self, who: Wallet, state: ReplicateState) -> None:
        def changed(item: Replicate) -> Replicate:
            if item.wallet != who or not item.live:
                return item
            return replace(item, state=state, steps={**item.steps, Step.COMPUTED: self.now})

        self.record = replace(self.record, replicates=tuple(changed(item) for item in self.record.replicates))

    def upload(self, who: Wallet) -> None:
        vote = self.chain.view.contribution(who)
        if vote is None:
            return
        digest = TRUTH if vote.result_hash == result_hash(TASK, TRUTH) else LIE
        self.record = replace(
            self.record,
            replicates=tuple(
                replace(item, link=LINK, digest=digest) if item.wallet == who else item
                for item in self.record.replicates
            ),
        )

    @rule()
    def a_worker_goes_silent_for_good(self) -> None:
        for item in self.record.replicates:
            if item.live and self.chain.view.contribution(item.wallet) is None:
                lost = replace(item, state=ReplicateState.LOST)
                others = [lost if other is item else other for other in self.record.replicates]
                self.record = replace(self.record, replicates=tuple(others))
                return

    @rule(depth=st.integers(1, 3))
    def a_reorg_takes_blocks_back(self, depth: int) -> None:
        """The watcher marks the logs, the lane sends its transactions again, the record forgets what it sent."""
        for gone in self.chain.history[-depth:]:
            if isinstance(gone.event, events.TaskContribute):
                self.mail.append(("vote", gone.event.worker))
        del self.chain.history[-depth:]
        self.record = replace(self.record, sent={}, open=True)

    # -- what must hold ------------------------------------------------------------------------------------------------

    @invariant()
    def deciding_twice_changes_nothing_more(self) -> None:
        if not hasattr(self, "record"):
            return
        view = self.chain.view
        once = after(self.record, view, decide(self.record, view, self.now, PACE), self.now, PACE)
        assert not decide(once, view, self.now, PACE)

    def teardown(self) -> None:
        if hasattr(self, "record"):
            self.calm()

    def calm(self) -> None:
        """From now on everything works, a second at a time: the task must end by its final deadline or soon after."""
        while self.record.open or self.chain.view.status not in (TaskStatus.COMPLETED, TaskStatus.FAILED):
            assert self.now < max(FINAL, START + 2000) + 300, f"The task never ends: {self.record}"
            self.wake()
            self.assign()
            for _ in range(len(self.queue)):
                self.a_transaction_is_mined_or_fails()
            for _ in range(len(self.mail)):
                self.a_worker_gets_its_mail("honest")
            self.now += 1
        self.wake()
        assert not any(self.slots.values()), "A slot stays taken."
        assert self.stage_agrees(self.record)

    def stage_agrees(self, record: TaskRecord) -> bool:
        return str(record.stage) == self.chain.view.status.name


TestTaskLife = TaskLife.TestCase
TestTaskLife.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_without_trouble_a_task_completes_within_seconds() -> None:
    life = TaskLife()
    life.begin(5)
    life.calm()
    assert life.chain.view.status is TaskStatus.COMPLETED
    assert life.now < START + 10
