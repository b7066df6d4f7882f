"""Tasks for enclaves: no machine before the challenge is known, and words for those that are never served."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.domain import enclaves
from pipeline.domain.actions import Action, AskChallenge, End, Method, Postpone, Submit, Want
from pipeline.domain.decide import decide
from pipeline.domain.explain import Candidates, explain
from pipeline.domain.match import Capacity, Obstacle, match, obstacle
from pipeline.domain.progress import after, next_visit
from pipeline.domain.records import Replicate, ReplicateState, Submission, TaskRecord, TaskStage
from protocol.poco.tags import GPU_BIT, Framework, make_tag
from protocol.poco.view import ChainView
from protocol.results.error_result import LOST_CHALLENGE
from protocol.types import Contract, Hash32
from protocol.wire import Mode, Step
from tests.unit.pipeline.builders import (
    CONTRIBUTE_UNTIL,
    FINAL,
    NO_TAG,
    PACE,
    START,
    claimed,
    initialized,
    replicate,
    task,
    view,
    wallet,
    worker,
)

SCONE, GRAMINE, TDX = make_tag(0x3), make_tag(0x5), make_tag(0x9)
CHALLENGE = Contract("0x" + "c4" * 20)
SERVING = replace(PACE, enclaves=frozenset(Framework))
ACTIVE = view(initialized())
NOW = START + 3.0


def sealed(tag: Hash32 = TDX, *, trust: int = 1, **fields: object) -> TaskRecord:
    """A task for an enclave."""
    return replace(task(trust=trust, tag=tag), **fields)  # type: ignore[arg-type]  # tests name fields freely


def due(record: TaskRecord, chain: ChainView = ACTIVE, now: float = NOW) -> list[Action]:
    return decide(record, chain, now, SERVING)


def moved(record: TaskRecord, chain: ChainView = ACTIVE, now: float = NOW) -> TaskRecord:
    return after(record, chain, due(record, chain, now), now, SERVING)


@pytest.mark.parametrize("tag", [SCONE, GRAMINE, TDX, make_tag(0x9, GPU_BIT)])
def test_a_task_for_an_enclave_asks_for_its_challenge_once_it_is_on_chain(tag: Hash32) -> None:
    record = sealed(tag)
    assert due(record) == [Want(1), AskChallenge()]
    assert due(replace(record, challenge=CHALLENGE)) == [Want(1)]


def test_the_secret_service_knows_the_task_once_it_is_on_chain_so_it_is_not_asked_before() -> None:
    assert [type(action) for action in due(sealed(), view())] == [Submit, Want]


def test_a_task_without_an_enclave_asks_for_no_challenge() -> None:
    assert due(sealed(NO_TAG)) == [Want(1)]


def test_a_service_that_tells_nothing_is_asked_again_ever_more_seldom_until_the_time_is_over() -> None:
    record, asked, now = sealed(), [], NOW
    while now < CONTRIBUTE_UNTIL + 20:
        if AskChallenge() in due(record, now=now):
            asked.append(now - NOW)
        record = moved(record, now=now)
        now += 1
    assert asked == [0, 5, 15, 35]


def test_the_next_visit_of_a_task_that_awaits_its_challenge_is_when_it_is_to_be_asked_for_again() -> None:
    record = moved(sealed())
    assert next_visit(record, ACTIVE, NOW, SERVING) == NOW + 5
    assert next_visit(replace(record, challenge_tries=2), ACTIVE, NOW, SERVING) == NOW + 10


@pytest.mark.parametrize(
    ("record", "says"),
    [
        # Bit 0 and no kind; two kinds at once; a kind that is not known.
        (sealed(make_tag(0x1)), "a kind of enclave that is not known"),
        (sealed(make_tag(0xB)), "a kind of enclave that is not known"),
        (sealed(make_tag(0xF)), "a kind of enclave that is not known"),
        (sealed(trust=3), "served at trust 1 only, and its deal demands 3"),
    ],
)
def test_a_deal_that_no_enclave_can_serve_is_given_to_nobody_and_says_why(record: TaskRecord, says: str) -> None:
    wanted = moved(record)
    assert wanted.wants
    assert AskChallenge() not in due(wanted, now=NOW + 600)
    able = worker(1, slots=9, tag=make_tag(0xFFF))
    assert not match([wanted], [able])
    told = explain(wanted, ACTIVE, Candidates.of(wanted, [able], NOW, 0.0), NOW, SERVING)
    assert told is not None
    assert says in told


def test_a_pool_without_a_secret_service_says_so_whatever_machines_it_has() -> None:
    record = after(sealed(), ACTIVE, decide(sealed(), ACTIVE, NOW, PACE), NOW, PACE)
    for machines in ([], [worker(1, tag=TDX)]):
        told = explain(record, ACTIVE, Candidates.of(record, machines, NOW, 0.0), NOW, PACE)
        assert told is not None
        assert "SLUICE_ENCLAVE_SMS_URL" in told


def test_a_pool_with_a_service_for_another_kind_of_enclave_asks_for_no_challenge_and_says_so() -> None:
    tdx_only = replace(PACE, enclaves=frozenset({Framework.TDX}))
    record = after(sealed(SCONE), ACTIVE, decide(sealed(SCONE), ACTIVE, NOW, tdx_only), NOW, tdx_only)
    assert not record.challenge_tries
    told = explain(record, ACTIVE, Candidates.of(record, [worker(1, tag=SCONE)], NOW, 0.0), NOW, tdx_only)
    assert told is not None
    assert "names no secret service for SCONE" in told


def test_a_task_that_awaits_its_challenge_says_what_the_service_answered() -> None:
    record = moved(sealed())
    assert "which the secret service is asked for" in str(explain(record, ACTIVE, Candidates(), NOW, SERVING))
    record = replace(record, why="The secret service at http://s gave no challenge: it answered HTTP 503.")
    told = explain(record, ACTIVE, Candidates(), NOW, SERVING)
    assert told == (
        "It waits for its enclave's challenge: The secret service at http://s gave no challenge: it answered HTTP 503."
        " The secret service is asked again."
    )


def test_a_task_that_ended_without_a_machine_says_what_was_missing() -> None:
    over = view(initialized(), claimed())
    service = "The secret service at http://s gave no challenge: it answered HTTP 503."
    for record, says in (
        (
            sealed(challenge_tries=7, why=service),
            "as its enclave had no challenge: The secret service at http://s gave no",
        ),
        (sealed(trust=3), "at trust 1 only, and its deal demands 3"),
        (sealed(), "The pool names no secret service"),
        (sealed(unserved=True), "The pool names no secret service"),
    ):
        (end,) = (action for action in decide(record, over, NOW, PACE) if isinstance(action, End))
        assert end.why is not None
        assert end.why.startswith("No machine was given it")
        assert says in end.why


def test_with_its_challenge_a_task_goes_to_a_machine_that_offers_its_kind_and_to_no_other() -> None:
    record = sealed(challenge=CHALLENGE, wants=1)
    assert [found.workers[0].wallet for found in match([record], [worker(1), worker(2, tag=SCONE)])] == []
    found = match([record], [worker(1), worker(2, tag=SCONE), worker(3, tag=make_tag(0x9, GPU_BIT))])
    assert [each.workers[0].wallet for each in found] == [wallet(3)]


def test_a_task_without_challenge_keeps_no_machine_from_one_that_has_it() -> None:
    bare, told = sealed(wants=1), sealed(challenge=CHALLENGE, wants=1)
    assert [each.task for each in match([bare, told], [worker(1, tag=TDX)])] == [told]
    assert obstacle(bare, Capacity.of(worker(1, tag=TDX))) is Obstacle.ENCLAVE


def failed(number: int = 1, at: float = NOW, cause: str = f"{LOST_CHALLENGE}: why") -> Replicate:
    """A replicate whose machine got no session."""
    return replicate(
        number, ReplicateState.FAILED, cause=cause, steps={Step.FAILED: at}, holds_slot=False, mode=Mode.SOLO
    )


def test_a_challenge_that_a_machine_found_lost_is_asked_for_and_the_task_given_to_nobody_meanwhile() -> None:
    record = sealed(
        challenge=CHALLENGE,
        challenge_tries=1,
        challenge_asked_at=START,
        challenge_told_at=START,
        replicates=(failed(),),
    )
    now = NOW + SERVING.reask
    assert due(record, now=now) == [Want(1), AskChallenge()]
    assert not match([replace(record, wants=1)], [worker(2, tag=TDX)])
    told = explain(replace(record, wants=1), ACTIVE, Candidates(), now, SERVING)
    assert (
        told == "A machine found that the secret service does not have its enclave's challenge: the service is asked."
    )
    # It has told the same again: what the machine said was not so, or is not any more.
    settled = replace(record, challenge_told_at=now)
    assert due(settled, now=now) == [Want(1)]
    assert [found.workers[0].wallet for found in match([replace(settled, wants=1)], [worker(2, tag=TDX)])] == [
        wallet(2)
    ]


@pytest.mark.parametrize(
    "others",
    [
        (failed(cause="TEE_SESSION_GENERATION_UNKNOWN_ISSUE"),),
        (failed(cause="MACHINE_FAILED: no disk"),),
        # One at work may have its session with that challenge.
        (failed(), replicate(2, ReplicateState.STARTED, mode=Mode.SOLO)),
    ],
    ids=["the service is away", "another cause", "another is at work"],
)
def test_a_challenge_does_not_count_as_lost_for_another_cause_or_while_a_machine_may_have_its_session(
    others: tuple[Replicate, ...],
) -> None:
    record = sealed(challenge=CHALLENGE, challenge_tries=1, challenge_told_at=START, replicates=others)
    assert AskChallenge() not in due(record, now=NOW + SERVING.reask)


def test_a_task_whose_challenge_was_lost_for_good_says_so_when_it_ends() -> None:
    record = sealed(challenge=CHALLENGE, challenge_tries=3, challenge_told_at=START, replicates=(failed(),))
    (end,) = (
        action for action in decide(record, view(initialized(), claimed()), NOW, SERVING) if isinstance(action, End)
    )
    assert end.why == f"Nobody contributed before the deadline: 1 x {LOST_CHALLENGE}: why."


def test_a_task_that_has_its_challenge_does_not_ask_for_it_again() -> None:
    assert enclaves.challenge_due(sealed(challenge=CHALLENGE), ACTIVE, SERVING) is None


def test_a_task_that_nobody_can_serve_is_postponed_and_passed_over_until_it_is_initialized() -> None:
    record = after(sealed(), view(), [Postpone(), Want(1)], NOW, SERVING)
    assert (record.unserved, record.not_before, record.wants) == (True, CONTRIBUTE_UNTIL, 1)
    # It is looked for by its tag; a deadline comes before that look.
    assert next_visit(record, view(), NOW, SERVING) == CONTRIBUTE_UNTIL
    submitted = after(record, view(), [Submit(Method.INITIALIZE, 0, {})], NOW, SERVING)
    assert (submitted.unserved, submitted.not_before) == (False, 0.0)
    ended = after(record, view(initialized(), claimed()), [End(TaskStage.FAILED, "why")], NOW, SERVING)
    assert not ended.unserved


@pytest.mark.parametrize(
    ("record", "awaits"),
    [
        (sealed(), True),
        (sealed(NO_TAG), False),
        # It is with the lane already, or was.
        (sealed(sent={"initialize": Submission(0, NOW)}), False),
        (sealed(failed={"initialize": 1}), False),
    ],
    ids=["new", "standard", "submitted", "failed"],
)
def test_only_the_first_initialize_of_a_task_for_an_enclave_waits_for_somebody_who_serves_it(
    record: TaskRecord, awaits: bool
) -> None:
    assert enclaves.awaits_initialize(record) is awaits


def test_a_postponed_task_says_what_it_lacks() -> None:
    for record, machines, says in (
        (sealed(unserved=True, wants=1), [worker(1)], "No machine offers what its tag demands: TEE TDX"),
        (sealed(unserved=True, wants=1), [], "No machine has signed in at the pool yet."),
        (sealed(unserved=True, wants=1), [worker(1, tag=TDX)], "It is about to be given to a machine."),
        (sealed(make_tag(0x1), unserved=True, wants=1), [worker(1, tag=TDX)], "a kind of enclave that is not known"),
        (sealed(trust=3, unserved=True, wants=1), [worker(1, tag=TDX)], "served at trust 1 only"),
    ):
        supposed = enclaves.supposing_challenge(record, SERVING)
        told = explain(supposed, view(), Candidates.of(supposed, machines, NOW, 0.0), NOW, SERVING)
        assert told is not None
        assert told.startswith("It is not initialized before somebody can serve its tag, as that costs gas. It wants ")
        assert says in told


def test_a_task_that_nobody_came_for_says_so_when_it_ends() -> None:
    over = view(initialized(), claimed())
    (end,) = (action for action in decide(sealed(unserved=True), over, NOW, SERVING) if isinstance(action, End))
    assert end.why == f"No machine was given it: none that was there offered what its tag demands ({TDX})."


def test_past_its_final_deadline_a_postponed_task_is_initialized_all_the_same_so_that_its_stakes_are_freed() -> None:
    late = due(sealed(unserved=True), view(), now=FINAL + 1)
    assert [action.method for action in late if isinstance(action, Submit)] == [Method.INITIALIZE]
