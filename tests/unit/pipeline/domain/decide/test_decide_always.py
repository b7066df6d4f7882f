"""Whatever record, chain and clock say together: there is an action or an explained wait, and a way to an end.

The records and views are drawn freely, also such as no pool has ever had; `test_task_life` draws whole lives. What a
worker or a requester would have to do is never counted on here: the world is the lane, the chain and the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.actions import Method, Submit
from pipeline.domain.decide import ORPHAN_TIMEOUT, decide
from pipeline.domain.explain import Candidates, explain
from pipeline.domain.progress import IDLE_VISIT, after, next_visit
from pipeline.domain.records import Replicate, ReplicateState, Standing, Submission, TaskRecord, TaskStage
from pipeline.domain.tries import TO_CLAIM, counted_as
from protocol.poco import events
from protocol.poco.seal import result_hash
from protocol.poco.view import ChainView, Contribution, ContributionStatus, TaskStatus
from protocol.types import BlockNumber, Timestamp
from protocol.wire import Mode, Step
from tests.unit.pipeline.builders import CONTRIBUTE_UNTIL, FINAL, LIE, LINK, PACE, START, TASK, TRUTH, task, wallet
from tests.unit.pipeline.domain.decide.test_task_life import ModelChain

#: A moment around every deadline of the deal, and long after.
MOMENTS = st.sampled_from([START, START + 30, CONTRIBUTE_UNTIL, CONTRIBUTE_UNTIL + 1, FINAL - 1, FINAL, FINAL + 5000])
WALLETS = st.integers(1, 5).map(wallet)
DIGESTS = st.sampled_from([TRUTH, LIE])
TIMES = st.one_of(st.none(), st.floats(START, FINAL))
METHODS = st.sampled_from([str(method) for method in Method])
#: Names under which failures are counted.
COUNTED = st.sampled_from([*map(str, Method), TO_CLAIM, "initialize_too_late", "finalize_too_late"])
#: Seconds after which all is over, whatever the record and the chain said: no retry of a claim waits for longer.
LONG = 40_000
STEPS = st.dictionaries(st.sampled_from([Step.STARTED, Step.COMPUTED]), st.floats(START, FINAL))

replicates = st.builds(
    Replicate,
    wallet=WALLETS,
    mode=st.sampled_from(Mode),
    weight=st.integers(1, 9),
    assigned_at=st.floats(START, FINAL),
    state=st.sampled_from(ReplicateState),
    published_at=st.floats(START, FINAL),
    resends=st.integers(0, 9),
    steps=STEPS,
    holds_slot=st.booleans(),
    pledged=st.booleans(),
    cause=st.one_of(st.none(), st.sampled_from(["APP_IMAGE_DOWNLOAD_FAILED", "OUT_OF_MEMORY"])),
    reveal_asked_at=TIMES,
    upload_asked_at=TIMES,
    link=st.one_of(st.none(), st.just(LINK)),
    digest=st.one_of(st.none(), DIGESTS),
    upload_begun_at=TIMES,
    not_stored_at=TIMES,
    standing=st.sampled_from(Standing),
)
submissions = st.builds(Submission, generation=st.integers(0, 5), at=st.floats(START, FINAL))


@st.composite
def records(draw: st.DrawFn) -> TaskRecord:
    stages = list(TaskStage)
    return task(
        trust=draw(st.integers(1, 20)),
        replicates=draw(st.lists(replicates, max_size=5, unique_by=lambda item: item.wallet)),
        stage=draw(st.sampled_from(stages)),
        open=draw(st.booleans()),
        orphaned=draw(st.booleans()),
        wants=draw(st.integers(0, 3)),
        leading=draw(st.integers(0, 9)),
        others=draw(st.integers(0, 9)),
        newcomers=draw(st.integers(0, 20)),
        backup=draw(st.booleans()),
        sent=draw(st.dictionaries(METHODS, submissions)),
        failed=draw(st.dictionaries(COUNTED, st.integers(1, 5))),
        why=draw(st.one_of(st.none(), st.just("A reason."))),
        changed_at=draw(st.floats(START, FINAL)),
    )


votes = st.builds(
    Contribution,
    worker=WALLETS,
    result_hash=DIGESTS.map(lambda digest: result_hash(TASK, digest)),
    status=st.sampled_from([status for status in ContributionStatus if status is not ContributionStatus.UNSET]),
    block=st.integers(1, 9).map(BlockNumber),
)
#: Views of any kind: no contract may ever have shown them.
views = st.builds(
    ChainView,
    task_id=st.just(TASK),
    status=st.sampled_from(TaskStatus),
    contributions=st.lists(votes, max_size=5, unique_by=lambda vote: vote.worker).map(tuple),
    consensus=st.one_of(st.none(), DIGESTS.map(lambda digest: result_hash(TASK, digest))),
    reveal_deadline=st.one_of(st.none(), st.sampled_from([START + 20, FINAL]).map(Timestamp)),
)


@st.composite
def chains(draw: st.DrawFn) -> ModelChain:
    """A chain that the contract's rules allow: initialized or not, votes, consensus, reveals, reopened, ended."""
    chain = ModelChain(draw(st.sampled_from([3, 5])))
    now = float(START)
    if draw(st.booleans()):
        chain.send(Method.INITIALIZE, now)
    for _ in range(draw(st.integers(0, 8))):
        now += draw(st.sampled_from([0.0, 1.0, 25.0]))
        match draw(st.sampled_from(["vote", "reveal", "reopen", "finalize"])):
            case "vote":
                chain.vote(draw(WALLETS), draw(DIGESTS), now)
            case "reveal":
                chain.reveal(draw(WALLETS), now)
            case "reopen":
                chain.send(Method.REOPEN, now)
            case _:
                chain.send(Method.FINALIZE, now)
    return chain


