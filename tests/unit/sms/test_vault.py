"""Encrypted secrets and their keys: place, rotation, key service."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from config.key_ring import KeyFile, RingKey
from protocol.errors import StorageUnavailable
from protocol.types import TaskId, Timestamp, Wallet
from sms.challenges import Challenges
from sms.rotate import SETTLE_SECONDS, Planned, plan, rotate
from sms.store.port import Row
from sms.testing import MemorySecretStore
from sms.vault import Sealed, Vault

VALUE = b"the value of a secret"
NOW = 1_700_000_000.0
TASK, FIRST = TaskId("0x" + "11" * 32), Wallet("0x" + "22" * 20)


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return made(tmp_path)


def made(folder: Path) -> Vault:
    return Vault(KeyFile(folder / "keys", RingKey, setting="SLUICE_SMS_KEY_FILE", fix="-"))


def test_what_is_sealed_opens_at_its_place_and_shows_nothing(vault: Vault) -> None:
    sealed = vault.seal(VALUE, "a")
    assert VALUE not in sealed.content
    assert str(sealed.content) not in repr(sealed)
    assert vault.open(sealed, "a") == VALUE
    assert vault.seal(VALUE, "a") != sealed


def test_a_value_that_was_moved_or_changed_does_not_open(vault: Vault) -> None:
    sealed = vault.seal(VALUE, "a")
    with pytest.raises(StorageUnavailable, match="changed, or moved"):
        vault.open(sealed, "b")
    for position in (0, 12, len(sealed.content) - 1):
        content = bytearray(sealed.content)
        content[position] ^= 1
        with pytest.raises(StorageUnavailable):
            vault.open(Sealed(sealed.key_id, bytes(content)), "a")


def test_without_its_key_a_value_does_not_open(vault: Vault, tmp_path: Path) -> None:
    sealed = vault.seal(VALUE, "a")
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(StorageUnavailable, match="has no key"):
        made(tmp_path / "elsewhere").open(sealed, "a")


def test_after_a_rotation_all_rows_have_the_new_key_and_the_old_one_goes_when_no_write_can_be_under_way(
    vault: Vault, tmp_path: Path
) -> None:
    store, running = MemorySecretStore(), made(tmp_path)
    for number in range(450):
        store.add(Row(f"{number}", vault.seal(b"%d" % number, f"{number}")))
    old = vault.keys.newest.id
    first = rotate(store, vault, NOW)
    assert (first.rows, first.dropped, first.kept) == (450, (), (old,))
    assert {row.sealed.key_id for row in store.rows.values()} == {first.key} != {old}
    # A service that runs meanwhile has seen the new key, and what was on its way with the old one is not lost.
    assert running.seal(b"late", "late").key_id == first.key
    store.add(Row("late", Sealed(old, _sealed_by(vault, old))))
    second = rotate(store, vault, NOW + SETTLE_SECONDS, new_key=False)
    assert (second.key, second.rows, second.dropped, second.kept) == (first.key, 1, (old,), ())
    assert [running.open(row.sealed, row.place) for row in list(store.rows.values())[:2]] == [b"0", b"1"]
    assert running.open(store.rows["late"].sealed, "late") == VALUE


def test_what_a_rotation_would_do_is_told_and_not_done(vault: Vault) -> None:
    store = MemorySecretStore()
    for number in range(3):
        store.add(Row(f"{number}", vault.seal(VALUE, f"{number}")))
    old, before = vault.keys.newest.id, dict(store.rows)
    assert plan(store, vault, NOW) == Planned(new_key=True, rows=3, more=False, dropped=())
    assert plan(store, vault, NOW, new_key=False) == Planned(new_key=False, rows=0, more=False, dropped=())
    assert (vault.keys.newest.id, store.rows) == (old, before)
    rotate(store, vault, NOW)
    late = plan(store, vault, NOW + SETTLE_SECONDS, new_key=False)
    assert late.dropped == rotate(store, vault, NOW + SETTLE_SECONDS, new_key=False).dropped == (old,)


def test_a_row_that_no_key_opens_is_named_and_does_not_keep_others_from_the_new_key(vault: Vault) -> None:
    store = MemorySecretStore()
    store.add(Row("broken", Sealed(vault.keys.newest.id, b"x" * 40)))
    store.add(Row("lost", Sealed("of another file", b"x" * 40)))
    store.add(Row("good", vault.seal(VALUE, "good")))
    old = vault.keys.newest.id
    done = rotate(store, vault, NOW)
    assert (done.rows, done.unreadable) == (1, ("broken", "lost"))
    assert vault.open(store.rows["good"].sealed, "good") == VALUE
    again = rotate(store, vault, NOW + SETTLE_SECONDS, new_key=False)
    assert (again.rows, again.dropped, again.kept) == (0, (), (old,))


def test_of_two_that_make_a_challenge_at_once_the_first_is_the_tasks(vault: Vault) -> None:
    class Overtaken(MemorySecretStore):
        def add(self, row: Row) -> bool:
            if not self.rows:
                super().add(replace(row, address=FIRST))
            return super().add(row)

    store = Overtaken()
    assert Challenges(store, vault).find_or_make(TASK, Timestamp(1)) == FIRST
    assert Challenges(store, vault).address(TASK) == FIRST


def test_a_value_that_is_changed_during_a_rotation_stays_changed(vault: Vault) -> None:
    class Racing(MemorySecretStore):
        def sealed_otherwise(self, key_id: str, limit: int) -> list[Row]:
            found = super().sealed_otherwise(key_id, limit)
            for row in found:
                self.replace(row.place, vault.seal(b"newer", row.place))
            return found

    store = Racing()
    store.add(Row("a", vault.seal(b"older", "a")))
    assert rotate(store, vault, NOW).rows == 0
    assert vault.open(store.rows["a"].sealed, "a") == b"newer"


def test_a_rotation_ends_though_another_one_adds_a_newer_key_meanwhile(vault: Vault) -> None:
    class Overtaken(MemorySecretStore):
        looks = 0

        def sealed_otherwise(self, key_id: str, limit: int) -> list[Row]:
            self.looks += 1
            assert self.looks < 10, "the rotation does not end"
            if self.looks == 1:
                vault.keys.add(NOW, keep=list)
            return super().sealed_otherwise(key_id, limit)

    store = Overtaken()
    store.add(Row("a", vault.seal(VALUE, "a")))
    done = rotate(store, vault, NOW)
    assert done.key == vault.keys.newest.id == store.rows["a"].sealed.key_id
    assert vault.open(store.rows["a"].sealed, "a") == VALUE


def test_a_challenge_that_vanishes_is_not_told_as_another_whose_key_is_nowhere(vault: Vault) -> None:
    class Forgetful(MemorySecretStore):
        def add(self, row: Row) -> bool:
            return False

    with pytest.raises(StorageUnavailable, match="not found"):
        Challenges(Forgetful(), vault).find_or_make(TASK, Timestamp(1))


def _sealed_by(vault: Vault, key_id: str) -> bytes:
    """VALUE for the place `late`, as a process that has not seen the new key yet encrypts it."""
    old = next(key for key in vault.keys.all() if key.id == key_id)

    class OneKey:
        newest = old

    return Vault(OneKey()).seal(VALUE, "late").content  # type: ignore[arg-type]
