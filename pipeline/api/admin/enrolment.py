"""Routes about who may sign in as a worker machine. A change holds at once for every API process."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field, StringConstraints

from pipeline.api.admin.access import Operator, Reader
from pipeline.api.admin.answers.enrolment import (
    EnrolmentShow,
    InviteLine,
    InviteMade,
    InviteWithdrawn,
    ListedWallet,
    PolicyChanged,
    PolicyModel,
    WalletDone,
)
from pipeline.api.admin.pool import DryRun
from pipeline.api.services import Services
from pipeline.domain.machines.enrolment import MOST_USES, Mode, Policy
from pipeline.flow.machines import enrolment
from pipeline.flow.machines.enrolment import Gate
from pipeline.store.machine.enrolment import overridden
from protocol.errors import BadMessage, NotFound
from protocol.types import Wallet
from protocol.wire import HexAddress

router = APIRouter()

#: Rows of each list in one answer.
MOST_LINES = 1000
#: Characters of a note.
LONGEST_NOTE = 500
#: Random bytes of an invite code, so that it cannot be guessed.
CODE_BYTES = 16
_DAY_SECONDS = 24 * 3600


class PolicyChange(BaseModel):
    """Fields of the policy to set; what is left out stays. `most_…`: 0 for no limit."""

    mode: Mode | None = None
    #: In nRLC.
    least_stake: int | None = Field(None, ge=0, lt=2**63)
    least_score: int | None = Field(None, ge=0, lt=2**31)
    most_machines: int | None = Field(None, ge=0, le=100_000)
    most_per_address: int | None = Field(None, ge=0, le=100_000)

    @property
    def changes(self) -> dict[str, Any]:
        """The fields that are given, as they are stored."""
        limits = {"most_machines", "most_per_address"}
        given = {name: value for name, value in self.model_dump(mode="json").items() if value is not None}
        return {name: (value or None) if name in limits else value for name, value in given.items()}


class Note(BaseModel):
    """Why a wallet is on a list, for people who read the list."""

    note: Annotated[str, StringConstraints(max_length=LONGEST_NOTE)] = ""


class NewInvite(BaseModel):
    """Machines that the invite admits, and days until it expires."""

    uses: int = Field(1, ge=1, le=MOST_USES)
    days: float = Field(7.0, ge=0.01, le=3650)


@router.get("/enrolment", summary="Who may sign in: policy, lists, invites")
def show_enrolment(services: Reader) -> EnrolmentShow:
    """The policy that holds now, wallets on the lists, and invites."""
    stored = services.store.enrolment
    return EnrolmentShow(
        policy=_policy(_gate(services).policy),
        set_by_command=sorted(stored.overrides()),
        listed=[ListedWallet(**asdict(row)) for row in stored.listed(MOST_LINES)],
        invites=[
            InviteLine(name=each.name, uses=each.uses, used=each.used, expires_at=each.expires_at)
            for each in stored.invites(MOST_LINES)
        ],
    )


@router.post("/enrolment/policy", summary="Change the policy of the running pool")
def change_policy(services: Operator, wanted: PolicyChange, dry_run: DryRun = False) -> PolicyChanged:
    """Machines that neither mode nor list admits any more are cut off at once; stake, score and numbers count at each
    machine's next sign-in, within the hour.
    """
    changes = wanted.changes
    if not changes:
        raise BadMessage(why="the policy needs something to change")
    gate, now = _gate(services), services.clock()
    if dry_run:
        found = overridden(enrolment.policy_of(gate.settings), {**gate.enrolment.overrides(), **changes})
        return _would_change(gate, found, now)
    return _changed(services, gate, enrolment.set_policy(gate, changes, now))


@router.post("/enrolment/reset", summary="Have the settings' policy hold again")
def reset_policy(services: Operator, dry_run: DryRun = False) -> PolicyChanged:
    """Take back all that commands have set of the policy; who is not admitted any more is cut off at once."""
    gate, now = _gate(services), services.clock()
    if dry_run:
        return _would_change(gate, enrolment.policy_of(gate.settings), now)
    return _changed(services, gate, enrolment.reset_policy(gate, now))


@router.post("/enrolment/invites", summary="Make an invite code for mode `invite`")
def invite(services: Operator, wanted: NewInvite, dry_run: DryRun = False) -> InviteMade:
    """The code is told once and not stored; a machine gives it in SLUICE_INVITE."""
    code, now = secrets.token_hex(CODE_BYTES), services.clock()
    expires_at = now + wanted.days * _DAY_SECONDS
    name = "" if dry_run else services.store.enrolment.invite(code, wanted.uses, expires_at, now)
    return InviteMade(
        code=None if dry_run else code, name=name, uses=wanted.uses, expires_at=expires_at, dry_run=dry_run
    )


@router.post("/enrolment/invites/{name}/withdraw", summary="Delete an invite")
def withdraw(name: str, services: Operator, dry_run: DryRun = False) -> InviteWithdrawn:
    """Whom it admitted stays on the allow list."""
    stored = services.store.enrolment
    if not (stored.has_invite(name) if dry_run else stored.withdraw(name)):
        raise NotFound(what=f"invite {name}")
    return InviteWithdrawn(withdrawn=name, dry_run=dry_run)


@router.post("/enrolment/{wallet}/allow", summary="Put a wallet on the allow list")
def allow(wallet: HexAddress, services: Operator, why: Note | None = None, dry_run: DryRun = False) -> WalletDone:
    """It may sign in in any mode, and counts against no number. Ends a ban."""
    act = partial(enrolment.allow, note="" if why is None else why.note)
    return _act(services, wallet, act, "allowed", dry_run=dry_run)


@router.post("/enrolment/{wallet}/deny", summary="Put a wallet on the deny list")
def deny(wallet: HexAddress, services: Operator, why: Note | None = None, dry_run: DryRun = False) -> WalletDone:
    """It is disconnected and refused from now on, also if it never signed in. Votes that it cast stay on chain."""
    act = partial(enrolment.deny, note="" if why is None else why.note)
    return _act(services, wallet, act, "denied and cut off", dry_run=dry_run)


@router.post("/enrolment/{wallet}/forget", summary="Take a wallet off both lists")
def forget(wallet: HexAddress, services: Operator, dry_run: DryRun = False) -> WalletDone:
    """It is cut off if the policy does not admit it without."""
    return _act(services, wallet, enrolment.forget, "taken off the lists", dry_run=dry_run)


@router.post("/enrolment/{wallet}/revoke", summary="End a machine's session")
def revoke(wallet: HexAddress, services: Operator, dry_run: DryRun = False) -> WalletDone:
    """Its token and connections end; it signs in again by itself, if the policy admits it."""
    return _act(services, wallet, enrolment.revoke, "signed out", dry_run=dry_run)


def _gate(services: Services) -> Gate:
    """The enrolment gate on the pool's store and broker."""
    return Gate(services.store.workers, services.store.enrolment, services.broker, services.settings)


def _act(
    services: Services, wallet: str, act: Callable[[Gate, Wallet, float], object], done: str, *, dry_run: bool
) -> WalletDone:
    """Have `act` change what holds for a wallet, unless `dry_run`, and the orders decided anew. `done`: in words."""
    if not dry_run:
        act(_gate(services), Wallet(wallet), services.clock())
        services.notifier.send_orders()
    return WalletDone(wallet=wallet, done=done, dry_run=dry_run)


def _would_change(gate: Gate, policy: Policy, now: float) -> PolicyChanged:
    """What another policy would do."""
    cut_off = enrolment.no_longer_admitted(gate, policy, now)
    return PolicyChanged(policy=_policy(policy), cut_off=list(cut_off), dry_run=True)


def _changed(services: Services, gate: Gate, cut_off: list[Wallet]) -> PolicyChanged:
    """What a change of the policy has done; the orders are decided anew."""
    services.notifier.send_orders()
    return PolicyChanged(policy=_policy(gate.policy), cut_off=list(cut_off), dry_run=False)


def _policy(policy: Policy) -> PolicyModel:
    """A policy as the operator's API shows it."""
    return PolicyModel(**asdict(policy))
