"""A new key for what is stored, and everything encrypted with it; keys that nothing needs any more are dropped.

    add a key ─► encrypt each row anew, one conditional update a row ─► drop keys that no row uses and that were
                                                                       replaced more than SETTLE_SECONDS ago

Running services take the new key at their next write, so nothing is restarted. A process that is killed in between
leaves rows of both keys, which all open; the next run goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.errors import StorageUnavailable
from sms.store.port import Row, SecretStore
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
    #: Replaced a moment ago, or of rows that are unreadable: a later run may drop them.
    kept: tuple[str, ...]
    #: Places of rows that no key opens, which stay as they are.
    unreadable: tuple[str, ...]


def rotate(store: SecretStore, vault: Vault, now: float, *, new_key: bool = True) -> Rotation:
    """Encrypt everything with the newest key, which is a new one if `new_key`. `now`: Unix seconds.

    Raises Unavailable, and may be run again.
    """
    if new_key:
        vault.keys.add(now, keep=list)
    rows, unreadable = 0, set[str]()
    # Asked anew for each batch: another rotation may have added a newer key, with which rows are sealed from then on.
    while batch := _other_rows(store, vault.keys.newest.id, unreadable):
        for row in batch:
            try:
                value = vault.open(row.sealed, row.place)
            except StorageUnavailable:
                unreadable.add(row.place)
                continue
            # Whoever changed it meanwhile has used the newest key.
            rows += store.replace(row.place, vault.seal(value, row.place), was=row.sealed)
    newest = vault.keys.newest
    replaced_at = newest.made_at
    dropped = vault.keys.drop(lambda key: now - replaced_at >= SETTLE_SECONDS and not store.uses(key.id))
    kept = tuple(key.id for key in vault.keys.all()[1:])
    return Rotation(newest.id, rows, tuple(key.id for key in dropped), kept, tuple(sorted(unreadable)))


def _other_rows(store: SecretStore, key_id: str, unreadable: set[str]) -> list[Row]:
    """Some rows that are encrypted with other keys, but for those that were found unreadable."""
    found = store.sealed_otherwise(key_id, _BATCH + len(unreadable))
    return [row for row in found if row.place not in unreadable]