@given(records(), views, MOMENTS)
@settings(max_examples=200)
def test_every_combination_of_record_chain_and_time_has_an_action_or_an_explained_wait(
    record: TaskRecord, view: ChainView, now: float
) -> None:
    actions = decide(record, view, now, PACE)
    moved = after(record, view, actions, now, PACE)
    if moved.open:
        assert explain(moved, view, Candidates(), now, PACE)
        assert now < next_visit(moved, view, now, PACE) <= now + IDLE_VISIT
    else:
        assert actions or not record.open


@given(records(), views, MOMENTS)
@settings(max_examples=200)
def test_what_was_decided_is_not_decided_again_at_once(record: TaskRecord, view: ChainView, now: float) -> None:
    once = after(record, view, decide(record, view, now, PACE), now, PACE)
    again = after(once, view, decide(once, view, now, PACE), now, PACE)
    assert not decide(again, view, now, PACE)


@given(records(), chains())
@settings(max_examples=100)
def test_a_task_ends_though_no_worker_ever_does_anything_more(record: TaskRecord, chain: ModelChain) -> None:
    """Stakes are locked until the chain has it ended: a record that ended while the chain waits is no end."""
    _live_on(record, chain, refused={})


@pytest.mark.parametrize("times", [1, 3, 10])
def test_a_task_is_initialized_for_its_claim_however_often_that_failed_before(times: int) -> None:
    chain = ModelChain(3)
    _live_on(task(trust=3), chain, refused={Method.INITIALIZE: times})
    assert chain.view.status is TaskStatus.FAILED


@pytest.mark.parametrize("times", [1, 3, 10])
def test_a_claim_is_tried_until_it_is_mined_however_often_it_failed(times: int) -> None:
    chain = ModelChain(3)
    chain.send(Method.INITIALIZE, START)
    _live_on(task(trust=3), chain, refused={Method.CLAIM: times})


def test_a_finalize_that_fails_for_good_leaves_the_stakes_to_the_claim() -> None:
    chain = ModelChain(3)
    chain.send(Method.INITIALIZE, START)
    for number in (1, 2):
        chain.vote(wallet(number), TRUTH, START + 1)
    chain.mine(events.TaskReveal(TASK, wallet(1), TRUTH), START + 2)
    chain.mine(events.TaskReveal(TASK, wallet(2), TRUTH), START + 2)
    voters = [
        Replicate(wallet(number), Mode.VOTE, 2, START, ReplicateState.COMPUTED, link=LINK, digest=TRUTH)
        for number in (1, 2)
    ]
    _live_on(task(trust=3, replicates=voters), chain, refused={Method.FINALIZE: LONG})
    assert chain.view.status is TaskStatus.FAILED


def _live_on(record: TaskRecord, chain: ModelChain, *, refused: Mapping[Method, int]) -> None:
    """Decide at each visit that is due, with a lane that sends everything at once; `refused`: so many times, though the
    contract would take it. Fails unless the task ends in both, within LONG seconds.
    """
    left, now = dict(refused), float(START)
    while now < START + LONG:
        view = chain.view
        actions = decide(record, view, now, PACE)
        record = after(record, view, actions, now, PACE)
        for action in actions:
            if isinstance(action, Submit):
                record = _sent(record, chain, action, left, now)
        over = chain.view.status in (TaskStatus.COMPLETED, TaskStatus.FAILED)
        if not record.open and (over or record.orphaned):
            return
        now = max(now + 1, min(next_visit(record, chain.view, now, PACE), now + ORPHAN_TIMEOUT))
    pytest.fail(f"It never ends: {record}, {chain.view}")


def _sent(record: TaskRecord, chain: ModelChain, submit: Submit, left: dict[Method, int], now: float) -> TaskRecord:
    """The record once the lane has sent this, and noted its failure if it failed."""
    if left.get(submit.method, 0) > 0:
        left[submit.method] -= 1
    elif chain.send(submit.method, now) or chain.is_so(submit.method):
        return record
    name = counted_as(submit.method, submit.args, now)
    failed = record.failed.get(name, 0) + 1
    sent = {method: item for method, item in record.sent.items() if method != submit.method}
    return replace(record, sent=sent, failed={**record.failed, name: failed}, changed_at=now)
