"""The secret service's stores in memory and SQLite, by the contract of all stores, and what is forgotten."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from config.settings import read_settings
from config.values.sms_settings import read_sms_settings
from protocol.errors import Unavailable
from protocol.types import TaskId, Wallet
from sms.store import choice
from sms.store.mongo import MongoSecretStore
from sms.store.port import Row
from sms.store.sqlite import SqliteSecretStore
from sms.testing import MemorySecretStore
from tests.secret_store_contract import FAR, ONE, OTHER, ROW, SESSION, SecretStoreContract


class TestMemory(SecretStoreContract):
    @pytest.fixture
    def store(self) -> MemorySecretStore:
        return MemorySecretStore()


class TestSqlite(SecretStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SqliteSecretStore]:
        made = SqliteSecretStore(tmp_path / "folder" / "sms.db", clock=lambda: FAR - 1)
        made.ready()
        yield made
        made.close()

    def test_the_file_is_its_owners_alone_and_holds_all_for_the_next_process(self, store: SqliteSecretStore) -> None:
        store.add(ROW)
        store.add_session(SESSION)
        store.bound_chain(134)
        for path in store._path.parent.iterdir():
            assert path.stat().st_mode & 0o077 == 0, path
        other = SqliteSecretStore(store._path)
        other.ready()
        assert (other.find([ROW.place]), other.session("id-1"), other.bound_chain(1)) == (
            {ROW.place: ROW},
            SESSION,
            134,
        )
        other.close()

    def test_of_several_threads_one_takes_a_place_and_one_a_session(self, store: SqliteSecretStore) -> None:
        store.add_session(SESSION)

        def act(_: int) -> tuple[bool, bool]:
            done = store.add(ROW), store.take_session("id-1")
            store.close()
            return done

        with ThreadPoolExecutor(8) as threads:
            added, taken = zip(*threads.map(act, range(32)), strict=True)
        assert (sum(added), sum(taken)) == (1, 1)

    def test_what_is_over_is_forgotten_when_the_next_session_is_stored(self, store: SqliteSecretStore) -> None:
        over = Row("challenge:0x1", OTHER, Wallet("0xaddress"), FAR - 2)
        store.add(over)
        store.add(ROW)
        store.add_session(replace(SESSION, session_id="over", ends_at=FAR - 2))
        store.add_session(replace(SESSION, task_id=TaskId("0x2")))
        assert {*store.find([over.place, ROW.place])} == {ROW.place}
        assert (store.session("over"), store.session("id-1")) == (None, replace(SESSION, task_id=TaskId("0x2")))

    def test_a_challenge_that_is_over_is_forgotten_where_no_session_is_ever_stored(
        self, store: SqliteSecretStore
    ) -> None:
        """As where sessions are posted to the service that attests enclaves: each task would leave its key for good."""
        over, now = (Row(f"challenge:{number}", OTHER, Wallet("0xaddress"), FAR) for number in (1, 2))
        assert store.add(replace(over, ends_at=FAR - 2))
        assert store.add(now)
        assert {*store.find([over.place, now.place])} == {now.place}

    def test_what_was_replaced_is_found_nowhere_in_the_file(self, store: SqliteSecretStore) -> None:
        store.add(replace(ROW, sealed=replace(ONE, content=b"sealed-before" * 100)))
        store.replace(ROW.place, OTHER)
        with sqlite3.connect(store._path) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert not [path for path in store._path.parent.iterdir() if b"sealed-before" in path.read_bytes()]

    def test_a_file_that_cannot_be_used_is_no_answer_and_quotes_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "sms.db").write_bytes(b"no database" * 1000)
        for path in (tmp_path / "sms.db", tmp_path / "sms.db" / "below"):
            with pytest.raises(Unavailable, match=r"SQLite"):
                SqliteSecretStore(path).find([ROW.place])


def test_the_settings_say_which_store_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, file = read_settings(), tmp_path / "sms.db"

    def database(_: object, name: str) -> defaultdict[str, object]:
        assert name == "sluice_sms"
        return defaultdict(dict)

    monkeypatch.setattr(choice, "durable_database", database)
    assert isinstance(choice.chosen(settings, read_sms_settings()), MongoSecretStore)
    own = read_sms_settings(sqlite_file=file)
    assert isinstance(choice.chosen(settings, own), SqliteSecretStore)
    assert (choice.name_of(own), choice.setting_of(own)) == (f"file {file}", "SQLITE_FILE")
