"""Which wallets may sign in, by mode, lists, invites, stake, score and numbers."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.machines.enrolment import Answer, Applicant, Invite, Listing, Mode, Policy, decide, decide_listed
from pipeline.flow.machines.enrolment import SignInsUnderWay
from protocol.errors import Refused, Unavailable
from protocol.types import NRlc, Wallet

NOW = 1000.0
GOOD = Invite("a", uses=1, used=0, expires_at=NOW + 1)
ANYBODY = Applicant()
FIRST, SECOND = Wallet("0x" + "01" * 20), Wallet("0x" + "02" * 20)

numbers = st.integers(0, 5)
invites = st.builds(
    Invite, st.just("a"), st.integers(1, 3), numbers, st.floats(NOW - 5, NOW + 5), used_by_applicant=st.booleans()
)
policies = st.builds(
    Policy,
    st.sampled_from(Mode),
    numbers.map(NRlc),
    numbers,
    st.none() | st.integers(1, 5),
    st.none() | st.integers(1, 5),
)
applicants = st.builds(
    Applicant,
    listing=st.none() | st.sampled_from(Listing),
    invite=st.none() | invites,
    brought_code=st.booleans(),
    busy=st.booleans(),
    stake=st.none() | numbers.map(NRlc),
    score=st.none() | numbers,
    machines=numbers,
    machines_at_address=numbers,
)


@given(policies, applicants)
def test_a_denied_wallet_is_never_admitted(policy: Policy, applicant: Applicant) -> None:
    assert decide(policy, replace(applicant, listing=Listing.DENIED), NOW).answer is Answer.REFUSE


@given(policies, applicants)
def test_the_answer_to_a_wallet_that_is_not_admitted_says_why(policy: Policy, applicant: Applicant) -> None:
    decision = decide(policy, applicant, NOW)
    assert decision.admits != bool(decision.why)


@given(policies, applicants)
def test_what_the_chain_does_not_say_now_is_never_a_refusal(policy: Policy, applicant: Applicant) -> None:
    unknown = replace(applicant, stake=None, score=None)
    if decide(policy, unknown, NOW).answer is Answer.REFUSE:
        # Then the lists or the numbers refuse it, whatever the chain says.
        rich = replace(applicant, stake=NRlc(10**9), score=10**9)
        assert decide(policy, rich, NOW).answer is Answer.REFUSE


@given(policies, applicants)
def test_less_stake_or_score_never_admits_whom_more_does_not(policy: Policy, applicant: Applicant) -> None:
    if applicant.stake is None or applicant.score is None:
        return
    less = replace(applicant, stake=NRlc(max(0, applicant.stake - 1)), score=max(0, applicant.score - 1))
    assert decide(policy, applicant, NOW).admits or not decide(policy, less, NOW).admits


@given(policies, applicants)
def test_an_invite_is_used_only_where_it_decides(policy: Policy, applicant: Applicant) -> None:
    if decide(policy, applicant, NOW).answer is Answer.ADMIT_BY_INVITE:
        assert policy.mode is Mode.INVITE
        assert applicant.listing is None
        assert applicant.invite is not None
        assert applicant.invite.expires_at > NOW


@given(policies, applicants)
def test_a_machine_that_holds_work_is_refused_by_lists_only(policy: Policy, applicant: Applicant) -> None:
    busy = replace(applicant, busy=True)
    assert decide(policy, busy, NOW) == decide_listed(policy, busy, NOW)


@pytest.mark.parametrize(
    ("invite", "brought", "words"),
    [
        (None, False, "by invitation"),
        (None, True, "not one of this pool"),
        (replace(GOOD, expires_at=NOW), True, "expired"),
        (replace(GOOD, used=1), True, "used up"),
    ],
)
def test_a_bad_invite_is_refused_with_its_own_reason(invite: Invite | None, brought: bool, words: str) -> None:
    decision = decide(Policy(Mode.INVITE), Applicant(invite=invite, brought_code=brought), NOW)
    assert decision.answer is Answer.REFUSE
    assert words in decision.why


def test_an_invite_that_the_same_wallet_used_is_good_again() -> None:
    used = replace(GOOD, used=1, used_by_applicant=True)
    assert decide(Policy(Mode.INVITE), Applicant(invite=used, brought_code=True), NOW).admits


def test_with_the_defaults_everybody_may_sign_in() -> None:
    assert decide(Policy(), ANYBODY, NOW).answer is Answer.ADMIT


def test_sign_ins_at_the_same_time_are_counted_before_they_are_stored() -> None:
    under_way, seen = SignInsUnderWay(), []
    with (
        under_way.entering(FIRST, "a", lambda *others: seen.append(others)),
        under_way.entering(SECOND, "b", lambda *others: seen.append(others)),
    ):
        pass
    assert seen == [(0, 0), (1, 0)]


def test_a_wallet_signs_in_once_at_a_time() -> None:
    under_way = SignInsUnderWay()
    with (
        under_way.entering(FIRST, "a", lambda *_: None),
        pytest.raises(Unavailable),
        under_way.entering(FIRST, "a", lambda *_: None),
    ):
        pass


def test_a_refused_sign_in_is_not_counted() -> None:
    under_way = SignInsUnderWay()

    def refuse(*_: int) -> None:
        raise Refused(why="no")

    with pytest.raises(Refused), under_way.entering(FIRST, "a", refuse):
        pass
    with under_way.entering(FIRST, "a", lambda *others: None):
        pass


def test_of_many_at_the_same_time_no_more_than_the_limit_enter() -> None:
    under_way, gate, entered = SignInsUnderWay(), threading.Barrier(8), []

    def check(others: int, _: int) -> None:
        if others >= 3:
            raise Refused(why="full")

    def sign_in(number: int) -> None:
        gate.wait()
        try:
            with under_way.entering(Wallet(f"0x{number:040x}"), "a", check):
                entered.append(number)
                done.wait()
        except Refused:
            pass

    done = threading.Event()
    threads = [threading.Thread(target=sign_in, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while sum(thread.is_alive() for thread in threads) > 3:
        pass
    done.set()
    for thread in threads:
        thread.join()
    assert len(entered) == 3
