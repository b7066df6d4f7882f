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


@dataclass(frozen=True, slots=True)
class Planned:
    """What a rotation would do. `rows`: to be encrypted anew, counted up to `more`."""

    new_key: bool
    rows: int
    more: bool
    #: Ids of keys that would be dropped.
    dropped: tuple[str, ...]

    @property
    def says(self) -> str:
        """The same for people."""
        key = "A new key would be made" if self.new_key else f"No new key would be made; {len(self.dropped)} would go"
        return f"{key}, and {'at least ' if self.more else ''}{self.rows} rows encrypted anew. Nothing was done."


def plan(store: SecretStore, vault: Vault, now: float, *, new_key: bool = True) -> Planned:
    """What `rotate` would do; changes nothing. Raises Unavailable."""
    newest = vault.keys.newest
    # No row has a key without a name: with a new key, all are encrypted anew.
    rows = store.sealed_otherwise("" if new_key else newest.id, _BATCH)
    settled = not new_key and now - newest.made_at >= SETTLE_SECONDS
    left = {row.sealed.key_id for row in rows if not _opens(vault, row)}
    dropped = [key.id for key in vault.keys.all()[1:] if settled and key.id not in left]
    return Planned(new_key, len(rows), len(rows) == _BATCH, tuple(dropped))


def _opens(vault: Vault, row: Row) -> bool:
    """Whether one of the keys opens the row."""
    try:
        vault.open(row.sealed, row.place)
    except StorageUnavailable:
        return False
    return True


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
