"""Who may sign in as a worker machine: the pool's policy, what is known of an applicant, and the decision. Pure.

    on the deny list                       refused, whatever else holds
    mode allow                             only who is on the allow list
    mode invite                            ... or brings an invite code that is good, which puts it there
    least stake, least score               chain facts: not known is not refused, but asked again
    most machines, most per address        for machines that come anew; not for who is on the allow list

A machine that holds work is never turned away for the last two lines: it could not bring its results any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from protocol.types import NRlc


class Mode(StrEnum):
    """Who may sign in."""

    OPEN = "open"  #: every wallet that is not on the deny list
    ALLOW = "allow"  #: only wallets on the allow list
    INVITE = "invite"  #: those, and whoever brings an invite code that is good


class Listing(StrEnum):
    """On which of the pool's two lists a wallet is."""

    ALLOWED = "allow"
    DENIED = "deny"


_NOTHING = NRlc(0)
#: Machines that one invite may admit: its stored row holds their wallets.
MOST_USES = 1000


@dataclass(frozen=True, slots=True)
class Policy:
    """What the pool asks of a machine. None: no limit."""

    mode: Mode = Mode.OPEN
    #: Free and locked stake in the hub together.
    least_stake: NRlc = _NOTHING
    #: PoCo score of the wallet.
    least_score: int = 0
    #: Machines that are enrolled and not lost.
    most_machines: int | None = None
    #: The same from one IP address (IPv6: one /64).
    most_per_address: int | None = None

    @property
    def asks_the_chain(self) -> bool:
        """Whether a chain fact decides."""
        return self.least_stake > 0 or self.least_score > 0


@dataclass(frozen=True, slots=True)
class Invite:
    """An invite code as it is stored; the code itself is not. `expires_at`: Unix seconds."""

    name: str
    uses: int
    used: int
    expires_at: float
    #: Whether this applicant used it before: that use is not counted twice.
    used_by_applicant: bool = False


@dataclass(frozen=True, slots=True)
class Applicant:
    """What is known of a wallet that signs in."""

    listing: Listing | None = None
    #: The stored invite of the code that it brought.
    invite: Invite | None = None
    #: It brought a code.
    brought_code: bool = False
    #: It holds work of the pool.
    busy: bool = False
    #: Stake (free and locked) and score; None: not asked for, or the node does not answer.
    stake: NRlc | None = None
    score: int | None = None
    #: Other machines that are enrolled now, counted up to the limit; 0 where the limit does not concern it.
    machines: int = 0
    machines_at_address: int = 0


class Answer(StrEnum):
    """What the pool answers to an applicant."""

    ADMIT = "admit"
    ADMIT_BY_INVITE = "admit_by_invite"  #: and one use of the invite is taken
    REFUSE = "refuse"
    ASK_AGAIN = "ask_again"  #: what decides is not known now


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer; to an applicant that is not admitted also why, and what to do."""

    answer: Answer
    why: str = ""

    @property
    def admits(self) -> bool:
        """Whether the machine may sign in now."""
        return self.answer in {Answer.ADMIT, Answer.ADMIT_BY_INVITE}


_ADMIT = Decision(Answer.ADMIT)


def decide(policy: Policy, applicant: Applicant, now: float) -> Decision:
    """Whether this wallet may sign in. `now`: Unix seconds."""
    listed = decide_listed(policy, applicant, now)
    if not listed.admits or applicant.busy:
        return listed
    for decision in (_on_chain(policy, applicant), _in_number(policy, applicant)):
        if decision is not None:
            return decision
    return listed


def decide_listed(policy: Policy, applicant: Applicant, now: float) -> Decision:
    """The part of the decision that lists and invites make: also for machines that are signed in already."""
    if applicant.listing is Listing.DENIED:
        return _refuse("the pool's operator has put this wallet on the deny list: ask the operator")
    if policy.mode is Mode.OPEN or applicant.listing is Listing.ALLOWED:
        return _ADMIT
    if policy.mode is Mode.ALLOW:
        return _refuse("this pool takes only wallets on its allow list: ask its operator to put this one there")
    return _by_invite(applicant, now)


def _by_invite(applicant: Applicant, now: float) -> Decision:
    """The decision on an applicant in a pool that takes machines by invitation."""
    invite = applicant.invite
    if not applicant.brought_code:
        return _refuse("this pool takes new machines by invitation: set SLUICE_INVITE to a code of its operator")
    if invite is None:
        return _refuse("the invite code in SLUICE_INVITE is not one of this pool: ask its operator for another")
    if now >= invite.expires_at:
        return _refuse("the invite code in SLUICE_INVITE has expired: ask the pool's operator for another")
    if invite.used >= invite.uses and not invite.used_by_applicant:
        return _refuse("the invite code in SLUICE_INVITE is used up: ask the pool's operator for another")
    return Decision(Answer.ADMIT_BY_INVITE)


def _on_chain(policy: Policy, applicant: Applicant) -> Decision | None:
    """The refusal of an applicant with too little stake or score; None if it has enough."""
    if (policy.least_stake > 0 and applicant.stake is None) or (policy.least_score > 0 and applicant.score is None):
        return Decision(Answer.ASK_AGAIN, "the chain does not say now what this wallet has staked and earned")
    if applicant.stake is not None and applicant.stake < policy.least_stake:
        return _refuse(
            f"this pool asks for a stake of {policy.least_stake} nRLC and this wallet has {applicant.stake}: deposit"
            " the rest in the hub and start again"
        )
    if applicant.score is not None and applicant.score < policy.least_score:
        return _refuse(
            f"this pool asks for a score of {policy.least_score} and this wallet has {applicant.score}: a score is"
            " earned by right votes, in pools that ask for less"
        )
    return None


def _in_number(policy: Policy, applicant: Applicant) -> Decision | None:
    """The refusal of an applicant beyond the number of machines; None if the pool takes more."""
    if applicant.listing is Listing.ALLOWED:
        return None
    if policy.most_machines is not None and applicant.machines >= policy.most_machines:
        return _refuse(
            f"this pool takes at most {policy.most_machines} machines and has as many: try again later, or ask its"
            " operator for a place on the allow list"
        )
    if policy.most_per_address is not None and applicant.machines_at_address >= policy.most_per_address:
        return _refuse(
            f"this pool takes at most {policy.most_per_address} machines from one network address and has as many from"
            " this one: stop one of those, or ask its operator for a place on the allow list"
        )
    return None


def _refuse(why: str) -> Decision:
    """The decision to refuse."""
    return Decision(Answer.REFUSE, why)
