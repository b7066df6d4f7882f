"""What the secret service needs of a store. `sms.testing` has one in memory; tests of the contract run on all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from protocol.types import TaskId, Wallet
from sms.vault import Sealed


@dataclass(frozen=True, slots=True)
class Row:
    """An encrypted value at its place, which is unique. `ends_at`: Unix seconds after which it may be forgotten."""

    place: str
    sealed: Sealed
    #: The address of a challenge's key.
    address: Wallet | None = None
    ends_at: float | None = None


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session that its worker may fetch once, until `ends_at` (Unix seconds)."""

    session_id: str
    task_id: TaskId
    wallet: Wallet
    challenge: Wallet
    ends_at: float


class SecretStore(Protocol):
    """Every method raises Unavailable while the store does not answer."""

    def add(self, row: Row) -> bool:
        """Store a row; False, and nothing is changed, if its place is taken."""

    def replace(self, place: str, sealed: Sealed, was: Sealed | None = None) -> bool:
        """Put another value in the place; False if it is empty, or holds another than `was`, if that is given."""

    def has(self, place: str) -> bool:
        """Whether something is stored there."""

    def find(self, places: Sequence[str]) -> Mapping[str, Row]:
        """What is stored at these places."""

    def sealed_otherwise(self, key_id: str, limit: int) -> list[Row]:
        """Some of the rows that are encrypted with another key than this one."""

    def uses(self, key_id: str) -> bool:
        """Whether a row is encrypted with this key."""

    def add_session(self, session: OpenSession) -> None:
        """Store a session, in place of what the worker had for the task before."""

    def session(self, session_id: str) -> OpenSession | None:
        """A session; None if it was taken, replaced, or never there."""

    def take_session(self, session_id: str) -> bool:
        """Remove a session; False if it is not there: of several that take it at once, one does."""

    def bound_chain(self, chain_id: int) -> int:
        """The chain that the secrets are of: `chain_id` from the first call on, of whatever process."""

    def ready(self) -> None:
        """Make it ready at the start of a process."""
