"""The challenge of each task: a key pair whose address is signed into authorizations, made when it is first asked for.

It is forgotten an hour after the task's final deadline, when no contract takes its signature any more.
"""

from __future__ import annotations

import secrets

from protocol.errors import StorageUnavailable
from protocol.ethereum.signing import Key
from protocol.types import TaskId, Timestamp, Wallet
from sms.store.port import Row, SecretStore
from sms.vault import Vault

#: Seconds beyond the final deadline: clocks differ, and a session may be asked about.
KEPT_SECONDS = 3600


def challenge_place(task: TaskId) -> str:
    """Where a task's challenge is stored."""
    return f"challenge:{task}"


class Challenges:
    """The challenges in a store. Raises Unavailable, StorageUnavailable as store and vault do."""

    def __init__(self, store: SecretStore, vault: Vault) -> None:
        self._store, self._vault = store, vault

    def address(self, task: TaskId) -> Wallet | None:
        """The task's challenge, if it was asked for before."""
        row = self._store.find([challenge_place(task)]).get(challenge_place(task))
        return None if row is None else row.address

    def find_or_make(self, task: TaskId, final_deadline: Timestamp) -> Wallet:
        """The task's challenge; of several that make it at once, the first wins."""
        found = self.address(task)
        if found is not None:
            return found
        place, secret = challenge_place(task), _new_secret()
        address = Key(secret).wallet
        added = self._store.add(
            Row(place, self._vault.seal(secret, place), address, float(final_deadline + KEPT_SECONDS))
        )
        made = address if added else self.address(task)
        if made is None:
            # Never the address of a key that is nowhere: no enclave could sign with it.
            raise StorageUnavailable(what="the task's challenge", why="it was there and is not found")
        return made

    def key(self, task: TaskId) -> str | None:
        """The private key, `0x` hex, for pre- and post-compute; None if there is no challenge."""
        place = challenge_place(task)
        row = self._store.find([place]).get(place)
        return None if row is None else "0x" + self._vault.open(row.sealed, place).hex()


def _new_secret() -> bytes:
    """32 random bytes that are a private key: all but one of 2**128 are."""
    return secrets.token_bytes(32)
