"""Answers of the operator's API about who may sign in. Times are Unix seconds."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Model(BaseModel):
    """Base of this module's models: frozen."""

    model_config = ConfigDict(frozen=True)


class PolicyModel(_Model):
    """What the pool asks of a machine. None: no limit."""

    mode: str
    least_stake: int
    least_score: int
    most_machines: int | None
    most_per_address: int | None


class ListedWallet(_Model):
    """A wallet on the allow or the deny list."""

    wallet: str
    listing: str
    at: float
    note: str


class InviteLine(_Model):
    """An invite; its code is stored nowhere."""

    name: str
    uses: int
    used: int
    expires_at: float


class EnrolmentShow(_Model):
    """The policy that holds now, the wallets on the lists and the invites, the newest first."""

    policy: PolicyModel
    #: Fields of the policy that a command has set, in place of the settings.
    set_by_command: list[str]
    listed: list[ListedWallet]
    invites: list[InviteLine]


class PolicyChanged(_Model):
    """The policy that holds now, or would (`dry_run`), and the machines that it cut off, or would."""

    policy: PolicyModel
    cut_off: list[str]
    dry_run: bool


class WalletDone(_Model):
    """What was done about a wallet, or would be (`dry_run`)."""

    wallet: str
    done: str
    dry_run: bool


class InviteMade(_Model):
    """A new invite. `code`: what a machine gives in SLUICE_INVITE, told here and never again; None if `dry_run`."""

    code: str | None
    name: str
    uses: int
    expires_at: float
    dry_run: bool


class InviteWithdrawn(_Model):
    """The name of an invite that was deleted, or would be (`dry_run`)."""

    withdrawn: str
    dry_run: bool
