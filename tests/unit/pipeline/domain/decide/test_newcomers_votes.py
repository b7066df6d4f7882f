"""What workers that were never right on chain may decide together: a low trust, and no high one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.actions import Want
from pipeline.domain.decide import decide
from pipeline.domain.explain import Candidates, explain
from pipeline.domain.match import match
from pipeline.domain.progress import after
from pipeline.domain.records import MOST_NEWCOMERS, Replicate, ReplicateState, Standing, TaskRecord, WorkerRecord
from pipeline.domain.replicas import NEWCOMERS_DECIDE, Timeouts, votes
from pipeline.flow.machines.new_pool import decided_by
from protocol.poco import events, weights
from protocol.poco.seal import result_hash
from protocol.poco.view import ChainView
from protocol.types import Hash32, NRlc, Timestamp, Wallet
from protocol.wire import Mode
from tests.unit.pipeline.builders import (
    LIE,
    NO_TAG,
    PACE,
    START,
    TASK,
    TRUTH,
    agreed,
    decided,
    initialized,
    moved,
    reopened,
    task,
    view,
    voted,
    wallet,
    worker,
)

FAR = Timestamp(START + 10**6)
#: What a worker without a success does with a task: nothing for now, or vote.
DEEDS = st.sampled_from(["silent", "silent", "silent", "lie", "truth", "crash"])


@dataclass
class Vote:
    """One task that newcomers may not decide: workers are asked, some vote, others keep what they may vote with."""

    record: TaskRecord
    honest: Sequence[WorkerRecord]
    strangers: Sequence[WorkerRecord]
    happened: list[events.Event] = field(default_factory=lambda: [initialized()])
    now: float = START + 1

    @property
    def chain(self) -> ChainView:
        return view(*self.happened)

    def round(self, deeds: Sequence[str], *, free: int) -> None:
        """Decide, ask those who are free, have them vote; then so much time passes that the silent are too late.

        `free`: how many of the honest have nothing else to do.
        """
        actions = decide(self.record, self.chain, self.now, PACE)
        self.record = after(self.record, self.chain, actions, self.now, PACE)
        for found in match([self.record], [*self.honest[:free], *self.strangers]):
            fresh = [
                Replicate(
                    item.wallet,
                    Mode.VOTE,
                    item.facts.weight,
                    self.now,
                    published_at=self.now,
                    standing=item.standing(self.record.worker_stake),
                )
                for item in found.workers
            ]
            self.record = replace(
                self.record,
                replicates=(*self.record.replicates, *fresh),
                wants=found.wants,
                leading=found.leading,
                newcomers=found.newcomers,
            )
        self.check()
        chain = self.chain
        for item in self.record.replicates:
            if chain.contribution(item.wallet) is None and not isinstance(self.happened[-1], events.TaskConsensus):
                known = item.wallet in {each.wallet for each in self.honest}
                self.do(item.wallet, "truth" if known else deeds[int(item.wallet, 16) % len(deeds)])
        self.check()
        self.now += PACE.start_timeout + 1

    def do(self, who: Wallet, deed: str) -> None:
        if deed in ("lie", "truth"):
            digest = LIE if deed == "lie" else TRUTH
            self.happened.append(voted(int(who, 16), digest))
            groups = {each: weights.group_weight(group) for each, group in votes(self.record, self.chain).items()}
            own = groups[result_hash(TASK, digest)]
            if weights.consensus_reached(self.record.trust, own, sum(groups.values()) - own):
                self.happened.append(agreed(digest))
        elif deed == "crash":
            failed = (
                replace(item, state=ReplicateState.FAILED) if item.wallet == who else item
                for item in self.record.replicates
            )
            self.record = replace(self.record, replicates=tuple(failed))

    def check(self) -> None:
        """No result that no proven worker voted for can win, if all others that were ever asked vote for it."""
        proven = {item.wallet for item in self.honest}
        backed = {vote.result_hash for vote in self.chain.contributions if vote.worker in proven}
        assert self.chain.consensus is None or self.chain.consensus in backed
        if self.chain.consensus is not None:
            return
        unproven = (item for item in self.record.replicates if item.standing < Standing.PROVEN)
        silent = [item.weight for item in unproven if self.chain.contribution(item.wallet) is None]
        groups = {each: weights.group_weight(group) for each, group in votes(self.record, self.chain).items()}
        for result in {*groups, Hash32("0x" + "99" * 32)} - backed:
            others = sum(weight for each, weight in groups.items() if each != result)
            group = weights.group_weight((groups.get(result, 1), *silent))
            assert not weights.consensus_reached(self.record.trust, group, others)


def high_trust(trust: int, replicates: Sequence[Replicate] = ()) -> TaskRecord:
    fields = {"contribution_deadline": FAR, "final_deadline": FAR, "category_seconds": 10**5}
    return task(trust=trust, replicates=replicates, **fields)


@settings(max_examples=40, deadline=None)
@given(
    trust=st.sampled_from([NEWCOMERS_DECIDE + 1, 20, 33, 50, 100, 1000, 10**6]),
    honest=st.integers(0, 8),
    free=st.lists(st.integers(0, 8), min_size=1, max_size=6),
    strangers=st.integers(1, 25),
    deeds=st.lists(DEEDS, min_size=1, max_size=7),
)
def test_no_workers_that_were_never_right_can_complete_a_task_of_high_trust_however_late_they_vote(
    trust: int, honest: int, free: list[int], strangers: int, deeds: list[str]
) -> None:
    pool = Vote(
        high_trust(trust),
        [worker(1000 + n, weight=2 + n % 3, solos=1, stake=10**6) for n in range(honest)],
        [worker(n, stake=100 + n) for n in range(1, strangers + 1)],
    )
    for count in free:
        pool.round(deeds, free=count)


@settings(max_examples=40, deadline=None)
@given(
    trust=st.integers(1, 2 * NEWCOMERS_DECIDE),
    busy=st.lists(st.integers(1, 2), max_size=2, unique=True),
    asked_before=st.lists(st.integers(1, 3), max_size=3, unique=True),
    waited=st.floats(0, 30),
)
def test_a_task_of_low_trust_is_left_to_proven_workers_as_long_as_one_not_asked_is_busy_and_no_longer_than_its_share(
    trust: int, busy: list[int], asked_before: list[int], waited: float
) -> None:
    before = [Replicate(wallet(n), Mode.VOTE, 2, START, ReplicateState.LOST, holds_slot=False) for n in asked_before]
    pace = Timeouts(1.0, proven_share=2.0)
    record = replace(high_trust(trust, before), category_seconds=10)
    chain, now = view(initialized()), START + waited
    waiting = after(record, chain, decide(record, chain, now, pace), now, pace)
    machines = [worker(n, stake=10**6) for n in busy]
    workers = SimpleNamespace(any_proven=lambda _: True, busy_proven=lambda *_: machines)
    (ready,) = decided_by(workers, [waiting], now)  # type: ignore[arg-type]  # stands in
    if 2 <= trust <= NEWCOMERS_DECIDE:
        waits = waited < 20 and not set(busy) <= set(asked_before)
        assert bool(match([ready], [worker(n, stake=10**6) for n in range(10, 20)])) != waits
        assert waited >= 20 or waiting.next_visit <= START + 20
    else:
        assert ready.newcomers == moved(record, chain, now).newcomers


@pytest.mark.parametrize(
    ("busy", "waits"),
    [
        ({}, True),
        ({"stake": 30}, True),
        ({"stake": 29}, False),
        ({"tag": Hash32(f"0x{1 << 8:064x}")}, True),
        ({"tag": NO_TAG}, False),
    ],
    ids=["able", "just enough stake", "no stake for it", "its tag", "another tag"],
)
def test_a_task_waits_for_no_busy_machine_that_could_not_take_it(busy: dict[str, Any], waits: bool) -> None:
    tag = Hash32(f"0x{1 << 8:064x}")
    record = replace(task(trust=5, wants=1), newcomers=0, tag=tag, worker_stake=NRlc(30))
    able: dict[str, Any] = {"tag": tag, "stake": 100}
    machine = worker(1, **(able | busy))
    workers = SimpleNamespace(any_proven=lambda _: True, busy_proven=lambda *_: [machine])
    (ready,) = decided_by(workers, [record], START)  # type: ignore[arg-type]  # stands in
    assert (ready.newcomers == 0) == waits


def test_a_proven_worker_that_is_free_is_asked_before_any_newcomer() -> None:
    for trust in range(2, NEWCOMERS_DECIDE + 1):
        assert wallet(1000) in asked(trust, *(worker(n, stake=10**6) for n in range(1, 10)), worker(1000, solos=1))[1]


def asked(trust: int, *workers: WorkerRecord) -> tuple[TaskRecord, list[Wallet]]:
    record = moved(high_trust(trust), view(initialized()))
    return record, [item.wallet for found in match([record], workers) for item in found.workers]


def test_a_new_pool_serves_what_four_machines_may_decide_and_says_what_it_waits_for_above() -> None:
    fresh = [worker(n) for n in range(1, 10)]
    assert len(asked(NEWCOMERS_DECIDE, *fresh)[1]) == 4
    record, wallets = asked(NEWCOMERS_DECIDE + 1, *fresh)
    assert len(wallets) == 4
    given = [Replicate(each, Mode.VOTE, 2, START + 3, standing=Standing.STAKED) for each in wallets]
    record = moved(replace(record, replicates=tuple(given)), view(initialized()), START + 4)
    assert (record.wants, record.newcomers) == (1, 0)
    assert match([record], fresh) == []
    candidates = Candidates.of(record, fresh, START + 4, START)
    said = explain(record, view(initialized()), candidates, START + 4, PACE)
    assert said is not None
    assert "At trust 17 machines without a success on chain may not decide it alone. It waits for a machine" in said


def test_one_that_was_right_before_makes_up_the_number() -> None:
    wallets = asked(NEWCOMERS_DECIDE + 1, worker(1000, solos=1), *(worker(n) for n in range(1, 10)))[1]
    assert len(wallets) == 5
    assert wallet(1000) in wallets


def test_proven_workers_are_asked_for_any_trust_in_one_round() -> None:
    assert len(asked(1000, *(worker(n, solos=1) for n in range(1, 12)))[1]) == 10


def newcomers_left(record: TaskRecord, chain: ChainView) -> int:
    (want,) = (action for action in decided(record, chain, START + 4) if isinstance(action, Want))
    return want.newcomers


def test_those_who_failed_are_replaced_as_far_as_the_votes_on_chain_outweigh_them_all() -> None:
    newcomers = [
        Replicate(wallet(n), Mode.VOTE, 2, START + 3, ReplicateState.FAILED, standing=Standing.STAKED)
        for n in (1, 2, 3, 4)
    ]
    proven = Replicate(wallet(9), Mode.VOTE, 2, START + 3)
    record = high_trust(17, replicates=[*newcomers, proven])
    assert newcomers_left(record, view(initialized())) == 0
    assert newcomers_left(record, view(initialized(), voted(9))) == 1
    assert newcomers_left(record, view(initialized(), voted(1, LIE), voted(9))) == 1
    assert newcomers_left(record, view(initialized(), voted(9), agreed(), reopened())) == 0


@settings(max_examples=20)
@given(trust=st.integers(1, NEWCOMERS_DECIDE), count=st.integers(0, 5))
def test_low_trust_is_left_to_whoever_there_is(trust: int, count: int) -> None:
    replicates = [
        Replicate(wallet(n), Mode.VOTE, 2, START + 3, ReplicateState.LOST, standing=Standing.NEWCOMER)
        for n in range(count)
    ]
    assert moved(high_trust(trust, replicates=replicates), view(initialized())).newcomers == MOST_NEWCOMERS
