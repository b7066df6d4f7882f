"""Decides whether a machine may sign in, and changes who may: the I/O around `pipeline.domain.machines.enrolment`.

sign-in ─► policy, list and invite (one query) ─► counts and chain facts, only where the policy asks ─► decide
command ─► row in `enrolment` ─► who may not work any more: its token ends, its broker user is deleted
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog

from chain.contracts.hub import Hub
from chain.rpc.client import JsonRpc
from config.settings import Settings
from pipeline.broker.admin import BrokerAdmin
from pipeline.domain.machines.enrolment import Answer, Applicant, Listing, Mode, Policy, decide, decide_listed
from pipeline.domain.records import WorkerRecord
from pipeline.flow.machines.bans import ban
from pipeline.store.machine.enrolment import Enrolment, overridden
from pipeline.store.machine.workers import Workers
from protocol.errors import BadMessage, NotFound, Refused, RpcError, RpcUnavailable, Unavailable
from protocol.types import Contract, NRlc, Wallet

log = structlog.get_logger(__name__)

#: Reads stake (free and locked) and score of a wallet. Raises RpcUnavailable, RpcError.
ChainFactsOf = Callable[[Wallet], tuple[NRlc, int]]


def policy_of(settings: Settings) -> Policy:
    """The policy that the settings describe; commands may have changed it in the database."""
    return Policy(
        mode=Mode(settings.enrolment),
        least_stake=NRlc(settings.enrolment_least_stake),
        least_score=settings.enrolment_least_score,
        most_machines=settings.enrolment_most_machines or None,
        most_per_address=settings.enrolment_most_per_address or None,
    )


@dataclass
class SignInsUnderWay:
    """Sign-ins of this process that are admitted and not stored yet: they count against the limits too."""

    _guard: threading.Lock = field(default_factory=threading.Lock)
    _wallets: dict[Wallet, str] = field(default_factory=dict)

    @contextmanager
    def entering(self, wallet: Wallet, address: str, decide_about: Callable[[int, int], None]) -> Iterator[None]:
        """Decide about a sign-in, one at a time, and count it as under way until the block ends.

        `decide_about`: called with the sign-ins under way, (all others, those from this address); raises to refuse.
        Raises Unavailable if this wallet is signing in already.
        """
        with self._guard:
            if wallet in self._wallets:
                raise Unavailable(what="a second sign-in", why="this wallet is signing in already")
            decide_about(len(self._wallets), Counter(self._wallets.values())[address])
            self._wallets[wallet] = address
        try:
            yield
        finally:
            with self._guard:
                del self._wallets[wallet]


@dataclass(frozen=True, slots=True)
class SignInFacts:
    """What is known of a wallet that signs in, apart from how many others there are."""

    wallet: Wallet
    worker: WorkerRecord | None
    address: str
    code: str | None
    policy: Policy
    applicant: Applicant


def facts_of(
    enrolment: Enrolment,
    settings: Settings,
    chain_facts: ChainFactsOf,
    wallet: Wallet,
    *,
    worker: WorkerRecord | None,
    address: str,
    code: str | None,
) -> SignInFacts:
    """All that decides whether a wallet may sign in: policy, lists, invite, and stake and score if the policy asks for
    them.

    `worker`: its row, None at the first sign-in; `address`: where the request comes from; `code`: the invite's, if any.
    """
    entry = enrolment.entry(wallet, code)
    policy = overridden(policy_of(settings), entry.overrides)
    stake, score = _asked(chain_facts, wallet) if policy.asks_the_chain else (None, None)
    applicant = Applicant(
        listing=entry.listing,
        invite=entry.invite,
        brought_code=code is not None,
        busy=worker is not None and bool(worker.held or worker.pledged),
        stake=stake,
        score=score,
    )
    return SignInFacts(wallet, worker, address, code, policy, applicant)


def admit(
    workers: Workers, enrolment: Enrolment, facts: SignInFacts, now: float, others: int, others_at_address: int
) -> None:
    """Return if the wallet may sign in now. `others`: sign-ins that are admitted and not stored yet, in all and from
    its address. Raises Refused, Unavailable.
    """
    policy, worker, applicant = facts.policy, facts.worker, facts.applicant
    present = worker is not None and not worker.lost and not worker.banned
    # Whoever was right on chain is not kept out by wallets that cost nothing.
    count = partial(workers.count_present, but=facts.wallet, proven=worker is not None and worker.successes > 0)
    if policy.most_machines is not None and not present:
        counted = count(policy.most_machines)
        applicant = replace(applicant, machines=others + counted)
    if policy.most_per_address is not None and not (present and worker is not None and worker.address == facts.address):
        counted = count(policy.most_per_address, address=facts.address)
        applicant = replace(applicant, machines_at_address=others_at_address + counted)
    decision = decide(policy, applicant, now)
    match decision.answer:
        case Answer.ASK_AGAIN:
            raise Unavailable(what="the chain", why=decision.why)
        case Answer.REFUSE:
            log.info(
                "Sign-in refused.",
                action="sign_in_refused",
                wallet=facts.wallet,
                address=facts.address,
                why=decision.why,
            )
            raise Refused(why=decision.why)
        case Answer.ADMIT_BY_INVITE:
            _use_invite(enrolment, facts.wallet, facts.code or "", now)


def _use_invite(enrolment: Enrolment, wallet: Wallet, code: str, now: float) -> None:
    """Use up an invite for a wallet and allow the wallet. Raises Refused."""
    if not enrolment.use(code, wallet, now):
        raise Refused(why="the invite code in SLUICE_INVITE is used up: ask the pool's operator for another")
    if enrolment.put_if_absent(wallet, Listing.ALLOWED, now, "by invite") is Listing.DENIED:
        raise Refused(why="the pool's operator has put this wallet on the deny list: ask the operator")


def chain_facts(rpc: JsonRpc, hub: Contract, wallet: Wallet) -> tuple[NRlc, int]:
    """Stake (free and locked) and score of a wallet, at one block. Raises RpcUnavailable, RpcError, BadMessage."""
    contract = Hub(rpc, hub)
    head = contract.head()
    account = contract.account(wallet, head)
    return NRlc(account.stake + account.locked), contract.scores([wallet], head)[0]


def _asked(chain_facts: ChainFactsOf, wallet: Wallet) -> tuple[NRlc | None, int | None]:
    """The wallet's stake and score on chain; None for both if the chain does not say."""
    try:
        return chain_facts(wallet)
    except (RpcUnavailable, RpcError, BadMessage) as error:
        log.warning("Stake and score were not read.", action="sign_in_facts", wallet=wallet, why=str(error))
        return None, None


