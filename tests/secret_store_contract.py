"""What every store of the secret service must do: one suite, run on MongoDB, SQLite and memory alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocol.types import TaskId, Wallet
from sms.store.port import OpenSession, Row, SecretStore
from sms.vault import Sealed

ONE, OTHER = Sealed("k1", b"\x00one"), Sealed("k2", b"\xffother")
ROW = Row("web2:0xab:name", ONE)
#: Of a time that is far: MongoDB's own clean-up would take it otherwise.
FAR = 4_000_000_000.0
SESSION = OpenSession("id-1", TaskId("0x1"), Wallet("0xa"), Wallet("0xc"), FAR)


class SecretStoreContract:
    @pytest.fixture
    def store(self) -> SecretStore:
        raise NotImplementedError

    def test_what_is_added_is_found_and_stays_what_it_is(self, store: SecretStore) -> None:
        challenge = Row("challenge:0x1", OTHER, Wallet("0xaddress"), FAR)
        assert store.add(ROW)
        assert store.add(challenge)
        assert not store.add(replace(ROW, sealed=OTHER))
        assert store.find([ROW.place, challenge.place, "nothing"]) == {ROW.place: ROW, challenge.place: challenge}
        assert (store.has(ROW.place), store.has("nothing")) == (True, False)

    def test_only_what_is_there_is_replaced_and_only_if_it_is_what_it_was(self, store: SecretStore) -> None:
        assert not store.replace(ROW.place, OTHER)
        assert not store.has(ROW.place)
        store.add(ROW)
        assert not store.replace(ROW.place, OTHER, was=OTHER)
        assert store.replace(ROW.place, OTHER, was=ONE)
        assert store.replace(ROW.place, ONE)
        assert store.find([ROW.place])[ROW.place].sealed == ONE

    def test_rows_of_other_keys_are_found_some_at_a_time(self, store: SecretStore) -> None:
        rows = [replace(ROW, place=f"place-{number}") for number in range(3)]
        for row in (*rows, Row("of the new key", OTHER)):
            store.add(row)
        found = store.sealed_otherwise("k2", 2)
        assert len(found) == 2
        assert all(row in rows for row in found)
        assert (store.uses("k1"), store.uses("k3")) == (True, False)

    def test_the_first_chain_stays_the_stores(self, store: SecretStore) -> None:
        assert [store.bound_chain(134), store.bound_chain(31337), store.bound_chain(134)] == [134, 134, 134]

    def test_a_session_is_taken_once(self, store: SecretStore) -> None:
        store.add_session(SESSION)
        assert not store.take_session("another")
        assert store.session("id-1") == SESSION
        assert store.take_session("id-1")
        assert not store.take_session("id-1")
        assert store.session("id-1") is None

    def test_a_workers_new_session_for_a_task_ends_its_former_one_and_no_others(self, store: SecretStore) -> None:
        other = replace(SESSION, session_id="of another worker", wallet=Wallet("0xb"))
        for session in (SESSION, other, replace(SESSION, session_id="id-2")):
            store.add_session(session)
        assert store.session("id-1") is None
        assert store.session("id-2") is not None
        assert store.session("of another worker") == other
