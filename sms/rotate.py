"""A new key for what is stored, and everything encrypted with it; keys that nothing needs any more are dropped.

    add a key ─► encrypt each row anew, one conditional update a row ─► drop keys that no row uses and that were
                                                                       replaced more than SETTLE_SECONDS ago

Running services take the new key at their next write, so nothing is restarted. A process that is killed in between
leaves rows of both keys, which all open; the next run goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

from sms.store.port import SecretStore
from sms.vault import Vault

#: Rows at a time.
_BATCH = 200
#: Seconds for which a write may be on its way that was encrypted just before the key was replaced: no operation of the
#: database takes longer than 20.
SETTLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Rotation:
    """What was done. `rows`: encrypted anew; keys by their ids."""

    key: str
    rows: int
    dropped: tuple[str, ...]
    #: Replaced a moment ago: a later run drops them.
    kept: tuple[str, ...]


def rotate(store: SecretStore, vault: Vault, now: float, *, new_key: bool = True) -> Rotation:
    """Encrypt everything with the newest key, which is a new one if `new_key`. `now`: Unix seconds.

    Raises Unavailable, and may be run again.
    """
    if new_key:
        vault.keys.add(now, keep=list)
    newest = vault.keys.newest
    rows = 0
    while batch := store.sealed_otherwise(newest.id, _BATCH):
        for row in batch:
            value = vault.open(row.sealed, row.place)
            # Whoever changed it meanwhile has used the newest key.
            rows += store.replace(row.place, vault.seal(value, row.place), was=row.sealed)
    replaced_at = newest.made_at
    dropped = vault.keys.drop(lambda key: now - replaced_at >= SETTLE_SECONDS and not store.uses(key.id))
    kept = tuple(key.id for key in vault.keys.all()[1:])
    return Rotation(newest.id, rows, tuple(key.id for key in dropped), kept)