# -- commands ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gate:
    """The stores, broker and settings that the operator's commands on enrolment need."""

    workers: Workers
    enrolment: Enrolment
    broker: BrokerAdmin
    settings: Settings

    @property
    def policy(self) -> Policy:
        """The policy that holds now."""
        return overridden(policy_of(self.settings), self.enrolment.overrides())


def allow(gate: Gate, wallet: Wallet, now: float, note: str = "") -> None:
    """Put a wallet on the allow list; a ban ends."""
    gate.enrolment.put(wallet, Listing.ALLOWED, now, note)
    gate.workers.set_banned(wallet, banned=False)
    log.info("Wallet is on the allow list.", action="enrol_allowed", wallet=wallet)


def deny(gate: Gate, wallet: Wallet, now: float, note: str = "") -> None:
    """Put a wallet on the deny list: its token, its connections and its place in matching end now."""
    # First the list: a machine that is only cut off would sign in again.
    gate.enrolment.put(wallet, Listing.DENIED, now, note)
    try:
        ban(gate.workers, gate.broker, wallet, now)
    except NotFound:
        # It never signed in here, or does so in this moment: that sign-in looks at the list once more at its end.
        gate.broker.revoke(wallet)
    log.info("Wallet is on the deny list.", action="enrol_denied", wallet=wallet)


def forget(gate: Gate, wallet: Wallet, now: float) -> bool:
    """Take a wallet off its list, and cut it off if the policy does not admit it without one. False: it was on none."""
    known = gate.enrolment.forget(wallet)
    gate.workers.set_banned(wallet, banned=False)
    if not decide_listed(gate.policy, Applicant(), now).admits:
        revoke(gate, wallet, now)
    log.info("Wallet is on no list.", action="enrol_forgotten", wallet=wallet)
    return known


def revoke(gate: Gate, wallet: Wallet, now: float) -> bool:
    """End a machine's token and connections; it may sign in again if the policy admits it. False: never signed in."""
    known = gate.workers.end_tokens(wallet, now)
    gate.broker.revoke(wallet)
    log.info("Worker must sign in again.", action="enrol_revoked", wallet=wallet)
    return known


def no_longer_admitted(gate: Gate, policy: Policy, now: float) -> list[Wallet]:
    """Machines with a broker user that neither the mode nor a list of `policy` admits."""
    wallets = gate.workers.with_queues()
    listings = gate.enrolment.listings(wallets)
    return [
        wallet for wallet in wallets if not decide_listed(policy, Applicant(listing=listings.get(wallet)), now).admits
    ]


def set_policy(gate: Gate, changes: Mapping[str, Any], now: float) -> list[Wallet]:
    """Change the policy for all processes at once; returns the machines that it cut off."""
    gate.enrolment.override(changes)
    return _cut_off(gate, now)


def reset_policy(gate: Gate, now: float) -> list[Wallet]:
    """Go back to the settings' policy; returns the machines that it cut off."""
    gate.enrolment.reset()
    return _cut_off(gate, now)


def _cut_off(gate: Gate, now: float) -> list[Wallet]:
    """Revoke the machines that the policy no longer admits; returns them."""
    refused = no_longer_admitted(gate, gate.policy, now)
    for wallet in refused:
        revoke(gate, wallet, now)
    return refused
